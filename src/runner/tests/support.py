"""A real MariaDB with a least-privilege account, and a bench folder with a stand-in for Frappe.

The stand-in does to the database what Frappe does as far as the runner depends on it, in Frappe's order: tables, then
the list of installed apps, then Administrator. It records every call, and looks at every process of the machine while
it works, so that a password in an argument or in an environment is found.
"""

import base64
import fcntl
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import forks
from forks import RUNNER
from stand_in import write_modules

DATABASE = "shop0123456789ab"
# Of this process alone: another module's command line or environment may show its own.
PASSWORD = "DbPassword" + secrets.token_hex(11)
ADMIN_PASSWORD = "AdminPassword" + secrets.token_hex(9)
ENCRYPTION_KEY = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
SECRETS = {"password": PASSWORD, "admin-password": ADMIN_PASSWORD, "encryption-key": ENCRYPTION_KEY}
# For six concurrent modules, each with its own servers.
MEMORY_BYTES_MIN = 2 << 30
# The guide's privileges, as the operator grants them.
PRIVILEGES = ("SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, REFERENCES, CREATE TEMPORARY TABLES, LOCK TABLES, "
              "EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER")


def use_memory():
    """Keeps the tests' folders in memory if there is room: each of thousands of runs would wait for the disk several times.

    Not where programs may not run there, since the tests write some.
    """
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return
    if room.f_bavail * room.f_frsize > MEMORY_BYTES_MIN and not room.f_flag & os.ST_NOEXEC and os.access("/dev/shm", os.W_OK):
        tempfile.tempdir = os.environ["TMPDIR"] = "/dev/shm"


def use_postgres_itself():
    """Puts the newest PostgreSQL's own programs first on the PATH. Debian's psql is a script in Perl that finds them, which takes twice as
    long as the program."""
    folders = [folder for folder in pathlib.Path("/usr/lib/postgresql").glob("*/bin") if (folder / "psql").exists()]
    if folders:
        newest = max(folders, key=lambda folder: float(folder.parent.name))
        os.environ["PATH"] = f"{newest}{os.pathsep}{os.environ['PATH']}"


use_memory()
use_postgres_itself()


