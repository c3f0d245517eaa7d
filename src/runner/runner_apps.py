"""Installs a site's apps, and removes them with their data after a backup. The result is always checked: Frappe's exit code is not
trusted."""

import ast
import gzip
import json
import os
import re
import subprocess
import sys
import time
import zlib

from runner_bench import LISTED_APPS, list_apps, words
from runner_code import record_image
from runner_common import APP_NAME, Failure, frappe_version, last_words, open_plain, read_file, replace_file
from runner_volume import SITES

# The last line of a complete dump by mariadb-dump and pg_dump.
DUMP_TRAILERS = ("-- Dump completed", "-- PostgreSQL database dump complete")
# How many bytes of a dump's end are searched for it: pg_dump may write a few more lines.
TRAILER_BYTES = 400
READ_BYTES = 1 << 20
COMPRESSION_LEVEL = 6


def wanted_apps(request):
    """Apps of a request, each after those that it requires. The image must contain all of them."""
    apps = [app for app in request.get("apps", []) if app != "frappe"]
    if not all(APP_NAME.fullmatch(app) for app in apps):
        raise Failure("RequestInvalid", "request", "apps must be app names")
    missing = [app for app in apps if not has_code(app)]
    if missing:
        raise Failure("AppsMissing", "apps", f"the image does not have {', '.join(missing)}")
    found = with_required(apps)
    for app in found:
        missing = [required for required in required_apps(app) if not has_code(required)]
        if missing:
            raise Failure("AppsMissing", "apps", f"{app} requires {', '.join(missing)}, which the image does not have")
    return found


def refuse_lost_apps():
    """Fails if the bench lists an app that the image does not have, for example while its pods run another image: Frappe imports
    every listed app, and would fail later."""
    lost = [app for app in words(LISTED_APPS) if app != "frappe" and not has_code(app)]
    if lost:
        raise Failure("AppsMissing", "apps", f"the bench has {', '.join(lost)}, but the image does not: build the image with {', '.join(lost)}, or "
                      "remove them from the bench's apps")


def has_code(app):
    """Whether the image has the app."""
    return os.path.isdir(os.path.join("apps", app))


def with_required(apps):
    """The apps and all that they require, each after those that it requires."""
    found, visited = [], set()

    def visit(app):
        if app in visited:
            return
        visited.add(app)
        for required in required_apps(app):
            visit(required)
        found.append(app)

    for app in apps:
        visit(app)
    return found


def required_apps(app):
    """Names of the apps in required_apps of the app's hooks. The file is parsed, not executed: Frappe needs a literal list there."""
    path = os.path.join("apps", app, app, "hooks.py")
    try:
        statements = ast.parse(read_file(path)).body
    except (SyntaxError, ValueError) as error:
        raise Failure("CommandFailed", "apps", f"{path} cannot be read: {error}") from None
    found = []
    for statement in statements:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "required_apps" for target in targets):
            found = [it.value for it in getattr(statement.value, "elts", []) if isinstance(it, ast.Constant) and isinstance(it.value, str)]
    # NAME, ORGANIZATION/NAME or the URL of a repository, optionally with @ and a branch.
    names = [re.split(r"[/:]", name.rstrip("/"))[-1].partition("@")[0].removesuffix(".git") for name in found]
    return [name for name in names if APP_NAME.fullmatch(name) and name != "frappe"]


def removed_apps(request):
    """Apps of a request that the site must not have."""
    apps = request.get("removed_apps", [])
    if not all(APP_NAME.fullmatch(app) for app in apps):
        raise Failure("RequestInvalid", "request", "removed_apps must be app names")
    if "frappe" in apps or set(apps) & set(request.get("apps", [])):
        raise Failure("RequestInvalid", "request", "removed_apps must not contain frappe or an app that is in apps")
    return apps


def refuse_needed(database, apps, removed):
    """Fails if a remaining app requires an app to remove: Frappe would report success without removing it."""
    stay = [app for app in dict.fromkeys([*json.loads(database.installed_apps()), *apps]) if app not in removed]
    for app in stay:
        needed = [it for it in required_apps(app) if it in removed]
        if needed:
            raise Failure("AppRequired", "apps", f"{app} requires {', '.join(needed)}: list {app} in removedApps as well, or keep {', '.join(needed)}")


class Unfinished:
    """Unfinished work on a site's apps, recorded in a file on the volume: apps whose installation was started, even if they are no
    longer wanted, and whether the site must be migrated after a completed installation."""

    def __init__(self, site):
        self.path = site.installing_path
        text = read_file(self.path).strip()
        # Earlier versions recorded only the app that was being installed.
        former = {"begun": text.split(), "migrate": bool(text)}
        known = json.loads(text) if text.startswith("{") else former
        self.begun, self.migrate = known["begun"], known["migrate"]

    def begin(self, app):
        """Records the start of an installation."""
        self.begun = [*self.without(app), app]
        self.put(True)

    def end(self, app):
        """Records the end of an installation."""
        self.begun = self.without(app)
        self.put(True)

    def forget(self, app):
        """Removes an app that was uninstalled."""
        if app in self.begun:
            self.begun = self.without(app)
            self.put(self.migrate)

    def without(self, app):
        return [it for it in self.begun if it != app]

    def put(self, migrate):
        self.migrate = migrate
        if self.begun or migrate:
            replace_file(self.path, json.dumps({"begun": self.begun, "migrate": migrate}) + "\n", 0o640)
        else:
            os.unlink(self.path)


