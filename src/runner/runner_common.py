"""Shared by the runner's files: failures, redacted secrets, atomic writes."""

import codecs
import contextlib
import errno
import fcntl
import os
import re
import signal
import stat
import sys
import time

SECRETS = os.environ.get("SITE_RUNNER_SECRETS", "/run/frappe-secrets")
# Secrets without which nothing would be protected.
NEVER_EMPTY = ("password", "admin-password", "encryption-key", "redis-password", "redis-cache", "redis-queue")
# Patterns are for `fullmatch`: with `match`, `$` would allow a line feed at the end.
APP_NAME = re.compile(r"[a-z][a-z0-9_-]*")
# A site name or host: a DNS name in lower case.
SITE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# How much of a program's output is reported: lines and characters.
WORDS_LINES = 3
WORDS_MAX = 400
END_CHARACTERS = 4000
# Longest wait for a lock that is held only briefly, or by a pod that is ending.
LOCK_WAIT_SECONDS = float(os.environ.get("SITE_RUNNER_LOCK_WAIT_SECONDS", "120"))
LOCK_LOOK_SECONDS = 0.1
# Exit code of a process that SIGTERM ended.
ENDED = 143

# Error codes for the operator, with their exit codes. The operator has the same list (src/domain/code.rs).
CODES = {
    "RequestInvalid": 2,
    "SecretInvalid": 2,
    "ConnectionInvalid": 2,
    "ScriptMissing": 2,
    "ScriptChanged": 2,
    "ProgramMissing": 2,
    "ClientTooOld": 2,
    "AppsMissing": 2,
    "AppRequired": 2,
    "SiteNameReserved": 2,
    "DatabaseFailed": 10,
    "DatabaseNotEmpty": 20,
    "SiteDirectoryTaken": 21,
    "SiteMismatch": 21,
    "SiteNameTaken": 22,
    "SiteTwice": 22,
    "SiteElsewhere": 23,
    "CommandFailed": 30,
    "FilesFailed": 30,
    "SiteIncomplete": 31,
    "UpdateRequired": 31,
    "BackupMisfit": 32,
    "BackupNewer": 32,
    "BackupBroken": 33,
    "BackupTooLarge": 33,
    "DumpMissing": 33,
    "QueueUnreachable": 30,
    "UpdateFailed": 42,
    "RollbackFailed": 43,
    "JobsRunning": 75,
    "SiteLocked": 75,
    "DeadlineExceeded": 124,
    "JobStopped": 143,
}


class Failure(Exception):
    """A failed step, with a code of `CODES` for the operator and an error for users, and the number of the revision in whose folder the
    site is, if that is to be told."""

    def __init__(self, code, step, error, revision=None):
        super().__init__(error)
        self.code, self.step, self.error, self.revision = code, step, error, revision
        # What is known of a command that was run (runner_run).
        self.run = None


class Redacting:
    """A stream that redacts secrets. It keeps the end of the output, for failures without a message."""

    def __init__(self, stream):
        self.stream, self.end = stream, ""

    def write(self, text):
        text = redact(text)
        self.end = (self.end + text)[-END_CHARACTERS:]
        return self.stream.write(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)


class RedactedOutput:
    """The output of a process, in chunks: without secrets, also where one is in two chunks, and without control characters, which a terminal
    would obey. Its first bytes, up to `most`, are written to a stream; its end is kept if `keeps`."""

    def __init__(self, stream, most, keeps):
        self.stream, self.left, self.keeps = stream, most, keeps
        self.pending, self.tail, self.omitted, self.at_line_end = "", "", 0, True
        self.decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def write(self, data, final=False):
        """Adds a chunk. Of what it ends with, so much is held back as may be the beginning of a secret."""
        text = redact(self.pending + self.decode(data, final))
        held_back = 0 if final else max(map(len, secret.known), default=1) - 1
        cut = len(text) - held_back
        self.pending = text[max(cut, 0) :]
        self.show(printable(text[: max(cut, 0)]))

    def close(self):
        """Shows what was held back, and how much was not shown."""
        self.write(b"", final=True)
        if not self.at_line_end:
            self.stream.write("\n")
        if self.keeps and self.omitted:
            self.stream.write(f"[{self.omitted} more bytes are not shown]\n")
        self.stream.flush()

    def show(self, text):
        if self.keeps:
            self.tail = (self.tail + text)[-END_CHARACTERS:]
        data = text.encode()
        shown = data[: self.left].decode(errors="ignore")
        self.left -= len(data[: self.left])
        self.omitted += len(data) - len(shown.encode())
        if shown:
            self.stream.write(shown)
            self.at_line_end = shown.endswith("\n")


