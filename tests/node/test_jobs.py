"""Jobs of real workers: each one runs once, also if its worker's pod or Redis is replaced meanwhile."""

import unittest

import suite
from installed import Journey, timed, until

HOST = "jobs.example.com"
PYTHON = "/home/frappe/frappe-bench/env/bin/python"
QUEUES = ["default", "short", "long"]


class JobsTest(Journey):
    SPACE = "jobs"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.node.apply(suite.bench("market", cls.SPACE))

    def setUp(self):
        self.ready("frappebench", "market", 240)

    def enqueue(self, queue, names, seconds):
        program = f"import frappe.background as it; [it.enqueue({queue!r}, name, {seconds}) for name in {names!r}]"
        self.run_in("gunicorn", PYTHON, "-c", program)

    def runs(self):
        """How often each job has run."""
        listed = self.run_in("gunicorn", "sh", "-c", "cd sites/ran 2>/dev/null && wc -l * || true").splitlines()
        counts = [line.split() for line in listed]
        return {name: int(count) for count, name in counts if name != "total"}

    def ran_once(self, names, seconds):
        until("each job has run", seconds, lambda: set(names) <= set(self.runs()))
        self.assertEqual({name: count for name, count in self.runs().items() if name in names}, dict.fromkeys(names, 1))

    def test_each_queue_has_a_worker(self):
        for queue in QUEUES:
            self.enqueue(queue, [f"one-{queue}"], 0)
        timed("a job of each queue has run", self.ran_once, [f"one-{queue}" for queue in QUEUES], 60)

    def test_a_job_is_ended_before_its_worker_goes(self):
        self.enqueue("long", ["slow"], 20)
        until("it is running", 30, lambda: self.run_in("gunicorn", "sh", "-c", "ls sites/started 2>/dev/null || true").split())
        timed("the pod of a worker with a job of 20 s is gone", self.kubectl, "delete", "pod", self.pods("worker-long")[0])
        self.ran_once(["slow"], 30)

    def test_jobs_survive_new_pods_of_workers_and_redis(self):
        names = {queue: [f"{queue}-{number}" for number in range(15)] for queue in QUEUES}
        for queue in QUEUES:
            self.enqueue(queue, names[queue], 1)
        for queue in QUEUES:
            self.kubectl("delete", "pod", self.pods(f"worker-{queue}")[0], "--wait=false")
        self.kubectl("delete", "pod", "market-redis-queue-0")
        timed("all jobs have run", self.ran_once, sum(names.values(), []), 180)


if __name__ == "__main__":
    unittest.main()
