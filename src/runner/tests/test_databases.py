"""Existing databases: MariaDB and PostgreSQL, with an account that has no other privileges."""

import json
import subprocess
import unittest

from support import DATABASE, KILLED, PRIVILEGES, PostgresServer, ServerTest, Steps

STEPS = 3
HOSTILE = "p'a\"s\\s`w:o#rd $(id) é"


def connection(bench, **keys):
    folder = bench.folder / "secrets/connection"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for key, value in keys.items():
        (folder / key).write_text(value)


class Existing:
    """Tests for both servers."""

    def assert_done(self, result):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def request(self, **more):
        return self.bench.request(database={"type": self.engine, "own": False, **more})

    def test_created_killed_at_every_step_dropped_and_the_database_is_kept(self):
        for step in (steps := Steps(200, STEPS)):
            killed = self.bench.run("init", self.request(), kill_at=step).returncode == KILLED
            self.assert_done(self.bench.run("init", self.request()))
            config = json.loads(self.bench.site("site_config.json").read_text())
            self.assertEqual([config[key] for key in ("db_type", "db_name", "db_user", "db_password")],
                             [self.engine, DATABASE, DATABASE, HOSTILE])
            self.assertIn("tabDefaultValue", self.tables())
            self.clutter()
            self.bench.run("drop", self.request(), kill_at=step)
            self.assert_done(self.bench.run("drop", self.request()))
            self.assertEqual(self.tables(), [], "the database is there, and empty")
            self.assertFalse(self.bench.site().exists())
            if not killed:
                break
        self.assertGreater(step, 20)
        print(f"{self.engine}, existing database: killed at {steps}, complete and then empty every time")

    def test_a_database_with_other_tables_is_rejected(self):
        self.clutter()
        before = self.tables()
        self.assertEqual(self.bench.run("init", self.request()).returncode, 20)
        self.assertEqual(self.tables(), before)

    def test_host_and_port_are_from_the_request_or_else_from_the_secret(self):
        secret = {"username": DATABASE, "password": HOSTILE}
        connection(self.bench, **secret)
        result = self.bench.run("init", self.bench.request(database={"type": self.engine, "own": False}))
        self.assertEqual(result.returncode, 2)
        self.assertIn("no host", self.bench.termination()["error"])
        connection(self.bench, **secret, host="127.0.0.1", port="1")
        here = {"type": self.engine, "own": False, "port": self.server.port}
        self.assert_done(self.bench.run("init", self.bench.request(database=here)))

    def test_frappe_before_16_needs_one_name_for_account_and_database(self):
        tables = self.other_name()
        connection(self.bench, username=DATABASE, password=HOSTILE, database="shopdata")
        request = self.request(host="127.0.0.1", port=self.server.port)
        self.assertEqual(self.bench.run("init", request).returncode, 2)
        self.assertIn("give the database the user's name", self.bench.termination()["error"])
        self.assertFalse(self.bench.site(".operator-state").exists(), "nothing was begun")
        self.assert_done(self.bench.run("init", request, STAND_IN_VERSION="16.0.0-dev"))
        self.assertIn("tabDefaultValue", tables())

    def test_the_password_is_not_shown_anywhere(self):
        self.bench.watch()
        result = self.bench.run("init", self.request())
        self.assert_done(result)
        self.assertNotIn(HOSTILE.encode(), self.bench.exposed())
        self.assertNotIn(HOSTILE, result.stdout + result.stderr)


class MariaDbTest(Existing, ServerTest):
    engine = "mariadb"

    def setUp(self):
        self.server.reset()
        quoted = HOSTILE.replace("\\", "\\\\").replace("'", "\\'")
        # Without the privilege to create databases: only the guide's privileges on this database.
        self.server.root(f"CREATE OR REPLACE USER '{DATABASE}'@'%' IDENTIFIED BY '{quoted}'; "
                         f"GRANT {PRIVILEGES} ON `{DATABASE}`.* TO '{DATABASE}'@'%'")
        self.new_bench()
        connection(self.bench, username=DATABASE, password=HOSTILE, host="127.0.0.1", port=str(self.server.port))

    def tables(self):
        return self.server.root(f"SHOW TABLES IN {DATABASE}").stdout.split()

    def clutter(self):
        self.server.root(f"USE {DATABASE}; CREATE TABLE parent (id int PRIMARY KEY); "
                         "CREATE TABLE child (id int, FOREIGN KEY (id) REFERENCES parent (id)); CREATE VIEW seen AS SELECT * FROM child; "
                         "CREATE SEQUENCE number; CREATE TABLE `we``ird; name` (id int); "
                         "CREATE DEFINER=root@localhost FUNCTION one() RETURNS int RETURN 1")

    def other_name(self):
        self.server.root(f"CREATE OR REPLACE DATABASE shopdata; GRANT {PRIVILEGES} ON shopdata.* TO '{DATABASE}'@'%'")
        return lambda: self.server.root("SHOW TABLES IN shopdata").stdout


class PostgresTest(Existing, ServerTest):
    engine = "postgres"

    make_server = PostgresServer

    def setUp(self):
        self.server.root(f'DROP DATABASE IF EXISTS {DATABASE}')
        quoted = HOSTILE.replace("'", "''")
        self.server.root(f'DROP ROLE IF EXISTS {DATABASE}')
        self.server.root(f"CREATE ROLE {DATABASE} LOGIN PASSWORD '{quoted}'")
        self.server.root(f"CREATE DATABASE {DATABASE} OWNER {DATABASE}")
        self.new_bench()
        connection(self.bench, username=DATABASE, password=HOSTILE, host="127.0.0.1", port=str(self.server.port))

    def tables(self):
        return self.server.root("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'i'",
                                DATABASE).stdout.split("\n")[:-1]

    def clutter(self):
        self.server.root(f"""SET ROLE {DATABASE}; CREATE TABLE parent (id serial PRIMARY KEY) ;
            CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9);
            CREATE VIEW seen AS SELECT * FROM parent; CREATE MATERIALIZED VIEW kept AS SELECT 1; CREATE SEQUENCE number;
            CREATE TABLE "we""ird; name" (id int); CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'""", DATABASE)

    def other_name(self):
        self.addCleanup(self.server.root, "DROP DATABASE shopdata")
        self.server.root(f"CREATE DATABASE shopdata OWNER {DATABASE}")
        return lambda: self.server.root("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace", "shopdata").stdout

    def test_version_14_is_rejected_before_anything_is_created(self):
        self.bench.close()
        self.new_bench(version=14)
        connection(self.bench, username=DATABASE, password=HOSTILE, host="127.0.0.1", port=str(self.server.port))
        self.assertEqual(self.bench.run("init", self.request(), STAND_IN_VERSION="14.9.0").returncode, 2)
        self.assertIn("use 15 or later", self.bench.termination()["error"])


if __name__ == "__main__":
    unittest.main()
