"""Removal of an app from a site: a complete backup first, then everything of the app."""

import gzip
import unittest

from support import DATABASE, ENCRYPTION_KEY, KILLED, PASSWORD, PostgresServer, ServerTest, Steps

STEPS_MAX = 250


class RemoveAppsTest(ServerTest):
    def setUp(self):
        self.server.reset()
        self.new_bench()
        (self.bench.folder / "apps/hrms").mkdir()
        self.done("init", self.request(apps=["erpnext"]))
        self.done("apply", self.request(apps=["erpnext", "hrms"]))
        self.server.root(f"INSERT INTO {DATABASE}.hook_hrms VALUES ('an employee')")
        self.bench.forget_calls()

    def request(self, **more):
        return self.bench.request(**more)

    def removal(self, **more):
        return self.request(apps=["erpnext"], removed_apps=["hrms"], **more)

    def tables(self):
        return self.server.root(f"SHOW TABLES IN {DATABASE}").stdout.split()

    def backups(self):
        return sorted((self.bench.folder / "sites/.removed-apps/shop.example.com-id-1").glob("hrms-*-database.sql.gz"))

    def restored(self, backup):
        """The rows of the app in a backup, which is restored to another database."""
        dump = gzip.decompress(backup.read_bytes()).decode()
        self.server.root(f"CREATE OR REPLACE DATABASE restored; USE restored;\n{dump}")
        return self.server.root("SELECT name FROM restored.hook_hrms").stdout.strip()

    def test_an_app_is_removed_with_its_data_after_a_restorable_backup(self):
        self.bench.watch()
        result = self.done("apply", self.removal())
        self.assertEqual(self.installed(), ["frappe", "erpnext"])
        self.assertNotIn("hook_hrms", self.tables())
        self.assertIn("bye_hrms", self.tables(), "the app's own hook ran")
        self.assertEqual(len(self.backups()), 1)
        self.assertEqual(self.restored(self.backups()[0]), "an employee")
        self.assertIn(str(self.backups()[0].name), result.stdout, "the log says where it is")
        seen = self.bench.exposed()
        for value in (PASSWORD, ENCRYPTION_KEY):
            self.assertNotIn(value.encode(), seen)
            self.assertNotIn(value, result.stdout + result.stderr)
        self.bench.forget_calls()
        self.done("apply", self.removal())
        self.assertEqual([call[0] for call in self.bench.calls()], [], "nothing is left to do")

    def test_after_a_truncated_backup_nothing_is_removed(self):
        failed = self.bench.run("apply", self.removal(), PATH=self.bench.cut_dumps())
        self.assertEqual(failed.returncode, 31, failed.stdout + failed.stderr)
        self.assertIn("is incomplete", self.bench.termination()["error"])
        self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"])
        self.assertIn("hook_hrms", self.tables())
        self.assertEqual(self.backups(), [])
        self.done("apply", self.removal())
        self.assertEqual(len(self.backups()), 1)

    def test_a_removal_that_failed_late_is_repeated_with_its_first_backup(self):
        self.assertEqual(self.bench.run("apply", self.removal(), STAND_IN_FAILS="uninstall-app:unlisted").returncode, 30)
        self.assertEqual(self.installed(), ["frappe", "erpnext"], "Frappe lies")
        first = self.backups()
        self.assertEqual(self.bench.termination()["error"], "hrms: the hook of the app failed", "what was printed last is the reason")
        self.done("apply", self.removal())
        self.assertIn(["uninstall-app", "--yes", "--no-backup", "--force", "hrms"], self.bench.calls())
        self.assertIn("bye_hrms", self.tables())
        self.assertEqual(self.backups(), first)
        self.assertEqual(self.restored(first[0]), "an employee")

    def test_a_partly_removed_app_that_is_requested_again_is_installed_again(self):
        for step in Steps(STEPS_MAX):
            killed = self.bench.run("apply", self.removal(), kill_at=step).returncode == KILLED
            self.done("apply", self.request(apps=["erpnext", "hrms"]))
            self.assertIn("hrms", self.installed())
            self.assertIn("hook_hrms", self.tables())
            self.assertFalse(self.bench.site(".operator-removing").exists())
            if not killed:
                break
        self.assertGreater(step, 20)
        marker = self.bench.site(".operator-removing")
        marker.write_text("hrms sites/backup\n")
        self.server.root(f"DROP TABLE {DATABASE}.hook_hrms")
        self.done("apply", self.request(apps=["erpnext", "hrms"]))
        self.assertIn(["install-app", "--force", "hrms"], self.bench.calls())
        self.assertIn("hook_hrms", self.tables(), "Frappe still listed it, and it was half gone")
        self.assertFalse(marker.exists())

    def test_removal_killed_at_every_step_and_run_again(self):
        for step in (steps := Steps(STEPS_MAX)):
            self.done("apply", self.request(apps=["erpnext", "hrms"]))
            self.server.root(f"DROP TABLE IF EXISTS {DATABASE}.bye_hrms; "
                             f"REPLACE INTO {DATABASE}.hook_hrms VALUES ('an employee')")
            former = set(self.backups())
            killed = self.bench.run("apply", self.removal(), kill_at=step).returncode == KILLED
            self.done("apply", self.removal())
            self.assertEqual(self.installed(), ["frappe", "erpnext"])
            self.assertNotIn("hook_hrms", self.tables())
            self.assertIn("bye_hrms", self.tables())
            self.assertFalse(self.bench.site(".operator-removing").exists())
            new = sorted(set(self.backups()) - former)
            self.assertTrue(new or former, "a backup was made")
            for backup in new:
                self.assertEqual(self.restored(backup), "an employee")
                backup.unlink()
            if not killed:
                break
        self.assertGreater(step, 20)
        print(f"removal of an app: killed at {steps} and run again, removed and backed up every time")

    def test_an_app_that_the_image_does_not_have_is_not_changed(self):
        (self.bench.folder / "apps/hrms").rmdir()
        self.assertEqual(self.bench.run("apply", self.removal()).returncode, 2)
        self.assertEqual("AppsMissing", self.bench.termination()["code"])
        self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"])

    def test_an_app_is_removed_before_those_that_it_requires(self):
        self.bench.add_app("hrms", ["frappe/payroll"])
        self.bench.add_app("payroll")
        self.done("apply", self.request(apps=["erpnext", "hrms"]))
        self.done("apply", self.request(apps=["erpnext"], removed_apps=["payroll", "hrms"]))
        self.assertEqual(self.installed(), ["frappe", "erpnext"])
        removed = [call[-1] for call in self.bench.calls() if call[0] == "uninstall-app"]
        self.assertEqual(removed, ["hrms", "payroll"])

    def test_an_app_that_another_requires_is_rejected_before_the_dump(self):
        """Frappe does not remove it either, and reports success."""
        self.bench.add_app("hrms", ["frappe/payroll"])
        self.bench.add_app("payroll")
        self.done("apply", self.request(apps=["erpnext", "hrms"]))
        for apps in (["erpnext", "hrms"], ["erpnext"]):
            self.assertEqual(self.bench.run("apply", self.request(apps=apps, removed_apps=["payroll"])).returncode, 2)
            self.assertEqual(self.bench.termination(), {"step": "apps", "code": "AppRequired", "error":
                "hrms requires payroll: list hrms in removedApps as well, or keep payroll"})
        self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms", "payroll"])
        self.assertFalse((self.bench.folder / "sites/.removed-apps").exists())

    def test_a_removal_that_frappe_only_reported_is_repeated_without_another_dump(self):
        for _ in range(2):
            failed = self.bench.run("apply", self.removal(), STAND_IN_FAILS="before_uninstall:hrms")
            self.assertEqual(failed.returncode, 30)
            self.assertEqual(self.bench.termination()["error"], "Frappe reported success but still lists hrms: hrms is still needed by somebody")
            self.assertEqual(len(self.backups()), 1)
        self.done("apply", self.removal())
        self.assertEqual(len(self.backups()), 1)
        self.assertEqual(self.restored(self.backups()[0]), "an employee")

    def test_cached_hooks_do_not_stop_a_removal(self):
        """Frappe runs hooks of the app for the last document that it saves, after the app was removed from the list."""
        (self.bench.folder / "sites/cached-hooks").touch()
        self.done("apply", self.removal(), STAND_IN_FAILS="uninstall-app:cached")
        self.assertEqual(self.installed(), ["frappe", "erpnext"])
        self.assertIn("bye_hrms", self.tables())

    def test_a_started_installation_is_removed(self):
        self.done("apply", self.removal())
        self.assertEqual(self.bench.run("apply", self.request(apps=["erpnext", "hrms"]), STAND_IN_FAILS="install-app:synced").returncode, 30)
        self.done("apply", self.removal())
        self.assertNotIn("tabhrms", self.tables())
        self.assertFalse(self.bench.site(".operator-installing").exists())
        self.done("apply", self.request(apps=["erpnext", "hrms"]))

    def test_contradictory_requests_are_rejected(self):
        for bad in (["frappe"], ["erpnext"], ["a;b"], ["--force"]):
            self.assertEqual(self.bench.run("apply", self.request(apps=["erpnext"], removed_apps=bad)).returncode, 2, bad)
        self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"])

    def test_the_backups_of_a_dropped_site_are_removed(self):
        self.done("apply", self.removal())
        neighbour = self.bench.folder / "sites/.removed-apps/shop.example.com-id-2"
        neighbour.mkdir()
        self.done("drop", self.request())
        self.assertEqual(self.backups(), [])
        self.assertTrue(neighbour.exists(), "another identity's stay")


