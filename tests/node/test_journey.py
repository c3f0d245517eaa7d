"""A bench and a site as a user has them: the operator installed from its chart, real pods, and pages requested from outside of the pods.

Real are Kubernetes, containers, volumes, MariaDB, Redis, nginx, gunicorn and rq. Frappe is the stand-in of the runner's tests, and
the MariaDB operator one that does its SQL on the server.
OPERATOR is the path of the program `frappe-operator` that is linked statically. Needs root.
"""

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
HOST = "shop.example.com"
# Objects that Kubernetes creates and deletes by itself.
PASSING = {"events", "leases.coordination.k8s.io", "endpointslices.discovery.k8s.io", "endpoints", "events.events.k8s.io"}


@unittest.skipUnless(os.path.exists(os.environ.get("OPERATOR", "")), "OPERATOR is not the path of a program")
class JourneyTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(f"journey-{os.getpid()}")
        cls.addClassCleanup(cls.node.close)
        archive = subprocess.run([IMAGES / "build"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([IMAGES / "operator", f"{folder}/operator.tar", os.environ["OPERATOR"], OPERATOR], check=True)
            cls.timed("images are loaded", cls.node.load, archive, f"{folder}/operator.tar")
        cls.node.kubectl("apply", "--filename", "-", given=(ROOT / "loadtest/controlplane/crds/mariadb-stand-in.yaml").read_text())
        cls.mariadb_operator = cls.node.start("python3", "-u", "-", given=(ROOT / "tests/node/mariadb_operator.py").read_text())
        cls.addClassCleanup(cls.mariadb_operator.wait)
        cls.addClassCleanup(cls.mariadb_operator.kill)
        chart = ROOT / "helm" / "frappe-operator"
        values = ["--set", "operator.replicaCount=3", "--set", "operator.resources.requests.cpu=10m"]
        cls.timed("the operator's three replicas are ready", cls.node.run, "helm", "install", "frappe-operator", str(chart),
                  "--namespace", "frappe-operator-system", "--create-namespace", "--wait", "--timeout", "180s", *values)

    @classmethod
    def timed(cls, what, act, *arguments):
        """Prints how long something took."""
        begun = time.monotonic()
        done = act(*arguments)
        print(f"{time.monotonic() - begun:6.1f} s: {what}", flush=True)
        return done

    def kubectl(self, *arguments):
        return self.node.kubectl("--namespace", "shop", *arguments)

    def ready(self, kind, name, seconds):
        try:
            self.kubectl("wait", "--for=condition=Ready", f"{kind}/{name}", f"--timeout={seconds}s")
        except RuntimeError as error:
            seen = self.kubectl("get", f"{kind}/{name}", "--output=jsonpath={.status}")
            pods = self.kubectl("get", "pods,jobs,pvc", "--output=wide")
            raise AssertionError(f"{error}\n{seen}\n{pods}\n{self.kubectl('get', 'events')}") from error

    def sql(self, statement):
        """Executes a statement as the server's administrator, whose password stays in the pod."""
        script = 'exec mariadb --user=root --password="$MARIADB_ROOT_PASSWORD" --batch --skip-column-names'
        return self.node.run("kubectl", "--namespace=shop", "exec", "--stdin", "mariadb-0", "--", "sh", "-c", script, given=statement)

    def ask(self, host, path="/"):
        """The bench's response for this host: status and body."""
        address = self.node.get("service", "market-nginx", "--namespace=shop")["spec"]["clusterIP"]
        url = f"http://{address}:8080{path}"
        answer = self.node.run("curl", "--silent", "--max-time", "20", "--header", f"Host: {host}", "--write-out", "\n%{http_code}", url)
        body, _, status = answer.rpartition("\n")
        return int(status), body

    def print_restarts(self):
        """Prints the last output of the bench's restarted containers."""
        for pod in self.node.get("pods", "--namespace=shop", "--selector=bench=market")["items"]:
            name = pod["metadata"]["name"]
            if any(it["restartCount"] for it in pod["status"]["containerStatuses"]):
                said = self.node.run("kubectl", "--namespace=shop", "logs", "--previous", "--tail=3", name, check=False)
                print(f"         restarted: {name}: {said.strip()}", flush=True)

    def objects(self):
        """Every object in the namespace."""
        kinds = self.node.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
        listed = self.kubectl("get", ",".join(sorted(set(kinds) - PASSING)), "--output=name", "--ignore-not-found")
        return set(listed.split())

    def databases(self):
        """Databases and accounts that are not the server's."""
        databases = self.sql("SELECT schema_name FROM information_schema.schemata").split()
        accounts = self.sql("SELECT DISTINCT user FROM mysql.user WHERE user NOT IN ('root', 'mariadb.sys', '')").split()
        return sorted({*databases} - {"information_schema", "mysql", "performance_schema", "sys"}), accounts

    def test_a_bench_and_a_site_are_created_and_deleted(self):
        self.node.apply(suite.namespace("shop"), *suite.mariadb("shop", secrets.token_hex(12)))
        self.timed("MariaDB is ready", self.kubectl, "rollout", "status", "statefulset/mariadb", "--timeout=120s")
        before, volumes = self.objects(), self.node.get("persistentvolumes")["items"]

        self.node.apply(suite.bench("market", "shop"))
        self.timed("the bench is ready", self.ready, "frappebench", "market", 240)
        self.print_restarts()
        self.assertEqual(self.ask("unknown.example.com")[0], 404)
        self.assertEqual(self.ask("unknown.example.com", "/assets/frappe/hello.txt"), (200, "served by nginx\n"))

        self.node.apply(suite.site("shop", "shop", "market", HOST))
        self.timed("the site is ready", self.ready, "frappesite", "shop", 240)
        self.assertEqual(self.ask(HOST), (200, f"<title>{HOST}</title>frappe erpnext"))
        self.assertEqual(self.ask(HOST, "/api/method/ping"), (200, json.dumps({"message": "pong"})))
        self.assertEqual(self.ask(HOST, "/socket.io/?EIO=4&transport=polling")[1][:1], "0")
        (database,), accounts = self.databases()
        self.assertEqual(accounts, [database])

        self.timed("the site is gone", self.kubectl, "delete", "frappesite/shop", "--timeout=120s")
        self.assertEqual(self.ask(HOST)[0], 404)
        self.assertEqual(self.databases(), ([], []))
        self.timed("the bench is gone", self.kubectl, "delete", "frappebench/market", "--timeout=120s")
        self.settled(before, volumes)

    def settled(self, before, volumes):
        """Waits until Kubernetes has removed the bench's objects and everything is as before."""
        end = time.monotonic() + 180
        while time.monotonic() < end and (self.objects() != before or len(self.node.get("persistentvolumes")["items"]) != len(volumes)):
            time.sleep(1)
        self.assertEqual(self.objects(), before)
        self.assertEqual(len(self.node.get("persistentvolumes")["items"]), len(volumes))


if __name__ == "__main__":
    unittest.main()
