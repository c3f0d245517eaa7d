"""A site that another operator created is adopted unchanged, and only if it is the expected one."""

import json
import unittest

from support import DATABASE, ENCRYPTION_KEY, KILLED, PASSWORD, ServerTest, Steps

STEPS_MAX = 100
OLD_KEY = "b2xkLWtleS1vbGQta2V5LW9sZC1rZXktb2xkLWtleS0="


class AdoptionTest(ServerTest):
    def setUp(self):
        self.server.reset()
        self.new_bench()
        self.made_elsewhere()

    def made_elsewhere(self):
        """A site as the Go operator leaves it: without files of this operator, and with data of its users."""
        done = self.bench.run("init")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for path in self.bench.site().glob(".operator-*"):
            path.unlink()
        self.config = {"db_name": DATABASE, "db_password": PASSWORD, "db_type": "mariadb", "host_name": "shop.example.com",
                       "encryption_key": OLD_KEY, "developer_mode": 0}
        self.bench.site("site_config.json").write_text(json.dumps(self.config))
        self.bench.site("public/files").mkdir(parents=True, exist_ok=True)
        self.bench.site("public/files/logo.png").write_text("a logo")
        self.server.root(f"CREATE OR REPLACE TABLE {DATABASE}.precious (a int); INSERT INTO {DATABASE}.precious VALUES (42)")
        self.bench.forget_calls()

    def adopt(self, **more):
        return self.bench.run("init", {**self.bench.request(), "adopt": True, **more})

    def assert_adopted(self):
        config = json.loads(self.bench.site("site_config.json").read_text())
        self.assertEqual(config["encryption_key"], OLD_KEY, "what is encrypted with it can be read as before")
        self.assertEqual({key: config[key] for key in self.config}, self.config)
        self.assertEqual(self.bench.site(".operator-state").read_text(), "ready id-1\n")
        self.assertEqual(self.bench.site("public/files/logo.png").read_text(), "a logo")
        self.assertEqual(self.server.root(f"SELECT a FROM {DATABASE}.precious").stdout.strip(), "42")
        names = [call[0] for call in self.bench.calls()]
        self.assertNotIn("new_site", names)
        self.assertNotIn("set-admin-password", names)

    def test_it_is_adopted_unchanged(self):
        done = self.adopt()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assert_adopted()
        # From now on it is like any other site.
        for command in ("apply", "drop"):
            done = self.bench.run(command)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_without_a_request_it_is_not_changed(self):
        self.assertEqual(self.bench.run("init").returncode, 20)
        self.assertFalse(self.bench.site(".operator-state").exists())

    def test_killed_at_every_step_and_run_again(self):
        for step in (steps := Steps(STEPS_MAX)):
            self.server.reset()
            self.bench.close()
            self.new_bench()
            self.made_elsewhere()
            killed = self.bench.run("init", {**self.bench.request(), "adopt": True}, kill_at=step).returncode == KILLED
            done = self.adopt()
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assert_adopted()
            if not killed:
                break
        self.assertGreater(step, 5)
        print(f"adoption: killed at {steps} and run again, adopted unchanged every time")

    def test_another_site_than_the_expected_one_is_rejected(self):
        for key, value in (("db_name", "other"), ("db_password", "another"), ("db_user", "other")):
            before = {**self.config, key: value}
            self.bench.site("site_config.json").write_text(json.dumps(before))
            self.assertEqual(self.adopt().returncode, 21, key)
            said = self.bench.termination()["error"]
            self.assertEqual("SiteMismatch", self.bench.termination()["code"])
            self.assertIn(key, said)
            self.assertNotIn("another", said, "a password is not shown")
            self.assertEqual(json.loads(self.bench.site("site_config.json").read_text()), before)
            self.assertFalse(self.bench.site(".operator-state").exists())
        for text in ("", "[]", '{"db_name": "x"}'):
            self.bench.site("site_config.json").write_text(text)
            self.assertEqual(self.adopt().returncode, 21, text)

    def test_a_database_without_a_site_is_rejected(self):
        self.server.root(f"DELETE FROM {DATABASE}.__Auth")
        self.assertEqual(self.adopt().returncode, 21)
        self.assertFalse(self.bench.site(".operator-state").exists())

    def test_without_an_encryption_key_it_gets_one(self):
        del self.config["encryption_key"]
        self.bench.site("site_config.json").write_text(json.dumps(self.config))
        self.assertEqual(self.adopt().returncode, 0)
        self.assertEqual(json.loads(self.bench.site("site_config.json").read_text())["encryption_key"], ENCRYPTION_KEY)

    def test_an_account_may_have_another_name_than_its_database(self):
        self.server.root(f"CREATE OR REPLACE USER 'shop_user'@'%' IDENTIFIED BY '{PASSWORD}'; "
                         f"GRANT ALL PRIVILEGES ON {DATABASE}.* TO 'shop_user'@'%'")
        self.config["db_user"] = "shop_user"
        self.bench.site("site_config.json").write_text(json.dumps(self.config))
        self.server.root(f"DROP USER '{DATABASE}'@'%'")
        database = {**self.bench.request()["database"], "user": "shop_user"}
        done = self.adopt(database=database)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assert_adopted()

    def test_if_nothing_exists_the_site_is_created(self):
        self.server.reset()
        self.bench.close()
        self.new_bench()
        done = self.adopt()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("created", done.stdout)


if __name__ == "__main__":
    unittest.main()