def install_missing(site, database, apps):
    """Installs missing apps, each after those that it requires. Frappe creates an app's modules and tables before it lists the app,
    and lists it before its hooks have run. It does not install an app again if its modules exist, and regards a listed app as
    installed. So each start is recorded, and an interrupted installation is repeated with --force."""
    unfinished = Unfinished(site)
    half_removed = read_file(site.removing_path).partition(" ")[0]
    half = {*unfinished.begun, half_removed}
    missing = [app for app in apps if app in half or not is_listed(database, app)]
    if missing or unfinished.migrate:
        refuse_without_code(json.loads(database.installed_apps()))
        list_apps(apps)
    for app in missing:
        unfinished.begin(app)
        if app == half_removed:
            os.unlink(site.removing_path)
        said = frappe(site, f"install-app {app}", "install-app", *(["--force"] if app in half else []), app)
        if not is_listed(database, app):
            raise Failure("CommandFailed", f"install-app {app}", f"Frappe reported success but does not list {app}: {last_words(said)}")
        unfinished.end(app)
    if unfinished.migrate:
        frappe(site, "migrate", "migrate")
        record_image(site, json.loads(database.installed_apps()))
        unfinished.put(False)


def refuse_without_code(installed):
    """Fails if the image does not have an app of the site: a migration would remove the app's DocTypes."""
    missing = [app for app in installed if app != "frappe" and not has_code(app)]
    if missing:
        raise Failure("AppsMissing", "apps", f"the site has {', '.join(missing)}, but the image does not: build the image with {', '.join(missing)}")


def is_listed(database, app):
    """Whether the app is in the site's list of installed apps."""
    return app in json.loads(database.installed_apps())


def remove_apps(site, database, apps):
    """Uninstalls those of the apps that the site has, with their data, each after a verified backup of the whole database, and each
    before those that it requires. Frappe removes an app from its list before it has finished: so the app is recorded with its
    backup, and an interrupted removal is repeated, without another backup of the partly removed data."""
    ordered = [app for app in reversed(with_required(apps)) if app in apps]
    for app in ordered:
        begun, _, backup = read_file(site.removing_path).strip().partition(" ")
        if begun != app:
            if not is_listed(database, app) and app not in Unfinished(site).begun:
                continue
            if not has_code(app):
                raise Failure("AppsMissing", "apps", f"the image must contain {app} to uninstall it")
            backup = back_up(site, database, app)
            replace_file(site.removing_path, f"{app} {backup}\n", 0o640)
        print(f"{app} is removed; backup: {backup}")
        uninstall(site, database, app)
        Unfinished(site).forget(app)
        os.unlink(site.removing_path)


def uninstall(site, database, app):
    """Uninstalls the app with Frappe. Its hooks in the Redis cache can make that fail after the app was removed from the list: then
    it is repeated without them."""
    command = ["uninstall-app", "--yes", "--no-backup"]
    try:
        said = frappe(site, f"uninstall-app {app}", *command, *([] if is_listed(database, app) else ["--force"]), app)
    except Failure:
        if is_listed(database, app):
            raise
        frappe(site, "clear-cache", "clear-cache")
        said = frappe(site, f"uninstall-app {app}", *command, "--force", app)
    frappe(site, "clear-cache", "clear-cache")
    if is_listed(database, app):
        raise Failure("CommandFailed", f"uninstall-app {app}", f"Frappe reported success but still lists {app}: {last_words(said)}")


def back_up(site, database, app):
    """Dumps the site's database to a file outside of the site's directory, which Frappe does not clean up; returns the path."""
    os.makedirs(site.backups_path, mode=0o750, exist_ok=True)
    part = os.path.join(site.backups_path, ".part-database.sql.gz")
    if os.path.exists(part):
        os.unlink(part)
    dump_database(database, part, json.loads(database.installed_apps()))
    check_dump(part)
    path = os.path.join(site.backups_path, f"{app}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-database.sql.gz")
    os.replace(part, path)
    return path


def dump_database(database, path, apps):
    """Dumps a database, with the header that Frappe's restore uses to detect the version."""
    head = ["-- begin frappe metadata", *(f"-- [{app}]\n-- version = {frappe_version()}" for app in apps[:1]),
            "-- is_partial = False", "-- end frappe metadata", ""]
    with gzip.open(path, "wb", compresslevel=COMPRESSION_LEVEL) as file:
        file.write("\n".join(head).encode())
        database.dump(file)


def check_dump(path, code="SiteIncomplete", what="nothing was removed, since the backup", most=None):
    """Fails for a truncated dump, because Frappe and gzip do not detect one that ends between two statements, and for one with more
    bytes than `most`. Returns the number of bytes."""
    end = b""
    try:
        with open_plain(path) as packed, gzip.open(packed) as file:
            while block := file.read(READ_BYTES):
                end = (end + block)[-TRAILER_BYTES:]
                if most is not None and file.tell() > most:
                    raise Failure(code, "backup", f"{what} unpacks to more than the expected {most} bytes")
            length = file.tell()
    except (OSError, EOFError, zlib.error) as error:
        raise Failure(code, "backup", f"{what} cannot be read: {error}") from None
    if not any(trailer.encode() in end for trailer in DUMP_TRAILERS):
        raise Failure(code, "backup", f"{what} is incomplete: its last line is missing")
    return length


def check_removed(database, apps):
    """Fails if Frappe still lists one of the apps."""
    left = [app for app in apps if is_listed(database, app)]
    if left:
        raise Failure("SiteIncomplete", "check", f"still installed: {', '.join(left)}")


def frappe(site, name, *arguments, stdin=""):
    """Runs one of Frappe's commands for the site in a separate process, without a password in the arguments. Returns the output."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runner_frappe.py")
    command = [sys.executable, "-u", program, "frappe", "--site", site.name, *arguments]
    done = subprocess.run(command, cwd=SITES, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)
    sys.stdout.write(done.stdout)
    if done.returncode:
        raise Failure("CommandFailed", name, last_words(done.stdout) or f"exit code {done.returncode}")
    return done.stdout
