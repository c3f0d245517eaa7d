"""An update that is killed anywhere ends updated or as before; and updates with PostgreSQL."""

import json
import subprocess
import time
import unittest

from support import DATABASE, KILLED, PostgresServer, ServerTest, Steps
from test_databases import HOSTILE, connection
from test_jobs import QUEUES
from test_update import ID, QUICK, STEPS, STEPS_MAX, UpdateCase


class KilledTest(UpdateCase):
    def test_killed_at_every_step_and_run_again(self):
        restore = self.snapshot()
        for step in (steps := Steps(STEPS_MAX, STEPS)):
            restore()
            queued = self.fill_queues()
            killed = self.update(kill_at=step).returncode == KILLED
            self.assert_each_job_once(queued)
            self.assertIn(self.updated()["done"], ("updated", "up to date"), f"step {step}")
            self.assert_served(queued)
            self.assertEqual(self.patched(), ["patched by p2", "patched by p3"], f"step {step}")
            if not killed:
                break
        self.assertGreater(step, 40)
        print(f"update: killed at {steps} and run again, updated with each job once every time")

    def test_a_failing_update_killed_at_every_step_and_run_again(self):
        self.new_image("p2", "fails_p3")
        restore = self.snapshot()
        for step in (steps := Steps(STEPS_MAX, STEPS, first=2)):
            restore()
            queued = self.fill_queues()
            killed = self.update(kill_at=step).returncode == KILLED
            self.assert_each_job_once(queued)
            self.failed("UpdateFailed", 42)
            self.assert_back(sum(queued, []))
            if not killed:
                break
        self.assertGreater(step, 40)
        print(f"failing update: killed at {steps} and run again, tables as before every time")

    def test_killed_at_every_step_and_taken_back(self):
        restore = self.snapshot()
        ends = set()
        for step in (steps := Steps(STEPS_MAX, STEPS, first=3)):
            restore()
            queued = self.fill_queues()
            killed = self.update(kill_at=step).returncode == KILLED
            result = self.update(back_only=True)
            if result.returncode == 0:
                self.assert_served(queued)
                self.assertEqual(self.patched(), ["patched by p2", "patched by p3"])
            else:
                self.assertEqual(result.returncode, 42, result.stdout + result.stderr)
                self.assertEqual((self.dump(), self.bench.record()["apps"]), (self.before, self.old), f"step {step}")
                self.assert_each_job_once(queued)
            ends.add(result.returncode)
            if not killed:
                break
        self.assertEqual(ends, {0, 42})
        print(f"update: killed at {steps} and taken back, as before or updated every time")

    def test_killed_inside_of_the_migration_and_in_its_return(self):
        queued = self.fill_queues()
        for moment in ("migrating", "patch:p2", "patch:p3", "migrated"):
            for _ in range(2):
                self.assertEqual(self.update(environment={"STAND_IN_DIES": moment}).returncode, KILLED)
                self.assertEqual(json.loads(self.bench.site(".operator-update").read_text())["phase"], "migrating")
                self.assertTrue(self.is_held())
        self.assertEqual(self.updated()["done"], "updated")
        self.assert_served(queued)
        self.assertEqual(self.patched(), ["patched by p2", "patched by p3"])

    def test_a_failed_forced_update_killed_at_the_end_and_run_again(self):
        """The site is released after the return to its dump: from then on, nobody loads the dump, and nobody sets jobs aside."""
        self.bench.add_code("erpnext", "p1")
        restore = self.snapshot()
        for step in (steps := Steps(STEPS_MAX, 2, first=60)):
            restore()
            queued = self.fill_queues()
            failing = {"force": True, "environment": {"STAND_IN_FAILS": "migrated"}}
            killed = self.update(kill_at=step, **failing).returncode == KILLED
            returned = self.bench.site(".operator-update").exists() and json.loads(self.bench.site(".operator-update").read_text())["phase"] == "returned"
            self.bench.forget_calls()
            self.failed("UpdateFailed", 42, **failing)
            self.assert_served(queued, self.old)
            self.assertEqual(self.dump(), self.before)
            self.assertFalse(returned and [call for call in self.bench.calls() if call[0] == "migrate"], f"step {step}")
            if not killed:
                break
        self.assertGreater(step, 70)
        print(f"failed forced update: killed at {steps} from {steps.first} and run again, served with each job once every time")

    def test_each_change_of_a_table_is_seen(self):
        """Whatever a migration did before it was interrupted."""
        many = "; ".join(f"CREATE TABLE `many {number}` (a int, b varchar(40), KEY b (b)) SELECT {number} AS a, 'x' AS b" for number in range(120))
        self.server.root(f"USE {DATABASE}; {many}; CREATE TABLE `we``ird; na\tme` (a int)")
        self.before = self.dump()
        self.update(environment={"STAND_IN_DIES": "migrating"})
        for change in ("UPDATE tabNote SET blob_ = 'x' WHERE name = 'note 7'", "DELETE FROM tabNote WHERE name = 'note 9'", "UPDATE `many 119` SET a = 7",
                       "ALTER TABLE `many 60` DROP KEY b", "ALTER TABLE `many 3` MODIFY b varchar(41)", "CREATE TABLE more (a int)", "DROP TABLE `many 50`",
                       "DROP TRIGGER before_note", "CREATE OR REPLACE VIEW notes AS SELECT content FROM tabNote", "SELECT NEXTVAL(counter) FROM `many 1`, tabNote",
                       "TRUNCATE `many 99`", "INSERT INTO `we``ird; na\tme` VALUES (1)"):
            self.server.root(f"USE {DATABASE}; {change}")
            self.assertNotEqual(self.dump(), self.before, change)
            self.assertEqual(self.update(environment={"STAND_IN_DIES": "migrating"}).returncode, KILLED)
            self.assertEqual(self.dump(), self.before, change)

    def assert_each_job_once(self, queued):
        places = [job for queue in QUEUES for job in self.ours(queue)] + self.aside()
        self.assertEqual(sorted(places), sorted(sum(queued, [])), "each job is in one place")


