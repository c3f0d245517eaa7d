"""Creates, changes and drops one site. The result is always checked: Frappe's exit code is not trusted."""

import contextlib
import fcntl
import inspect
import json
import os
import re
import shutil
import sys
import traceback

from runner_apps import check_removed, frappe, install_missing, refuse_lost_apps, refuse_needed, remove_apps, removed_apps, wanted_apps
from runner_bench import list_apps, locked_volume
from runner_code import forget_record, narrow_record, record_image, record_of, result_of
from runner_common import SITE_NAME, Failure, frappe_version, keep_off_github, keep_password_off, last_words, locked, numbers, read_file, replace_file, secret
from runner_database import database as open_database
from runner_jobs import jobs_elsewhere, jobs_of
from runner_maintenance import HOLDS, is_half_updated, is_outdated, refuse_outdated, settle_restore
from runner_volume import OWN, SITES, VOLUME, folder_of, places, revisions, shared

# Folder by which nginx maps hosts to sites: a file for each host that contains the site's name.
HOSTS = shared(".hosts")
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# An identity is used in names of folders.
IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
# Frappe's commands treat this name as all sites.
EVERY_SITE = "all"
# Other names in the folder of a bench's sites, and files that Frappe reads there.
RESERVED = ("assets", "archived")
RESERVED_ENDS = (".txt", ".json", ".lock")
# Keys of a site's configuration that only the runner writes.
OWN_KEYS = ("db_type", "db_host", "db_port", "db_name", "db_user", "db_password", "encryption_key", "local_infile")


class Site:
    """A site's directory on the shared volume."""

    def __init__(self, request):
        self.name, self.identity = request["site"], request["identity"]
        if not SITE_NAME.fullmatch(self.name):
            raise Failure("RequestInvalid", "request", "site must be a DNS name in lower case")
        if not IDENTITY.fullmatch(self.identity):
            raise Failure("RequestInvalid", "request", "identity must be letters, digits and -")
        self.hold_path = os.path.join(HOLDS, self.name)
        self.updates_path = shared(".updates", f"{self.name}-{self.identity}")
        self.backups_path = shared(".removed-apps", f"{self.name}-{self.identity}")
        self.handle = None
        self.lie_in(OWN)

    def lie_in(self, revision):
        """Sets the revision in whose folder the site's directory is."""
        self.revision, self.folder = revision, folder_of(revision)
        self.path = os.path.join(self.folder, self.name)
        self.state_path = os.path.join(self.path, ".operator-state")
        self.config_path = os.path.join(self.path, "site_config.json")
        self.settings_path = os.path.join(self.path, ".operator-settings")
        self.installing_path = os.path.join(self.path, ".operator-installing")
        self.removing_path = os.path.join(self.path, ".operator-removing")
        self.restoring_path = os.path.join(self.path, ".operator-restoring")
        self.aside_path = os.path.join(self.path, ".operator-set-aside")
        self.held_path = os.path.join(self.path, ".operator-held")
        self.updating_path = os.path.join(self.path, ".operator-update")
        self.running_path = os.path.join(self.path, ".operator-run")

    def lock(self):
        """Locks the site until the process ends or `unlock`."""
        self.handle = os.open(os.path.join(self.path, ".operator-lock"), os.O_CREAT | os.O_RDWR, 0o640)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.handle)
            raise Failure("SiteLocked", "lock", f"another pod is working on {self.name}") from None

    def unlock(self):
        os.close(self.handle)

    def state(self):
        """`creating`, `ready`, `dropping` or nothing; refuses a directory of another identity."""
        state, _, identity = read_file(self.state_path).strip().partition(" ")
        if state and identity != self.identity:
            raise Failure("SiteNameTaken", "state", f"{self.name} on this bench belongs to another FrappeSite")
        return state

    def put_config(self, config):
        replace_file(self.config_path, json.dumps(config, indent=1, sort_keys=True) + "\n", 0o640)

    def put_state(self, state):
        replace_file(self.state_path, f"{state} {self.identity}\n", 0o640)


def find(site):
    """Finds the folder in which the site's directory is; returns whether there is one."""
    found = places(site.name) if VOLUME else []
    if len(found) > 1:
        raise Failure("SiteTwice", "state", f"{site.name} is in {' and in '.join(map(folder_of, found))}: move away the directory that is not in use")
    if found:
        site.lie_in(found[0])
    return bool(found)


