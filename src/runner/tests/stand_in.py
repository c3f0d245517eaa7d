"""A stand-in for Frappe: its modules as texts, by version. They do to database and files what Frappe does, in Frappe's order,
with its bad habits: every app of apps.txt is imported, whoever needs it, and one that is missing ends what was begun; a migrate
removes the tables of an app whose code is missing; an app is called installed before its hooks have run, an installation that was cut short is refused the
next time, a required app is installed without being asked for and after a question to GitHub, and what was not done ends well.

STAND_IN_FAILS names a moment at which the app's code ends the process with its reason printed, STAND_IN_DIES one at which
the pod is killed. The moments of an installation are `install-app:begun`, `modules`, `synced`, `listed` and `installed`,
each with the app's name after another colon where it is one of them alone;
of a migrate they are `migrating`, `patch:NAME` in the middle of a patch, and `migrated`, of a removal `uninstall-app:unlisted`. The file `cached-hooks` stands for what Redis has kept of
the hooks of an app, `sessions` of a site for who is logged in. With STAND_IN_SWALLOWS, importing Frappe takes a while and swallows
whatever ends it meanwhile. With STAND_IN_WATCHES it records the arguments and environments of all processes.
"""

import textwrap

FRAPPE = '''
"""A stand-in for Frappe: what the runner calls, doing to the database what Frappe does, in Frappe's order."""
import glob, json, os, signal, subprocess, sys, time
CALLS = os.environ["STAND_IN_CALLS"]
__version__ = os.environ.get("STAND_IN_VERSION", "15.1.0")

class conf: db_name = db_type = None
class db:
    @staticmethod
    def commit(): record("commit")

def record(*what):
    with open(CALLS, "a") as file:
        file.write(json.dumps(what) + "\\n")
    watch_processes()

def moment(name, app):
    """A point at which a test can make the app's code fail, or kill the pod."""
    watch_processes()
    if os.environ.get("STAND_IN_DIES") in (name, f"{name}:{app}"):
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("STAND_IN_FAILS") in (name, f"{name}:{app}"):
        print(f"{app}: the hook of the app failed")
        sys.exit(1)

def watch_processes():
    """Records what every process exposes, so that a test that asks for it can search it."""
    if not os.environ.get("STAND_IN_WATCHES"):
        return
    with open(CALLS + ".proc", "ab") as seen:
        for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
            try:
                with open(path, "rb") as file:
                    seen.write(file.read() + b"\\n")
            except OSError:
                pass

if os.environ.get("STAND_IN_SWALLOWS"):
    record("swallowing", os.getpid())
    try:
        time.sleep(20)
    except BaseException:
        pass
    record("swallowed")

class CommandFailedError(Exception):
    def __init__(self, message, out, err):
        super().__init__(message)
        self.out, self.err = out, err

def init(site, new_site=False):
    record("init", site, new_site)
    if os.path.exists("apps.txt"):
        with open("apps.txt") as file:
            for app in file.read().split():
                if not os.path.isdir(f"../apps/{app}"):
                    raise ModuleNotFoundError(f"No module named '{app}'")
    conf.site = site
    if os.path.exists(f"{site}/site_config.json"):
        with open(f"{site}/site_config.json") as file:
            config = json.load(file)
            conf.db_name, conf.db_type = config["db_name"], config["db_type"]

def rows(statement):
    with open(f"{conf.site}/site_config.json") as file:
        config = json.load(file)
    if config["db_type"] == "postgres":
        command = ["psql", "-qtA", "-h", config["db_host"], "-p", str(config["db_port"]), "-U", config["db_user"], config["db_name"], "-c"]
    else:
        command = ["mariadb", f"--defaults-extra-file={os.environ['HOME']}/.my.cnf", "-NB", config["db_name"], "-e"]
    return subprocess.run(command + [statement], check=True, capture_output=True, text=True).stdout.strip()

def enqueue_of_migration():
    """As in Frappe: a migration queues jobs. Only with STAND_IN_QUEUES, which is the id of one."""
    if job := os.environ.get("STAND_IN_QUEUES"):
        import redis
        with open("common_site_config.json") as file:
            common = json.load(file)
        client = redis.Redis.from_url(common["redis_queue"])
        queue = f"rq:queue:{common['bench_id']}:short"
        client.sadd("rq:queues", queue)
        client.hset(f"rq:job:{job}", "status", "queued")
        client.rpush(queue, job)

def get_attr(path):
    import importlib
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)

def clear_cache(): record("clear_cache")
def connect(): record("connect")
def destroy(): record("destroy")

def sql(statement):
    from frappe.database import get_command
    with open(f"{conf.site}/site_config.json") as file:
        config = json.load(file)
    command = get_command(socket=None, host=config["db_host"], port=config["db_port"], user=config["db_user"],
                          password=config["db_password"], db_name=config["db_name"])
    if conf.db_type == "postgres":
        command, statement = command + ["--command"], statement.replace("`", '"')
    else:
        command.append("--execute")
    subprocess.run(command + [statement], check=True)
'''