class PostgresRemoveAppsTest(ServerTest):
    make_server = PostgresServer

    def test_an_app_is_removed_after_a_backup(self):
        self.server.root(f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'")
        self.server.root("CREATE DATABASE shop OWNER shop")
        self.new_bench()
        self.bench.watch()
        (self.bench.folder / "apps/hrms").mkdir()
        folder = self.bench.folder / "secrets/connection"
        folder.mkdir()
        for key, value in {"username": "shop", "password": PASSWORD, "database": "shop"}.items():
            (folder / key).write_text(value)
        database = {"type": "postgres", "own": False, "host": "127.0.0.1", "port": self.server.port}
        for command, apps, removed in (("init", ["erpnext", "hrms"], []), ("apply", ["erpnext"], ["hrms"])):
            result = self.bench.run(command, self.bench.request(apps=apps, removed_apps=removed, database=database))
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        backup, = (self.bench.folder / "sites/.removed-apps/shop.example.com-id-1").glob("hrms-*-database.sql.gz")
        self.assertIn(b"PostgreSQL database dump complete", gzip.decompress(backup.read_bytes()))
        self.assertIn("bye_hrms", self.server.root("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", "shop").stdout)
        self.assertNotIn(PASSWORD.encode(), self.bench.exposed())


if __name__ == "__main__":
    unittest.main()
