"""A node for tests, and everything that it could leave on the machine."""

import json
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODE = ROOT / "loadtest" / "node" / "node"
# Folders to which a kubelet, containerd or network plugin of the machine itself would write.
FOLDERS = ["/etc/cni", "/opt/cni", "/run", "/run/containerd", "/run/netns", "/var/lib", "/var/lib/cni", "/var/lib/kubelet", "/var/log", "/var/log/pods"]


class Node:
    """A node that ends with the process that holds it."""

    def __init__(self, name):
        self.name = name
        begun = time.monotonic()
        self.held = subprocess.Popen([NODE, "hold", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = self.held.stdout.readline()
        if said.strip() != "up":
            self.held.wait()
            raise RuntimeError(f"node {name} did not come up")
        self.seconds_up = time.monotonic() - begun

    def run(self, *command, given=None, check=True):
        """Runs a command in the node's network; returns its output."""
        done = subprocess.run([NODE, "run", self.name, *command], input=given, text=True, capture_output=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *command, given, output=False):
        """Starts a program in the node's network, which ends with the node at the latest; with `output`, what it prints can be read."""
        with tempfile.TemporaryFile("w+") as text:
            text.write(given)
            text.seek(0)
            return subprocess.Popen([NODE, "run", self.name, *command], stdin=text, stdout=subprocess.PIPE if output else None, text=True)

    def load(self, *archives):
        """Imports images."""
        subprocess.run([NODE, "load", self.name, *archives], check=True)

    def reboot(self):
        done = subprocess.run([NODE, "reboot", self.name], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the node was not rebooted: {done.stderr}")

    def kubectl(self, *arguments, **more):
        return self.run("kubectl", *arguments, **more)

    def apply(self, *objects):
        self.kubectl("apply", "--filename", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, *arguments):
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def close(self):
        self.held.stdin.close()
        self.held.wait()
        self.held.stdout.close()


def lines(*command):
    """Lines of a program's output; empty if the machine does not have the program."""
    try:
        return set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())
    except FileNotFoundError:
        return set()


def settings():
    """Every kernel setting that can be read and written; the others are counters."""
    found = {}
    for path in pathlib.Path("/proc/sys").rglob("*"):
        try:
            if path.stat().st_mode & 0o200:
                found[str(path)] = path.read_text()
        except (OSError, UnicodeDecodeError):
            pass
    return found


def processes():
    """Command lines that contain the name of a node, by process id."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            shown = pathlib.Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "/nodes/" in shown or "/run/node/" in shown or "containerd-shim" in shown:
            found[entry] = shown
    return found


def on_the_machine():
    """Everything that a node could leave behind, by kind."""
    return {
        "processes": set(processes().items()),
        "mounts": {line.split(" - ")[0].split(" ", 2)[2] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()},
        "cgroups": {str(it) for it in pathlib.Path("/sys/fs/cgroup").glob("**/*node-*") if it.is_dir()},
        "links": lines("ip", "-oneline", "link"),
        "addresses": lines("ip", "-oneline", "address"),
        "routes": lines("ip", "route", "show", "table", "all"),
        "nftables": lines("nft", "list", "ruleset"),
        "iptables": lines("iptables-save"),
        "files": {str(it) for folder in FOLDERS if os.path.isdir(folder) for it in pathlib.Path(folder).iterdir()},
    }