DATABASE_MODULE = '''
import os
def get_command(socket=None, host=None, port=None, user=None, password=None, db_name=None, extra=None, dump=False):
    """As in Frappe: puts a given password on the command line."""
    import frappe
    if frappe.conf.db_type == "postgres":
        secret = f":{password}" if password else ""
        if int(frappe.__version__.split(".")[0]) < 16:
            user = db_name
        program = ["pg_dump"] if dump else ["psql", "-q", "--set=ON_ERROR_STOP=1"]
        return program + [f"postgresql://{user}{secret}@{host}:{port}/{db_name}"]
    command = ["mariadb-dump" if dump else "mariadb", f"--host={host}", f"--port={port}", f"--user={user}", "--protocol=tcp"]
    if password:
        command.append(f"--password={password}")
    return command + [db_name]
'''

INSTALLER = '''
import json, os, frappe

def quoted(table):
    return f'"{table}"' if frappe.conf.db_type == "postgres" else f"`{table}`"

def installed_apps():
    return json.loads(frappe.rows(f"SELECT defvalue FROM {quoted('tabDefaultValue')} WHERE defkey = 'installed_apps'"))

def list_apps(apps):
    frappe.rows(f"UPDATE {quoted('tabDefaultValue')} SET defvalue = '{json.dumps(apps)}' WHERE defkey = 'installed_apps'")

def required_apps(app):
    path = os.path.join("..", "apps", app, app, "hooks.py")
    if not os.path.exists(path):
        return []
    names = {}
    with open(path) as file:
        exec(file.read(), names)
    return names.get("required_apps", [])

def find_org(repository):
    raise RuntimeError(f"InvalidRemoteException: api.github.com does not know {repository}")

def parse_app_name(name):
    """As in Frappe: the organization of a name without one is asked for, and dropped."""
    name = name.rstrip("/").partition("@")[0]
    if "/" not in name:
        _, name = find_org(name)
    return name.rpartition("/")[2].partition(".")[0]

def install_app(app, force=False):
    if os.path.exists("apps.txt") and app not in open("apps.txt").read().split():
        raise RuntimeError(f"App {app} not in apps.txt")
    for required in required_apps(app):
        install_app(parse_app_name(required))
    if app in installed_apps() and not force:
        print(f"App {app} already installed")
        return
    print(f"Installing {app}...")
    if os.environ.get("STAND_IN_FAILS") == f"before_install:{app}":
        print(f"{app} wants another one first")
        return
    frappe.moment("install-app:begun", app)
    frappe.rows(f"CREATE TABLE IF NOT EXISTS {quoted('tabModule Def')} (name varchar(140) PRIMARY KEY, app_name varchar(140))")
    if int(frappe.rows(f"SELECT COUNT(*) FROM {quoted('tabModule Def')} WHERE name = '{app}'")):
        if not force:
            raise RuntimeError(f"DuplicateEntryError: ('Module Def', '{app}')")
    else:
        frappe.rows(f"INSERT INTO {quoted('tabModule Def')} VALUES ('{app}', '{app}')")
    frappe.moment("install-app:modules", app)
    frappe.rows(f"CREATE TABLE IF NOT EXISTS {quoted('tab' + app)} (name varchar(140) PRIMARY KEY)")
    frappe.moment("install-app:synced", app)
    list_apps(list(dict.fromkeys([*installed_apps(), app])))
    frappe.moment("install-app:listed", app)
    frappe.rows("CREATE TABLE IF NOT EXISTS hooks (app varchar(140))")
    frappe.rows(f"INSERT INTO hooks VALUES ('{app}')")
    frappe.rows(f"CREATE TABLE IF NOT EXISTS hook_{app} (name varchar(140) PRIMARY KEY)")
    from frappe.patches import mark_executed
    mark_executed(app)
    frappe.moment("install-app:installed", app)

def remove_app(app, force=False):
    if app not in installed_apps() and not force:
        print(f"App {app} not installed")
        return
    for other in installed_apps():
        if other != app and app in map(parse_app_name, required_apps(other)):
            print(f"App {app} is a dependency of {other}. Uninstall {other} first.")
            return
    if os.environ.get("STAND_IN_FAILS") == f"before_uninstall:{app}":
        print(f"{app} is still needed by somebody")
        return
    frappe.rows(f"DROP TABLE IF EXISTS hook_{app}")
    frappe.rows(f"DROP TABLE IF EXISTS {quoted('tab' + app)}")
    frappe.rows(f"DELETE FROM {quoted('tabModule Def')} WHERE app_name = '{app}'")
    frappe.record("dropped", app)
    list_apps([it for it in installed_apps() if it != app])
    frappe.moment("uninstall-app:unlisted", app)
    if os.environ.get("STAND_IN_FAILS") == "uninstall-app:cached" and os.path.exists("cached-hooks"):
        raise RuntimeError("('DocType', 'Service Level Agreement')")
    frappe.rows(f"CREATE TABLE IF NOT EXISTS bye_{app} (name varchar(140) PRIMARY KEY)")

def _new_site(db_name, site, admin_password=None, install_apps=None, force=False, db_type=None, setup_db=True):
    import frappe
    frappe.record("new_site", db_name, site, install_apps, force, db_type, setup_db)
    print(f"Installing with a noisy log, password {admin_password}")
    os.makedirs(f"{site}/public/files", exist_ok=True)
    os.makedirs(f"{site}/private/files", exist_ok=True)
    for table in ("tabDocType", "tabSingles"):
        frappe.sql(f"CREATE TABLE IF NOT EXISTS `{table}` (name varchar(140) PRIMARY KEY)")
        frappe.record("table", table)
    frappe.sql("CREATE TABLE IF NOT EXISTS `tabDefaultValue` (parent varchar(140), defkey varchar(140), defvalue text)")
    apps = json.dumps(["frappe"])
    frappe.sql(f"INSERT INTO `tabDefaultValue` VALUES ('__global', 'installed_apps', '{apps}')")
    frappe.record("installed_apps")
    if os.environ.get("STAND_IN_FAILS") == "new-site":
        raise RuntimeError(f"import failed for password {admin_password}")
    if os.environ.get("STAND_IN_FAILS") == "command":
        raise frappe.CommandFailedError("Command failed", "", "psql: error: password authentication failed")
    frappe.sql("CREATE TABLE IF NOT EXISTS `__Auth` (doctype varchar(140), name varchar(140), fieldname varchar(140))")
    if os.environ.get("STAND_IN_FAILS") != "no-administrator":
        frappe.sql("INSERT INTO `__Auth` VALUES ('User', 'Administrator', 'password')")
    frappe.record("administrator")
    from frappe.patches import mark_executed
    mark_executed("frappe")
    for app in install_apps or []:
        install_app(app)
    frappe.record("apps", install_apps)
'''

