"""The operator, installed from its chart on a node, and namespaces in which a test acts as a user does.

All tests of a run share the node. OPERATOR is the path of the program `frappe-operator` that is linked statically. Needs root.
"""

import atexit
import functools
import json
import os
import secrets
import subprocess
import tempfile
import time
import unittest

import suite
from support import ROOT, Node

IMAGES = ROOT / "loadtest" / "node" / "images"
OPERATOR = "ghcr.io/frappe-operator/frappe-operator:0.1.0"
OPERATORS_NAMESPACE = "frappe-operator-system"
# Objects that Kubernetes creates and deletes by itself.
PASSING = {"events", "leases.coordination.k8s.io", "endpointslices.discovery.k8s.io", "endpoints", "events.events.k8s.io"}


def timed(what, act, *arguments):
    """Prints how long something took."""
    begun = time.monotonic()
    done = act(*arguments)
    print(f"{time.monotonic() - begun:6.1f} s: {what}", flush=True)
    return done


def until(what, seconds, seen):
    """The first value of `seen` that is true; fails after this time."""
    end = time.monotonic() + seconds
    while not (value := seen()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.5)
    return value


def start_mariadb_operator(node):
    """Starts the stand-in, which ends with the node's processes."""
    started = node.start("python3", "-u", "-", given=(ROOT / "tests/node/mariadb_operator.py").read_text())
    atexit.register(started.wait)
    atexit.register(started.kill)


@functools.cache
def installation():
    """The node on which the operator runs, until the end of the test run."""
    node = Node(f"journey-{os.getpid()}")
    atexit.register(node.close)
    archive = subprocess.run([IMAGES / "build"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([IMAGES / "operator", f"{folder}/operator.tar", os.environ["OPERATOR"], OPERATOR], check=True)
        timed("images are loaded", node.load, archive, f"{folder}/operator.tar")
    node.kubectl("apply", "--filename", "-", given=(ROOT / "loadtest/controlplane/crds/mariadb-stand-in.yaml").read_text())
    node.apply(suite.namespace(OPERATORS_NAMESPACE))
    start_mariadb_operator(node)
    values = ["--set", "operator.replicaCount=3", "--set", "operator.resources.requests.cpu=10m"]
    timed("the operator's three replicas are ready", node.run, "helm", "install", "frappe-operator", str(ROOT / "helm" / "frappe-operator"),
          "--namespace", OPERATORS_NAMESPACE, "--wait", "--timeout", "180s", *values)
    return node


@unittest.skipUnless(os.path.exists(os.environ.get("OPERATOR", "")), "OPERATOR is not the path of a program")
class Journey(unittest.TestCase):
    """A namespace with a MariaDB, named SPACE."""

    SPACE = None

    @classmethod
    def setUpClass(cls):
        cls.node = installation()
        cls.node.apply(suite.namespace(cls.SPACE), *suite.mariadb(cls.SPACE, secrets.token_hex(12)))
        cls.addClassCleanup(cls.node.kubectl, "delete", "namespace", cls.SPACE, "--wait=false")
        timed("MariaDB is ready", cls.kubectl, "rollout", "status", "statefulset/mariadb", "--timeout=120s")

    @classmethod
    def kubectl(cls, *arguments, **more):
        return cls.node.kubectl("--namespace", cls.SPACE, *arguments, **more)

    def get(self, *arguments):
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def ready(self, kind, name, seconds):
        try:
            self.kubectl("wait", "--for=condition=Ready", f"{kind}/{name}", f"--timeout={seconds}s")
        except RuntimeError as error:
            raise AssertionError(f"{error}\n{self.state(kind, name)}") from error

    def state(self, kind, name):
        """What a failed test shows of an object and its namespace."""
        status = self.kubectl("get", f"{kind}/{name}", "--output=jsonpath={.status}")
        pods = self.kubectl("get", "pods,jobs,pvc", "--output=wide")
        return f"{status}\n{pods}\n{self.kubectl('get', 'events', '--sort-by=.lastTimestamp')}"

    def change(self, kind, name, **change):
        """Merges a change into an object."""
        self.kubectl("patch", f"{kind}/{name}", "--type=merge", f"--patch={json.dumps(change)}")

    def condition(self, kind, name):
        """The Ready condition of an object; empty before it has one."""
        conditions = self.get(f"{kind}/{name}").get("status", {}).get("conditions", [])
        return next((it for it in conditions if it["type"] == "Ready"), {"status": "", "reason": "", "message": ""})

    def reason(self, kind, name, reason, seconds):
        """Waits until the Ready condition of an object has this reason."""
        try:
            until(f"{kind} {name} has reason {reason}", seconds, lambda: self.condition(kind, name)["reason"] == reason)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state(kind, name)}") from error

    def named(self, kind, name, words, seconds):
        """Waits until the message of the Ready condition contains these words; prints it."""
        def message():
            told = self.condition(kind, name)["message"]
            return told if words in told else None

        print(f"         {timed(f'{words} is named', until, f'a message with {words}', seconds, message)}", flush=True)

    def sql(self, statement):
        """Executes a statement as the server's administrator, whose password stays in the pod."""
        script = 'exec mariadb --user=root --password="$MARIADB_ROOT_PASSWORD" --batch --skip-column-names'
        return self.kubectl("exec", "--stdin", "mariadb-0", "--", "sh", "-c", script, given=statement)

    def databases(self):
        """Databases and accounts that are not the server's."""
        databases = self.sql("SELECT schema_name FROM information_schema.schemata").split()
        accounts = self.sql("SELECT DISTINCT user FROM mysql.user WHERE user NOT IN ('root', 'mariadb.sys', '')").split()
        return sorted({*databases} - {"information_schema", "mysql", "performance_schema", "sys"}), accounts

    def address(self, bench="market"):
        """The address of a bench's web Service, and its port."""
        return f"{self.get('service', f'{bench}-nginx')['spec']['clusterIP']}:8080"

    def ask(self, host, path="/", *headers):
        """The bench's response for this host: status, 0 if there is none, and body."""
        more = [part for header in headers for part in ("--header", header)]
        answer = self.node.run("curl", "--silent", "--max-time", "20", "--header", f"Host: {host}", *more, "--write-out", "\n%{http_code}",
                               f"http://{self.address()}{path}", check=False)
        body, _, status = answer.rpartition("\n")
        return int(status), body

    def reached(self, host, path="/"):
        """The response for this host once nginx's connections reach gunicorn. The node's proxy routes them up to a second later than
        pods and bench are Ready; until then nginx responds 502."""
        return until("a response of gunicorn", 10, lambda: next((it for it in [self.ask(host, path)] if it[0] != 502), None))

    def pods(self, component, bench="market"):
        """Names of a component's pods that are not being deleted."""
        items = self.get("pods", f"--selector=bench={bench},component={component}")["items"]
        return [it["metadata"]["name"] for it in items if not it["metadata"].get("deletionTimestamp")]

    def run_in(self, component, *command, given=None):
        """Runs a command in a pod of a component; returns its output."""
        return self.kubectl("exec", "--stdin", self.pods(component)[0], "--", *command, given=given)

    def settled(self, component, seconds=120, bench="market"):
        """Waits until a component is rolled out."""
        self.kubectl("rollout", "status", f"deployment/{bench}-{component}", f"--timeout={seconds}s")

    def objects(self):
        """Every object in the namespace."""
        kinds = self.node.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
        listed = self.kubectl("get", ",".join(sorted(set(kinds) - PASSING)), "--output=name", "--ignore-not-found")
        return set(listed.split())
