"""A site's update by a move to another revision of its bench: complete, or as before; with a real MariaDB, a real Redis and real workers."""

import itertools
import json
import os
import shutil
import subprocess
import unittest

from support import DATABASE, KILLED, Steps
from test_jobs import BENCH_ID, OTHER_SITE, QUEUES, SITE
from test_revisions import Revisions
from test_update import ID, OTHER_ID, UpdateCase
from test_update_killed import PostgresCase

BENCHES = {1: BENCH_ID, 2: f"{BENCH_ID}-r2", 3: f"{BENCH_ID}-r3"}
# Rows that Frappe inserts later.
DEFERRED = f"{DATABASE}|insert_queue_for_Route History"
ROWS = ["[{\"route\": \"a\"}]", "[{\"route\": \"b\"}]"]
JOBS = 200
# A prime, and no multiple of the three ways to go on.
STEPS, STEPS_MAX = 37, 300


class RevisionUpdateCase(Revisions, UpdateCase):
    """The site is in the folder of revision 1, the image is the one of revision 2, with other patches."""

    def setUp(self):
        super().setUp()
        self.make_volume()
        for number in (1, 2):
            self.begin(number)

    def begin(self, number):
        """Each revision has its own queues, and a database of the server as its cache."""
        self.mount(number)
        self.folder(number).mkdir(parents=True, exist_ok=True)
        config = {"redis_queue": self.url, "bench_id": BENCHES[number], "redis_cache": f"{self.url}/{number}"}
        (self.folder(number) / "common_site_config.json").write_text(json.dumps(config))
        (self.folder(number) / "apps.txt").write_text("frappe\nerpnext\n")

    def place(self):
        """The revision in whose folder the site is; there is exactly one."""
        found = self.places()
        self.assertEqual(len(found), 1, found)
        return found[0]

    def fill_all(self, count=6):
        """Queues jobs of the site and of another one in revision 1, and puts rows into its cache. Returns the site's jobs."""
        self.enqueue(*self.inserts(count), *self.inserts(3, OTHER_SITE))
        self.redis("-n", "1", "RPUSH", DEFERRED, *ROWS)
        return [self.ours(queue) for queue in QUEUES]

    def deferred(self, number):
        return self.redis("-n", str(number), "LRANGE", DEFERRED, "0", "-1").split("\n")

    def at(self, number, name):
        return self.folder(number) / SITE / name

    def marker(self):
        path = self.at(self.place(), ".operator-update")
        return json.loads(path.read_text()) if path.exists() else {}

    def origins(self, jobs):
        return {self.redis("HGET", f"rq:job:{job}", "origin").rpartition(":")[0] for job in jobs}

    def assert_in(self, number, queued, code):
        """The site is served by this revision, with its code, and has its jobs and deferred rows there, each once."""
        self.assertEqual(self.place(), number)
        self.assertEqual(self.bench.record(), {"identity": "id-1", "apps": code})
        config = json.loads(self.at(number, "site_config.json").read_text())
        self.assertEqual((config.get("maintenance_mode"), config["pause_scheduler"], config["by_hand"]), (None, 0, 7))
        self.assertEqual(sorted(path.name for path in self.at(number, "").glob(".operator-*")), [".operator-lock", ".operator-settings", ".operator-state"])
        self.assertFalse(self.is_held())
        for other, bench_id in BENCHES.items():
            self.assertEqual([self.ours(queue, bench_id) for queue in QUEUES], queued if other == number else [[], [], []], other)
            self.assertEqual(self.deferred(other), ROWS if other == number else [""], other)
        self.assertEqual((self.redis("KEYS", "frappe-operator:*"), self.origins(sum(queued, []))), ("", {BENCHES[number]}))
        self.assertEqual(len(self.queued("short", BENCH_ID)) + len(self.queued("default", BENCH_ID)) + len(self.queued("long", BENCH_ID)),
                         3 + (len(sum(queued, [])) if number == 1 else 0), "jobs of other sites stay")

    def assert_updated(self, queued):
        self.assertEqual(self.patched(), ["patched by p2", "patched by p3"])
        self.assert_in(2, queued, self.code)

    def assert_back(self, queued):
        self.assertEqual(self.dump(), self.before)
        self.assert_in(1, queued, self.old)

    def back(self, **more):
        """The update fails, and the site is in its former revision."""
        said = self.failed("UpdateFailed", 42, **more)
        self.assertEqual(said["revision"], 1)
        return said

    def snapshot(self):
        """As before, for a volume with more than one folder."""
        copy = self.bench.folder / "snapshot"
        shutil.copytree(self.volume, copy, symlinks=True)
        options = ["--no-defaults", f"--socket={self.server.folder}/socket", "--user=root", DATABASE]
        dumped = subprocess.run(["mariadb-dump", *options], check=True, capture_output=True).stdout

        def restore():
            shutil.rmtree(self.volume)
            shutil.copytree(copy, self.volume, symlinks=True)
            self.server.root(f"DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
            subprocess.run(["mariadb", *options], input=dumped, check=True)
            self.redis("FLUSHALL")
        return restore


class MoveTest(RevisionUpdateCase):
    def test_a_site_is_moved_and_migrated(self):
        queued = self.fill_all()
        result = self.updated(**{"from": 1})
        self.assertEqual((result["done"], result["revision"], result["code"]), ("updated", 2, self.code))
        self.assertEqual(sorted(result["seconds"]), ["check", "drain", "dump", "hold", "migrate", "move"])
        self.assert_updated(queued)
        self.assertEqual(sorted(os.listdir(self.volume / f".updates/{SITE}-id-1/{ID}")), ["database.sql.gz", "tables.json"])
        again = self.updated(**{"from": 1})
        self.assertEqual((again["done"], again["revision"]), ("up to date", 2), "wherever the operator believes it to be")
        self.assert_updated(queued)
        self.mount(1)
        self.assertEqual(self.refused("update", "SiteElsewhere", 23, update={"id": ID, "from": 1})["revision"], 2, "a late request moves nothing")
        self.assert_updated(queued)

    def test_a_site_of_the_same_schema_is_moved_without_a_migration(self):
        self.bench.add_code("erpnext", "p1", version="1.2.0")
        queued = self.fill_all()
        self.bench.forget_calls()
        result = self.updated(**{"from": 1})
        self.assertEqual((result["done"], result["revision"], result["code"]["erpnext"]["version"]), ("moved", 2, "1.2.0"))
        self.assertEqual(sorted(result["seconds"]), ["check", "drain", "hold", "move"])
        self.assert_in(2, queued, result["code"])
        self.assertEqual(self.dump(), self.before)
        self.assertEqual([call for call in self.bench.calls() if call[0] != "init"], [["clear-cache"]])
        self.assertFalse((self.volume / ".updates").exists())
        # Back to the revision before, whose code has the same schema.
        self.mount(1)
        self.bench.add_code("erpnext", "p1")
        self.assertEqual(self.updated(**{"from": 2})["done"], "moved")
        self.assert_in(1, queued, self.old)

    def test_a_site_of_the_same_schema_that_is_incomplete_is_moved_back(self):
        self.bench.add_code("erpnext", "p1")
        queued = self.fill_all()
        self.server.root(f"DELETE FROM {DATABASE}.__Auth")
        self.before = self.dump()
        self.assertEqual(self.back()["step"], "check")
        self.assert_back(queued)
        self.assertEqual(self.back(force=True)["step"], "check")
        self.assert_back(queued)

    def test_after_a_failed_patch_the_site_is_served_by_its_former_revision(self):
        queued = self.fill_all()
        self.new_image("p2", "fails_p3")
        said = self.back()
        self.assertEqual(said["step"], "migrate")
        self.assertIn("Row size too large in fails_p3", said["error"])
        self.assert_back(queued)

    def test_back_only_never_migrates(self):
        """What a cut migration queued is discarded with what it did to the database."""
        queued = self.fill_all()
        self.back(back_only=True)
        self.assert_back(queued)
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.assertEqual((self.place(), self.marker()["phase"]), (2, "migrating"))
        name = f"{SITE}{self.separator}of-the-patch"
        self.redis("HSET", f"rq:job:{name}", "origin", f"{BENCHES[2]}:short", "status", "queued")
        self.redis("SADD", "rq:queues", f"rq:queue:{BENCHES[2]}:short")
        self.redis("RPUSH", f"rq:queue:{BENCHES[2]}:short", name)
        self.redis("-n", "2", "RPUSH", DEFERRED, "of the patch")
        self.bench.forget_calls()
        self.back(back_only=True)
        self.assert_back(queued)
        self.assertEqual(self.redis("EXISTS", f"rq:job:{name}"), "0")
        self.assertEqual([call for call in self.bench.calls() if call[0] == "migrate"], [])
        self.updated()
        self.assertEqual(self.updated(back_only=True)["done"], "up to date", "after the end nobody goes back")
        self.assert_updated(queued)

    def test_another_revision_takes_over(self):
        """The site returns to the dump first, and after a failure to the revision that served it."""
        queued = self.fill_all()
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.begin(3)
        self.new_image("p2", "fails_p4")
        self.back(id=OTHER_ID, **{"from": 2})
        self.assert_back(queued)
        self.mount(2)
        self.new_image("p2", "p3")
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.mount(3)
        self.new_image("p2", "p4")
        result = self.updated(id=OTHER_ID, **{"from": 1})
        self.assertEqual((result["done"], result["revision"], self.patched()), ("updated", 3, ["patched by p2", "patched by p4"]))
        self.assert_in(3, queued, self.code)

    def test_an_image_set_back_takes_the_site_back(self):
        queued = self.fill_all()
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.mount(1)
        self.bench.add_code("erpnext", "p1")
        self.assertEqual(self.bench.run("apply").returncode, 23)
        result = self.updated(id=OTHER_ID, **{"from": 1})
        self.assertEqual((result["done"], result["revision"]), ("moved", 1))
        self.assert_back(queued)

    def test_moved_by_hand_at_any_time(self):
        queued = self.fill_all()
        for moment in ("migrating", "patch:p3"):
            self.update(environment={"STAND_IN_DIES": moment})
            self.at(2, "").rename(self.at(1, ""))
        self.assertEqual(self.updated()["done"], "updated")
        self.assert_updated(queued)
        self.at(2, "").rename(self.at(1, ""))
        self.assertEqual(self.updated(**{"from": 2})["done"], "moved", "its schema is the image's")
        self.assertEqual((self.place(), self.patched()), (2, ["patched by p2", "patched by p3"]))

    def test_a_directory_in_two_folders_is_not_moved(self):
        queued = self.fill_all()
        for killed in (False, True):
            if killed:
                self.update(environment={"STAND_IN_DIES": "patch:p3"})
            source, target = (1, 2) if self.place() == 1 else (2, 1)
            shutil.copytree(self.at(source, ""), self.at(target, ""))
            for more in ({}, {"back_only": True}, {"id": OTHER_ID}):
                said = self.failed("SiteTwice", 22, **more)
                self.assertNotIn("revision", said)
                self.assertEqual(self.places(), [1, 2])
            shutil.rmtree(self.at(target, ""))
        self.updated()
        self.assert_updated(queued)

    def test_what_cannot_be_moved_is_served_as_before(self):
        queued = self.fill_all()
        # The folder of the new revision is not where it is to be.
        shutil.move(self.folder(2), self.volume / "elsewhere")
        (self.bench.folder / "sites").unlink()
        (self.bench.folder / "sites").symlink_to(self.volume / "elsewhere")
        said = self.failed("FilesFailed", 30)
        self.assertNotIn("revision", said, "an error of the system says nothing of the site")
        shutil.move(self.volume / "elsewhere", self.folder(2))
        self.mount(2)
        self.assert_back(queued)
        self.pretend_to_run()
        self.assertEqual(self.failed("JobsRunning", 75, drain_seconds=1)["revision"], 1)
        self.assert_back(queued)
        path = self.folder(2) / "common_site_config.json"
        path.write_text(path.read_text().replace(f'"{self.url}"', f'"{self.url}/5"'))
        self.assertEqual(self.failed("QueueUnreachable", 30)["revision"], 1)
        self.assert_back(queued)

    def test_without_a_dump_a_failed_migration_stays_held_in_the_new_revision(self):
        queued = self.fill_all()
        said = self.failed("UpdateFailed", 42, dump=False, environment={"STAND_IN_FAILS": "migrated"})
        self.assertEqual((said["revision"], self.place(), self.is_held()), (2, 2, True))
        self.failed("UpdateFailed", 42, dump=False, back_only=True)
        self.assertEqual(self.updated(dump=False)["done"], "updated")
        self.assert_updated(queued)

    def test_a_site_that_was_held_stays_held_in_its_former_revision(self):
        queued = self.fill_all()
        self.mount(1)
        self.done("hold", {})
        self.mount(2)
        self.new_image("p2", "fails_p3")
        self.back()
        self.assertEqual((self.place(), self.is_held(), self.dump()), (1, False, self.before))
        self.assertEqual(json.loads(self.at(1, "site_config.json").read_text())["maintenance_mode"], 1)
        self.assertEqual((sorted(self.aside()), self.deferred(1)), (sorted(sum(queued, [])), ROWS))

    def test_a_restore_replaces_a_half_done_move(self):
        self.mount(1)
        self.done("backup", self.request())
        self.mount(2)
        self.fill_all()
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.done("restore", self.restoration(), SITE_RUNNER_JOBS_QUIET_SECONDS="0.1")
        self.assertEqual((self.place(), self.redis("KEYS", "frappe-operator:*"), self.redis("KEYS", f"rq:job:{SITE}*")), (2, "", ""))
        self.assertEqual(self.updated()["done"], "up to date")

    def test_a_half_moved_site_is_dropped_without_its_jobs(self):
        self.fill_all()
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.done("drop", self.bench.request())
        self.assertEqual((self.redis("KEYS", "frappe-operator:set*"), self.redis("KEYS", f"rq:job:{SITE}*"), self.places()), ("", "", []))


class ReversalTest(RevisionUpdateCase):
    """A site that was updated returns to its former revision, with the database of before."""

    def setUp(self):
        super().setUp()
        self.migrated = self.fill_all()
        self.updated(**{"from": 1})
        self.server.root(f"INSERT INTO {DATABASE}.taberpnext (name) VALUES ('written since')")
        self.after = self.dump()
        self.mount(1)
        self.bench.add_code("erpnext", "p1")

    def reverse(self, **more):
        return {"id": OTHER_ID, "undoes": ID, "from": 2, **more}

    def assert_ahead(self):
        """The site is as it was after its update."""
        self.assertEqual(self.dump(), self.after)
        self.assert_in(2, self.migrated, self.code)

    def test_a_migrated_site_returns_by_its_dump(self):
        result = self.updated(**self.reverse())
        self.assertEqual((result["done"], result["revision"]), ("undone", 1))
        self.assertEqual(sorted(result["seconds"]), ["check", "drain", "dump", "hold", "migrate", "move"])
        self.assert_back(self.migrated)
        kept = self.volume / f".updates/{SITE}-id-1"
        self.assertEqual(sorted(os.listdir(kept)), sorted([ID, OTHER_ID]), "what was written since is in the other dump")
        self.assertEqual(self.updated(**self.reverse())["done"], "up to date", "once")
        # And forth again.
        self.mount(2)
        self.new_image()
        self.updated(id="89abcdef", **{"from": 1})
        self.assert_updated(self.migrated)

    def test_without_the_dump_nothing_is_touched(self):
        shutil.rmtree(self.volume / f".updates/{SITE}-id-1/{ID}")
        said = self.failed("DumpMissing", 33, **self.reverse())
        self.assertIn(f"the dump of the update {ID}", said["error"])
        self.assert_ahead()
        self.refused("update", "RequestInvalid", 2, update=self.reverse(undoes="../../x"))
        self.assert_ahead()

    def test_a_site_of_the_same_schema_needs_no_dump(self):
        shutil.rmtree(self.volume / f".updates/{SITE}-id-1")
        self.bench.add_code("erpnext", "p1", "p2", "p3", version="1.0.9")
        result = self.updated(**self.reverse())
        self.assertEqual((result["done"], result["revision"], self.place()), ("undone", 1, 1))
        self.assertEqual(self.dump(), self.after, "nothing is lost")

    def test_a_broken_dump_leaves_the_site_as_it_was(self):
        path = self.volume / f".updates/{SITE}-id-1/{ID}/tables.json"
        path.write_text(path.read_text().replace("taberpnext", "tabother"))
        said = self.failed("UpdateFailed", 42, **self.reverse())
        self.assertEqual((said["step"], said["revision"]), ("compare", 2))
        self.assert_ahead()

    def test_killed_at_every_step_it_is_undone_or_as_before(self):
        restore = self.snapshot()
        ways = itertools.cycle([{}, {"back_only": True}])
        for step in (steps := Steps(STEPS_MAX, STEPS)):
            restore()
            killed = self.update(kill_at=step, **self.reverse()).returncode == KILLED
            more = next(ways)
            result = self.update(**self.reverse(**more))
            about = f"step {step} {more}: {result.stdout}{result.stderr}"
            if result.returncode == 0:
                self.assertEqual((self.dump(), self.place(), self.bench.record()["apps"]), (self.before, 1, self.old), about)
            else:
                self.assertEqual((result.returncode, bool(more)), (42, True), about)
                self.assertEqual((self.dump(), self.place(), self.bench.record()["apps"]), (self.after, 2, self.code), about)
            self.assertEqual((self.marker(), self.is_held()), ({}, False), about)
            if not killed:
                break
        self.assertGreater(step, 30)
        print(f"undo: killed at {steps} and run again")


class JobsOfMovedSitesTest(RevisionUpdateCase):
    def test_each_of_200_queued_jobs_runs_exactly_once(self):
        """Before the move by workers of the former revision, after it by those of the new one, whichever version of rq both have."""
        for former, new in (("1.15.1", "1.15.1"), ("1.15.1", "2.6.1"), ("2.6.1", "2.6.1")):
            with self.subTest(f"{former} to {new}"):
                self.move_with_jobs(former, new)

    def move_with_jobs(self, former, new):
        self.redis("FLUSHALL")
        notes = self.bench.folder / "notes"
        notes.unlink(missing_ok=True)
        self.rq(former)
        jobs = [(QUEUES[number % 3], f"{site}{self.separator}{number}", site, "note", {"name": f"{site}-{number}"})
                for site, count in ((SITE, JOBS), (OTHER_SITE, 20)) for number in range(count)]
        self.enqueue(*jobs)
        options = ("--worker-class", "rq.SimpleWorker")
        self.start_workers(options, BENCHES[1], 40)
        self.until(notes.exists)
        self.rq(new)
        self.assertEqual(self.updated(force=True, drain_seconds=60)["done"], "updated")
        worker = self.work("--burst", *options, bench_id=BENCHES[2])
        worker.wait(60)
        self.rq(former)
        self.work("--burst", *options).wait(60)
        names = [line.split() for line in notes.read_text().splitlines()]
        self.assertEqual(sorted(name for name, _ in names), sorted(job[4]["name"] for job in jobs), "each once")
        ran = {bench: len([name for name, of in names if of == bench and name.startswith(SITE)]) for bench in BENCHES.values()}
        self.assertTrue(0 < ran[BENCHES[1]] <= 80 and ran[BENCHES[1]] + ran[BENCHES[2]] == JOBS, ran)
        self.assertEqual({bench for name, bench in names if name.startswith(OTHER_SITE)}, {BENCHES[1]})
        print(f"rq {former} to {new}: of {JOBS} jobs the former revision ran {ran[BENCHES[1]]}, the new one {ran[BENCHES[2]]}, each once")
        self.at(2, "").rename(self.at(1, ""))

    def start_workers(self, options, bench_id, most):
        return [self.work("--burst", "--max-jobs", str(most), *options, bench_id=bench_id) for _ in range(2)]


class KilledTest(RevisionUpdateCase):
    """Killed before every n-th change; then by the same update, another one, or one that only goes back, in turn."""

    def killed(self, first, asked, check):
        """Runs `check` with the next attempt's options after each kill."""
        restore = self.snapshot()
        ways = itertools.cycle([{}, {"id": OTHER_ID}, {"back_only": True}])
        seen = set()
        for step in (steps := Steps(STEPS_MAX, STEPS, first)):
            restore()
            queued = self.fill_all()
            killed = self.update(kill_at=step, **asked).returncode == KILLED
            seen.add((self.place(), self.marker().get("phase")))
            more = next(ways)
            check(queued, {**asked, **more}, f"step {step} {more} {seen}")
            if not killed:
                break
        self.assertGreater(step, 30)
        print(f"move: killed at {steps}, in {len(seen)} states, and run again in three ways")

    def test_a_move_with_a_migration(self):
        def check(queued, asked, about):
            result = self.update(**asked)
            if result.returncode == 0:
                self.assertIn(self.bench.termination()["result"]["done"], ("updated", "up to date"), about)
                self.assert_updated(queued)
            else:
                self.assertEqual((result.returncode, asked.get("back_only")), (42, True), about + result.stdout + result.stderr)
                self.assert_back(queued)
        self.killed(1, {}, check)

    def test_a_failing_move(self):
        self.new_image("p2", "fails_p3")

        def check(queued, asked, about):
            result = self.update(**asked)
            self.assertEqual(result.returncode, 42, about + result.stdout + result.stderr)
            self.assert_back(queued)
        self.killed(2, {}, check)

    def test_a_move_without_a_migration(self):
        self.bench.add_code("erpnext", "p1", version="1.2.0")

        def check(queued, asked, about):
            result = self.update(**asked)
            self.assertIn(result.returncode, (0, 42) if asked.get("back_only") else (0,), about + result.stdout + result.stderr)
            self.assertEqual(self.dump(), self.before)
            code = self.bench.record()["apps"]
            self.assertEqual(code["erpnext"]["version"] == "1.2.0", result.returncode == 0, about)
            self.assert_in(2 if result.returncode == 0 else 1, queued, code)
        self.killed(3, {}, check)


class PostgresMoveTest(Revisions, PostgresCase):
    def test_a_failing_move_killed_at_every_step_and_run_again(self):
        self.make_volume()
        self.begin(2)
        self.bench.add_code("erpnext", "p1", "p2", "fails_p3")
        for step in (steps := Steps(STEPS_MAX, STEPS)):
            killed = self.update(kill_at=step).returncode == KILLED
            self.assertEqual(len(self.places()), 1)
            result = self.update()
            self.assertEqual(result.returncode, 42, result.stdout + result.stderr)
            self.assertEqual((self.bench.termination()["revision"], self.places(), self.dump()), (1, [1], self.before), f"step {step}")
            self.assertEqual((self.bench.record()["apps"], (self.volume / ".holds" / SITE).exists()), (self.old, False))
            if not killed:
                break
        self.assertGreater(step, 30)
        self.bench.add_code("erpnext", "p1", "p2")
        self.assertEqual(self.update().returncode, 0)
        self.assertEqual(self.places(), [2])
        print(f"PostgreSQL, failing move: killed at {steps} and run again, database as before every time")


if __name__ == "__main__":
    unittest.main()