def refuse_elsewhere(site):
    """Rejects a site whose directory is in the folder of another revision."""
    if find(site) and site.revision != OWN:
        raise Failure("SiteElsewhere", "state", f"{site.name} is in {site.folder}, the folder of revision {site.revision}, not of revision {OWN}", site.revision)


def lock_found(site, look):
    """Locks the site's directory where it is found, also if it is moved in the meantime."""
    look(site)
    try:
        site.lock()
    except FileNotFoundError:
        if not VOLUME:
            raise
        raise Failure("SiteLocked", "lock", f"another pod is moving {site.name}") from None
    look(site)


def ready_site(request, look=refuse_elsewhere):
    """The site, locked, which must have been created completely."""
    site = Site(request)
    look(site)
    if not os.path.isdir(site.path):
        raise Failure("SiteIncomplete", "state", f"{site.path} does not exist: restore the volume")
    lock_found(site, look)
    if site.state() != "ready":
        raise Failure("SiteIncomplete", "state", f"{site.name} was never created completely")
    if site.name == EVERY_SITE:
        refuse_reserved(site)
    return site


def refuse_reserved(site):
    """Rejects a name that Frappe or the bench's directory uses for something else. The name of an app would shadow its Python
    module, because Python also searches the folder of sites."""
    name = site.name
    taken = name in (*RESERVED, EVERY_SITE) or name.endswith(RESERVED_ENDS) or os.path.isdir(os.path.join("apps", name.replace("-", "_")))
    if taken or os.path.isdir(os.path.join("apps", name)):
        raise Failure("SiteNameReserved", "request", f"{name} is reserved by Frappe or the bench: choose another siteName")


def init(request):
    """Creates the site, whatever an earlier attempt of the same identity has left."""
    site = Site(request)
    if read_file(site.state_path).partition(" ")[0] != "ready" or site.name == EVERY_SITE:
        refuse_reserved(site)
    # No site is moved while its directory is made.
    with locked_volume() if VOLUME else contextlib.nullcontext():
        refuse_elsewhere(site)
        os.makedirs(site.path, exist_ok=True)
    lock_found(site, refuse_elsewhere)
    state = site.state()
    refuse_lost_apps()
    apps = wanted_apps(request)
    database = open_database(request["database"])
    database.wait()
    if not state and request.get("adopt") and os.path.exists(site.config_path):
        adopt(site, database)
        state = "ready"
    if state == "ready":
        if is_half_updated(site) or is_outdated(site, json.loads(database.installed_apps())):
            return result_of(site, "already created")
        settle(site, database, request)
        change_apps(site, database, apps, request)
        if request.get("adopt") and not record_of(site.name, site.identity):
            record_image(site, json.loads(database.installed_apps()))
        return result_of(site, "already created")
    if not state:
        count = database.tables()
        if count:
            raise Failure("DatabaseNotEmpty", "state", f"database {database.name} has {count} tables that no FrappeSite created: empty or drop it")
        if os.path.exists(site.config_path):
            raise Failure("SiteDirectoryTaken", "state", f"{site.config_path} exists and was not created by a FrappeSite: move it away")
    refuse_other_account(database)
    site.put_state("creating")
    # Of a former site of this name, if Redis did not respond when it was dropped.
    forget_jobs(site)
    database.wipe()
    for part in ("public", "private", "locks"):
        shutil.rmtree(os.path.join(site.path, part), ignore_errors=True)
    site.put_config({**database.config(), "encryption_key": secret("encryption-key")})
    list_apps(apps)
    new_site(site, database, apps)
    check(database, apps)
    settle(site, database, request)
    record_image(site, json.loads(database.installed_apps()))
    site.put_state("ready")
    return result_of(site, "created")


def adopt(site, database):
    """Takes over a site that another operator created: its configuration must name this database, account and password."""
    try:
        config = json.loads(read_file(site.config_path))
        found = {"db_name": config["db_name"], "db_user": config.get("db_user", config["db_name"]), "db_password": config["db_password"]}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise Failure("SiteDirectoryTaken", "adopt", f"{site.config_path} is not the configuration of a site") from None
    wanted = database.config()
    other = [key for key, value in found.items() if value != wanted[key]]
    if other:
        raise Failure("SiteMismatch", "adopt", f"{', '.join(other)} of {site.config_path} differs from the site's Secret and objects: "
                      "it is not the site to take over")
    if database.administrators() != "1":
        raise Failure("SiteMismatch", "adopt", f"database {database.name} has no site")
    site.put_state("ready")


