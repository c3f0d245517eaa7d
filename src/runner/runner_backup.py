"""Backup and restore of a site, through a folder that exists as long as the pod.

The folder `staging` contains `contents.json` and the parts that it lists, each with its size and SHA-256: `database.sql.gz`,
`public-files.tgz` and `private-files.tgz`, whose members are named as in Frappe's own backups, and, if requested, `keys.json`
with the keys that encrypt stored passwords.

A backup that is restored was stored elsewhere and is not trusted. Parts are read by their fixed names and never through a link,
archives may contain only directories and regular files below the one directory that they are for, and nothing unpacks to more
than the manifest or the volume's free space allows.
"""

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import zlib

from runner_apps import COMPRESSION_LEVEL, READ_BYTES, check_dump, dump_database, frappe, has_code, refuse_lost_apps, refuse_without_code
from runner_bench import list_apps
from runner_code import record_image, result_of
from runner_common import APP_NAME, Failure, frappe_version, numbers, open_plain, read_file, replace_file
from runner_database import database as open_database
from runner_jobs import forget_deferred, jobs_of
from runner_maintenance import (
    begin_to_touch,
    discard,
    end_hold,
    maintain,
    refuse_half_updated,
    restoring,
    serve_again,
    settle_restore,
    stop_jobs,
)
from runner_site import ready_site
from runner_volume import SITES

# Keys of a site's configuration without which stored passwords cannot be read.
KEYS = ("encryption_key", "backup_encryption_key")
KEYS_WARNING = ("the backup is of another site and has no keys: passwords stored in it (of mail accounts, for example) cannot be decrypted; "
                "enter them again")
# Pattern of a key: Frappe passes one of them to a shell.
KEY_VALUE = re.compile(r"[A-Za-z0-9_=-]{1,128}")
FILES = {"public-files": ("public-files.tgz", "public/files"), "private-files": ("private-files.tgz", "private/files")}
# All parts, with the only allowed name of their files.
PARTS = {"database": "database.sql.gz", "keys": "keys.json", **{part: name for part, (name, _) in FILES.items()}}
# Maximum size of an archive's own records, such as names, which tarfile reads as a whole.
RECORD_BYTES_MAX = 4 << 20
# How much of the volume must stay free.
FREE_PERCENT_MIN = 5


def backup(request):
    """Dumps database and files. A file counts as a part only after it was read from beginning to end."""
    site = ready_site(request)
    staging = request["staging"]
    shutil.rmtree(staging, ignore_errors=True)
    os.makedirs(staging, mode=0o750, exist_ok=True)
    if request.get("before") and restoring(site).get("run") == request["before"]:
        return "the restore began already: the site as it was before is kept"
    refuse_half_updated(site)
    settle_restore(site)
    database = open_database(request["database"])
    database.wait()
    apps = json.loads(database.installed_apps())
    dump = os.path.join(staging, PARTS["database"])
    dump_database(database, dump, apps)
    parts = {"database": {**described(dump), "unpacked": check_dump(dump, "SiteIncomplete", "the backup")}}
    for part, (name, folder) in FILES.items():
        path = os.path.join(staging, name)
        pack(site, folder, path)
        parts[part] = {**described(path), "unpacked": read_archive(path, folder)}
    if request.get("keys"):
        path = os.path.join(staging, PARTS["keys"])
        config = json.loads(read_file(site.config_path))
        replace_file(path, json.dumps({key: config[key] for key in KEYS if key in config}), 0o640)
        parts["keys"] = described(path)
    contents = {"site": site.name, "engine": database.engine, "frappe": frappe_version(), "apps": apps, "parts": parts}
    replace_file(os.path.join(staging, "contents.json"), json.dumps(contents), 0o640)
    return {"bytes": sum(part["bytes"] for part in parts.values())}


def pack(site, folder, path):
    """An archive of a folder of the site, its members named `./SITE/public/files/…`."""
    top = open_folder(site, folder)
    with tarfile.open(path, "w:gz", compresslevel=COMPRESSION_LEVEL) as archive:
        if top is None:
            return
        try:
            for where, folders, files, handle in os.fwalk(dir_fd=top):
                folders.sort()
                member = os.path.normpath(os.path.join(site.name, folder, where))
                add(archive, "./" + member, ".", handle)
                for name in sorted([*files, *(name for name in folders if os.path.islink(f"/proc/self/fd/{handle}/{name}"))]):
                    add(archive, f"./{member}/{name}", name, handle)
        finally:
            os.close(top)


def open_folder(site, folder):
    """A folder of the site, or None if it does not exist. A folder behind a link is rejected: it is not part of the site."""
    handle = os.open(site.path, os.O_RDONLY | os.O_DIRECTORY)
    for name in folder.split("/"):
        above = handle
        try:
            handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise Failure("SiteIncomplete", "files", f"{site.name}/{folder} is not a directory or is reached through a link, whose target is not part of the site") from None
        finally:
            os.close(above)
    return handle


