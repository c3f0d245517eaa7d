"""Does all work inside a bench's image: writes the common configuration, creates a site, drops a site.

Usage: env/bin/python site_runner.py seed|configure|init|drop REQUEST

REQUEST is a JSON object without secrets. Passwords are read from the files of the folder that SITE_RUNNER_SECRETS
names (/run/frappe-secrets): `password` and `encryption-key` of the site's database account, `admin-password`; for
configure `redis-password`, or the URLs `redis-cache` and `redis-queue`.

Every command may be killed anywhere and run again, and may be run again after it succeeded. What a site's directory
belongs to, and how far it is, stands in its file `.operator-state`; nothing is judged by what Frappe reports alone.
No secret is ever in an argument, in the environment or in the output.

Exit codes: 0 done; 2 the request is wrong; 10 the database cannot be reached; 20 the database has tables of somebody
else; 21 the directory has a site of somebody else; 22 it belongs to another identity; 30 Frappe failed; 31 the site is
not complete; 75 another pod works on the site; 143 it was told to stop.
"""

import fcntl
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
import urllib.parse

SECRETS = os.environ.get("SITE_RUNNER_SECRETS", "/run/frappe-secrets")
TERMINATION_LOG = os.environ.get("SITE_RUNNER_TERMINATION_LOG", "/dev/termination-log")
DATABASE_WAIT_SECONDS = int(os.environ.get("SITE_RUNNER_DATABASE_WAIT_SECONDS", "120"))
MESSAGE_MAX_CHARACTERS = 2000
SITE_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
DATABASE_NAME = re.compile(r"^[a-z][a-z0-9]{0,63}$")
REVISION = re.compile(r"^[0-9a-f]{8,64}$")
# What of a bench is code: copied where apps are to be added to it.
CODE = ("apps", "env", "assets")
CODE_KEPT_MAX = 3
APP_NAME = re.compile(r"^[a-z][a-z0-9_-]*$")


class Failure(Exception):
    """A step that did not work: with the exit code, for people and for the operator."""

    def __init__(self, code, step, error):
        super().__init__(error)
        self.code, self.step, self.error = code, step, error


class Redacting:
    """A stream that never lets a secret through."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        return self.stream.write(redact(text))

    def __getattr__(self, name):
        return getattr(self.stream, name)


def secret(name):
    """The secret in the file of this name; it is known to `redact` from then on."""
    try:
        with open(os.path.join(SECRETS, name), encoding="utf-8") as file:
            value = file.read().rstrip("\n")
    except OSError as error:
        raise Failure(2, "secrets", f"cannot read the secret {name}: {error.strerror}") from None
    if value:
        secret.known.add(value)
    return value


secret.known = set()


def redact(text):
    """The text without any secret that was read."""
    for value in sorted(secret.known, key=len, reverse=True):
        text = text.replace(value, "[secret]")
    return text


def replace_file(path, content, mode=0o644):
    """Writes a file so that a reader sees the old content or the new, and a crash leaves one of them."""
    part = f"{path}.part"
    handle = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_file(path):
    """Content of a file, or nothing where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


