"""The verb `hold`: sites whose schema is not the image's are in maintenance mode, and no worker runs one of their jobs."""

import fcntl
import json
import shutil
import time
import unittest

from support import KILLED, Steps
from test_jobs import BENCH_ID, OTHER_SITE, QUEUES, JobsCase

FITS, OUTDATED, UNKNOWN = "fits.example.com", "outdated.example.com", "unknown.example.com"
SITES = 120
STEPS_MAX = 100


class HoldTest(JobsCase):
    def setUp(self):
        super().setUp()
        self.bench.add_code("frappe", "p1")
        self.done("configure", {"common_site_config": {}})
        self.code = self.bench.termination()["result"]["code"]
        shutil.rmtree(self.bench.site())
        for site, schema in ((FITS, self.code["frappe"]["schema"]), (OUTDATED, "0" * 16), (OTHER_SITE, "1" * 16), (UNKNOWN, None)):
            self.add(site, schema)

    def folder(self, site, name=""):
        return self.bench.folder / "sites" / site / name

    def add(self, site, schema, config=None, state="ready id-1"):
        self.folder(site).mkdir(exist_ok=True)
        self.folder(site, ".operator-state").write_text(f"{state}\n")
        self.folder(site, "site_config.json").write_text(json.dumps(config or {"db_name": "x", "pause_scheduler": 0}))
        if schema:
            schemas = self.bench.folder / "sites/.schemas"
            schemas.mkdir(exist_ok=True)
            (schemas / site).write_text(json.dumps({"identity": "id-1", "apps": {"frappe": {"version": "1", "schema": schema}}}))

    def config_of(self, site):
        return json.loads(self.folder(site, "site_config.json").read_text())

    def hold(self, **more):
        self.done("hold", more)
        return self.bench.termination()["result"]

    def aside(self, site):
        return self.redis("LLEN", f"frappe-operator:set-aside:{BENCH_ID}:{site}")

    def is_held(self, site):
        return self.config_of(site) == {"db_name": "x", "maintenance_mode": 1, "pause_scheduler": 1}

    def test_only_outdated_sites_are_held(self):
        for site in (FITS, OUTDATED, OTHER_SITE, UNKNOWN):
            self.enqueue(*self.inserts(5, site))
        self.add("half.example.com", "0" * 16, state="creating id-1")
        self.add("foreign.example.com", "0" * 16, state="ready id-2")
        self.assertEqual(self.hold(drain_seconds=5), {"done": "held", "held": 2, "released": 0})
        self.assertEqual([self.is_held(site) for site in (OUTDATED, OTHER_SITE)], [True, True])
        self.assertEqual(json.loads(self.folder(OUTDATED, ".operator-held").read_text())["before"], {"pause_scheduler": 0})
        for site in (FITS, UNKNOWN, "half.example.com", "foreign.example.com"):
            self.assertEqual(self.config_of(site), {"db_name": "x", "pause_scheduler": 0}, site)
        self.assertEqual([self.aside(site) for site in (FITS, OUTDATED, OTHER_SITE, UNKNOWN)], ["0", "5", "5", "0"])
        self.assertEqual(len([job for queue in QUEUES for job in self.queued(queue)]), 10)
        self.enqueue(*self.inserts(2, OUTDATED, prefix="later"))
        self.assertEqual(self.hold(), {"done": "held", "held": 2, "released": 0})
        self.assertEqual(json.loads(self.folder(OUTDATED, ".operator-held").read_text())["before"], {"pause_scheduler": 0}, "not those of the hold")
        self.assertEqual(self.aside(OUTDATED), "7")

    def test_the_entries_before_a_restore_are_kept(self):
        self.folder(OUTDATED, ".operator-restoring").write_text(json.dumps({"run": "x", "before": {"maintenance_mode": 0}, "waiting": False}))
        self.hold()
        self.assertEqual(json.loads(self.folder(OUTDATED, ".operator-held").read_text())["before"], {"maintenance_mode": 0})

    def test_a_locked_site_is_tried_again_and_then_fails_the_job(self):
        with open(self.folder(OUTDATED, ".operator-lock"), "w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self.assertEqual(self.bench.run("hold", {"drain_seconds": 2}).returncode, 75)
            failed = self.bench.termination()
            self.assertEqual((failed["code"], OUTDATED in failed["error"]), ("SiteLocked", True))
            self.assertEqual([self.is_held(site) for site in (OUTDATED, OTHER_SITE)], [False, True])
            self.add(OTHER_SITE, "1" * 16)
            process = self.bench.start("hold", {"drain_seconds": 30})
            self.until(lambda: self.is_held(OTHER_SITE))
            time.sleep(2)
            self.assertIsNone(process.poll())
        process.communicate(timeout=30)
        self.assertEqual(self.bench.termination()["result"], {"done": "held", "held": 2, "released": 0})
        self.assertTrue(self.is_held(OUTDATED))

    def test_a_site_that_fits_again_is_released(self):
        """The image was set back."""
        self.enqueue(*self.inserts(5, OUTDATED), *self.inserts(3, OTHER_SITE))
        before = [self.queued(queue) for queue in QUEUES]
        self.hold()
        self.add(OUTDATED, self.code["frappe"]["schema"], config=self.config_of(OUTDATED))
        self.add(OTHER_SITE, self.code["frappe"]["schema"], config=self.config_of(OTHER_SITE))
        self.folder(OTHER_SITE, ".operator-update").write_text('{"phase": "migrating"}')
        self.assertEqual(self.hold(), {"done": "held", "held": 0, "released": 1})
        self.assertEqual(self.config_of(OUTDATED), {"db_name": "x", "pause_scheduler": 0})
        self.assertEqual([path.name for path in self.folder(OUTDATED).glob(".operator-held")], [])
        ours = [[job for job in queue if job.startswith(OUTDATED)] for queue in before]
        self.assertEqual(([self.queued(queue) for queue in QUEUES], self.aside(OUTDATED)), (ours, "0"))
        self.assertTrue(self.is_held(OTHER_SITE), "its update is not complete")

    def test_unreachable_queues_are_reported(self):
        self.allow("-@all")
        self.assertEqual(self.bench.run("hold", {}).returncode, 30)
        self.assertEqual(self.bench.termination()["code"], "QueueUnreachable")
        self.allow("+@all")
        self.assertEqual(self.hold()["held"], 2)

    def test_many_sites_need_few_commands(self):
        for number in range(SITES):
            self.add(f"site-{number}.example.com", "0" * 16)
        self.enqueue(*(job for number in range(SITES) for job in self.inserts(1, f"site-{number}.example.com")))
        commands = lambda: int(self.redis("INFO", "stats").split("total_commands_processed:")[1].split()[0])
        before = commands()
        self.assertEqual(self.hold(), {"done": "held", "held": SITES + 2, "released": 0})
        self.assertLess(commands() - before, SITES * 6)
        self.assertEqual([job for queue in QUEUES for job in self.queued(queue)], [])
        for number in range(SITES):
            self.add(f"site-{number}.example.com", self.code["frappe"]["schema"])
        for site in (OUTDATED, OTHER_SITE):
            self.add(site, self.code["frappe"]["schema"])
        self.assertEqual(self.hold(), {"done": "held", "held": 0, "released": SITES + 2})
        asking = -commands() + commands()
        before = commands()
        self.assertEqual(self.hold(), {"done": "held", "held": 0, "released": 0})
        self.assertEqual(commands() - before, asking, "nothing is asked if no site is outdated")

    def test_killed_at_every_step_and_run_again(self):
        for step in (steps := Steps(STEPS_MAX)):
            for site in (OUTDATED, OTHER_SITE):
                shutil.rmtree(self.folder(site))
                self.add(site, "0" * 16)
            self.redis("FLUSHALL")
            self.enqueue(*self.inserts(3, OUTDATED), *self.inserts(2, FITS))
            killed = self.bench.run("hold", {}, kill_at=step).returncode == KILLED
            self.hold()
            self.assertTrue(self.is_held(OUTDATED) and self.is_held(OTHER_SITE))
            self.assertEqual(json.loads(self.folder(OUTDATED, ".operator-held").read_text())["before"], {"pause_scheduler": 0})
            self.assertEqual((self.aside(OUTDATED), self.aside(FITS)), ("3", "0"))
            if not killed:
                break
        self.assertGreater(step, 10)
        print(f"hold: killed at {steps} and run again, both sites held every time")


if __name__ == "__main__":
    unittest.main()
