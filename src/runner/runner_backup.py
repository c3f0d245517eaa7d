"""A site's backup on its way: dumped to a folder that goes with the pod, and brought back from there.

The folder `staging` has `contents.json` and the parts that it tells of, each with its size and SHA-256: `database.sql.gz`,
`public-files.tgz` and `private-files.tgz`, whose members are named as Frappe's own backups name them, and `keys.json` with
what stored passwords are encrypted with, where the request asks for that.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import time

from runner_apps import COMPRESSION_LEVEL, READ_BYTES, check_dump, dump_database, frappe
from runner_common import Failure, frappe_version, read_file, replace_file
from runner_database import database as open_database
from runner_site import ready_site

# Web workers of version 16 keep a site's configuration for so long: until then they might write to the database.
MAINTENANCE_WAIT_SECONDS = float(os.environ.get("SITE_RUNNER_MAINTENANCE_WAIT_SECONDS", "60"))
CACHING_VERSION = 16
# Keys of a site's configuration without which stored passwords cannot be read.
KEYS = ("encryption_key", "backup_encryption_key")
# What a site under restore has in its configuration.
MAINTENANCE = {"maintenance_mode": 1, "pause_scheduler": 1}
FILES = {"public-files": ("public-files.tgz", "public/files"), "private-files": ("private-files.tgz", "private/files")}


def backup(request):
    """Dumps database and files. Nothing is called a part before it was read again from beginning to end."""
    site = ready_site(request)
    staging = request["staging"]
    shutil.rmtree(staging, ignore_errors=True)
    os.makedirs(staging, mode=0o750, exist_ok=True)
    if request.get("before") and restoring(site).get("run") == request["before"]:
        return "the restore began already: the site as it was before is kept"
    if restoring(site):
        raise Failure(31, "state", f"{site.name} is half restored ({restoring(site)['run']}): restore it first")
    database = open_database(request["database"])
    database.wait()
    apps = json.loads(database.installed_apps())
    dump = os.path.join(staging, "database.sql.gz")
    dump_database(database, dump, apps)
    check_dump(dump, 31, "the backup")
    parts = {"database": described(dump)}
    for part, (name, folder) in FILES.items():
        path = os.path.join(staging, name)
        pack(site, folder, path)
        read_archive(path)
        parts[part] = described(path)
    if request.get("keys"):
        path = os.path.join(staging, "keys.json")
        config = json.loads(read_file(site.config_path))
        replace_file(path, json.dumps({key: config[key] for key in KEYS if key in config}), 0o640)
        parts["keys"] = described(path)
    contents = {"site": site.name, "engine": database.engine, "frappe": frappe_version(), "apps": apps, "parts": parts}
    replace_file(os.path.join(staging, "contents.json"), json.dumps(contents), 0o640)
    return {"bytes": sum(part["bytes"] for part in parts.values())}


def pack(site, folder, path):
    """An archive of a folder of the site, its members named `./SITE/public/files/…`."""
    top = os.path.join(site.path, folder)
    with tarfile.open(path, "w:gz", compresslevel=COMPRESSION_LEVEL) as archive:
        for where, folders, files in os.walk(top):
            folders.sort()
            add(archive, where)
            for name in sorted(files):
                add(archive, os.path.join(where, name))


def add(archive, path):
    """One folder or file, as it is when it is opened. What went meanwhile is none of the backup's."""
    member = "./" + os.path.relpath(path, "sites")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        print(f"left out, no plain file: {member}: {error.strerror}")
        return
    try:
        seen = os.fstat(handle)
        entry = tarfile.TarInfo(member)
        entry.mtime, entry.mode = int(seen.st_mtime), stat.S_IMODE(seen.st_mode)
        if stat.S_ISDIR(seen.st_mode):
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        elif stat.S_ISREG(seen.st_mode):
            entry.size = seen.st_size
            archive.addfile(entry, os.fdopen(handle, "rb", closefd=False))
        else:
            print(f"left out, no plain file: {member}")
    except OSError as error:
        raise Failure(30, "files", f"{member} changed while it was read: {error}") from None
    finally:
        os.close(handle)


