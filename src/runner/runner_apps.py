"""A site's apps: installed, and removed with their data after a backup. Nothing is judged by what Frappe reports alone."""

import gzip
import json
import os
import subprocess
import sys
import time
import zlib

from runner_common import APP_NAME, Failure, frappe_version, open_plain, read_file, replace_file

# What the last lines of a whole dump say: mariadb-dump's, pg_dump's.
DUMP_TRAILERS = ("-- Dump completed", "-- PostgreSQL database dump complete")
# How much of a dump's end is searched for it: pg_dump may write a little more after it.
TRAILER_BYTES = 400
READ_BYTES = 1 << 20
COMPRESSION_LEVEL = 6


def wanted_apps(request):
    """Apps of a request, which the image must have."""
    apps = [app for app in request.get("apps", []) if app != "frappe"]
    if not all(APP_NAME.fullmatch(app) for app in apps):
        raise Failure("RequestInvalid", "request", "apps must be app names")
    missing = [app for app in apps if not os.path.isdir(os.path.join("apps", app))]
    if missing:
        raise Failure("AppsMissing", "apps", f"the image does not have {', '.join(missing)}")
    return apps


def removed_apps(request):
    """Apps of a request that the site must not have."""
    apps = request.get("removed_apps", [])
    if not all(APP_NAME.fullmatch(app) for app in apps):
        raise Failure("RequestInvalid", "request", "removed_apps must be app names")
    if "frappe" in apps or set(apps) & set(request.get("apps", [])):
        raise Failure("RequestInvalid", "request", "removed_apps must not have frappe nor one of apps")
    return apps


def install_missing(site, database, apps):
    """Installs what the site does not have. Frappe calls an app installed before its installation ended, and until its
    removal has: the one that is being installed or was being removed is written down, and is installed over again."""
    begun = read_file(site.installing_path).strip()
    half_removed = read_file(site.removing_path).partition(" ")[0]
    changed = False
    for app in apps:
        has = f'"{app}"' in database.installed_apps()
        if has and app not in (begun, half_removed):
            continue
        replace_file(site.installing_path, app + "\n", 0o640)
        frappe(site, f"install-app {app}", "install-app", *(["--force"] if has else []), app)
        if app == half_removed:
            os.unlink(site.removing_path)
        changed = True
    if changed:
        frappe(site, "migrate", "migrate")
        os.unlink(site.installing_path)


def remove_apps(site, database, apps):
    """Uninstalls those of the apps that the site has, each with its data, each after a backup of the whole database that
    was found to be whole. Frappe takes an app from its list before the end: the one that is being removed is written
    down with its backup, and done over if it was cut short, without another backup of what is half gone."""
    for app in apps:
        begun, _, backup = read_file(site.removing_path).strip().partition(" ")
        if begun != app:
            if f'"{app}"' not in database.installed_apps():
                continue
            if not os.path.isdir(os.path.join("apps", app)):
                raise Failure("AppsMissing", "apps", f"to uninstall {app} the image must have it")
            backup = back_up(site, database, app)
            replace_file(site.removing_path, f"{app} {backup}\n", 0o640)
        print(f"{app} is removed; backup: {backup}")
        force = [] if f'"{app}"' in database.installed_apps() else ["--force"]
        frappe(site, f"uninstall-app {app}", "uninstall-app", "--yes", "--no-backup", *force, app)
        frappe(site, "clear-cache", "clear-cache")
        os.unlink(site.removing_path)


def back_up(site, database, app):
    """A dump of the site's database outside the site's directory, where Frappe's own clearing does not reach; answers
    its path."""
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
    """A dump with the head by which Frappe's own restore tells its version."""
    head = ["-- begin frappe metadata", *(f"-- [{app}]\n-- version = {frappe_version()}" for app in apps[:1]),
            "-- is_partial = False", "-- end frappe metadata", ""]
    with gzip.open(path, "wb", compresslevel=COMPRESSION_LEVEL) as file:
        file.write("\n".join(head).encode())
        database.dump(file)


def check_dump(path, code="SiteIncomplete", what="nothing was removed, since the backup", most=None):
    """Refuses a dump that is cut, wherever it is: Frappe and gzip do not notice one that ends between two statements; and
    one that has more bytes than `most`. Answers how many it has."""
    end = b""
    try:
        with open_plain(path) as packed, gzip.open(packed) as file:
            while block := file.read(READ_BYTES):
                end = (end + block)[-TRAILER_BYTES:]
                if most is not None and file.tell() > most:
                    raise Failure(code, "backup", f"{what} unpacks to more than the {most} bytes that were made")
            length = file.tell()
    except (OSError, EOFError, zlib.error) as error:
        raise Failure(code, "backup", f"{what} cannot be read: {error}") from None
    if not any(trailer.encode() in end for trailer in DUMP_TRAILERS):
        raise Failure(code, "backup", f"{what} is not whole: its last line is missing")
    return length


def check_removed(database, apps):
    """What Frappe must not list any more."""
    installed = database.installed_apps()
    left = [app for app in apps if f'"{app}"' in installed]
    if left:
        raise Failure("SiteIncomplete", "check", f"still installed: {', '.join(left)}")


def frappe(site, name, *arguments, stdin=""):
    """One of Frappe's own commands for the site, in a process of its own; no password in its arguments."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runner_frappe.py")
    command = [sys.executable, program, "frappe", "--site", site.name, *arguments]
    done = subprocess.run(command, cwd="sites", input=stdin, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout + done.stderr)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise Failure("CommandFailed", name, " ".join(words)[-400:] or f"exit code {done.returncode}")