def apply(request):
    """Applies the request to an existing site: its configuration, hosts, password and apps."""
    site = ready_site(request)
    settle_restore(site)
    refuse_lost_apps()
    apps = wanted_apps(request)
    database = open_database(request["database"])
    database.wait()
    refuse_outdated(site, database)
    settle(site, database, request)
    if request.get("set_admin_password"):
        password = secret("admin-password")
        # A user with the previous password may have a session.
        frappe(site, "set-admin-password", "set-admin-password", "--logout-all-sessions", stdin=f"{password}\n{password}\n")
    change_apps(site, database, apps, request)
    check(database, apps)
    check_removed(database, removed_apps(request))
    narrow_record(site, json.loads(database.installed_apps()))
    return result_of(site, "applied")


def change_apps(site, database, apps, request):
    """Removes and installs apps."""
    removed = removed_apps(request)
    refuse_needed(database, apps, removed)
    remove_apps(site, database, removed)
    install_missing(site, database, apps)


def settle(site, database, request):
    """Writes the site's configuration and hosts. Entries that it wrote earlier and that are no longer requested are removed;
    those of Frappe or a user stay."""
    wanted = dict(request.get("config", {}))
    if not all(KEY.fullmatch(key) for key in [*wanted, *request.get("secret_config", [])]):
        raise Failure("RequestInvalid", "request", "keys of config must be letters, digits and _")
    if not {*wanted, *request.get("secret_config", [])}.isdisjoint(OWN_KEYS):
        raise Failure("RequestInvalid", "request", "config must not contain keys of the database or of encryption")
    wanted.update({key: secret(f"config/{key}") for key in request.get("secret_config", [])})
    hosts = [host for host in request.get("hosts", []) if host != site.name]
    if not all(SITE_NAME.fullmatch(host) for host in hosts):
        raise Failure("RequestInvalid", "request", "hosts must be DNS names in lower case")
    former = json.loads(read_file(site.settings_path) or '{"keys": [], "hosts": []}')
    both = {"keys": sorted({*former["keys"], *wanted}), "hosts": sorted({*former["hosts"], *hosts})}
    replace_file(site.settings_path, json.dumps(both), 0o640)
    before = json.loads(read_file(site.config_path) or "{}")
    config = {key: value for key, value in before.items() if key not in former["keys"]}
    config.update(wanted)
    config.update(database.config())
    if "encryption_key" not in config:
        config["encryption_key"] = secret("encryption-key")
    if config != before:
        site.put_config(config)
    put_hosts(site, hosts, former["hosts"])
    replace_file(site.settings_path, json.dumps({"keys": sorted(wanted), "hosts": sorted(hosts)}), 0o640)


def put_hosts(site, hosts, former):
    """Routes hosts to the site in nginx, and removes former hosts unless they belong to another site now."""
    if not hosts and not former:
        return
    os.makedirs(HOSTS, exist_ok=True)
    # Another site may take over a former host at the same time.
    with locked(os.path.join(HOSTS, ".lock"), "the hosts of the bench"):
        for host in hosts:
            path = os.path.join(HOSTS, host)
            if read_file(path).strip() != site.name:
                replace_file(path, site.name + "\n")
        for host in former:
            path = os.path.join(HOSTS, host)
            if host not in hosts and read_file(path).strip() == site.name:
                os.unlink(path)


def refuse_other_account(database):
    """Frappe before version 16 logs in with the database's name, whatever the server is."""
    if database.user == database.name:
        return
    version = frappe_version()
    if numbers(version)[0] < 16:
        raise Failure("ConnectionInvalid", "database", f"Frappe {version} requires the same name for database and user: give the database "
                      "the user's name")


def new_site(site, database, apps):
    """Frappe's own installer, called in this process: no password in an argument (works on versions 14, 15, 16)."""
    admin_password = secret("admin-password")
    os.chdir(SITES)
    try:
        import frappe
        import frappe.database
        import frappe.installer
        keep_passwords_off_arguments(frappe, database)
        keep_off_github(frappe.installer)
        frappe.init(site.name, new_site=True)
        options = {"admin_password": admin_password, "install_apps": apps, "force": True, "db_type": database.engine}
        if "setup_db" in inspect.signature(frappe.installer._new_site).parameters:
            options["setup_db"] = False
        elif database.engine == "mariadb":
            bootstrap_only(frappe)
        else:
            raise Failure("ConnectionInvalid", "database", "Frappe 14 cannot create a site on an existing PostgreSQL database: use 15 or later")
        frappe.installer._new_site(database.name, site.name, **options)
        frappe.init(site.name)
        frappe.connect()
        from frappe.utils.scheduler import enable_scheduler
        enable_scheduler()
        frappe.db.commit()
        # The cache does not contain later changes by an app's hook.
        frappe.clear_cache()
        frappe.destroy()
    except Failure:
        raise
    except BaseException as error:
        reason = reason_of(error)
        traceback.print_exc()
        raise Failure("CommandFailed", "new-site", reason) from None
    finally:
        os.chdir("..")