def must(command, **settings):
    """Runs a command that prepares a server. Raises RuntimeError with its output if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **settings)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")


def initialized_data(server, install):
    """A data folder by mariadb-install-db, created once for each version of the server and copied by every test."""
    version = subprocess.run([server, "--no-defaults", "--version"], check=True, capture_output=True, text=True).stdout
    cache = pathlib.Path(os.environ.get("FRAPPE_OPERATOR_CACHE") or pathlib.Path.home() / ".cache/frappe-operator") / "mariadb"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{hashlib.sha256(version.encode()).hexdigest()[:12]}-{os.geteuid()}"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            data = pathlib.Path(unfinished) / "data"
            # --force: the machine's names are not resolved; only loopback and the socket are used.
            must([install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--force", "--skip-test-db",
                  "--innodb-log-file-size=16M", *(["--user=root"] if os.geteuid() == 0 else [])])
            data.rename(folder)
    return folder


class Server:
    """A MariaDB on loopback, with one account on one database."""

    options = ("--innodb-buffer-pool-size=32M",)

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="site-runner-mariadb-"))
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
        self.program = shutil.which("mariadbd", path=path)
        if not self.program:
            raise RuntimeError("mariadbd is missing: apt-get install mariadb-server")
        self.user = ["--user=root"] if os.geteuid() == 0 else []
        data = f"--datadir={self.folder}/data"
        shutil.copytree(initialized_data(self.program, shutil.which("mariadb-install-db", path=path)), self.folder / "data")
        self.port = free_port()
        self.log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            [self.program, "--no-defaults", data, f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve",
             f"--socket={self.folder}/socket", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=16M", *self.options, *self.user],
            stdout=self.log, stderr=self.log)
        for _ in range(300):
            if self.root("SELECT 1", check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text())

    def root(self, statement, check=True):
        return subprocess.run(["mariadb", "--no-defaults", f"--socket={self.folder}/socket", "--user=root", "-N", "-B"],
                              input=statement, check=check, capture_output=True, text=True)

    def reset(self):
        """Creates account and empty database, as the MariaDB operator does."""
        databases = self.root("SHOW DATABASES").stdout.split()
        for name in databases:
            if name not in ("mysql", "sys", "information_schema", "performance_schema"):
                self.root(f"DROP DATABASE `{name}`")
        self.root(f"CREATE DATABASE {DATABASE}; CREATE OR REPLACE USER '{DATABASE}'@'%' IDENTIFIED BY '{PASSWORD}'; "
                  f"GRANT {PRIVILEGES} ON `{DATABASE}`.* TO '{DATABASE}'@'%'")

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgresServer:
    """A PostgreSQL on loopback, with one account that owns one database."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="site-runner-postgres-"))
        folders = [*pathlib.Path("/usr/lib/postgresql").glob("*/bin")]
        path = os.pathsep.join([os.environ["PATH"], *map(str, folders)])
        self.program, install = shutil.which("postgres", path=path), shutil.which("initdb", path=path)
        if not self.program or not install or not shutil.which("psql"):
            raise RuntimeError("postgres, initdb or psql is missing: apt-get install postgresql")
        # The server refuses to run as root.
        self.user = {"user": "nobody"} if os.geteuid() == 0 else {}
        if self.user:
            shutil.chown(self.folder, "nobody")
        must([install, "--pgdata", f"{self.folder}/data", "--username=root", "--auth=trust", "--no-sync"],
             cwd=self.folder, **self.user)
        hba = self.folder / "data/pg_hba.conf"
        hba.write_text("local all root trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        self.port = free_port()
        self.log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen([self.program, "-D", f"{self.folder}/data", "-p", str(self.port), "-c", "fsync=off",
                                         "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"],
                                        stdout=self.log, stderr=self.log, cwd=self.folder, **self.user)
        for _ in range(300):
            if self.root("SELECT 1", check=False).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise RuntimeError((self.folder / "log").read_text())

    def root(self, statement, database="postgres", check=True):
        return subprocess.run(["psql", "-h", str(self.folder), "-p", str(self.port), "-U", "root", "-qtA", database, "-c", statement],
                              check=check, capture_output=True, text=True)

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class ServerTest(unittest.TestCase):
    """Tests that share a server."""

    make_server = Server

    @classmethod
    def setUpClass(cls):
        cls.server = cls.make_server()
        cls.addClassCleanup(cls.server.close)

    def new_bench(self, version=15):
        """A bench that is removed at the end of the test."""
        self.bench = Bench(self.server, version)
        self.addCleanup(self.bench.close)

    def done(self, command, request, **environment):
        """The result of the runner, which must have succeeded."""
        result = self.bench.run(command, request, **environment)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result

    def installed(self):
        """The list of installed apps in the site's MariaDB database."""
        return json.loads(self.server.root(f"SELECT defvalue FROM {DATABASE}.tabDefaultValue").stdout)


class Steps:
    """The steps of a series at which the runner is killed, in which it is run without an interpreter of its own for each run: every fifth
    at least. Which of five depends on the runner's files, so that a change of them tries others, and a repetition the same. With
    RUNNER_EVERY_STEP they are all steps."""

    running = False
    # Least distance of two steps.
    STRIDE_MIN = 5
    TURN = sum(path.stat().st_size for path in sorted(RUNNER.parent.glob("*.py")))

    def __init__(self, most, stride=1, first=1):
        self.most, self.step = most, 0
        stride = max(stride, self.STRIDE_MIN)
        self.first, self.stride = (1, 1) if os.environ.get("RUNNER_EVERY_STEP") else (first + self.TURN % stride, stride)

    def __iter__(self):
        Steps.running = True
        try:
            for self.step in range(self.first, self.most, self.stride):
                yield self.step
            raise AssertionError(f"not at its end after {self.step} steps")
        finally:
            Steps.running = False

    def __str__(self):
        each = {1: "each", 2: "every second", 3: "every third"}.get(self.stride, f"every {self.stride}th")
        return f"{each} of {self.step - 1} steps"


class FolderTest(unittest.TestCase):
    """A folder like a bench's, without Frappe, in which the runner configures the bench."""

    COMMAND = ("configure", json.dumps({"common_site_config": {"bench_id": "a-b"}}))

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="site-runner-folder-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name).resolve()
        (self.folder / "sites").mkdir()

    def environment(self, **more):
        return {**os.environ, "SITE_RUNNER_TERMINATION_LOG": str(self.folder / "termination"), **more}

    def run_runner(self, kill_at=None, command=COMMAND, python=sys.executable, **more):
        if Steps.running:
            return forks.run(python, command, self.environment(**more), self.folder, kill_at)
        return subprocess.run([python, str(RUNNER), *command], cwd=self.folder, env=self.environment(**more),
                              capture_output=True, text=True, timeout=60, check=False)

    def configure(self, command=COMMAND):
        done = self.run_runner(command=command)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout


class Bench:
    """A folder like a bench's, whose `frappe` is the stand-in."""

    def __init__(self, server, version=15):
        self.server, self.python, self.watches = server, sys.executable, {}
        # Environment of every run, and the name of the folder that the bench's revisions share.
        self.more, self.shared = {}, "sites"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="site-runner-bench-"))
        for part in ("sites", "apps/frappe", "apps/erpnext", "logs", "secrets", "home"):
            (self.folder / part).mkdir(parents=True)
        write_modules(self.folder / "python/frappe", version)
        for name, value in SECRETS.items():
            (self.folder / "secrets" / name).write_text(value)

    def environment(self, **more):
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.folder / "python"), "HOME": str(self.folder / "home"),
                "SITE_RUNNER_SECRETS": str(self.folder / "secrets"), "SITE_RUNNER_TERMINATION_LOG": str(self.folder / "termination"),
                "SITE_RUNNER_DATABASE_WAIT_SECONDS": "1", "SITE_RUNNER_MAINTENANCE_WAIT_SECONDS": "0", "STAND_IN_CALLS": str(self.folder / "calls"),
                **self.watches, **self.more, **more}

    def request(self, **more):
        return {"site": "shop.example.com", "identity": "id-1", "apps": ["erpnext"],
                "database": {"host": "127.0.0.1", "port": self.server.port, "name": DATABASE}, **more}

    def run(self, command, request=None, kill_at=None, **environment):
        """Runs the runner; with `kill_at` it is killed at that step. In a series of steps, without an interpreter of its own."""
        arguments, environment = [command, json.dumps(request or self.request())], self.environment(**environment)
        if kill_at or Steps.running:
            return forks.run(self.python, arguments, environment, self.folder, kill_at)
        return subprocess.run([self.python, str(RUNNER), *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120,
                              check=False)

    def start(self, command, request=None, **environment):
        return subprocess.Popen([self.python, str(RUNNER), command, json.dumps(request or self.request())], cwd=self.folder,
                                env=self.environment(**environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def add_app(self, name, requires=()):
        """Adds an app to the image, whose hooks contain what it requires."""
        package = self.folder / "apps" / name / name
        package.mkdir(parents=True, exist_ok=True)
        (package / "hooks.py").write_text(f"app_name = {name!r}\nrequired_apps = {list(requires)!r}\n")

    def add_code(self, name, *patches, version="1.0.0"):
        """Replaces an app's code in the image: its patches and its version."""
        package = self.folder / "apps" / name / name
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
        (package / "hooks.py").touch()
        (package / "patches.txt").write_text("[post_model_sync]\n" + "".join(f"{patch}\n" for patch in patches))

    def record(self):
        """The record of the site's schema; None if there is none."""
        path = self.folder / self.shared / ".schemas/shop.example.com"
        return json.loads(path.read_text()) if path.exists() else None

    def watch(self):
        """From now on the stand-in records what every process of the machine exposes."""
        self.watches = {"STAND_IN_WATCHES": "1"}

    def exposed(self):
        """What processes had in their arguments and environments while they were watched."""
        return (self.folder / "calls.proc").read_bytes()

    def calls(self):
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def forget_calls(self):
        (self.folder / "calls").unlink(missing_ok=True)

    def termination(self):
        return json.loads((self.folder / "termination").read_text())

    def site(self, name=""):
        return self.folder / "sites/shop.example.com" / name

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def cut_dumps(self):
        """A PATH with a dump program that writes half of a dump and reports success."""
        folder = self.folder / "bin"
        folder.mkdir()
        program = folder / "mariadb-dump"
        program.write_text(f'#!/bin/sh\n{shutil.which("mariadb-dump")} "$@" | sed -n 1,25p\n')
        program.chmod(0o755)
        return f"{folder}{os.pathsep}{os.environ['PATH']}"


class Scanner:
    """Scans every process of the machine continuously while it is open."""

    def __init__(self):
        self.seen, self.rounds, self.stop = set(), 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        known = set()
        while not self.stop.is_set():
            self.rounds += 1
            for entry in os.listdir("/proc"):
                # The arguments of a process change when it executes another program.
                if not entry.isdigit() or (entry in known and self.rounds % 20):
                    continue
                known.add(entry)
                for file in ("cmdline", "environ"):
                    try:
                        with open(f"/proc/{entry}/{file}", "rb") as handle:
                            self.seen.add(handle.read())
                    except OSError:
                        pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def free_port():
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


KILLED = -signal.SIGKILL