class Database:
    """The site's database, through the command line client and the site's own account."""

    def __init__(self, request):
        self.host, self.port, self.name = request["host"], str(request["port"]), request["name"]
        if not DATABASE_NAME.match(self.name):
            raise Failure(2, "request", "database name must be lower-case letters and digits")
        home = os.environ["HOME"]
        os.makedirs(home, exist_ok=True)
        self.options = os.path.join(home, ".my.cnf")
        lines = ["[client]", f"host={self.host}", f"port={self.port}", f"user={self.name}",
                 f'password="{secret("password")}"', "protocol=tcp", ""]
        replace_file(self.options, "\n".join(lines), 0o600)
        self.client = shutil.which("mariadb") or shutil.which("mysql")
        if not self.client:
            raise Failure(2, "database", "the image has neither the program mariadb nor mysql")

    def run(self, statement, source=None):
        """Rows of a statement, as text; or the content of the file `source` is executed."""
        command = [self.client, f"--defaults-extra-file={self.options}", "--batch", "--skip-column-names"]
        command += [self.name] if source else ["--execute", statement]
        with open(source or os.devnull, "rb") as stdin:
            done = subprocess.run(command, stdin=stdin, capture_output=True, check=False)
        if done.returncode:
            raise Failure(10, "database", done.stderr.decode(errors="replace").strip())
        return done.stdout.decode(errors="replace").strip()

    def wait(self):
        """Until the account can log in: a grant may come late."""
        end = time.monotonic() + DATABASE_WAIT_SECONDS
        while True:
            try:
                return self.run("SELECT 1")
            except Failure:
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    def tables(self):
        return int(self.run(f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{self.name}'"))

    def wipe(self):
        """An empty database with Frappe's character set. The account may do this; it needs no administrator."""
        self.run(f"DROP DATABASE IF EXISTS `{self.name}`; CREATE DATABASE `{self.name}` "
                 "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")


class Site:
    """A site's directory on the shared volume."""

    def __init__(self, request):
        self.name, self.identity = request["site"], request["identity"]
        if not SITE_NAME.match(self.name):
            raise Failure(2, "request", "site must be a DNS name in lower case")
        self.path = os.path.join("sites", self.name)
        self.state_path = os.path.join(self.path, ".operator-state")
        self.config_path = os.path.join(self.path, "site_config.json")
        self.handle = None

    def lock(self):
        """Held until the process ends, however it ends."""
        self.handle = os.open(os.path.join(self.path, ".operator-lock"), os.O_CREAT | os.O_RDWR, 0o640)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Failure(75, "lock", f"another pod works on {self.name}") from None

    def state(self):
        """`creating`, `ready`, `dropping` or nothing; refuses a directory of another identity."""
        state, _, identity = read_file(self.state_path).strip().partition(" ")
        if state and identity != self.identity:
            raise Failure(22, "state", f"SiteNameTaken: {self.name} on this bench belongs to another FrappeSite")
        return state

    def put_state(self, state):
        replace_file(self.state_path, f"{state} {self.identity}\n", 0o640)


def code_folder(revision):
    if not REVISION.match(revision):
        raise Failure(2, "request", "revision must be hexadecimal digits")
    return os.path.join("sites", ".apps", revision)


def locked_volume():
    """One pod at a time changes what the bench's sites share."""
    handle = open(os.path.join("sites", ".operator-lock"), "w", encoding="utf-8")
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def seed(request):
    """Copies the image's code to the volume, where apps can be added to it; a copy that was cut short is made anew."""
    folder = code_folder(request["revision"])
    with locked_volume():
        if os.path.isdir(folder):
            return "already copied"
        part = folder + ".part"
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        for name in CODE:
            if os.path.isdir(name):
                shutil.copytree(name, os.path.join(part, name), symlinks=True)
            else:
                os.makedirs(os.path.join(part, name))
        os.rename(part, folder)
        forget_old_code(folder)
    return "copied"


def forget_old_code(current):
    """Copies beyond the newest few go: pods of the former revision run theirs until they are replaced."""
    home = os.path.dirname(current)
    others = [entry for entry in os.scandir(home) if entry.is_dir() and entry.name != os.path.basename(current)]
    others.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in others[CODE_KEPT_MAX - 1 :]:
        shutil.rmtree(entry.path, ignore_errors=True)


def install_apps(code):
    """Clones apps into the copy of the code that is mounted over the image's, and installs them there.

    An app is done when its marker holds what was asked for; one that was cut short is cloned anew.
    """
    markers = os.path.join(code_folder(code["revision"]), "installed")
    os.makedirs(markers, exist_ok=True)
    for app in code["clone"]:
        marker, asked = os.path.join(markers, app["name"]), json.dumps(app, sort_keys=True)
        if read_file(marker) != asked:
            install_app(app)
            replace_file(marker, asked)


def install_app(app):
    """Clones one app, adds it to the virtual environment and links its public files."""
    if not APP_NAME.match(app["name"]):
        raise Failure(2, "request", "apps must be app names")
    module = app["name"].replace("-", "_")
    target, part = os.path.join("apps", module), os.path.join("apps", f".{module}.part")
    shutil.rmtree(part, ignore_errors=True)
    branch = ["--branch", app["branch"]] if app.get("branch") else []
    step(f"clone {app['name']}", ["git", "clone", "--quiet", "--depth", "1", *branch, "--", app["repository"], part])
    if not os.path.isfile(os.path.join(part, module, "hooks.py")):
        raise Failure(30, f"clone {app['name']}", f"{app['repository']} is no Frappe app {module}: it has no {module}/hooks.py")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(part, target)
    step(f"install {app['name']}", [os.path.join("env", "bin", "python"), "-m", "pip", "install", "--quiet",
                                    "--no-cache-dir", "--disable-pip-version-check", "-e", target])
    public, link = os.path.join(target, module, "public"), os.path.join("assets", module)
    if os.path.isdir(public) and not os.path.lexists(link):
        os.symlink(os.path.abspath(public), link)


def step(name, command):
    """Runs a program that asks nothing; its last words are told if it fails."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout + done.stderr)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise Failure(30, name, " ".join(words)[-400:])


def configure(request):
    """Merges keys into common_site_config.json and lists the image's apps in apps.txt; keeps what others wrote.

    The result names the apps that the image has.
    """
    path = os.path.join("sites", "common_site_config.json")
    with locked_volume():
        if request.get("code"):
            install_apps(request["code"])
        before = read_file(path)
        config = json.loads(before) if before.strip() else {}
        config.update(request["common_site_config"])
        config.update(secret_urls(request, config))
        replace_file(path, json.dumps(config, indent=1, sort_keys=True) + "\n", 0o640)
        # The union of the volume's list and the image's: a migrate removes the doctypes of an app that is not listed.
        listed = read_file(os.path.join("sites", "apps.txt")).split()
        found = sorted(entry.name for entry in os.scandir("apps") if entry.is_dir()) if os.path.isdir("apps") else []
        found = [name for name in found if not name.startswith(".")]
        apps = list(dict.fromkeys(["frappe", *listed, *found]))
        replace_file(os.path.join("sites", "apps.txt"), "\n".join(apps) + "\n")
    return {"apps": found}


def secret_urls(request, config):
    """URLs of Redis servers that are secrets, or have a secret in them."""
    urls = {key: secret(name) for key, name in request.get("secret_urls", {}).items()}
    for key, url in urls.items():
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise Failure(2, "secrets", f"the secret for {key} is no redis:// URL")
    for key in request.get("password_urls", []):
        password = urllib.parse.quote(secret("redis-password"), safe="")
        urls[key] = config[key].replace("redis://", f"redis://:{password}@", 1)
    return urls


def init(request):
    """Creates the site, from whatever an earlier attempt of the same identity left."""
    apps = [app for app in request.get("apps", []) if app != "frappe"]
    if not all(APP_NAME.match(app) for app in apps):
        raise Failure(2, "request", "apps must be app names")
    site = Site(request)
    os.makedirs(site.path, exist_ok=True)
    site.lock()
    state = site.state()
    if state == "ready":
        return "already created"
    missing = [app for app in apps if not os.path.isdir(os.path.join("apps", app))]
    if missing:
        raise Failure(2, "apps", f"AppsMissing: the image does not have {', '.join(missing)}")
    database = Database(request["database"])
    database.wait()
    if not state:
        count = database.tables()
        if count:
            raise Failure(20, "state", f"database {database.name} has {count} tables that no FrappeSite made: empty or drop it")
        if os.path.exists(site.config_path):
            raise Failure(21, "state", f"{site.config_path} exists and no FrappeSite made it: move it away")
    site.put_state("creating")
    database.wipe()
    for part in ("public", "private", "locks"):
        shutil.rmtree(os.path.join(site.path, part), ignore_errors=True)
    config = {
        "db_type": "mariadb", "db_host": database.host, "db_port": int(database.port), "db_name": database.name,
        "db_user": database.name, "db_password": secret("password"), "encryption_key": secret("encryption-key"),
    }
    replace_file(site.config_path, json.dumps(config, indent=1, sort_keys=True) + "\n", 0o640)
    new_site(site, database, apps)
    check(database, apps)
    site.put_state("ready")
    return "created"


def new_site(site, database, apps):
    """Frappe's own installer, called in this process: no password in an argument (works on versions 14, 15, 16)."""
    admin_password = secret("admin-password")
    os.chdir("sites")
    try:
        import frappe
        import frappe.database
        import frappe.installer
        keep_passwords_off_arguments(frappe, database)
        frappe.init(site.name, new_site=True)
        options = {"admin_password": admin_password, "install_apps": apps, "force": True, "db_type": "mariadb"}
        if "setup_db" in inspect.signature(frappe.installer._new_site).parameters:
            options["setup_db"] = False
        else:
            bootstrap_only(frappe)
        frappe.installer._new_site(database.name, site.name, **options)
        frappe.init(site.name)
        frappe.connect()
        from frappe.utils.scheduler import enable_scheduler
        enable_scheduler()
        frappe.db.commit()
        frappe.destroy()
    except Failure:
        raise
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code == 143:
            raise
        traceback.print_exc()
        raise Failure(30, "new-site", f"{type(error).__name__}: {error}") from None
    finally:
        os.chdir("..")


def keep_passwords_off_arguments(frappe, database):
    """Frappe gives the database password to its child processes as an argument; they read ~/.my.cnf instead."""
    if hasattr(frappe.database, "get_command"):
        original = frappe.database.get_command

        def get_command(*args, **kwargs):
            kwargs["password"] = None
            return original(*args, **kwargs)

        frappe.database.get_command = get_command
        return
    from frappe.database.db_manager import DbManager

    def restore_database(*args, **kwargs):
        bound = inspect.signature(original_restore).bind(*args, **kwargs).arguments
        database.run(None, source=bound["source"])

    original_restore = DbManager.restore_database
    DbManager.restore_database = staticmethod(restore_database)


def bootstrap_only(frappe):
    """Version 14 has no --no-setup-db: its database exists, so only the first import is done."""
    from frappe.database.mariadb import setup_db

    def setup_database(force, source_sql, verbose, *_args, **_kwargs):
        setup_db.bootstrap_database(frappe.conf.db_name, verbose, source_sql)

    frappe.database.setup_database = setup_database


def check(database, apps):
    """What a finished site has. Frappe itself calls a site installed long before that."""
    administrators = database.run(
        f"SELECT COUNT(*) FROM `{database.name}`.__Auth "
        "WHERE doctype = 'User' AND name = 'Administrator' AND fieldname = 'password'")
    if administrators != "1":
        raise Failure(31, "check", "the site has no password for Administrator")
    installed = database.run(
        f"SELECT defvalue FROM `{database.name}`.tabDefaultValue WHERE parent = '__global' AND defkey = 'installed_apps'")
    missing = [app for app in ["frappe", *apps] if f'"{app}"' not in installed]
    if missing:
        raise Failure(31, "check", f"not installed: {', '.join(missing)}")


def drop(request):
    """Drops the database and removes the files, of this identity only."""
    site = Site(request)
    trash = os.path.join("sites", f".dropped-{site.name}-{site.identity}")
    if os.path.isdir(site.path):
        site.lock()
        if not site.state():
            if os.path.exists(site.config_path):
                raise Failure(21, "state", f"{site.config_path} exists and no FrappeSite made it: nothing was dropped")
        else:
            site.put_state("dropping")
            database = Database(request["database"])
            database.wait()
            database.run(f"DROP DATABASE IF EXISTS `{database.name}`")
        os.replace(site.path, trash)
    shutil.rmtree(trash, ignore_errors=True)
    if os.path.isdir(trash):
        shutil.rmtree(trash)
    return "dropped"


def report(result):
    """One JSON line for the operator, where the kubelet finds it."""
    text = redact(json.dumps(result))[:MESSAGE_MAX_CHARACTERS]
    try:
        with open(TERMINATION_LOG, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        pass
    print(text, flush=True)


def main(arguments):
    commands = {"seed": seed, "configure": configure, "init": init, "drop": drop}
    if len(arguments) != 2 or arguments[0] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.stdout, sys.stderr = Redacting(sys.stdout), Redacting(sys.stderr)
    try:
        result = commands[arguments[0]](json.loads(arguments[1]))
    except Failure as failure:
        report({"step": failure.step, "error": redact(failure.error)})
        return failure.code
    except (KeyError, ValueError, OSError) as error:
        traceback.print_exc()
        report({"step": arguments[0], "error": f"{type(error).__name__}: {error}"})
        return 2 if isinstance(error, (KeyError, ValueError)) else 30
    report({"result": result})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