def described(path):
    """Name, size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
        return {"file": os.path.basename(path), "bytes": file.tell(), "sha256": digest.hexdigest()}


def read_archive(path):
    """Reads every member to its end; answers their names. Refuses what would land outside of the site."""
    names = []
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                parts = member.name.split("/")
                if ".." in parts or member.name.startswith("/") or not (member.isfile() or member.isdir()):
                    raise Failure(33, "verify", f"BackupBroken: {os.path.basename(path)} has the member {member.name}, which no backup has")
                names.append(member.name)
                if member.isfile():
                    content = archive.extractfile(member)
                    while content.read(READ_BYTES):
                        pass
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Failure(33, "verify", f"BackupBroken: {os.path.basename(path)} cannot be read: {error}") from None
    return names


def restoring(site):
    """What is being restored, where that began and did not end: `run` and the configuration `before`."""
    return json.loads(read_file(site.restoring_path) or "{}")


def restore(request):
    """Brings the site to what the backup holds. Until the backup was found to be whole and to fit, nothing is touched.
    From then on the site is in maintenance until all is done: a restore that failed is run again from its beginning."""
    site = ready_site(request)
    staging, run = request["staging"], request["run"]
    contents = json.loads(read_file(os.path.join(staging, "contents.json")) or "{}")
    if not contents.get("parts"):
        raise Failure(33, "verify", "BackupBroken: the backup says nothing of its parts")
    database = open_database(request["database"])
    with_database, with_files = request.get("restore_database", True), request.get("restore_files", True)
    refuse_misfit(contents, database, with_database)
    for part in (["database"] if with_database else []) + (list(FILES) if with_files else []):
        check_part(staging, contents, part)
    database.wait()
    under = restoring(site)
    if under and under["run"] != run:
        raise Failure(31, "state", f"{site.name} is half restored ({under['run']}): restore that one first")
    maintain(site, run)
    if with_database:
        database.wipe()
        database.load(os.path.join(staging, contents["parts"]["database"]["file"]))
        if database.administrators() != "1":
            raise Failure(31, "check", "the restored database has no password for Administrator")
        put_keys(site, staging, contents)
    if with_files:
        for part in FILES:
            put_files(site, staging, contents, part)
    frappe(site, "clear-cache", "clear-cache")
    frappe(site, "migrate", "migrate")
    serve_again(site)
    return "restored"


def refuse_misfit(contents, database, with_database):
    """A dump of a newer Frappe, of an app that the image does not have, or of another kind of database."""
    if not with_database:
        return
    if contents["engine"] != database.engine:
        raise Failure(32, "verify", f"BackupMisfit: the backup is of {contents['engine']}, the site's database is {database.engine}")
    theirs, ours = contents["frappe"], frappe_version()
    if numbers(theirs)[:1] > numbers(ours)[:1]:
        raise Failure(32, "verify", f"BackupNewer: the backup was made with Frappe {theirs}, the bench has {ours}: upgrade the bench first")
    missing = [app for app in contents["apps"] if not os.path.isdir(os.path.join("apps", app))]
    if missing:
        raise Failure(2, "apps", f"AppsMissing: the backup has {', '.join(missing)}, and the image does not")


def numbers(version):
    """`15.1.0` as numbers; what is none counts nothing."""
    return [int(part) if part.isdigit() else 0 for part in re.split(r"[.-]", version)]


def check_part(staging, contents, part):
    """The part is there as it was made, and can be read to its end."""
    path = part_path(staging, contents, part)
    if part == "database":
        check_dump(path, 33, "BackupBroken: the dump")
    else:
        read_archive(path)


def part_path(staging, contents, part):
    """Where the part is, which must be what was made."""
    wanted = contents["parts"].get(part)
    path = os.path.join(staging, os.path.basename((wanted or {}).get("file", "")))
    if not wanted or not os.path.isfile(path):
        raise Failure(33, "verify", f"BackupBroken: {part} is missing")
    if described(path) != wanted:
        raise Failure(33, "verify", f"BackupBroken: {part} is not what was made: its checksum differs")
    return path


def maintain(site, run):
    """Takes the site out of service, and writes down how it was before."""
    config = json.loads(read_file(site.config_path))
    if not restoring(site):
        before = {key: config[key] for key in MAINTENANCE if key in config}
        replace_file(site.restoring_path, json.dumps({"run": run, "before": before}), 0o640)
    if any(config.get(key) != value for key, value in MAINTENANCE.items()):
        site.put_config({**config, **MAINTENANCE})
    if numbers(frappe_version())[0] >= CACHING_VERSION:
        time.sleep(MAINTENANCE_WAIT_SECONDS)


def serve_again(site):
    """Brings maintenance back to what it was. The marker goes last: until then a second run does all of it again."""
    config = json.loads(read_file(site.config_path))
    for key in MAINTENANCE:
        config.pop(key, None)
    site.put_config({**config, **restoring(site)["before"]})
    os.unlink(site.restoring_path)


def put_keys(site, staging, contents):
    """Gives the site the keys by which the restored database's stored passwords can be read."""
    if "keys" not in contents["parts"]:
        return
    path = part_path(staging, contents, "keys")
    kept = {key: value for key, value in json.loads(read_file(path)).items() if key in KEYS}
    site.put_config({**json.loads(read_file(site.config_path)), **kept})


def put_files(site, staging, contents, part):
    """Unpacks files beside those of the site, and puts them in their place as a whole."""
    folder = FILES[part][1]
    fresh = os.path.join(site.path, ".operator-restored", folder)
    target = os.path.join(site.path, folder)
    shutil.rmtree(os.path.join(site.path, ".operator-restored"), ignore_errors=True)
    os.makedirs(fresh)
    with tarfile.open(part_path(staging, contents, part), "r:gz") as archive:
        for member in archive:
            # ./SITE/public/files/…, of whichever site it was.
            inner = member.name.split("/")[4:]
            path = os.path.join(fresh, *inner)
            if member.isdir():
                os.makedirs(path, exist_ok=True)
            else:
                unpack(archive, member, path)
    former = os.path.join(site.path, ".operator-restored", "former")
    if os.path.isdir(target):
        os.replace(target, former)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.replace(fresh, target)
    shutil.rmtree(os.path.join(site.path, ".operator-restored"), ignore_errors=True)


def unpack(archive, member, path):
    """One file, with its time and what its owner may do."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        shutil.copyfileobj(archive.extractfile(member), file, READ_BYTES)
    os.chmod(path, member.mode & 0o775 | 0o600)
    os.utime(path, (member.mtime, member.mtime))