# Characters that a terminal obeys, except those of lines and tabs; ESC with its sequence.
CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text):
    """The text without control characters."""
    return CONTROL.sub("", text)


def secret(name):
    """The secret in the file of this name; `redact` removes it from then on."""
    try:
        with open(os.path.join(SECRETS, name), encoding="utf-8") as file:
            value = file.read().rstrip("\n")
    except FileNotFoundError:
        raise Failure("SecretInvalid", "secrets", f"{origin_of(name)} does not exist") from None
    except OSError as error:
        raise Failure("SecretInvalid", "secrets", f"cannot read {origin_of(name)}: {error.strerror}") from None
    if not value and name in NEVER_EMPTY:
        raise Failure("SecretInvalid", "secrets", f"{origin_of(name)} is empty")
    if value:
        secret.known.add(value)
    return value


def origin_of(name):
    """The Secret's key that a file is, for users."""
    secret_name, key = secret.origins.get(name, ("", name))
    return f"the key {key} of the Secret {secret_name}" if secret_name else f"the Secret's key {key}"


# Secret and key of each file, from the request.
secret.origins = {}
secret.known = set()


def redact(text):
    """The text without any secret that has been read."""
    for value in sorted(secret.known, key=len, reverse=True):
        text = text.replace(value, "[secret]")
    return text


def last_words(text):
    """The end of a program's output, for users: its last lines, from the beginning of a word."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = " ".join(lines[-WORDS_LINES:])
    if len(words) <= WORDS_MAX:
        return words
    return "… " + words[-WORDS_MAX:].partition(" ")[2]


def end_when_told():
    """Makes SIGTERM end this process and its children at once. Frappe and its imports sometimes catch SystemExit, and the
    runner may be interrupted anywhere."""
    def end(*_):
        for child in children():
            try:
                os.kill(child, signal.SIGTERM)
            except ProcessLookupError:
                pass
        os._exit(ENDED)

    signal.signal(signal.SIGTERM, end)


def children():
    """Processes that this one has started."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        found += [int(child) for child in read_file(f"/proc/self/task/{thread}/children").split()]
    return found


@contextlib.contextmanager
def locked(path, what, seconds=LOCK_WAIT_SECONDS):
    """Holds the lock of the file; fails if another pod holds it for too long."""
    with open(path, "w", encoding="utf-8") as handle:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Failure("SiteLocked", "lock", f"another pod has been working on {what} for {int(seconds)} s") from None
            time.sleep(LOCK_LOOK_SECONDS)
        yield


def replace_file(path, content, mode=0o644):
    """Writes a file so that readers see either the old or the new content, also after a crash."""
    part = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.part")
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW
    try:
        handle = os.open(part, flags, mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        os.unlink(part)
        handle = os.open(part, flags, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_file(path):
    """Content of a file; empty if it does not exist."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def open_plain(path, directory=None):
    """Opens a regular file for reading; never the target of a link, a device or a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is not a regular file", path)
    return os.fdopen(handle, "rb")


def secret_or_none(name, hidden=True):
    """The same, or None if there is no such file; with `hidden` it is redacted in any output."""
    if not os.path.exists(os.path.join(SECRETS, name)):
        return None
    value = secret(name)
    if not hidden:
        secret.known.discard(value)
    return value


def keep_password_off(database_module):
    """Frappe gives the password of the database to its child processes as an argument; they read their option file
    instead. Returns whether this version has the function for it."""
    if not hasattr(database_module, "get_command"):
        return False
    original = database_module.get_command

    def get_command(*args, **kwargs):
        kwargs["password"] = None
        return original(*args, **kwargs)

    database_module.get_command = get_command
    return True


def keep_off_github(installer):
    """Frappe asks api.github.com for the organization of a required app that is named without one, and fails without an answer,
    although it needs only the name."""
    if hasattr(installer, "find_org"):
        installer.find_org = lambda repository: ("", repository)


def frappe_version():
    """Version of Frappe in the image."""
    sys.path.insert(0, "apps/frappe")
    import frappe as installed
    return str(installed.__version__)


def numbers(version):
    """`15.1.0` as numbers; parts that are not numbers count as 0."""
    return [int(part) if part.isdigit() else 0 for part in re.split(r"[.-]", version)]
