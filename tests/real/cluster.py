"""What surrounds the pods of a bench: MariaDB or PostgreSQL, the two Redis servers, the bench's volume, and its sites' Secrets."""

import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time

# At the end: modules of the same names are there.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "src/runner/tests"))

import rendered  # noqa: E402
from pod import FS_GROUP, Pod  # noqa: E402
from support import PRIVILEGES, RUNNER, PostgresServer, Server  # noqa: E402

# Room for a mounted home, in bytes.
HOME_BYTES = 16 << 20


class MariaDb(Server):
    """A server with a binary log, as replicated ones have it, and a pool for many tables."""

    options = ("--innodb-buffer-pool-size=256M", "--log-bin", "--max-connections=200", "--max-allowed-packet=64M")
    engine = "mariadb"

    def add(self, name, password):
        """A database and its account, as the MariaDB operator creates them."""
        self.root(f"CREATE DATABASE {name}; CREATE OR REPLACE USER '{name}'@'%' IDENTIFIED BY '{password}'; "
                  f"GRANT {PRIVILEGES} ON `{name}`.* TO '{name}'@'%'")

    def set_password(self, name, password):
        self.root(f"ALTER USER '{name}'@'%' IDENTIFIED BY '{password}'")

    def count(self, name):
        """Number of tables and views."""
        return int(self.root(f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{name}'").stdout)

    def has(self, name):
        return name in self.root("SHOW DATABASES").stdout.split()

    def collations(self, name):
        """Collations of the tables, except for the one to which Frappe 14 itself gives another character set."""
        where = f"table_schema = '{name}' AND table_type = 'BASE TABLE' AND table_name <> '__UserSettings'"
        return set(self.root(f"SELECT DISTINCT table_collation FROM information_schema.tables WHERE {where}").stdout.split())

    def tables(self, name):
        """The text of every table, as dumped: structure and rows."""
        dump = ["mariadb-dump", "--no-defaults", f"--socket={self.folder}/socket", "--user=root", "--skip-comments", "--order-by-primary",
                "--skip-extended-insert", "--skip-dump-date", name]
        text = subprocess.run(dump, capture_output=True, check=True).stdout.decode("utf-8", "backslashreplace")
        parts = text.split("\nDROP TABLE IF EXISTS `")[1:]
        return {part.partition("`")[0]: part.partition("`")[2] for part in parts}

    def cpu(self):
        """CPU seconds of the server so far."""
        return cpu_of(self.process.pid)


class Postgres(PostgresServer):
    """A PostgreSQL server."""

    engine = "postgres"

    def add(self, name, password):
        self.root(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        self.root(f"CREATE DATABASE {name} OWNER {name}")

    def set_password(self, name, password):
        self.root(f"ALTER ROLE {name} PASSWORD '{password}'")

    def count(self, name):
        return int(self.root("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'public'", database=name).stdout)

    def collations(self, _name):
        """A database has one."""
        return {"utf8mb4_unicode_ci"}

    def has(self, name):
        return bool(self.root(f"SELECT 1 FROM pg_database WHERE datname = '{name}'").stdout.strip())

    def cpu(self):
        """CPU seconds of the server's processes that have ended or run; those of ended connections are of their parent."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return cpu_of(self.process.pid) + sum(map(cpu_of, children))


def cpu_of(process):
    """CPU seconds of a process, and of children for which it has waited."""
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Site:
    """A site's names and Secrets."""

    def __init__(self, name, identity):
        self.name, self.identity = name, identity
        self.database = name.split(".")[0].replace("-", "") + "0123456789ab"
        self.secrets = {"password": word("Database"), "admin-password": word("Admin"), "encryption-key": fernet_key()}

    def request(self, server, **more):
        place = {"host": "database", "port": server.port, "name": self.database, "type": server.engine}
        return {"site": self.name, "identity": self.identity, "apps": [], "database": place, **more}


def word(kind):
    """A password that appears nowhere by chance."""
    return f"{kind}Password{secrets.token_hex(12)}"


def fernet_key():
    import base64
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


class Cluster:
    """Servers and the volume of one bench; its Jobs are run here."""

    def __init__(self, server=MariaDb):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="real-cluster-"))
        self.server, self.redis, self.pods, self.sites = server(), {}, [], []
        self.volume = self.claim("sites")
        self.staging = self.claim("staging")
        # Folder of a SiteJob's script.
        self.script = None
        self.runner = self.folder / "runner"
        self.runner.mkdir()
        for file in RUNNER.parent.glob("*.py"):
            shutil.copy(file, self.runner)
        # Everything that pods have printed and logged.
        self.said = []

    def claim(self, name):
        """An empty volume, as a kubelet mounts it."""
        folder = self.folder / name
        folder.mkdir()
        os.chown(folder, 0, FS_GROUP)
        os.chmod(folder, 0o2775)
        return folder

    def start_redis(self, image):
        for number, name in ((2, "redis-cache"), (3, "redis-queue")):
            arguments = rendered.redis(image, name)
            data = self.folder / name
            data.mkdir(exist_ok=True)
            if "--dir" in arguments:
                arguments[arguments.index("--dir") + 1] = str(data)
            with open(self.folder / f"{name}.log", "wb") as log:
                self.redis[name] = subprocess.Popen([*arguments, "--bind", f"127.0.0.{number}", "--port", "6379"], stdout=log, stderr=log, cwd=data)
        for name in self.redis:
            until(f"{name} answers", lambda name=name: self.ask_redis(name, "PING") == "PONG")

    def ask_redis(self, name, *command):
        address = {"redis-cache": "127.0.0.2", "redis-queue": "127.0.0.3"}[name]
        return subprocess.run(["redis-cli", "-h", address, *command], capture_output=True, text=True, check=False).stdout.strip()

    def new_site(self, name, identity):
        site = Site(name, identity)
        self.server.add(site.database, site.secrets["password"])
        self.sites.append(site)
        return site

    def secrets_of(self, site):
        """A folder as a kubelet projects Secrets: each file is a link to the newest ones."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="secrets-", dir=self.folder))
        data = folder / "..2026"
        data.mkdir()
        (folder / "..data").symlink_to("..2026")
        for name, value in site.secrets.items():
            file = data / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(value)
            os.chown(file, 0, FS_GROUP)
            os.chmod(file, 0o440)
            top = name.split("/")[0]
            if not (folder / top).is_symlink():
                (folder / top).symlink_to(f"..data/{top}")
        for path in (folder, *(it for it in folder.rglob("*") if it.is_dir() and not it.is_symlink())):
            os.chown(path, 0, FS_GROUP)
            os.chmod(path, 0o2750)
        return folder

    def volumes(self, site=None):
        found = {"sites": self.volume, "runner": self.runner, "staging": self.staging, "home": HOME_BYTES, "script": self.script}
        return {**found, "secrets": self.secrets_of(site)} if site else found

    def start(self, image, container, site=None, **more):
        pod = Pod(image, container, self.volumes(site), **more)
        self.pods.append(pod)
        return pod

    def end(self, pod):
        """Keeps what the pod has printed and logged, and removes it."""
        logs = [it.read_text(errors="replace") for it in pod.folder.glob("volumes/*logs*/**/*") if it.is_file()]
        self.said.append((pod.name, "\n".join([pod.output(), pod.message.read_text(), *logs])))
        pod.close()
        self.pods.remove(pod)

    def file(self, site, name):
        return self.volume / site.name / name

    def close(self):
        for pod in list(self.pods):
            pod.close()
        for process in self.redis.values():
            process.kill()
            process.wait()
        self.server.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def until(what, true, seconds=60, every=0.1):
    """Waits until something is true, and returns it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds} s: {what}")
        time.sleep(every)
    return found


def dumped(value):
    return json.dumps(value, sort_keys=True)
