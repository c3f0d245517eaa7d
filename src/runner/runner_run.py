"""Runs a command of Frappe, a method or a script for a site, once, in a process of its own.

Nothing of the request is interpreted by a shell: arguments are a list. What the process prints is redacted and bounded before it is shown: its
beginning is in the log of the pod, its end in the termination message. The result of a method is its JSON, if that is short.
"""

import hashlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time

from runner_apps import refuse_lost_apps
from runner_common import Failure, RedactedOutput, read_file, redact, secret
from runner_maintenance import begin_run, end_run, held, refuse_half_updated, settle_restore
from runner_site import ready_site
from runner_volume import SITES

SCRIPTS = os.environ.get("SITE_RUNNER_SCRIPTS", "/run/frappe-script")
COMMAND = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# A method: modules and a function.
METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")
# Control characters except those of lines and tabs, as the API server refuses them, too.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Some of Frappe's commands read which site is meant from an option of their own, too.
OTHER_SITE = re.compile(r"--site(=.*)?", re.DOTALL)
# A termination message has 4096 bytes, of which this is for the result.
RESULT_BYTES_MAX = 1024
# How much of a result is read from the process.
READ_RESULT_BYTES_MAX = 16 * RESULT_BYTES_MAX
READ_BYTES = 1 << 16
# How long a process may take to end after SIGTERM, and its children to close the output after its end.
GRACE_SECONDS = float(os.environ.get("SITE_RUNNER_GRACE_SECONDS", "10"))
CLOSE_SECONDS = 2
# Entries of a configuration that are secret, by their names; shorter values are no secrets.
SECRET_NAME = re.compile(r"(?i).*(password|passwd|secret|token|credential|_key|^key)s?$")
SECRET_CHARACTERS_MIN = 4
# The user and password of a URL.
ACCOUNT = re.compile(r"[a-z+]+://[^/@\s]*:([^/@\s]+)@")


def run(request):
    """Runs what is asked for; with `settle` it only ends the maintenance mode that an interrupted run has left."""
    site = ready_site(request)
    settle_restore(site)
    if request.get("settle"):
        return "settled"
    refuse_half_updated(site)
    if held(site):
        raise Failure("UpdateRequired", "state", f"{site.name} is held until it is updated")
    refuse_lost_apps()
    link_assets()
    know_secrets(site, request.get("secret_config", []))
    asked = request["run"]
    process = process_of(site, asked)
    if request.get("maintenance"):
        begin_run(site)
    try:
        ran = Run(process, request).until_its_end()
    finally:
        if request.get("maintenance"):
            end_run(site)
    return judged(ran)


def link_assets():
    """A pod that has only the site's directory of the bench's sites lacks the link to the image's assets."""
    link = os.path.join(SITES, "assets")
    if not os.path.lexists(link) and os.path.isdir("assets"):
        os.symlink(os.path.abspath("assets"), link)


def know_secrets(site, keys):
    """Redacts the secrets of the site's and the bench's configuration from now on."""
    for path in (site.config_path, os.path.join(SITES, "common_site_config.json")):
        know_secrets_of(json.loads(read_file(path) or "{}"), keys)


