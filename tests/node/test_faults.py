"""A bench and a site while operator, node, image, quota or memory fail them: they become or stay what they should be."""

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
        security = {"securityContext": {"readOnlyRootFilesystem": True}}
        self.node.apply(suite.bench("market", self.SPACE, security=security), suite.site("steady", self.SPACE, "market", HOST))
        killed, end = 0, time.monotonic() + 300
        while self.condition("frappesite", "steady")["status"] != "True":
            self.assertLess(time.monotonic(), end, self.state("frappesite", "steady"))
            pods = self.operators()
            self.node.kubectl("--namespace", OPERATORS_NAMESPACE, "delete", pods[killed % len(pods)], "--grace-period=0", "--force")
            killed += 1
            time.sleep(6)
        print(f"         ready, and {killed} replicas were killed", flush=True)
        self.ready("frappebench", "market", 60)
        self.assertEqual(self.reached(HOST), (200, f"<title>{HOST}</title>frappe erpnext"))
        self.node.kubectl("--namespace", OPERATORS_NAMESPACE, "rollout", "status", "deployment", "--timeout=120s")

    def test_2_a_quota_that_refuses_a_job_is_named(self):
        limit = {"hard": {"count/jobs.batch": "0"}}
        self.node.apply(suite.thing("ResourceQuota", "none", self.SPACE, spec=limit), suite.site("late", self.SPACE, "market", "late.example.com"))
        self.named("frappesite", "late", "quota", 60)
        self.assertEqual(self.ask(HOST)[0], 200)
        self.kubectl("delete", "resourcequota/none")
        timed("the site is ready", self.ready, "frappesite", "late", 240)

    def test_3_a_job_without_enough_memory_is_named_and_succeeds_with_more(self):
        def limit(memory):
            amounts = {"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": memory}}
            self.change("frappebench", "market", spec={"componentResources": {"jobs": amounts}})

        limit("16Mi")
        self.node.apply(suite.site("hungry", self.SPACE, "market", "hungry.example.com"))
        self.named("frappesite", "hungry", "OutOfMemory", 120)
        self.assertEqual(self.ask(HOST)[0], 200)
        limit("512Mi")
        timed("the site is ready", self.ready, "frappesite", "hungry", 240)
        self.assertEqual(self.ask("hungry.example.com")[0], 200)

    def test_4_an_image_that_fails_is_named_while_pods_of_the_one_before_serve(self):
        for tag, reason in (("v15.404.0", "ImagePullFailed"), ("v15.3.0", "ContainerFailing")):
            with self.subTest(reason):
                self.change("frappebench", "market", spec={"imageConfig": {"tag": tag}})
                timed(f"{reason} is the reason", self.reason, "frappebench", "market", reason, 120)
                print(f"         {self.condition('frappebench', 'market')['message']}", flush=True)
                self.assertEqual(self.ask(HOST)[0], 200)
        self.change("frappebench", "market", spec={"imageConfig": None})
        timed("the bench is ready", self.ready, "frappebench", "market", 240)
        self.assertEqual(self.reached(HOST)[0], 200)

    def test_5_everything_is_there_after_the_node_was_rebooted(self):
        timed("the node is rebooted", self.node.reboot)
        start_mariadb_operator(self.node)
        timed("pages are served", until, "a page", 240, lambda: self.ask(HOST)[0] == 200)
        timed("the bench is ready", self.ready, "frappebench", "market", 240)
        self.ready("frappesite", "steady", 60)
        self.ready("frappesite", "late", 60)
        self.assertEqual(self.ask("late.example.com")[0], 200)
        jobs = self.get("jobs")["items"]
        unsuccessful = [it["metadata"]["name"] for it in jobs if not it.get("status", {}).get("succeeded")]
        self.assertEqual([it for it in unsuccessful if not it.startswith("hungry-")], [])


if __name__ == "__main__":
    unittest.main()