# Version 14: no `setup_db`, no `get_command`; a setup that needs root, and an import that exposes the password.
FRAPPE_14 = FRAPPE[:FRAPPE.index("def sql(")] + '''
def sql(statement):
    subprocess.run(["mariadb", f"--defaults-extra-file={os.environ['HOME']}/.my.cnf", conf.db_name, "--execute", statement], check=True)
'''

DATABASE_14 = '''
def setup_database(force, source_sql=None, verbose=None, no_mariadb_socket=False):
    raise RuntimeError("this wants root")
'''

MANAGER_14 = '''
import subprocess
class DbManager:
    @staticmethod
    def restore_database(target, source, user, password):
        with open(source) as file:
            subprocess.run(["mariadb", f"--user={user}", f"--password={password}", target], stdin=file, check=True)
'''

SETUP_14 = '''
import json, os, sys, frappe
def check_database_settings():
    """As in Frappe: asks for the defaults of the server, although the database has its own."""
    found = frappe.rows("SELECT @@character_set_server, @@collation_server").split()
    if found != ["utf8mb4", "utf8mb4_unicode_ci"]:
        print(f"For key collation_server. Expected value utf8mb4_unicode_ci, found value {found[1]}")
    return found == ["utf8mb4", "utf8mb4_unicode_ci"]

def bootstrap_database(db_name, verbose, source_sql=None):
    from frappe.database.db_manager import DbManager
    if not check_database_settings():
        print("Database settings do not match expected values; stopping database setup.")
        sys.exit(1)
    frappe.record("bootstrap", db_name)
    with open(f"{frappe.conf.site}/site_config.json") as file:
        password = json.load(file)["db_password"]
    with open("bootstrap.sql", "w") as file:
        file.write("CREATE TABLE tabBootstrapped (name varchar(140) PRIMARY KEY);")
    DbManager.restore_database(db_name, os.path.abspath("bootstrap.sql"), db_name, password)
    os.unlink("bootstrap.sql")
'''

INSTALLER_14 = INSTALLER.replace(", setup_db=True):", "):").replace(", setup_db)", ")").replace(
    "    import frappe\n", "    import frappe\n    import frappe.database\n    frappe.database.setup_database(force, None, False)\n", 1)