class PostgresCase(ServerTest):
    """A site with PostgreSQL, whose database has something of each kind."""

    make_server = PostgresServer

    def setUp(self):
        self.server.root(f"DROP DATABASE IF EXISTS {DATABASE}")
        self.server.root(f"DROP ROLE IF EXISTS {DATABASE}")
        quoted = HOSTILE.replace("'", "''")
        self.server.root(f"CREATE ROLE {DATABASE} LOGIN PASSWORD '{quoted}'")
        self.server.root(f"CREATE DATABASE {DATABASE} OWNER {DATABASE}")
        self.new_bench()
        connection(self.bench, username=DATABASE, password=HOSTILE, host="127.0.0.1", port=str(self.server.port))
        for app in ("frappe", "erpnext"):
            self.bench.add_code(app, "p1")
        self.done("init", self.request())
        self.server.root(f"""SET ROLE {DATABASE}; CREATE TABLE "tabNote" (id serial PRIMARY KEY, name text, value double precision, at timestamptz DEFAULT now());
            INSERT INTO "tabNote" (name, value) SELECT 'note ' || n, n / 7.0 FROM generate_series(1, 500) n; INSERT INTO "tabNote" (name) VALUES (NULL), ('a|b
c');
            CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9);
            CREATE VIEW seen AS SELECT name FROM "tabNote"; CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one; CREATE SEQUENCE number; SELECT nextval('number');
            CREATE TABLE "we""ird; name" (id int); CREATE INDEX by_name ON "tabNote" (lower(name));
            CREATE TABLE dropped (a int, b int, c text); INSERT INTO dropped VALUES (1, 2, 'c'); ALTER TABLE dropped DROP COLUMN b""", DATABASE)
        self.before, self.old = self.dump(), self.bench.record()["apps"]

    def request(self, **more):
        return self.bench.request(database={"type": "postgres", "own": False}, **more)

    def dump(self):
        """The whole database, by another program than the runner's checksums."""
        text = subprocess.run(["pg_dump", "-h", str(self.server.folder), "-p", str(self.server.port), "-U", "root", "--no-owner", "--no-privileges", "--inserts",
                               DATABASE], check=True, capture_output=True, text=True).stdout
        return sorted(line for line in text.split("\n") if not line.startswith(("\\restrict", "\\unrestrict", "--")))

    def update(self, kill_at=None, environment=None, **more):
        asked = {"id": ID, "drain_seconds": 5, **more}
        return self.bench.run("update", self.request(update=asked), kill_at=kill_at, **{**QUICK, **(environment or {})})

    def columns(self):
        return self.server.root("SELECT column_name FROM information_schema.columns WHERE table_name = 'taberpnext'", DATABASE).stdout.split()