def add(archive, member, name, folder):
    """Adds one folder or file as it is when opened. One that was deleted in the meantime is skipped."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        print(f"skipped, not a regular file: {member}: {error.strerror}")
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
            print(f"skipped, not a regular file: {member}")
    except OSError as error:
        raise Failure("CommandFailed", "files", f"{member} changed while it was read: {error}") from None
    finally:
        os.close(handle)


def described(path):
    """Name, size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
        return {"file": os.path.basename(path), "bytes": file.tell(), "sha256": digest.hexdigest()}


class Unpacked:
    """Contents of an archive, up to a number of bytes and in small pieces, names included."""

    def __init__(self, file, most):
        self.file, self.most = file, most

    def read(self, size=-1):
        if not 0 <= size <= RECORD_BYTES_MAX:
            raise tarfile.ReadError(f"a record of {size} bytes")
        data = self.file.read(size)
        self.bounded(self.file.tell())
        return data

    def seek(self, position):
        self.bounded(position)
        return self.file.seek(position)

    def tell(self):
        return self.file.tell()

    def bounded(self, position):
        if self.most is not None and position > self.most:
            raise TooLarge


class TooLarge(Exception):
    """The archive is larger than allowed."""


def read_archive(path, folder, most=None, members_max=None):
    """Reads every member to its end; returns the unpacked size. Rejects members outside of the site's folder, and archives
    with more bytes or members than allowed."""
    name, members = os.path.basename(path), 0
    try:
        with open_plain(path) as packed, gzip.open(packed) as file:
            with tarfile.open(fileobj=Unpacked(file, most), mode="r:") as archive:
                for member in archive:
                    # Members are not kept in memory: there may be millions.
                    archive.members = []
                    members += 1
                    if members_max is not None and members > members_max:
                        raise TooLarge
                    if not fits(member, folder):
                        raise Failure("BackupBroken", "verify", f"{name} has the member {member.name!r}, which is not allowed")
                    content = archive.extractfile(member) if member.isfile() else None
                    while content and content.read(READ_BYTES):
                        pass
            while file.read(READ_BYTES):
                if most is not None and file.tell() > most:
                    raise TooLarge
            return file.tell()
    except TooLarge:
        raise Failure("BackupTooLarge", "verify", f"{name} unpacks to more than the manifest or the volume's free space allows "
                      f"({most} bytes in {members_max} files)") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise Failure("BackupBroken", "verify", f"{name} cannot be read: {error}") from None


def fits(member, folder):
    """Whether a member is `./SITE/FOLDER` or below it, and a regular file or a directory."""
    parts = member.name.split("/")
    inside = parts[0] == "." and parts[2:4] == folder.split("/") and not {"", ".", ".."}.intersection(parts[1:])
    plain = member.isdir() or (member.isfile() and not member.issparse() and len(parts) > 4)
    return inside and plain and member.size >= 0


def restore(request):
    """Restores the backup into the site. Nothing is changed until the backup is verified to be complete and to fit. From then
    on the site is in maintenance mode until the restore is complete; a failed restore is repeated from the beginning."""
    site = ready_site(request)
    staging, run = request["staging"], request["run"]
    under = restoring(site)
    if not under or under.get("waiting"):
        settle_restore(site)
    elif under["run"] != run:
        raise Failure("SiteIncomplete", "state", f"{site.name} is only partly restored ({under['run']}): complete that restore first")
    contents = json.loads(read_file(os.path.join(staging, "contents.json")) or "{}")
    if not contents.get("parts"):
        raise Failure("BackupBroken", "verify", "the backup does not list its parts")
    refuse_lost_apps()
    database = open_database(request["database"])
    with_database, with_files = request.get("restore_database", True), request.get("restore_files", True)
    refuse_misfit(contents, database, with_database)
    for part in (["database"] if with_database else []) + (list(FILES) if with_files else []):
        check_part(staging, contents, part)
    keys = read_keys(staging, contents, request) if with_database else {}
    for _, folder in FILES.values() if with_files else []:
        if (handle := open_folder(site, folder)) is not None:
            os.close(handle)
    database.wait()
    if with_database:
        database.refuse_client()
        list_apps(contents["apps"])
    else:
        refuse_half_updated(site)
        refuse_without_code(json.loads(database.installed_apps()))
    maintain(site, run)
    jobs = jobs_of(site) if with_database else None
    stop_jobs(site, jobs)
    begin_to_touch(site)
    if with_database:
        put_database(site, database, os.path.join(staging, contents["parts"]["database"]["file"]), keys)
    if with_files:
        for part in FILES:
            put_files(site, staging, contents, part)
    # Before the site queues new jobs: Frappe treats a job that is set aside as queued.
    discard(site, jobs)
    if with_database:
        forget_deferred(database.name)
    frappe(site, "clear-cache", "clear-cache")
    frappe(site, "migrate", "migrate")
    record_image(site, json.loads(database.installed_apps()))
    serve_again(site)
    end_hold(site)
    if keys_are_missing(site, contents, with_database, keys):
        return result_of(site, "restored", warning=KEYS_WARNING)
    return result_of(site, "restored")