BENCH_HELPER = '''
import hashlib, os, sys
import frappe

def main():
    _, group, option, site, command, *arguments = sys.argv
    assert (group, option) == ("frappe", "--site"), sys.argv
    frappe.init(site)
    frappe.record(command, *arguments)
    if command == "set-admin-password":
        first, second = sys.stdin.readline().strip(), sys.stdin.readline().strip()
        assert first and first == second
        if "--logout-all-sessions" in arguments and os.path.exists(f"{site}/sessions"):
            os.unlink(f"{site}/sessions")
        with open(f"{site}/admin-password-set", "w") as file:
            file.write(hashlib.sha256(first.encode()).hexdigest())
    elif command == "install-app":
        from frappe.installer import install_app
        try:
            install_app(arguments[-1], "--force" in arguments)
        except Exception as error:
            print(f"An error occurred while installing {arguments[-1]}: {error}")
            sys.exit(1)
    elif command == "migrate":
        from frappe.installer import installed_apps, quoted
        frappe.moment("migrating", site)
        for app in installed_apps():
            if not os.path.isdir(f"../apps/{app}"):
                frappe.rows(f"DROP TABLE {quoted('tab' + app)}")
        frappe.enqueue_of_migration()
        from frappe.patches import run_patches
        run_patches(installed_apps(), "--skip-failing" in arguments)
        frappe.moment("migrated", site)
    elif command == "clear-cache":
        if os.path.exists("cached-hooks"):
            os.unlink("cached-hooks")
    elif command == "uninstall-app":
        from frappe.installer import remove_app
        assert "--yes" in arguments and "--no-backup" in arguments
        remove_app(arguments[-1], "--force" in arguments)
'''

PATCHES = '''
import os, sys
import frappe
from frappe.installer import quoted

LOG = "tabPatch Log"

def patches_of(app):
    """Names of an app's patches; the log of patches exists if there are any."""
    path = f"../apps/{app}/{app}/patches.txt"
    if not os.path.exists(path):
        return []
    with open(path) as file:
        names = [line.strip() for line in file if line.strip() and not line.startswith("[")]
    if names:
        frappe.rows(f"CREATE TABLE IF NOT EXISTS {quoted(LOG)} (patch varchar(140), skipped int)")
    return names

def mark_executed(app):
    """As in Frappe: an app that is installed has its newest schema."""
    for name in patches_of(app):
        frappe.rows(f"INSERT INTO {quoted(LOG)} VALUES (\'{app}.{name}\', 0)")

def run_patches(apps, skip_failing):
    for app in apps:
        names = patches_of(app)
        done = names and frappe.rows(f"SELECT patch FROM {quoted(LOG)}").split("\\n")
        for name in names:
            if f"{app}.{name}" not in done:
                run_patch(app, name, skip_failing)

def run_patch(app, name, skip_failing):
    """Each statement is committed: what a patch has done before it fails, stays."""
    table = quoted("tabDocType" if app == "frappe" else f"tab{app}")
    skipped = 0
    frappe.record("patch", app, name)
    frappe.rows(f"ALTER TABLE {table} ADD COLUMN {name} varchar(140)")
    frappe.rows(f"INSERT INTO {table} (name) VALUES (\'patched by {name}\')")
    try:
        frappe.moment(f"patch:{name}", app)
        if name.startswith("fails"):
            print(f"Row size too large in {name}")
            sys.exit(1)
    except SystemExit:
        if not skip_failing:
            raise
        skipped = 1
    frappe.rows(f"CREATE TABLE new_{app}_{name} (name varchar(140) PRIMARY KEY)")
    frappe.rows(f"INSERT INTO {quoted(LOG)} VALUES (\'{app}.{name}\', {skipped})")
'''

SCHEDULER = '''
import frappe
def enable_scheduler(): frappe.record("enable_scheduler")
'''


def modules(version=15):
    """The package `frappe` of a version: texts by their paths in it."""
    files = {"__init__.py": FRAPPE, "database/__init__.py": DATABASE_MODULE, "installer.py": INSTALLER,
             "patches.py": PATCHES, "utils/__init__.py": "", "utils/scheduler.py": SCHEDULER, "utils/bench_helper.py": BENCH_HELPER}
    if version == 14:
        files |= {"__init__.py": FRAPPE_14, "database/__init__.py": DATABASE_14, "database/db_manager.py": MANAGER_14,
                  "database/mariadb/__init__.py": "", "database/mariadb/setup_db.py": SETUP_14, "installer.py": INSTALLER_14}
    return files


def write_modules(package, version=15):
    """Writes the package to a folder."""
    for name, text in modules(version).items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
