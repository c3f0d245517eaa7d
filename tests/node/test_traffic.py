"""What users see at 50 requests per second while pods come, go and are killed. The figures are printed."""

import json
import secrets
import time
import unittest

import suite
from installed import Journey, until
from support import ROOT

HOST = "busy.example.com"
PER_SECOND = 50


class TrafficTest(Journey):
    SPACE = "traffic"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.node.apply(suite.bench("market", cls.SPACE, componentReplicas={"gunicorn": 2, "nginx": 2}),
                       suite.site("busy", cls.SPACE, "market", HOST))

    def setUp(self):
        self.ready("frappebench", "market", 240)
        self.ready("frappesite", "busy", 240)
        until("a page", 60, lambda: self.ask(HOST)[0] == 200)

    def during(self, what, act, seconds_after=5):
        """What became of the requests during which something was done, until some seconds after it."""
        program = (ROOT / "tests/node/traffic.py").read_text()
        stop_file = f"/run/stop-traffic-{secrets.token_hex(8)}"
        arguments = [self.address(), HOST, str(PER_SECOND), stop_file]
        with self.node.start("python3", "-u", "-", *arguments, given=program, output=True) as traffic:
            try:
                time.sleep(2)
                act()
                time.sleep(seconds_after)
            finally:
                self.node.run("touch", stop_file)
            seen = json.loads(traffic.stdout.read())
        print(f"         {what}: {seen}", flush=True)
        return seen

    def evict(self, pod):
        """Whether the pod may be evicted: its PodDisruptionBudget allows it."""
        eviction = suite.thing("Eviction", pod, self.SPACE, "policy/v1")
        try:
            path = f"/api/v1/namespaces/{self.SPACE}/pods/{pod}/eviction"
            self.kubectl("create", "--filename=-", f"--raw={path}", given=json.dumps(eviction))
        except RuntimeError as error:
            self.assertIn("disruption budget", str(error))
            return False
        return True

    def evicted(self, component):
        """Evicts a component's two pods; the second is refused until the first has a successor that is ready."""
        first, second = self.pods(component)
        self.assertTrue(self.evict(first))
        self.assertFalse(self.evict(second), f"both pods of {component} are evicted at once")
        until("the second may be evicted", 120, lambda: self.evict(second))
        self.settled(component)

    def drained(self):
        """Drains the only node of the bench's web pods: the last one of each component stays, since no other node can replace it."""
        self.addCleanup(self.node.kubectl, "uncordon", "node1")
        selector = "--pod-selector=bench=market,component in (gunicorn,nginx)"
        said = self.node.kubectl("drain", "node1", selector, "--delete-emptydir-data", "--timeout=20s", check=False)
        self.assertEqual([len(self.ready_pods(component)) for component in ("gunicorn", "nginx")], [1, 1], said)
        self.node.kubectl("uncordon", "node1")
        for component in ("gunicorn", "nginx"):
            self.settled(component)

    def ready_pods(self, component):
        items = [self.get("pod", name) for name in self.pods(component)]
        return [it for it in items if any(c["type"] == "Ready" and c["status"] == "True" for c in it["status"]["conditions"])]

    def killed(self, component):
        """Kills all processes of a component's pods, one pod after another."""
        for pod in self.pods(component):
            uid = self.get("pod", pod)["metadata"]["uid"]
            script = f"kill -KILL $(grep --files-with-matches {uid} /proc/[0-9]*/cgroup | cut -d / -f 3)"
            self.node.run("sh", "-c", script, check=False)
            until("the restart", 60, lambda: any(it["restartCount"] for it in self.get("pod", pod)["status"]["containerStatuses"]))
            self.settled(component)

    def replaced(self, pod):
        """Kills a pod of a StatefulSet, until its successor is ready."""
        self.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        self.kubectl("rollout", "status", f"statefulset/{pod.removesuffix('-0')}", "--timeout=120s")

    def test_nobody_sees_another_image(self):
        def act():
            self.change("frappebench", "market", spec={"imageConfig": {"tag": "v15.2.0"}})
            tag = "--output=jsonpath={.spec.template.spec.containers[0].image}"
            for component in ("gunicorn", "nginx"):
                until(f"{component} of the image", 120, lambda: self.kubectl("get", f"deployment/market-{component}", tag).endswith(":v15.2.0"))
                self.settled(component)

        # The last old pods wait a while before they end.
        self.assertEqual(self.during("another image", act, seconds_after=15)["failed"], {})

    def test_nobody_sees_pods_that_are_evicted(self):
        for component in ("nginx", "gunicorn"):
            with self.subTest(component):
                seen = self.during(f"{component} pods are evicted", lambda: self.evicted(component), seconds_after=12)
                self.assertEqual(seen["failed"], {})

    def test_nobody_sees_a_drain(self):
        self.assertEqual(self.during("the node is drained", self.drained)["failed"], {})
        self.ready("frappebench", "market", 120)

    def test_pages_come_back_after_pods_were_killed(self):
        for component in ("nginx", "gunicorn"):
            with self.subTest(component):
                seen = self.during(f"{component} pods are killed", lambda: self.killed(component))
                self.assertLess(sum(seen["failed"].values()), seen["asked"] / 10)
                self.assertEqual(self.ask(HOST)[0], 200)

    def test_pages_come_back_after_servers_were_restarted(self):
        for pod in ("market-redis-cache-0", "market-redis-queue-0", "mariadb-0"):
            with self.subTest(pod):
                self.during(f"{pod} is killed", lambda: self.replaced(pod))
                until("a page", 60, lambda: self.ask(HOST)[0] == 200)
        self.ready("frappebench", "market", 120)


if __name__ == "__main__":
    unittest.main()
