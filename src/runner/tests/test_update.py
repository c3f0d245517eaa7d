"""A site's update to its image's code: complete, or as before; with a real MariaDB, a real Redis and real workers."""

import gzip
import json
import os
import re
import shutil
import subprocess
import time
import unittest

from support import ADMIN_PASSWORD, DATABASE, ENCRYPTION_KEY, KILLED, PASSWORD, Scanner, Steps
from test_jobs import BENCH_ID, OTHER_SITE, QUEUES, REDIS_PASSWORD, SITE, JobsCase

STEPS_MAX = 300
# A prime: the steps of each kind are met.
STEPS = 5
ID, OTHER_ID = "0123abcd", "4567ef01"
QUICK = {"SITE_RUNNER_JOBS_QUIET_SECONDS": "0.1"}
DEFINER = re.compile(r"/\*!\d+ DEFINER=`[^`]*`@`[^`]*`( SQL SECURITY DEFINER)? ?\*/")


class UpdateCase(JobsCase):
    """A site with patches that its image's next code has."""

    def new_bench(self, version=15):
        super().new_bench(version)
        for app in ("frappe", "erpnext"):
            self.bench.add_code(app, "p1")

    def setUp(self):
        super().setUp()
        put = json.loads(self.bench.site("site_config.json").read_text())
        self.bench.site("site_config.json").write_text(json.dumps({**put, "pause_scheduler": 0, "by_hand": 7}))
        self.server.root(f"CREATE SEQUENCE {DATABASE}.counter CACHE 50; SELECT NEXTVAL({DATABASE}.counter)")
        self.before = self.dump()
        self.old = self.bench.record()["apps"]
        self.new_image()

    def new_image(self, *patches):
        self.bench.add_code("erpnext", "p1", *(patches or ("p2", "p3")), version="1.1.0")
        self.bench.run("configure", {"common_site_config": {}})
        self.code = {app: code for app, code in self.bench.termination()["result"]["code"].items() if app in ("frappe", "erpnext")}

    def update(self, kill_at=None, environment=None, **more):
        asked = {"id": ID, "drain_seconds": 5, **more}
        return self.bench.run("update", self.bench.request(update=asked), kill_at=kill_at, **{**QUICK, **(environment or {})})

    def updated(self, **more):
        result = self.update(**more)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return self.bench.termination()["result"]

    def failed(self, code, status, **more):
        result = self.update(**more)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        self.assertEqual(self.bench.termination()["code"], code, self.bench.termination())
        return self.bench.termination()

    def dump(self):
        """The whole database, by another program than the runner's checksums."""
        text = subprocess.run(["mariadb-dump", "--no-defaults", f"--socket={self.server.folder}/socket", "--user=root", "--skip-dump-date", "--order-by-primary",
                               "--skip-extended-insert", DATABASE], check=True, capture_output=True, text=True, errors="replace").stdout
        return DEFINER.sub("", text)

    def columns(self):
        return self.server.root(f"SHOW COLUMNS IN {DATABASE}.taberpnext").stdout

    def patched(self):
        """How often each patch has inserted its row."""
        return self.server.root(f"SELECT name FROM {DATABASE}.taberpnext").stdout.split("\n")[:-1]

    def aside(self):
        return [json.loads(entry)[1] for entry in self.redis("LRANGE", f"frappe-operator:set-aside:{BENCH_ID}:{SITE}", "0", "-1").split("\n") if entry]

    def markers(self):
        return sorted(path.name for path in self.bench.site().glob(".operator-*") if path.name not in (".operator-state", ".operator-lock", ".operator-settings"))

    def is_held(self):
        return (self.bench.folder / self.bench.shared / ".holds" / SITE).exists()

    def assert_served(self, queued, code=None):
        """The site is served with this code, and its jobs are in their queues in order."""
        self.assertEqual(self.bench.record(), {"identity": "id-1", "apps": code or self.code})
        self.assertEqual((self.config().get("maintenance_mode"), self.config()["pause_scheduler"], self.config()["by_hand"]), (None, 0, 7))
        self.assertEqual(([self.ours(queue) for queue in QUEUES], self.aside()), (queued, []))
        self.assertEqual((self.markers(), self.is_held()), ([], False))

    def assert_back(self, jobs):
        """The database is as before; the site is in maintenance mode, and its jobs are aside, each once."""
        self.assertEqual(self.dump(), self.before)
        self.assertEqual(self.bench.record()["apps"], self.old)
        self.assertEqual((self.config()["maintenance_mode"], self.config()["pause_scheduler"]), (1, 1))
        self.assertEqual((sorted(self.aside()), [self.ours(queue) for queue in QUEUES]), (sorted(jobs), [[], [], []]))
        self.assertEqual((self.markers(), self.is_held()), ([".operator-held"], False), "nginx holds it by its record")

    def fill_queues(self, count=6):
        self.enqueue(*self.inserts(count), *self.inserts(3, OTHER_SITE))
        return [self.ours(queue) for queue in QUEUES]

    def snapshot(self):
        """Returns a function that restores the site as it is now."""
        folder = self.bench.folder / "snapshot"
        shutil.copytree(self.bench.folder / "sites", folder, symlinks=True)
        dumped = subprocess.run(["mariadb-dump", "--no-defaults", f"--socket={self.server.folder}/socket", "--user=root", DATABASE], check=True,
                                capture_output=True).stdout

        def restore():
            shutil.rmtree(self.bench.folder / "sites")
            shutil.copytree(folder, self.bench.folder / "sites", symlinks=True)
            self.server.root(f"DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
            subprocess.run(["mariadb", "--no-defaults", f"--socket={self.server.folder}/socket", "--user=root", DATABASE], input=dumped, check=True)
            self.redis("FLUSHALL")
        return restore


class UpdateTest(UpdateCase):
    def test_a_site_is_migrated_and_served(self):
        queued = self.fill_queues()
        self.bench.watch()
        with Scanner() as scanner:
            done = self.update()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = self.bench.termination()["result"]
        self.assertEqual((result["done"], result["code"], result["skipped"]), ("updated", self.code, []))
        self.assertEqual(sorted(result["seconds"]), ["check", "drain", "dump", "hold", "migrate"])
        self.assert_served(queued)
        self.assertEqual(self.patched(), ["patched by p2", "patched by p3"])
        folder = self.bench.folder / f"sites/.updates/{SITE}-id-1/{ID}"
        self.assertEqual(sorted(os.listdir(folder)), ["database.sql.gz", "tables.json"])
        calls = [call for call in self.bench.calls() if call[0] in ("clear-cache", "migrate", "build-search-index")]
        self.assertEqual(calls, [["clear-cache"], ["migrate"]])
        self.bench.forget_calls()
        self.assertEqual(self.updated()["done"], "up to date")
        self.assertEqual(self.bench.calls(), [])
        shown = b"".join(scanner.seen) + (done.stdout + done.stderr).encode() + self.bench.exposed()
        self.assertIn(b"runner_frappe.py", shown)
        for secret in (PASSWORD, ADMIN_PASSWORD, ENCRYPTION_KEY, REDIS_PASSWORD):
            self.assertNotIn(secret.encode(), shown)

    def test_options_of_the_migration(self):
        self.new_image("p2", "fails_p3")
        commands = self.bench.folder / "apps/frappe/frappe/commands/site.py"
        commands.parent.mkdir()
        commands.write_text('@click.option("--skip-search-index", is_flag=True)\n')
        result = self.updated(skip_failing=True, dump=False)
        self.assertEqual(result["skipped"], ["erpnext.fails_p3"])
        calls = [call for call in self.bench.calls() if call[0] in ("clear-cache", "migrate", "build-search-index")]
        self.assertEqual(calls, [["clear-cache"], ["migrate", "--skip-search-index", "--skip-failing"], ["build-search-index"]])
        self.assertFalse((self.bench.folder / "sites/.updates").exists())
        self.assertNotIn("dump", result["seconds"])

    def test_a_site_that_is_up_to_date_is_updated_only_by_force(self):
        self.bench.add_code("erpnext", "p1", version="1.1.0")
        self.assertEqual(self.updated()["done"], "up to date")
        self.assertEqual([call for call in self.bench.calls() if call[0] == "migrate"], [])
        self.assertEqual(self.updated(force=True)["done"], "updated")
        self.assertEqual(self.bench.record()["apps"]["erpnext"]["version"], "1.1.0")
        (self.bench.folder / "sites/.schemas" / SITE).unlink()
        self.assertEqual(self.updated()["done"], "updated", "its schema was not known")

    def test_after_a_failed_patch_the_database_is_as_before_and_the_site_stays_held(self):
        queued = self.fill_queues()
        self.new_image("p2", "fails_p3")
        said = self.failed("UpdateFailed", 42)
        self.assertEqual(said["step"], "migrate")
        self.assertIn("Row size too large in fails_p3", said["error"])
        self.assertIn(["patch", "erpnext", "fails_p3"], self.bench.calls())
        self.assert_back(sum(queued, []))
        # The next image's code has the patch mended.
        self.new_image("p2", "p3")
        self.assertEqual(self.updated(id=OTHER_ID)["done"], "updated")
        self.assert_served(queued)

    def test_jobs_that_a_migration_queues_are_discarded_with_it(self):
        queued = self.fill_queues()
        job = f"{SITE}{self.separator}of-the-migration"
        self.new_image("p2", "fails_p3")
        self.failed("UpdateFailed", 42, environment={"STAND_IN_QUEUES": job})
        self.assert_back(sum(queued, []))
        self.assertEqual(self.redis("EXISTS", f"rq:job:{job}"), "0")
        self.new_image("p2", "p3")
        self.updated(id=OTHER_ID, environment={"STAND_IN_QUEUES": job})
        self.assertEqual([self.ours(queue) for queue in QUEUES], [[*queued[0], job], *queued[1:]])

    def test_an_image_set_back_serves_the_site_again(self):
        queued = self.fill_queues()
        self.new_image("p2", "fails_p3")
        self.failed("UpdateFailed", 42)
        self.bench.add_code("erpnext", "p1")
        self.assertEqual(self.updated(id=OTHER_ID)["done"], "up to date")
        self.assert_served(queued, self.old)
        self.assertEqual(self.dump(), self.before)

    def test_an_incomplete_site_is_taken_back(self):
        queued = self.fill_queues()
        self.server.root(f"DELETE FROM {DATABASE}.__Auth")
        self.before = self.dump()
        self.assertEqual(self.failed("UpdateFailed", 42)["step"], "check")
        self.assert_back(sum(queued, []))

    def test_a_failed_forced_update_serves_the_site_as_before(self):
        queued = self.fill_queues()
        self.bench.add_code("erpnext", "p1")
        self.failed("UpdateFailed", 42, force=True, environment={"STAND_IN_FAILS": "migrated"})
        self.assert_served(queued, self.old)
        self.assertEqual(self.dump(), self.before)

    def test_without_a_dump_a_failed_migration_stays_held_and_is_repeated(self):
        queued = self.fill_queues()
        self.failed("UpdateFailed", 42, dump=False, environment={"STAND_IN_FAILS": "migrated"})
        self.assertEqual((self.is_held(), self.config()["maintenance_mode"]), (True, 1))
        self.assertEqual(json.loads(self.bench.site(".operator-update").read_text())["phase"], "migrating")
        self.assertIn("no dump", self.failed("UpdateFailed", 42, dump=False, back_only=True)["error"])
        self.assertEqual(self.bench.run("apply").returncode, 31)
        self.assertEqual(self.updated(dump=False)["done"], "updated")
        self.assert_served(queued)

    def test_a_dump_that_does_not_restore_the_database_leaves_the_site_held(self):
        queued = self.fill_queues()
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        path = self.bench.folder / f"sites/.updates/{SITE}-id-1/{ID}/database.sql.gz"
        whole = path.read_bytes()
        text = gzip.decompress(whole).decode("latin-1")
        for name, broken, words in (("cut", whole[: len(whole) // 2], "cannot be read"),
                                    ("a row less", gzip.compress(text.replace("'note 7'", "'note X'").encode("latin-1")), "1 tables differ from the dump: tabNote"),
                                    ("an error", gzip.compress(text.replace("INSERT INTO", "INSERT INT", 1).encode("latin-1")), "SQL syntax")):
            with self.subTest(name):
                path.write_bytes(broken)
                self.assertIn(words, self.failed("RollbackFailed", 43)["error"])
                self.assertTrue(self.is_held())
                self.assertEqual(json.loads(self.bench.site(".operator-update").read_text())["phase"], "restoring")
                self.assertEqual((self.bench.run("apply").returncode, self.bench.run("backup", self.request()).returncode), (31, 31))
        path.write_bytes(whole)
        self.failed("UpdateFailed", 42, back_only=True)
        self.assert_back(sum(queued, []))

    def test_back_only_never_migrates(self):
        queued = self.fill_queues()
        self.failed("UpdateFailed", 42, back_only=True)
        self.assertEqual((self.dump(), [self.ours(queue) for queue in QUEUES]), (self.before, queued), "nothing was begun")
        for moment in ("migrating", "patch:p2", "migrated"):
            self.update(environment={"STAND_IN_DIES": moment})
            self.bench.forget_calls()
            self.assertEqual(self.failed("UpdateFailed", 42, back_only=True)["step"], "migrate")
            self.assert_back(sum(queued, []))
            self.assertEqual([call for call in self.bench.calls() if call[0] == "migrate"], [])
        self.updated()
        self.assertEqual(self.updated(back_only=True)["done"], "up to date", "after the end nobody goes back")
        self.assert_served(queued)

    def test_another_update_returns_to_the_former_ones_dump_first(self):
        queued = self.fill_queues()
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.assertIn("p3", self.columns())
        self.bench.forget_calls()
        self.updated(id=OTHER_ID)
        self.assert_served(queued)
        self.assertEqual([call[2] for call in self.bench.calls() if call[0] == "patch"], ["p2", "p3"], "a cut patch is not continued")
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.bench.add_code("erpnext", "p1", "p2", "p3", "p4")
        self.update(environment={"STAND_IN_DIES": "patch:p4"})
        self.new_image("p2", "p3")
        self.assertEqual(self.updated(id=OTHER_ID)["done"], "up to date", "the image was set back")
        self.assert_served(queued)
        self.assertNotIn("p4", self.columns())

    def test_old_dumps_are_removed_after_a_while(self):
        folder = self.bench.folder / f"sites/.updates/{SITE}-id-1"
        for number in range(3):
            name = f"0000000{number}"
            self.updated(id=name, force=True)
            os.utime(folder / name, (time.time() - 1000 * (3 - number),) * 2)
        (folder / "0000000f").mkdir()
        self.updated(id=ID, force=True, keep_seconds=1500)
        self.assertEqual(sorted(os.listdir(folder)), ["00000002", ID])

    def test_nothing_is_touched_if_it_cannot_begin(self):
        queued = self.fill_queues()
        missing = self.bench.folder / "apps/erpnext"
        missing.rename(self.bench.folder / "gone")
        self.failed("AppsMissing", 2)
        (self.bench.folder / "gone").rename(missing)
        self.failed("RequestInvalid", 2, id="../../etc")
        (self.bench.folder / "bin").mkdir()
        program = self.bench.folder / "bin/mariadb"
        program.write_text(f'#!/bin/sh\nfor word; do [ "$word" = --sandbox ] && exit 7; done\nexec {shutil.which("mariadb")} "$@"\n')
        program.chmod(0o755)
        self.failed("ClientTooOld", 2, environment={"PATH": f"{self.bench.folder}/bin:{os.environ['PATH']}"})
        self.assertEqual(self.dump(), self.before)
        self.assert_served(queued, self.old)

    def test_a_cut_dump_changes_nothing(self):
        queued = self.fill_queues()
        self.failed("FilesFailed", 30, environment={"PATH": self.bench.cut_dumps()})
        self.assert_back(sum(queued, []))
        self.assertEqual(os.listdir(self.bench.folder / f"sites/.updates/{SITE}-id-1"), [])
        self.bench.add_code("erpnext", "p1")
        self.assertEqual(self.updated()["done"], "up to date")
        self.assert_served(queued, self.old)


class DrainTest(UpdateCase):
    def test_a_job_that_does_not_end_stops_the_update(self):
        queued = self.fill_queues()
        self.pretend_to_run()
        said = self.failed("JobsRunning", 75, drain_seconds=1)
        self.assertIn(f"1 jobs of {SITE} are running: {SITE}{self.separator}held", said["error"])
        self.assert_back(sum(queued, []))
        self.bench.add_code("erpnext", "p1")
        self.failed("JobsRunning", 75, drain_seconds=1, force=True)
        self.assert_served(queued, self.old)

    def test_an_open_connection_is_waited_for_and_an_idle_one_only_for_a_while(self):
        queued = self.fill_queues()
        options = f"--defaults-extra-file={self.bench.folder}/home/.my.cnf"
        other = self.start(["mariadb", options, DATABASE, "--execute", "SELECT SLEEP(60)"])
        self.until(lambda: "SLEEP(60)" in self.server.root("SHOW FULL PROCESSLIST").stdout)
        self.assertIn("its database is in use by 1 connections", self.failed("JobsRunning", 75, drain_seconds=1)["error"])
        self.assert_back(sum(queued, []))
        other.kill()
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        self.start(["mariadb", options, DATABASE], stdin=reader)
        os.close(reader)
        self.until(lambda: "Sleep" in self.server.root("SHOW FULL PROCESSLIST").stdout)
        begun = time.monotonic()
        self.assertEqual(self.updated(drain_seconds=60)["done"], "updated")
        self.assertGreater(time.monotonic() - begun, 25)
        self.assert_served(queued)

    def test_each_of_200_queued_jobs_runs_exactly_once_after_the_update(self):
        self.server.root(f"ALTER TABLE {DATABASE}.tabNote DROP PRIMARY KEY")
        self.enqueue(*self.inserts(200), *self.inserts(60, OTHER_SITE, prefix="other"))
        workers = [self.work(), self.work()]
        self.until(lambda: len(self.ours("short")) < 60)
        self.updated(drain_seconds=60)
        self.until(lambda: not any(self.queued(queue) for queue in QUEUES) and not any(int(self.redis("ZCARD", f"rq:wip:{BENCH_ID}:{queue}")) for queue in QUEUES))
        time.sleep(1)
        rows = self.server.root(f"SELECT name, COUNT(*) FROM {DATABASE}.tabNote WHERE name LIKE '{SITE}-%' OR name LIKE 'other-%' GROUP BY name").stdout.split("\n")[:-1]
        self.assertEqual(len(rows), 260)
        self.assertEqual([row for row in rows if not row.endswith("\t1")], [])
        for worker in workers:
            worker.kill()

    def test_jobs_queued_by_rq_1_run_once_with_rq_2(self):
        """From Frappe 15 to 16. rq 2 loses jobs with a colon in their ids."""
        self.enqueue(*self.inserts(20))
        self.done("hold", {})
        self.assertEqual(len(self.aside()), 20)
        self.rq("2.6.1")
        self.updated()
        self.assertEqual(len(sum((self.ours(queue) for queue in QUEUES), [])), 20)
        worker = self.work()
        self.until(lambda: not any(self.queued(queue) for queue in QUEUES))
        names = lambda: self.server.root(f"SELECT name FROM {DATABASE}.tabNote WHERE name LIKE '{SITE}-%'").stdout.split()
        self.until(lambda: len(names()) == 20)
        self.assertEqual(self.redis("KEYS", "rq:job:*::*"), "")
        worker.kill()

    def test_unreachable_queues_change_nothing(self):
        self.allow("-@all")
        self.failed("QueueUnreachable", 30)
        self.allow("+@all")
        self.assertEqual(self.dump(), self.before)
        self.assertFalse(self.is_held())


class AroundTest(UpdateCase):
    """Other Jobs of a site that must be updated."""

    def test_apply_and_init_touch_nothing(self):
        before = self.config()
        result = self.bench.run("apply", self.bench.request(config={"maintenance_mode": 1}))
        self.assertEqual((result.returncode, self.bench.termination()["code"]), (31, "UpdateRequired"))
        self.done("init", self.bench.request(config={"maintenance_mode": 1}))
        self.assertEqual(self.bench.termination()["result"], {"done": "already created", "code": self.old})
        self.assertEqual((self.config(), self.dump()), (before, self.before))

    def test_apply_ends_a_hold_that_is_left(self):
        queued = self.fill_queues()
        self.done("hold", {})
        self.assertEqual(self.config()["maintenance_mode"], 1)
        self.bench.add_code("erpnext", "p1")
        self.done("apply", self.bench.request())
        self.assert_served(queued, self.old)

    def test_a_held_site_is_backed_up_and_stays_held(self):
        queued = self.fill_queues()
        self.done("hold", {})
        self.done("backup", self.request(), **QUICK)
        self.assert_back(sum(queued, []))

    def test_a_restore_releases_a_held_site(self):
        self.fill_queues()
        self.done("backup", self.request())
        self.done("hold", {})
        self.assertEqual(self.config()["maintenance_mode"], 1)
        self.done("restore", self.restoration(), **QUICK)
        self.assert_served([[], [], []])

    def test_a_restore_that_stops_while_it_waits_leaves_the_site_held(self):
        queued = self.fill_queues()
        self.done("backup", self.request())
        self.done("hold", {})
        self.pretend_to_run()
        self.assertEqual(self.bench.run("restore", self.restoration(), SITE_RUNNER_JOBS_WAIT_SECONDS="1", **QUICK).returncode, 75)
        (self.bench.site(".operator-set-aside")).unlink(missing_ok=True)
        self.assert_back(sum(queued, []))
        self.redis("DEL", f"rq:wip:{BENCH_ID}:long")
        self.assertEqual(self.updated()["done"], "updated")
        self.assert_served(queued)

    def test_a_restore_replaces_a_half_done_update(self):
        self.done("backup", self.request())
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        self.assertEqual(self.bench.run("restore", self.restoration(restore_database=False), **QUICK).returncode, 31)
        self.assertEqual(self.bench.termination()["code"], "UpdateRequired")
        self.done("restore", self.restoration(), **QUICK)
        self.assert_served([[], [], []])
        self.assertEqual(self.patched(), ["patched by p2", "patched by p3"])

    def test_a_half_updated_site_is_dropped_without_remains(self):
        self.fill_queues()
        self.update(environment={"STAND_IN_DIES": "patch:p3"})
        for step in Steps(60):
            if self.bench.run("drop", self.bench.request(), kill_at=step).returncode != KILLED:
                break
        left = [str(path.relative_to(self.bench.folder / "sites")) for path in (self.bench.folder / "sites").rglob("*")]
        self.assertEqual([path for path in left if SITE in path], [])
        self.assertEqual((self.redis("KEYS", "frappe-operator:*"), self.redis("KEYS", f"rq:job:{SITE}*")), ("", ""))
        self.assertNotIn(DATABASE, self.server.root("SHOW DATABASES").stdout)

    def test_a_rotated_password_is_used(self):
        self.server.root(f"ALTER USER '{DATABASE}'@'%' IDENTIFIED BY 'Rotated0123456789'")
        (self.bench.folder / "secrets/password").write_text("Rotated0123456789")
        self.assertEqual(self.updated()["done"], "updated")
        self.assertEqual(self.config()["db_password"], "Rotated0123456789")


if __name__ == "__main__":
    unittest.main()
