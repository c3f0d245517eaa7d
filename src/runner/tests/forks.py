"""Runs the runner many times without the start of an interpreter for each.

One process has imported what the runner's files import, and each run is a fork of it that reads these files anew, with its own
environment, folder and output. A run's arguments and environment are not to be seen in /proc: those of `support.Bench.run` are.
"""

import atexit
import concurrent.futures
import contextlib
import functools
import importlib
import json
import os
import pathlib
import runpy
import shutil
import signal
import socket
import subprocess
import sys

RUNNER = pathlib.Path(__file__).resolve().parent.parent / "site_runner.py"
ORDER_BYTES_MAX = 1 << 16
SECONDS_MAX = 600


def run(python, arguments, environment, folder, kill_at=None):
    """Runs the runner, like `subprocess.run` with its output captured as text; with `kill_at` it is killed at that step."""
    return nursery(str(python)).run([str(RUNNER), *arguments], environment, str(folder), kill_at)


@functools.cache
def nursery(python):
    """The process of an interpreter from which runs are forked."""
    return Nursery(python)


class Nursery:
    """A process of this file, and the socket on which it gets its orders."""

    def __init__(self, python):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen([python, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True,
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})
        self.control.settimeout(SECONDS_MAX)
        atexit.register(self.end)

    def run(self, arguments, environment, folder, kill_at):
        pipes = os.pipe(), os.pipe()
        order = json.dumps([arguments, environment, folder, kill_at]).encode()
        socket.send_fds(self.control, [order], [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        # To their ends, like `subprocess.run`: a child of the runner may write longer than the runner lives.
        with concurrent.futures.ThreadPoolExecutor(len(pipes)) as pool:
            reading = pool.map(content, [read for read, _ in pipes])
            try:
                code = int(self.control.recv(ORDER_BYTES_MAX))
            except BaseException:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise
            return subprocess.CompletedProcess(arguments, code, *reading)

    def end(self):
        self.control.close()
        self.process.wait()


def content(descriptor):
    """All text of a pipe, which is closed then."""
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


class Killer:
    """Kills this process before its n-th external change: of the disk, by a statement, or by a command to Redis. The state after a
    change equals the state before the next one, so one point for each change is enough."""

    CHANGES = ((os, "replace"), (os, "rename"), (os, "makedirs"), (os, "fsync"), (os, "unlink"), (os, "symlink"), (os, "utime"), (shutil, "rmtree"),
               (shutil, "copyfileobj"), (shutil, "copytree"), (subprocess, "Popen"), (socket.socket, "sendall"))

    def __init__(self, steps):
        self.left = steps

    def start(self):
        for module, name in self.CHANGES:
            setattr(module, name, self.counted(getattr(module, name)))
        os.open = self.counted(os.open, lambda _, flags, *__, **___: flags & os.O_CREAT)

    def counted(self, function, changes=lambda *_, **__: True):
        def call(*args, **kwargs):
            if changes(*args, **kwargs):
                self.left -= 1
                if self.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call


def import_what_the_runner_does():
    """Imports the runner's files, with what they import when it is needed, and forgets them: a run reads the environment when it
    imports them."""
    folder = str(RUNNER.parent)
    sys.path[0] = folder
    importlib.import_module("site_runner")
    for late in ("redis", "rq"):
        with contextlib.suppress(ImportError):
            importlib.import_module(late)
    for name, module in list(sys.modules.items()):
        if os.path.dirname(getattr(module, "__file__", None) or "") == folder:
            del sys.modules[name]


def next_order(control):
    """Forks for each order, and returns it in the fork; None at the end."""
    while True:
        text, outputs, *_ = socket.recv_fds(control, ORDER_BYTES_MAX, 2)
        if not text:
            return None
        child = os.fork()
        if not child:
            control.close()
            for number, output in enumerate(outputs, 1):
                os.dup2(output, number)
                os.close(output)
            return json.loads(text)
        for output in outputs:
            os.close(output)
        control.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def main(descriptor):
    import_what_the_runner_does()
    ordered = next_order(socket.socket(fileno=int(descriptor)))
    if ordered is None:
        return
    sys.argv, environment, folder, kill_at = ordered
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if kill_at:
        Killer(kill_at).start()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