class PostgresTest(PostgresCase):
    def test_updated(self):
        self.bench.add_code("erpnext", "p1", "p2")
        self.bench.watch()
        result = self.update()
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(self.bench.termination()["result"]["done"], "updated")
        self.assertIn("p2", self.columns())
        self.assertNotEqual(self.bench.record()["apps"], self.old)
        self.assertNotIn(HOSTILE, result.stdout + result.stderr)
        self.assertNotIn(HOSTILE.encode(), self.bench.exposed())

    def test_a_failing_update_killed_at_every_step_and_run_again(self):
        self.bench.add_code("erpnext", "p1", "p2", "fails_p3")
        for step in (steps := Steps(STEPS_MAX, STEPS)):
            killed = self.update(kill_at=step).returncode == KILLED
            result = self.update()
            self.assertEqual(result.returncode, 42, result.stdout + result.stderr)
            self.assertEqual(self.dump(), self.before, f"step {step}")
            self.assertEqual(self.bench.record()["apps"], self.old)
            self.assertFalse((self.bench.folder / "sites/.holds/shop.example.com").exists())
            if not killed:
                break
        self.assertGreater(step, 30)
        print(f"PostgreSQL, failing update: killed at {steps} and run again, database as before every time")

    def test_an_open_connection_is_waited_for(self):
        self.bench.add_code("erpnext", "p1", "p2")
        other = subprocess.Popen(["psql", "-h", "127.0.0.1", "-p", str(self.server.port), "-U", DATABASE, "-c", "SELECT pg_sleep(60)", DATABASE],
                                 env=self.bench.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        # The server does not notice that its client is gone.
        self.addCleanup(self.server.root, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
        while "pg_sleep(60)" not in self.server.root("SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()").stdout:
            time.sleep(0.05)
        self.assertEqual(self.update(drain_seconds=1).returncode, 75)
        self.assertIn("in use by 1 connections", self.bench.termination()["error"])

    def test_each_change_of_a_table_is_seen(self):
        self.bench.add_code("erpnext", "p1", "p2")
        self.update(environment={"STAND_IN_DIES": "migrating"})
        for change in ("UPDATE \"tabNote\" SET value = value + 1e-15 WHERE name = 'note 7'", "DELETE FROM \"tabNote\" WHERE name = 'note 9'",
                       "INSERT INTO \"tabNote\" (name) VALUES ('more')", "DROP INDEX by_name", "CREATE TABLE more ()", "SELECT nextval('number')",
                       'ALTER TABLE "tabNote" ALTER value TYPE numeric(30, 20)',
                       "CREATE OR REPLACE VIEW seen AS SELECT name FROM \"tabNote\" WHERE id > 3", "TRUNCATE \"we\"\"ird; name\", dropped"):
            self.server.root(f"SET ROLE {DATABASE}; {change}", DATABASE)
            self.assertNotEqual(self.dump(), self.before, change)
            result = self.update(back_only=True) if change.startswith("TRUNCATE") else self.update(environment={"STAND_IN_DIES": "migrating"})
            self.assertEqual(result.returncode, 42 if change.startswith("TRUNCATE") else KILLED, result.stdout + result.stderr)
            self.assertEqual(self.dump(), self.before, change)


if __name__ == "__main__":
    unittest.main()
