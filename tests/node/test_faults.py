"""A bench and a site while the operator, the node or a quota fail them: they become or stay what they should be."""

import time
import unittest

import suite
from installed import OPERATORS_NAMESPACE, Journey, start_mariadb_operator, timed, until

HOST = "steady.example.com"


class FaultsTest(Journey):
    SPACE = "faults"

    def operators(self):
        listed = self.node.kubectl("--namespace", OPERATORS_NAMESPACE, "get", "pods", "--output=name")
        return listed.split()

    def test_1_a_bench_and_a_site_are_created_while_replicas_are_killed(self):
        self.node.apply(suite.bench("market", self.SPACE), suite.site("steady", self.SPACE, "market", HOST))
        killed, end = 0, time.monotonic() + 300
        while self.condition("frappesite", "steady")["status"] != "True":
            self.assertLess(time.monotonic(), end, self.state("frappesite", "steady"))
            pods = self.operators()
            self.node.kubectl("--namespace", OPERATORS_NAMESPACE, "delete", pods[killed % len(pods)], "--grace-period=0", "--force")
            killed += 1
            time.sleep(6)
        print(f"         ready, and {killed} replicas were killed", flush=True)
        self.ready("frappebench", "market", 60)
        self.assertEqual(self.ask(HOST), (200, f"<title>{HOST}</title>frappe erpnext"))
        self.node.kubectl("--namespace", OPERATORS_NAMESPACE, "rollout", "status", "deployment", "--timeout=120s")

    def test_2_a_quota_that_refuses_a_job_is_named(self):
        limit = {"hard": {"count/jobs.batch": "0"}}
        self.node.apply(suite.thing("ResourceQuota", "none", self.SPACE, spec=limit), suite.site("late", self.SPACE, "market", "late.example.com"))
        message = timed("the quota is named", until, "a message about the quota", 60,
                        lambda: "quota" in self.condition("frappesite", "late")["message"] and self.condition("frappesite", "late")["message"])
        print(f"         {message}", flush=True)
        self.assertEqual(self.ask(HOST)[0], 200)
        self.kubectl("delete", "resourcequota/none")
        timed("the site is ready", self.ready, "frappesite", "late", 240)

    def test_3_everything_is_there_after_the_node_was_rebooted(self):
        timed("the node is rebooted", self.node.reboot)
        start_mariadb_operator(self.node)
        timed("pages are served", until, "a page", 240, lambda: self.ask(HOST)[0] == 200)
        timed("the bench is ready", self.ready, "frappebench", "market", 240)
        self.ready("frappesite", "steady", 60)
        self.ready("frappesite", "late", 60)
        self.assertEqual(self.ask("late.example.com")[0], 200)
        jobs = self.get("jobs")["items"]
        self.assertEqual([it["metadata"]["name"] for it in jobs if not it.get("status", {}).get("succeeded")], [])


if __name__ == "__main__":
    unittest.main()
