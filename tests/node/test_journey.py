"""A bench and a site as a user has them: created, requested from outside of the pods, and deleted without leaving anything.

Real are Kubernetes, containers, volumes, MariaDB, Redis, nginx, gunicorn and rq. Frappe is the stand-in of the runner's tests, and
the MariaDB operator one that does its SQL on the server.
"""

import json
import time
import unittest

import suite
from installed import Journey, timed

HOST = "shop.example.com"


class JourneyTest(Journey):
    SPACE = "shop"

    def print_restarts(self):
        """Prints the last output of the bench's restarted containers."""
        for pod in self.get("pods", "--selector=bench=market")["items"]:
            name = pod["metadata"]["name"]
            if any(it["restartCount"] for it in pod["status"]["containerStatuses"]):
                said = self.kubectl("logs", "--previous", "--tail=3", name, check=False)
                print(f"         restarted: {name}: {said.strip()}", flush=True)

    def volumes(self):
        return len([it for it in self.node.get("persistentvolumes")["items"] if it["spec"]["claimRef"]["namespace"] == self.SPACE])

    def test_a_bench_and_a_site_are_created_and_deleted(self):
        before, volumes = self.objects(), self.volumes()

        self.node.apply(suite.bench("market", self.SPACE))
        timed("the bench is ready", self.ready, "frappebench", "market", 240)
        self.print_restarts()
        self.assertEqual(timed("gunicorn is reached", self.reached, "unknown.example.com")[0], 404)
        self.assertEqual(self.ask("unknown.example.com", "/assets/frappe/hello.txt"), (200, "served by nginx\n"))

        self.node.apply(suite.site("shop", self.SPACE, "market", HOST))
        timed("the site is ready", self.ready, "frappesite", "shop", 240)
        self.assertEqual(self.ask(HOST), (200, f"<title>{HOST}</title>frappe erpnext"))
        self.assertEqual(self.ask(HOST, "/api/method/ping"), (200, json.dumps({"message": "pong"})))
        self.assertEqual(self.ask(HOST, "/socket.io/?EIO=4&transport=polling")[1][:1], "0")
        (database,), accounts = self.databases()
        self.assertEqual(accounts, [database])

        timed("the site is gone", self.kubectl, "delete", "frappesite/shop", "--timeout=120s")
        self.assertEqual(self.ask(HOST)[0], 404)
        self.assertEqual(self.databases(), ([], []))
        timed("the bench is gone", self.kubectl, "delete", "frappebench/market", "--timeout=120s")
        self.wait_until_nothing_is_left(before, volumes)

    def wait_until_nothing_is_left(self, before, volumes):
        """Waits until Kubernetes has removed the bench's objects and everything is as before."""
        end = time.monotonic() + 180
        while time.monotonic() < end and (self.objects() != before or self.volumes() != volumes):
            time.sleep(1)
        self.assertEqual(self.objects(), before)
        self.assertEqual(self.volumes(), volumes)


if __name__ == "__main__":
    unittest.main()
