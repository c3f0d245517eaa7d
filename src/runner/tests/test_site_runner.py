"""The site runner succeeds or fails with a reason, can be killed at any point and run again, and exposes no secret."""

import json
import pathlib
import shutil
import signal
import time
import unittest

from support import DATABASE, ENCRYPTION_KEY, KILLED, PASSWORD, SECRETS, Scanner, ServerTest, Steps

STEPS_MAX = 200


class RunnerTest(ServerTest):
    def setUp(self):
        self.server.reset()
        self.new_bench()

    def assert_done(self, result, text):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn(text, result.stdout)

    def assert_complete(self):
        config = json.loads(self.bench.site("site_config.json").read_text())
        self.assertEqual(config["encryption_key"], ENCRYPTION_KEY)
        self.assertEqual((config["db_name"], config["db_user"]), (DATABASE, DATABASE))
        self.assertEqual(self.bench.site(".operator-state").read_text(), "ready id-1\n")
        self.assertEqual(self.server.root(f"SELECT COUNT(*) FROM {DATABASE}.__Auth").stdout.strip(), "1")
        rows = self.server.root(f"SELECT defvalue FROM {DATABASE}.tabDefaultValue").stdout.strip()
        self.assertEqual(rows, '["frappe", "erpnext"]')

    def test_init_creates_the_site_once(self):
        self.assert_done(self.bench.run("init"), "created")
        self.assert_complete()
        names = [call[0] for call in self.bench.calls()]
        self.assertIn("enable_scheduler", names)
        new_site = next(call for call in self.bench.calls() if call[0] == "new_site")
        self.assertEqual(new_site[1:], [DATABASE, "shop.example.com", ["erpnext"], True, "mariadb", False])
        charset = self.server.root(f"SELECT default_character_set_name, default_collation_name FROM information_schema.schemata "
                                   f"WHERE schema_name = '{DATABASE}'").stdout.split()
        self.assertEqual(charset, ["utf8mb4", "utf8mb4_unicode_ci"])
        self.assertEqual(self.bench.site("site_config.json").stat().st_mode & 0o777, 0o640)
        self.bench.forget_calls()
        self.assert_done(self.bench.run("init"), "already created")
        self.assertEqual(self.bench.calls(), [], "a site that is ready is never touched")

    def test_init_killed_at_every_step_and_run_again(self):
        for step in (steps := Steps(STEPS_MAX)):
            self.server.reset()
            self.bench.close()
            self.new_bench()
            result = self.bench.run("init", kill_at=step)
            killed = result.returncode == KILLED
            self.assert_done(self.bench.run("init"), "created")
            self.assert_complete()
            if not killed:
                break
        self.assertGreater(step, 20)
        print(f"init: killed at {steps} and run again, complete every time")

    def test_init_killed_several_times_in_a_row(self):
        for step in (3, 9, 14, 19, 25, 31, 37):
            self.bench.run("init", kill_at=step)
        self.assert_done(self.bench.run("init"), "created")
        self.assert_complete()

    def test_drop_killed_at_every_step_and_run_again(self):
        for step in (steps := Steps(STEPS_MAX)):
            self.server.reset()
            self.assert_done(self.bench.run("init"), "created")
            killed = self.bench.run("drop", kill_at=step).returncode == KILLED
            self.assert_done(self.bench.run("drop"), "dropped")
            self.assertNotIn(DATABASE, self.server.root("SHOW DATABASES").stdout)
            left = [path.name for path in (self.bench.folder / "sites").rglob("*")]
            self.assertEqual(left, [".schemas"], "an empty folder")
            if not killed:
                break
        self.assertGreater(step, 8)
        print(f"drop: killed at {steps} and run again, nothing left every time")

    def test_a_site_can_be_created_again_after_drop(self):
        self.bench.run("init")
        self.bench.run("drop")
        self.assert_done(self.bench.run("init", self.bench.request(identity="id-2")), "created")

    def test_no_secret_in_arguments_environment_or_output(self):
        self.bench.watch()
        with Scanner() as scanner:
            results = [self.bench.run("init"), self.bench.run("drop"), self.bench.run("init", STAND_IN_FAILS="new-site")]
        seen = scanner.seen | {self.bench.exposed()}
        for program in (b"site_runner.py", b"--defaults-extra-file", b"--protocol=tcp"):
            self.assertTrue(any(program in one for one in seen), f"{program} was not seen: nothing was searched")
        self.assertEqual(results[2].returncode, 30)
        output = "".join(result.stdout + result.stderr for result in results) + (self.bench.folder / "termination").read_text()
        self.assertIn("password [secret]", output, "the stand-in printed the password and it was redacted")
        for name, value in SECRETS.items():
            self.assertFalse(any(value.encode() in one for one in seen), f"{name} was in an argument or an environment")
            self.assertNotIn(value, output, f"{name} was in the output")
        print(f"searched {len(seen)} command lines and environments in {scanner.rounds} looks at /proc, "
              f"and {len(output)} bytes of output: no secret")

    def test_version_14_is_created_without_root_and_without_showing_the_password(self):
        self.bench.close()
        self.new_bench(version=14)
        self.bench.watch()
        self.assert_done(self.bench.run("init"), "created")
        self.assert_complete()
        self.assertIn(["bootstrap", DATABASE], self.bench.calls())
        self.assertIn("tabBootstrapped", self.server.root(f"SHOW TABLES IN {DATABASE}").stdout)
        seen = self.bench.exposed()
        self.assertNotIn(PASSWORD.encode(), seen)

    def test_another_sites_directory_is_rejected(self):
        self.bench.run("init")
        for command in ("init", "drop"):
            result = self.bench.run(command, self.bench.request(identity="id-2"))
            self.assertEqual(result.returncode, 22)
            self.assertEqual("SiteNameTaken", self.bench.termination()["code"])
        self.assert_complete()

    def test_an_unknown_directory_is_rejected(self):
        self.bench.site().mkdir()
        self.bench.site("site_config.json").write_text("{}")
        for command in ("init", "drop"):
            self.assertEqual(self.bench.run(command).returncode, 21)
        self.assertEqual(self.bench.site("site_config.json").read_text(), "{}")

    def test_a_database_with_unknown_tables_is_rejected(self):
        self.server.root(f"CREATE TABLE {DATABASE}.precious (a int)")
        self.assertEqual(self.bench.run("init").returncode, 20)
        self.assertIn("1 tables", self.bench.termination()["error"])
        self.assertEqual(self.server.root(f"SHOW TABLES IN {DATABASE}").stdout.strip(), "precious")

    def test_an_incomplete_site_that_frappe_calls_installed_is_not_ready(self):
        result = self.bench.run("init", STAND_IN_FAILS="no-administrator")
        self.assertEqual(result.returncode, 31)
        self.assertEqual(self.bench.termination(), {"step": "check", "code": "SiteIncomplete", "error": "the site has no password for Administrator"})
        self.assertEqual(self.bench.site(".operator-state").read_text(), "creating id-1\n")
        self.assert_done(self.bench.run("init"), "created")
        self.assert_complete()

    def test_a_wrong_password_is_reported_without_showing_it(self):
        wrong = "WrongPassword0123456789abcdefghi"
        (self.bench.folder / "secrets/password").write_text(wrong)
        result = self.bench.run("init")
        self.assertEqual(result.returncode, 10)
        self.assertIn("Access denied", self.bench.termination()["error"])
        self.assertNotIn(wrong, result.stdout + result.stderr)
        self.assertFalse(self.bench.site("site_config.json").exists(), "nothing was begun")

    def test_a_missing_secret_is_reported(self):
        (self.bench.folder / "secrets/admin-password").unlink()
        result = self.bench.run("init")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(self.bench.termination(), {"step": "secrets", "code": "SecretInvalid", "error": "the Secret's key admin-password does not exist"})
        request = self.bench.request(secrets={"admin-password": ["shop-admin", "password"]})
        for content, words in ((None, "does not exist"), ("", "is empty"), ("\n", "is empty")):
            if content is not None:
                (self.bench.folder / "secrets/admin-password").write_text(content)
            self.assertEqual(self.bench.run("init", request).returncode, 2)
            self.assertEqual(self.bench.termination()["error"], f"the key password of the Secret shop-admin {words}")

    def test_a_missing_app_is_rejected_before_anything_is_created(self):
        result = self.bench.run("init", self.bench.request(apps=["hrms"]))
        self.assertEqual(result.returncode, 2)
        self.assertEqual("AppsMissing", self.bench.termination()["code"])
        self.assertFalse(self.bench.site(".operator-state").exists())

    def test_two_pods_do_not_work_on_one_site(self):
        self.bench.site().mkdir()
        import fcntl
        with open(self.bench.site(".operator-lock"), "w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self.assertEqual(self.bench.run("init").returncode, 75)

    def test_hostile_requests_are_rejected(self):
        database = self.bench.request()["database"]
        for bad in ({"site": "../etc"}, {"site": "a/b"}, {"site": "a;b"}, {"apps": ["a b"]}, {"apps": ["../x"]},
                    {"database": {**database, "name": "a`; DROP DATABASE mysql; --"}}, {"database": {**database, "user": "a-b"}}):
            self.assertEqual(self.bench.run("init", self.bench.request(**bad)).returncode, 2, bad)

    def test_sigterm_ends_it(self):
        self.server.process.send_signal(signal.SIGSTOP)
        try:
            process = self.bench.start("init")
            time.sleep(1)
            process.terminate()
            # Its child waits for the stopped server.
        finally:
            self.server.process.send_signal(signal.SIGCONT)
        process.communicate(timeout=20)
        self.assertIn(process.returncode, (143, 10))
        self.assert_done(self.bench.run("init"), "created")

    def test_sigterm_ends_it_and_its_children_even_if_it_is_caught(self):
        (self.bench.folder / "apps/hrms").mkdir()
        wanted = self.bench.request(apps=["erpnext", "hrms"])
        for command in ("init", "apply"):
            if command == "apply":
                self.assert_done(self.bench.run("init"), "created")
            self.bench.forget_calls()
            process = self.bench.start(command, wanted, STAND_IN_SWALLOWS="1")
            self.addCleanup(process.kill)
            while not (calls := [call for call in self.bench.calls() if call[0] == "swallowing"]):
                self.assertIsNone(process.poll())
                time.sleep(0.05)
            process.terminate()
            process.communicate(timeout=10)
            self.assertEqual(process.returncode, 143)
            for _ in range(100):
                if not pathlib.Path(f"/proc/{calls[0][1]}").exists():
                    break
                time.sleep(0.05)
            self.assertEqual([call[0] for call in self.bench.calls()], ["swallowing"], "nothing went on")

    def test_a_failure_contains_a_reason_that_was_only_printed(self):
        self.bench.run("init", STAND_IN_FAILS="install-app:begun")
        self.assertEqual(self.bench.termination()["error"].split(": ", 2)[:2], ["SystemExit", "1"])
        self.assertTrue(self.bench.termination()["error"].endswith("Installing erpnext... erpnext: the hook of the app failed"))
        self.bench.run("init", STAND_IN_FAILS="command")
        self.assertEqual(self.bench.termination()["error"], "CommandFailedError: Command failed: psql: error: password authentication failed")
        self.assert_done(self.bench.run("init"), "created")

    def test_configure_merges_and_keeps_other_entries(self):
        sites = self.bench.folder / "sites"
        (sites / "common_site_config.json").write_text('{"mail_server": "mine", "socketio_port": 1}')
        (sites / "apps.txt").write_text("frappe\nlegacy\nerpnext\n")
        request = {"common_site_config": {"bench_id": "default-bench", "socketio_port": 9000}}
        for _ in range(2):
            self.assert_done(self.bench.run("configure", request), '{"apps": ["erpnext", "frappe"], "code": {}}')
            config = json.loads((sites / "common_site_config.json").read_text())
            self.assertEqual(config, {"mail_server": "mine", "socketio_port": 9000, "bench_id": "default-bench"})
            self.assertEqual((sites / "apps.txt").read_text().split(), ["frappe", "erpnext"])

    def listed(self):
        return (self.bench.folder / "sites/apps.txt").read_text().split()

    def test_an_app_missing_from_a_new_image_is_not_listed(self):
        """Frappe imports every listed app: workers, scheduler and every Job would fail."""
        (self.bench.folder / "apps/hrms").mkdir()
        configure = lambda: self.assert_done(self.bench.run("configure", {"common_site_config": {}}), "apps")
        configure()
        self.assertEqual(self.listed(), ["frappe", "erpnext", "hrms"])
        self.assert_done(self.bench.run("init"), "created")
        (self.bench.folder / "apps/hrms").rmdir()
        configure()
        self.assertEqual(self.listed(), ["frappe", "erpnext"])
        self.assert_done(self.bench.run("apply", self.bench.request(set_admin_password=True)), "applied")
        (self.bench.folder / "apps/hrms").mkdir()
        configure()
        self.assertEqual(self.listed(), ["frappe", "erpnext", "hrms"], "the former image is back, and sites may have the app")

    def test_an_app_of_the_bench_missing_from_a_new_image_stays_listed(self):
        """No pod of this image starts: pods of the previous image continue, with its hooks."""
        for app in ("hrms", "payroll"):
            self.bench.add_app(app)
        configure = lambda *apps: self.assert_done(self.bench.run("configure", {"common_site_config": {}, "apps": apps}), "apps")
        configure("erpnext", "hrms")
        self.assertEqual(self.listed(), ["frappe", "erpnext", "hrms", "payroll"])
        for app in ("hrms", "payroll"):
            shutil.rmtree(self.bench.folder / "apps" / app)
        self.bench.add_app("crm")
        for _ in range(2):
            configure("erpnext", "hrms")
            self.assertEqual(self.listed(), ["frappe", "erpnext", "hrms", "payroll"], "nor is one listed that pods lack")
        configure("erpnext")
        for _ in range(2):
            configure("erpnext")
            self.assertEqual(self.listed(), ["frappe", "erpnext"], "the bench is to do without it, and pods of this image start")

    def test_no_job_starts_while_the_image_lacks_an_app_of_the_bench(self):
        self.bench.add_app("hrms")
        request = {"common_site_config": {}, "apps": ["erpnext", "hrms"]}
        self.assert_done(self.bench.run("configure", request), "apps")
        self.assert_done(self.bench.run("init"), "created")
        shutil.rmtree(self.bench.folder / "apps/hrms")
        self.assert_done(self.bench.run("configure", request), "apps")
        self.bench.forget_calls()
        staging = str(self.bench.folder / "staging")
        self.assert_done(self.bench.run("backup", self.bench.request(staging=staging)), "bytes")
        for command in ("init", "apply", "restore"):
            with self.subTest(command):
                result = self.bench.run(command, self.bench.request(staging=staging, run="nightly-1", set_admin_password=True))
                self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
                self.assertEqual(self.bench.termination()["code"], "AppsMissing")
                self.assertTrue(self.bench.termination()["error"].startswith("the bench has hrms, but the image does not"))
        self.assertEqual(self.bench.calls(), [])
        self.assertFalse(self.bench.site(".operator-restoring").exists())
        self.assert_done(self.bench.run("drop"), "dropped")

    def test_an_app_that_was_listed_before_is_known(self):
        (self.bench.folder / "sites/apps.txt").write_text("frappe\nerpnext\nlegacy\n")
        configure = lambda: self.assert_done(self.bench.run("configure", {"common_site_config": {}}), "apps")
        configure()
        self.assertEqual(self.listed(), ["frappe", "erpnext"])
        (self.bench.folder / "apps/legacy").mkdir()
        configure()
        self.assertEqual(self.listed(), ["frappe", "erpnext", "legacy"], "pods of the former image had it, and sites may")
        self.assertEqual((self.bench.folder / "sites/.operator-apps").read_text().split(), ["frappe", "erpnext", "legacy"])

    def test_an_app_added_by_a_new_image_is_listed_once_a_site_has_it(self):
        """Pods of the previous image continue for a while, and would fail if it were listed."""
        configure = lambda: self.assert_done(self.bench.run("configure", {"common_site_config": {}}), "apps")
        configure()
        self.assert_done(self.bench.run("init"), "created")
        for app in ("hrms", "payroll", "crm"):
            self.bench.add_app(app, ["payroll"] if app == "hrms" else [])
        for _ in range(2):
            configure()
            self.assertEqual(self.listed(), ["frappe", "erpnext"], "the rollout may not be complete when it runs again")
        self.assert_done(self.bench.run("apply"), "applied")
        self.assertEqual(self.listed(), ["frappe", "erpnext"])
        self.assert_done(self.bench.run("apply", self.bench.request(apps=["erpnext", "hrms"])), "applied")
        self.assertEqual(self.listed(), ["frappe", "erpnext", "payroll", "hrms"])
        configure()
        self.assertEqual(self.listed(), ["frappe", "erpnext", "payroll", "hrms"])

    def test_a_missing_app_of_the_site_is_rejected_before_a_migration(self):
        """A migration would remove its DocTypes with their data."""
        (self.bench.folder / "apps/hrms").mkdir()
        (self.bench.folder / "apps/payroll").mkdir()
        self.assert_done(self.bench.run("init", self.bench.request(apps=["erpnext", "hrms"])), "created")
        (self.bench.folder / "apps/hrms").rmdir()
        self.assert_done(self.bench.run("apply"), "applied")
        self.assertEqual(self.bench.run("apply", self.bench.request(apps=["erpnext", "payroll"])).returncode, 2)
        self.assertEqual(self.bench.termination(), {"step": "apps", "code": "AppsMissing", "error": "the site has hrms, but the image does not: build the image with hrms"})
        self.assertIn("tabhrms", self.server.root(f"SHOW TABLES IN {DATABASE}").stdout)

    def test_configure_writes_redis_passwords_and_urls_from_secrets(self):
        path = self.bench.folder / "sites" / "common_site_config.json"
        (self.bench.folder / "secrets" / "redis-password").write_text('p@ss"w/ord')
        url = "redis://bench-redis-cache:6379"
        request = {"common_site_config": {"redis_cache": url}, "password_urls": ["redis_cache"]}
        done = self.bench.run("configure", request)
        self.assert_done(done, "apps")
        self.assertEqual(
            json.loads(path.read_text())["redis_cache"], "redis://:p%40ss%22w%2Ford@bench-redis-cache:6379"
        )
        self.assertNotIn("p@ss", done.stdout + done.stderr)
        (self.bench.folder / "secrets" / "redis-queue").write_text("rediss://u:secret@example.com:6380/1\n")
        request = {"common_site_config": {}, "secret_urls": {"redis_queue": "redis-queue"}}
        self.assert_done(self.bench.run("configure", request), "apps")
        self.assertEqual(json.loads(path.read_text())["redis_queue"], "rediss://u:secret@example.com:6380/1")
        (self.bench.folder / "secrets" / "redis-queue").write_text("not a url")
        self.assertEqual(self.bench.run("configure", request).returncode, 2)

    def test_configure_killed_at_every_step_leaves_complete_files(self):
        sites = self.bench.folder / "sites"
        request = {"common_site_config": {"bench_id": "b"}}
        (sites / "common_site_config.json").write_text('{"mail_server": "mine"}')
        for step in Steps(STEPS_MAX):
            killed = self.bench.run("configure", request, kill_at=step).returncode == KILLED
            self.assertEqual(json.loads((sites / "common_site_config.json").read_text())["mail_server"], "mine")
            if not killed:
                break
        self.assertEqual(json.loads((sites / "common_site_config.json").read_text())["bench_id"], "b")

    def test_usage(self):
        self.assertEqual(self.bench.run("explode").returncode, 2)


if __name__ == "__main__":
    unittest.main()
