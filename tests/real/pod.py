"""A container of a rendered pod, in namespaces of this machine: read-only root, an arbitrary user, the mounts and the environment of the
rendered object. Servers of the tests and all pods share the loopback of the suite's own network namespace; names of Services are in the
containers' /etc/hosts."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BENCH_PATH = "/home/frappe/frappe-bench"
# A user that no file of the image knows, in the group root, as OpenShift chooses it; USER=1000:1000 is the image's own.
USER, USER_GROUP = map(int, os.environ.get("REAL_USER", "1000660000:0").split(":"))
FS_GROUP = USER if USER != 1000 else 1000
# Folders that a container with a read-only root has beside those of the rendered object.
WRITTEN = {"nginx": ("/etc/nginx/conf.d", "/var/lib/nginx", "/run"), "bench": (f"{BENCH_PATH}/config/pids",)}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTS = {"localhost": "127.0.0.1", "prod-redis-cache": "127.0.0.2", "prod-redis-queue": "127.0.0.3", "prod-gunicorn": "127.0.0.1",
         "prod-socketio": "127.0.0.1", "prod-nginx": "127.0.0.1", "database": "127.0.0.1"}
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}


class Image:
    """A bench's folder with layers over it, the scripts of the image, and what these need of the machine."""

    def __init__(self, bench, *layers):
        self.bench, self.layers = pathlib.Path(bench).resolve(), list(layers)
        self.python = self.bench / "env/bin/python"
        self.version = re.search(r'__version__ = "([^"]+)"', (self.bench / "apps/frappe/frappe/__init__.py").read_text())[1]
        self.major = int(self.version.split(".")[0])
        self.folders = {}
        self.path = PATH
        self.add_prefix(self.python)
        self.add_scripts()

    def with_layers(self, *layers):
        """The same image with more layers."""
        made = Image.__new__(Image)
        made.__dict__.update(self.__dict__)
        made.layers = [*layers, *self.layers]
        return made

    def add_prefix(self, python):
        """The interpreter of a virtual environment may be anywhere on the machine."""
        code = "import sys; print(sys.prefix); print(sys.base_prefix)"
        prefixes = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for prefix in prefixes:
            if not prefix.startswith(("/usr", BENCH_PATH, str(self.bench))):
                self.folders[prefix] = prefix

    def add_scripts(self):
        """The image's own scripts and templates, or those of the test's image; `bench` of the machine, or of the test's image."""
        given = pathlib.Path(os.environ.get("REAL_IMAGE") or ROOT / "loadtest/node/images/bench").resolve()
        self.scripts = given
        for source, target in (("usr/local/bin", "/opt/image/bin"), ("templates", "/templates"), ("etc/nginx/nginx.conf", "/etc/nginx/nginx.conf"),
                               ("etc/nginx/snippets", "/etc/nginx/snippets")):
            if (given / source).exists():
                self.folders[str(given / source)] = target
        cli = shutil.which(os.environ.get("REAL_BENCH_CLI", "bench"))
        self.path = f"/opt/image/bin:{PATH}"
        self.has_cli = bool(cli)
        if cli:
            cli = pathlib.Path(cli).absolute()
            self.path = f"{cli.parent}:{self.path}"
            self.add_prefix(cli.read_text().split("\n")[0][2:].strip())