def know_secrets_of(value, keys, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            know_secrets_of(inner, keys, key)
    elif isinstance(value, list):
        for inner in value:
            know_secrets_of(inner, keys, name)
    elif isinstance(value, str):
        found = [value] if name in keys or SECRET_NAME.fullmatch(name) else ACCOUNT.findall(value)
        secret.known.update(it for it in found if len(it) >= SECRET_CHARACTERS_MIN)


class Process:
    """What is started: its arguments, and what it reads from standard input."""

    def __init__(self, name, program, arguments=(), request=None):
        here = os.path.dirname(os.path.abspath(__file__))
        self.name = name
        self.arguments = [sys.executable, "-u", os.path.join(here, program), *arguments]
        self.text = "" if request is None else json.dumps(request)


def process_of(site, asked):
    """The process for what is asked."""
    if "command" in asked:
        name, *arguments = asked["command"]
        if not COMMAND.fullmatch(name):
            raise Failure("RequestInvalid", "request", "command must be the name of a command of Frappe")
        if any(CONTROL.search(it) or OTHER_SITE.fullmatch(it) for it in arguments):
            raise Failure("RequestInvalid", "request", "args must have no control characters, and must not contain --site")
        return Process(name, "runner_frappe.py", ["frappe", "--site", site.name, name, *arguments])
    if "method" in asked:
        if not METHOD.fullmatch(asked["method"]):
            raise Failure("RequestInvalid", "request", "method must be the path of a Python function, such as frappe.utils.now")
        return Process(asked["method"], "runner_call.py", [], {"site": site.name, **asked})
    return Process("script", "runner_call.py", [], {"site": site.name, "script": script(asked), "name": asked["script"]})


def script(asked):
    """The text of the script, which must be the one that was meant."""
    try:
        with open(os.path.join(SCRIPTS, "script"), "rb") as file:
            text = file.read()
    except FileNotFoundError:
        raise Failure("ScriptMissing", "script", f"the ConfigMap {asked['config_map']} does not exist, or lacks the key {asked['script']}") from None
    if asked.get("sha256") and hashlib.sha256(text).hexdigest() != asked["sha256"]:
        raise Failure("ScriptChanged", "script", f"the key {asked['script']} of the ConfigMap {asked['config_map']} is not the script that script.sha256 names")
    return text.decode("utf-8", errors="strict")


class Run:
    """A process, from its start to its end."""

    def __init__(self, process, request):
        self.name, self.process, self.seconds = process.name, process, request["timeout_seconds"]
        shown = request.get("output_bytes", 0) if request.get("capture", True) else 0
        self.output = RedactedOutput(sys.stdout, shown, request.get("capture", True))
        self.result, self.told, self.late = b"", False, False

    def until_its_end(self):
        """Starts the process and reads what it prints until it ends, or is ended."""
        output, write = os.pipe()
        result, write_result = os.pipe()
        environment = {**os.environ, "SITE_RUNNER_RESULT": str(write_result)}
        self.child = subprocess.Popen(self.process.arguments, cwd=SITES, env=environment, stdin=subprocess.PIPE, stdout=write, stderr=write,
                                      pass_fds=[write_result], start_new_session=True)
        os.close(write)
        os.close(write_result)
        told, tells = os.pipe()
        former = signal.signal(signal.SIGTERM, lambda *_: os.write(tells, b"x"))
        try:
            threading.Thread(target=self.give_input, daemon=True).start()
            self.read(output, result, told)
        finally:
            signal.signal(signal.SIGTERM, former)
            self.kill(signal.SIGKILL)
            self.code = self.child.wait()
            for handle in (output, result, told, tells):
                os.close(handle)
        self.output.close()
        return self

    def give_input(self):
        try:
            self.child.stdin.write(self.process.text.encode())
            self.child.stdin.close()
        except OSError:
            pass

    def kill(self, number):
        """Sends a signal to the process and all that it has started in its session."""
        try:
            os.killpg(self.child.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def read(self, output, result, told):
        """Reads both pipes until the process has ended. One that takes too long is ended; one that it has left behind is not waited for."""
        ended, tells = os.pipe()
        threading.Thread(target=self.tell_end, args=(tells,), daemon=True).start()
        end, ending = time.monotonic() + self.seconds, False
        with selectors.DefaultSelector() as selector:
            for handle in (output, result, ended, told):
                selector.register(handle, selectors.EVENT_READ)
            while any(it.fd != told for it in selector.get_map().values()):
                ready = selector.select(max(end - time.monotonic(), 0))
                has_ended = ended not in selector.get_map()
                if not ready and has_ended:
                    break
                if not ready or any(key.fd == told for key, _ in ready):
                    self.told, self.late = self.told or bool(ready), self.late or not (ready or self.told)
                    self.kill(signal.SIGKILL if ending else signal.SIGTERM)
                    end, ending = time.monotonic() + GRACE_SECONDS, True
                for key, _ in ready:
                    data = os.read(key.fd, READ_BYTES)
                    if key.fd == output:
                        self.output.write(data)
                    elif key.fd == result:
                        self.result += data[: max(READ_RESULT_BYTES_MAX - len(self.result), 0)]
                    elif key.fd == ended:
                        end = time.monotonic() + CLOSE_SECONDS
                    if not data or key.fd == told:
                        selector.unregister(key.fd)
        os.close(ended)

    def tell_end(self, handle):
        self.child.wait()
        os.close(handle)


def judged(ran):
    """The result of a run, or its failure; both with what is known of it."""
    known = {"exit": ran.code}
    if ran.output.keeps:
        known.update(output=ran.output.tail, omitted=ran.output.omitted)
    if ran.told:
        raise failed("JobStopped", ran.name, "the pod was stopped before it ended", known)
    if ran.late:
        raise failed("DeadlineExceeded", ran.name, f"it did not end within {ran.seconds} s", known)
    if ran.code != 0:
        # What it printed may be personal, and this message is in conditions and Events.
        raise failed("CommandFailed", ran.name, f"signal {-ran.code}" if ran.code < 0 else f"exit code {ran.code}", known)
    if ran.result and ran.output.keeps:
        known["value"] = value_of(ran.result)
    return {"run": known}


def failed(code, step, error, known):
    failure = Failure(code, step, error)
    failure.run = known
    return failure


def value_of(text):
    """The JSON of a result without secrets; of a long one only that it is."""
    try:
        value = redacted(json.loads(text.decode()))
        shown = json.dumps(value, ensure_ascii=False)
    except ValueError:
        shown = ""
    if not shown or len(shown.encode()) > RESULT_BYTES_MAX:
        print(f"the result has more than {RESULT_BYTES_MAX} bytes of JSON: print what is wanted of it instead")
        return None
    return shown


def redacted(value):
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redacted(it) for it in value]
    if isinstance(value, dict):
        return {redact(key): redacted(inner) for key, inner in value.items()}
    return value
