"""What users see at 50 requests per second while pods come, go and are killed. The figures are printed."""

import json
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

    def during(self, what, seconds, act):
        """What became of the requests of so many seconds, during which something is done."""
        program = (ROOT / "tests/node/traffic.py").read_text()
        arguments = [self.address(), HOST, str(PER_SECOND), str(seconds)]
        with self.node.start("python3", "-u", "-", *arguments, given=program, output=True) as traffic:
            act()
            seen = json.loads(traffic.stdout.read())
        print(f"         {what}: {seen}", flush=True)
        return seen

    def deleted(self, component):
        """Deletes a component's pods one after another, each when the one before has a successor that is ready."""
        for pod in self.pods(component):
            self.kubectl("delete", "pod", pod)
            self.settled(component)

    def killed(self, component):
        """Kills all processes of a component's pods, one pod after another."""
        for pod in self.pods(component):
            uid = self.get("pod", pod)["metadata"]["uid"]
            script = f"kill -KILL $(grep --files-with-matches {uid} /proc/[0-9]*/cgroup | cut -d / -f 3)"
            self.node.run("sh", "-c", script, check=False)
            until("the restart", 60, lambda: any(it["restartCount"] for it in self.get("pod", pod)["status"]["containerStatuses"]))
            self.settled(component)

    def test_nobody_sees_another_image(self):
        def act():
            self.change("frappebench", "market", spec={"imageConfig": {"tag": "v15.2.0"}})
            tag = "--output=jsonpath={.spec.template.spec.containers[0].image}"
            for component in ("gunicorn", "nginx"):
                until(f"{component} of the image", 120, lambda: self.kubectl("get", f"deployment/market-{component}", tag).endswith(":v15.2.0"))
                self.settled(component)

        self.assertEqual(self.during("another image", 90, act)["failed"], {})

    def test_nobody_sees_pods_that_are_deleted(self):
        for component in ("nginx", "gunicorn"):
            with self.subTest(component):
                seen = self.during(f"{component} pods are deleted", 40, lambda: self.deleted(component))
                self.assertEqual(seen["failed"], {})

    def test_pages_come_back_after_pods_were_killed(self):
        for component in ("nginx", "gunicorn"):
            with self.subTest(component):
                seen = self.during(f"{component} pods are killed", 40, lambda: self.killed(component))
                self.assertLess(sum(seen["failed"].values()), seen["asked"] / 10)
                self.assertEqual(self.ask(HOST)[0], 200)

    def test_pages_come_back_after_servers_were_restarted(self):
        for pod in ("market-redis-cache-0", "market-redis-queue-0", "mariadb-0"):
            with self.subTest(pod):
                self.during(f"{pod} is killed", 30, lambda: self.kubectl("delete", "pod", pod, "--grace-period=0", "--force"))
                until("a page", 60, lambda: self.ask(HOST)[0] == 200)
        self.ready("frappebench", "market", 120)


if __name__ == "__main__":
    unittest.main()