def reason_of(error):
    """Why Frappe failed: the error's text or, if it has none, the last output."""
    name = type(error).__name__
    if name == "CommandFailedError":
        outputs = [getattr(error, part, b"") or b"" for part in ("out", "err")]
        said = "\n".join(it.decode(errors="replace") if isinstance(it, bytes) else str(it) for it in outputs)
        return f"{name}: {error}: {last_words(said)}"
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return f"{name}: {error}: {last_words(getattr(sys.stdout, 'end', ''))}"
    return f"{name}: {error}"


def keep_passwords_off_arguments(frappe, database):
    """Frappe gives the database password to its child processes as an argument; they read ~/.my.cnf instead."""
    if keep_password_off(frappe.database):
        return
    from frappe.database.db_manager import DbManager

    def restore_database(*args, **kwargs):
        bound = inspect.signature(original_restore).bind(*args, **kwargs).arguments
        database.run(None, source=bound["source"])

    original_restore = DbManager.restore_database
    DbManager.restore_database = staticmethod(restore_database)


def bootstrap_only(frappe):
    """Version 14 has no --no-setup-db: its database exists, so only the first import is done. It also requires a character set and a
    collation as defaults of the server, which the database and each of its tables have themselves."""
    from frappe.database.mariadb import setup_db

    def setup_database(force, source_sql, verbose, *_args, **_kwargs):
        setup_db.bootstrap_database(frappe.conf.db_name, verbose, source_sql)

    frappe.database.setup_database = setup_database
    setup_db.check_database_settings = lambda: True


def check(database, apps):
    """Checks that the site is complete. Frappe itself calls a site installed long before that."""
    if database.administrators() != "1":
        raise Failure("SiteIncomplete", "check", "the site has no password for Administrator")
    installed = database.installed_apps()
    missing = [app for app in ["frappe", *apps] if f'"{app}"' not in installed]
    if missing:
        raise Failure("SiteIncomplete", "check", f"not installed: {', '.join(missing)}")


def forget_jobs(site):
    """Removes the site's jobs from the queues of its bench, if Redis responds: a new site of this name would run them."""
    try:
        for jobs in filter(None, (jobs_of(site), *jobs_elsewhere(site))):
            jobs.reached(jobs.set_aside)
            jobs.reached(jobs.discard)
    except Failure as failure:
        print(f"queued jobs of the site were not removed: {failure.error}")


def drop(request):
    """Drops the database and removes the files, of this identity only."""
    site = Site(request)
    refuse_elsewhere(site)
    trash = os.path.join(SITES, f".dropped-{site.name}-{site.identity}")
    if os.path.isdir(site.path):
        lock_found(site, refuse_elsewhere)
        if not site.state():
            if os.path.exists(site.config_path):
                raise Failure("SiteDirectoryTaken", "state", f"{site.config_path} exists and was not created by a FrappeSite: nothing was dropped")
        else:
            site.put_state("dropping")
            forget_jobs(site)
            # Without a database in the request, its server does not exist or drops it.
            if request["database"]:
                database = open_database(request["database"])
                database.wait()
                database.drop()
        put_hosts(site, [], json.loads(read_file(site.settings_path) or '{"hosts": []}')["hosts"])
        os.replace(site.path, trash)
    forget_record(site)
    if read_file(site.hold_path).strip() == site.identity:
        os.unlink(site.hold_path)
    for folder in (site.backups_path, site.updates_path):
        if os.path.isdir(folder):
            shutil.rmtree(folder)
    # A drop that was killed may have been another revision's.
    for trash in (os.path.join(folder_of(number), os.path.basename(trash)) for number in revisions()):
        shutil.rmtree(trash, ignore_errors=True)
        if os.path.isdir(trash):
            shutil.rmtree(trash)
    return "dropped"