class Pod:
    """One running container."""

    def __init__(self, image, container, volumes, command=None, name="", **environment):
        """`container` is rendered; `volumes` are folders, or None for memory, by the name of the volume."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="real-pod-"))
        self.container, self.name = container, name or container["name"]
        self.log = self.folder / "log"
        self.message = self.folder / "termination-log"
        self.message.touch()
        os.chmod(self.message, 0o666)
        (self.folder / "root").mkdir()
        self.volumes = volumes
        home = "/home/frappe" if USER == 1000 else "/"
        rendered = {it["name"]: it["value"] for it in container.get("env", [])}
        if USER != 1000 and container["command"][0] == "bench":
            # As the operator renders it for another user than the image's: `bench` asks for the user's name.
            rendered["USER"] = "frappe"
        spec = {
            "root": str(self.folder / "root"), "bench": BENCH_PATH, "layers": [str(it) for it in (*image.layers, image.bench)], "image": image.folders,
            "volumes": [*self.mounts(), {"source": str(self.message), "path": "/dev/termination-log"}], "user": USER, "userGroup": USER_GROUP,
            "group": FS_GROUP, "hosts": {**HOSTS, **environment.pop("hosts", {})}, "directory": container.get("workingDir", BENCH_PATH),
            "command": command or [*container["command"], *container.get("args", [])],
            "environment": {"PATH": image.path, "LANG": "C.UTF-8", "HOME": home, **rendered, **environment},
        }
        (self.folder / "spec").write_text(json.dumps(spec))
        self.begun = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--propagation", "private", sys.executable,
                                             str(HERE / "pod_init.py"), str(self.folder / "spec")], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.code = self.cpu = self.seconds = None
        self.is_killed = False

    def mounts(self):
        """Mounts of the rendered container, and those of a read-only root."""
        found = []
        for mount in self.container["volumeMounts"]:
            source = self.volumes.get(mount["name"])
            if isinstance(source, int):
                found.append({"path": mount["mountPath"], "memory": source})
                continue
            folder = pathlib.Path(source or self.empty(mount["name"])) / mount.get("subPath", "")
            found.append({"source": str(folder), "path": mount["mountPath"], "readOnly": mount.get("readOnly", False)})
        program = "bench" if self.container["command"][0] == "bench" else self.container["name"]
        for path in (f"{BENCH_PATH}/config", *WRITTEN.get(program, ())):
            found.append({"source": str(self.empty(path.strip("/").replace("/", "-"))), "path": path})
        # A mount over another's parent would hide it.
        return sorted(found, key=lambda it: it["path"])

    def empty(self, name):
        """A folder that exists as long as the pod."""
        folder = self.folder / "volumes" / name
        folder.mkdir(parents=True)
        os.chown(folder, 0, FS_GROUP)
        os.chmod(folder, 0o2777)
        return folder

    def first(self):
        """Process id of the container's process 1, as the machine sees it; None if it does not run."""
        try:
            return int(pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])
        except (OSError, IndexError):
            return None

    def send(self, number):
        """Sends a signal to process 1; SIGKILL ends the whole pod."""
        if first := self.first():
            os.kill(first, number)
            self.is_killed = self.is_killed or number == signal.SIGKILL

    def wait(self, seconds=None):
        """Waits for the end. Exit code of process 1; CPU seconds of all that it waited for."""
        end = None if seconds is None else time.monotonic() + seconds
        while self.code is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG if end else 0)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                # The program that starts the namespaces does not always end as its child.
                self.code = -signal.SIGKILL if self.is_killed else self.process.returncode
                self.cpu, self.seconds = usage.ru_utime + usage.ru_stime, time.monotonic() - self.begun
            elif time.monotonic() > end:
                return None
            else:
                time.sleep(0.02)
        return self.code

    def output(self):
        return self.log.read_text(errors="replace")

    def result(self):
        """The termination message, or {}."""
        text = self.message.read_text()
        return json.loads(text) if text else {}

    def run(self, *command):
        """Runs a command in the container, as its user, as the kubelet does for a probe; returns exit code and output."""
        first = self.first()
        if not first:
            return 1, "the container does not run"
        enter = ["nsenter", "--target", str(first), "--mount", "--pid", "--root", f"--wd=/proc/{first}/cwd", "--setgid", str(USER_GROUP), "--setuid", str(USER)]
        done = subprocess.run([*enter, "env", f"PATH={PATH}", *command], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def answers(self, kind="readinessProbe"):
        """Whether the container's probe succeeds; also if it has none."""
        probe = self.container.get(kind)
        if not probe:
            return self.first() is not None
        if "exec" in probe:
            return self.run(*probe["exec"]["command"])[0] == 0
        port = self.container["ports"][0]["containerPort"]
        try:
            if "tcpSocket" in probe:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            else:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{probe['httpGet']['path']}", timeout=1).close()
        except (OSError, urllib.error.URLError):
            return False
        return True

    def close(self):
        """Kills what still runs, and removes the pod's folders."""
        if self.code is None and self.process.poll() is None:
            self.send(signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