def put_database(site, database, dump, keys):
    """Replaces the database by the dump, and the keys by those of the backup."""
    database.wipe()
    database.load(dump)
    if database.administrators() != "1":
        raise Failure("SiteIncomplete", "check", "the restored database has no password for Administrator")
    if keys:
        site.put_config({**json.loads(read_file(site.config_path)), **keys})


def keys_are_missing(site, contents, with_database, keys):
    """Whether the database is of another site, so that its stored passwords cannot be decrypted."""
    missing = with_database and contents["site"] != site.name and not keys
    if missing:
        print(f"warning: {KEYS_WARNING}")
    return missing


def refuse_misfit(contents, database, with_database):
    """Rejects a dump of a newer Frappe, of an app that the image lacks, or of another kind of database."""
    if not with_database:
        return
    if contents["engine"] != database.engine:
        raise Failure("BackupMisfit", "verify", f"the backup is of {contents['engine']}, the site's database is {database.engine}")
    theirs, ours = contents["frappe"], frappe_version()
    if numbers(theirs)[:1] > numbers(ours)[:1]:
        raise Failure("BackupNewer", "verify", f"the backup was made with Frappe {theirs}, the bench has {ours}: upgrade the bench first")
    if not all(APP_NAME.fullmatch(app) for app in contents["apps"]):
        raise Failure("BackupBroken", "verify", "the backup has an invalid app name")
    missing = [app for app in contents["apps"] if not has_code(app)]
    if missing:
        raise Failure("AppsMissing", "apps", f"the backup has {', '.join(missing)}, but the image does not")


def check_part(staging, contents, part):
    """Checks that the part is unchanged and can be read to its end."""
    path = part_path(staging, contents, part)
    made = contents["parts"][part].get("unpacked")
    if part == "database":
        check_dump(path, "BackupBroken", "the dump", made)
        return
    free_bytes, free_files = room()
    # Backups of earlier versions do not contain their unpacked size.
    read_archive(path, FILES[part][1], free_bytes if made is None else min(made, free_bytes), free_files)


def room():
    """How many bytes, and how many files, an archive may add to the volume of the sites."""
    volume = os.statvfs(SITES)
    spare = volume.f_blocks * FREE_PERCENT_MIN // 100
    # Some file systems do not count files.
    return max(volume.f_bavail - spare, 0) * volume.f_frsize, volume.f_favail if volume.f_files else None


def part_path(staging, contents, part):
    """Path of the part, whose checksum must match."""
    wanted = contents["parts"].get(part)
    path = os.path.join(staging, PARTS[part])
    if not wanted or os.path.islink(path) or not os.path.isfile(path):
        raise Failure("BackupBroken", "verify", f"{part} is missing")
    if any(wanted.get(key) != value for key, value in described(path).items()):
        raise Failure("BackupBroken", "verify", f"{part} is corrupt: its checksum differs")
    return path


def read_keys(staging, contents, request):
    """The keys that decrypt the stored passwords of the restored database. They are accepted only if encrypted: an attacker who
    could add keys to an unencrypted backup could read everything that the site encrypts from then on."""
    if "keys" not in contents["parts"]:
        return {}
    if not request.get("keys"):
        raise Failure("BackupBroken", "verify", "the backup contains keys that are not encrypted, which is not allowed")
    with open_plain(part_path(staging, contents, "keys")) as file:
        found = {key: value for key, value in json.loads(file.read(RECORD_BYTES_MAX)).items() if key in KEYS}
    if not all(isinstance(value, str) and KEY_VALUE.fullmatch(value) for value in found.values()):
        raise Failure("BackupBroken", "verify", "keys.json contains an invalid key")
    return found


def put_files(site, staging, contents, part):
    """Unpacks files next to those of the site, and replaces them as a whole."""
    folder = FILES[part][1]
    fresh = os.path.join(site.path, ".operator-restored", folder)
    target = os.path.join(site.path, folder)
    beside = os.path.join(site.path, ".operator-restored")
    if os.path.islink(beside):
        os.unlink(beside)
    shutil.rmtree(beside, ignore_errors=True)
    os.makedirs(fresh)
    with open_plain(part_path(staging, contents, part)) as packed, gzip.open(packed) as file:
        with tarfile.open(fileobj=Unpacked(file, None), mode="r:") as archive:
            for member in archive:
                archive.members = []
                # ./SITE/public/files/… of any site; all members were checked before.
                path = os.path.join(fresh, *member.name.split("/")[4:])
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
    """Unpacks one file, with its time and its owner's permissions."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        shutil.copyfileobj(archive.extractfile(member), file, READ_BYTES)
    os.chmod(path, member.mode & 0o775 | 0o600)
    os.utime(path, (member.mtime, member.mtime))
