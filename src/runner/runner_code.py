"""The code of an image and the schema of a site: for each app its version, and a hash of the files whose change requires a migration.

The record of a site, a file on the volume, has the code that last migrated the site. A site fits an image if the image has all apps of
the record with equal schemas.
"""

import hashlib
import json
import os
import re
import stat

from runner_common import APP_NAME, open_plain, read_file, replace_file
from runner_volume import SITES, shared

# Records of the sites, by name.
SCHEMAS = shared(".schemas")
VERSION = re.compile(rb"""^__version__\s*(?::[^=]*)?=\s*["']([^"'\n]*)["']""", re.MULTILINE)
VERSION_MAX = 32
SCHEMA = re.compile(r"[0-9a-f]{16}")
SCHEMA_DIGITS = 16
# Folders that contain very many files, but no schema.
SKIPPED = ("node_modules", ".git", "public")
# Files by their path in the app's module, folders of JSON files, and the folder whose folders have a DocType each.
FILES = ("patches.txt", "hooks.py", "geo/languages.json")
JSON_FOLDERS = ("fixtures", "custom")
DOCTYPES = "doctype"
# A termination message has at most 4096 bytes.
RESULT_BYTES_MAX = 3500
# Larger records are not ours.
RECORD_BYTES_MAX = 64 << 10


def code_of_image():
    """Version and schema of each app that has code in the image."""
    found = {}
    for app in sorted(os.listdir("apps")) if os.path.isdir("apps") else []:
        module = os.path.join("apps", app, app.replace("-", "_"))
        if APP_NAME.fullmatch(app) and os.path.isfile(os.path.join(module, "hooks.py")):
            found[app] = {"version": version_of(module), "schema": schema_of(module)}
    return found


def version_of(module):
    """The app's version; empty if it is not a literal."""
    version = VERSION.search(content(os.path.join(module, "__init__.py")))
    return version[1].decode(errors="replace")[:VERSION_MAX] if version else ""


def schema_of(module):
    """Hash of the files whose change requires a migration, with their paths."""
    digest = hashlib.sha256()
    for path in sorted(schema_files(module, ())):
        data = content(os.path.join(module, path))
        digest.update(f"{len(os.fsencode(path))} {len(data)} ".encode() + os.fsencode(path) + data)
    return digest.hexdigest()[:SCHEMA_DIGITS]


def schema_files(folder, above):
    """Paths of these files in the module; `above` has the names of the folders between both. No link is followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in SKIPPED:
                    yield from schema_files(entry.path, (*above, entry.name))
            elif is_schema(entry.name, above):
                yield "/".join((*above, entry.name))


def is_schema(name, above):
    """Whether a change of the file requires a migration."""
    if name.endswith(".json") and (above[-2:-1] == (DOCTYPES,) or any(folder in above for folder in JSON_FOLDERS)):
        return True
    return "/".join((*above, name)) in FILES


def content(path):
    """Content of a file, or the target of a link; empty if the file does not exist or may not be read."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return os.fsencode(os.readlink(path))
        with open_plain(path) as file:
            return file.read()
    except (FileNotFoundError, PermissionError):
        return b""


def record_of(name, identity=None):
    """Record of the site of this name and identity; None if there is none. The volume may contain anything."""
    try:
        with open_plain(os.path.join(SCHEMAS, name)) as file:
            record = json.loads(file.read(RECORD_BYTES_MAX))
        apps = record["apps"]
        if not isinstance(record["identity"], str) or not all(map(is_code, apps, apps.values())):
            raise ValueError("it is not a record")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"record of the schema of {name} is skipped: {error}", flush=True)
        return None
    return record if identity in (None, record["identity"]) else None


def is_code(app, code):
    """Whether an entry of a record is valid."""
    return bool(APP_NAME.fullmatch(app) and isinstance(code["version"], str) and SCHEMA.fullmatch(code["schema"]))


def put_record(site, apps, **more):
    """Records the code that migrated the site."""
    os.makedirs(SCHEMAS, exist_ok=True)
    record = {"identity": site.identity, "apps": {app: apps[app] for app in sorted(apps)}, **more}
    if record != record_of(site.name):
        replace_file(os.path.join(SCHEMAS, site.name), json.dumps(record) + "\n")


def record_image(site, installed):
    """Records that the site was migrated by this image, with these apps."""
    put_record(site, of_apps(code_of_image(), installed))


def narrow_record(site, installed):
    """Removes apps from the site's record that the site does not have."""
    record = record_of(site.name, site.identity)
    if record:
        put_record(site, of_apps(record["apps"], installed), **{key: record[key] for key in record if key not in ("apps", "identity")})


def forget_record(site):
    """Removes the site's record, of its identity only."""
    path = os.path.join(SCHEMAS, site.name)
    if record_of(site.name, site.identity) and os.path.lexists(path):
        os.unlink(path)


def of_apps(code, apps):
    """The part of these apps."""
    return {app: code[app] for app in code if app in apps}


def misfits(record, image):
    """Apps of a record that the image does not have with an equal schema."""
    return [app for app, code in record["apps"].items() if image.get(app, {}).get("schema") != code["schema"]] if record else []


def result_of(site, word, **more):
    """Result of a site's Job: what was done, and the site's record if it has one."""
    record = record_of(site.name, site.identity)
    return with_code({"done": word, **more}, record["apps"] if record else None)


def with_code(result, code):
    """A result with the code of as many apps as a termination message has room for."""
    if code is None:
        return result
    known = {}
    for app in sorted(code):
        if len(json.dumps({**result, "code": {**known, app: code[app]}}, ensure_ascii=False).encode()) > RESULT_BYTES_MAX:
            print(f"the result does not contain the code of {app}: it would be too long")
            continue
        known[app] = code[app]
    return {**result, "code": known}


def assume_records():
    """Records this image's code for each site without a record. Which of the apps a site has is known only to its database."""
    image = None
    for name, identity in complete_directories():
        if not record_of(name, identity):
            image = code_of_image() if image is None else image
            put_record(Assumed(name, identity), image, assumed=True)


def complete_directories():
    """Names and identities of the volume's sites that were created completely, by name."""
    for entry in sorted(os.scandir(SITES), key=lambda it: it.name):
        state, _, identity = read_file(os.path.join(entry.path, ".operator-state")).strip().partition(" ") if entry.is_dir() else ("", "", "")
        if state == "ready":
            yield entry.name, identity


class Assumed:
    """Name and identity of a site's directory."""

    def __init__(self, name, identity):
        self.name, self.identity = name, identity
