"""Changes of an existing site: the requested settings, hosts, passwords and apps are applied."""

import hashlib
import json
import shutil
import unittest

from support import ADMIN_PASSWORD, DATABASE, KILLED, PASSWORD, ServerTest, Steps

STEPS_MAX = 250


class ApplyTest(ServerTest):
    def setUp(self):
        self.server.reset()
        self.new_bench()
        (self.bench.folder / "apps/hrms").mkdir()
        (self.bench.folder / "secrets/config").mkdir()
        (self.bench.folder / "secrets/config/mail_password").write_text('mail"pass\\word')

    def request(self, **more):
        settings = {"config": {"maintenance_mode": 1, "host_name": "https://shop.com"}, "secret_config": ["mail_password"],
                    "hosts": ["shop.com", "www.shop.com", "shop.example.com"]}
        return self.bench.request(**{**settings, **more})

    def config(self):
        return json.loads(self.bench.site("site_config.json").read_text())

    def hosts(self):
        folder = self.bench.folder / "sites/.hosts"
        if not folder.exists():
            return {}
        return {path.name: path.read_text().strip() for path in folder.iterdir() if not path.name.startswith(".")}

    def forget_hrms(self):
        """Resets the app to the state before its installation."""
        self.server.root(f"""USE {DATABASE}; DROP TABLE IF EXISTS hook_hrms, tabhrms; DELETE FROM `tabModule Def` WHERE name = 'hrms';
            DELETE FROM hooks WHERE app = 'hrms'; UPDATE tabDefaultValue SET defvalue = '["frappe", "erpnext"]'""")

    def hooks(self):
        """How often each app's hook completed, by app."""
        rows = self.server.root(f"SELECT app, COUNT(*) FROM {DATABASE}.hooks GROUP BY app").stdout.split("\n")
        return {app: int(count) for app, _, count in (row.partition("\t") for row in rows if row)}

    def test_a_site_is_created_with_its_settings(self):
        self.done("init", self.request())
        self.assertEqual((self.config()["maintenance_mode"], self.config()["mail_password"]), (1, 'mail"pass\\word'))
        self.assertEqual(self.hosts(), {"shop.com": "shop.example.com", "www.shop.com": "shop.example.com"})

    def test_settings_change_and_others_settings_are_kept(self):
        self.done("init", self.request())
        config = self.config()
        self.bench.site("site_config.json").write_text(json.dumps({**config, "by_hand": 7}))
        result = self.done("apply", self.request(config={"pause_scheduler": 1}, secret_config=[], hosts=["shop.org"]))
        expected = {**config, "by_hand": 7, "pause_scheduler": 1}
        for key in ("maintenance_mode", "host_name", "mail_password"):
            del expected[key]
        self.assertEqual(self.config(), expected)
        self.assertEqual(self.hosts(), {"shop.org": "shop.example.com"})
        self.assertNotIn("pass", result.stdout + result.stderr)
        self.done("apply", self.request(config={}, secret_config=[], hosts=[]))
        self.assertEqual(self.hosts(), {})

    def test_a_host_of_another_site_is_kept(self):
        self.done("init", self.request())
        (self.bench.folder / "sites/.hosts/shop.com").write_text("other.example.com\n")
        self.done("apply", self.request(hosts=[]))
        self.assertEqual(self.hosts(), {"shop.com": "other.example.com"})
        self.done("drop", self.request())
        self.assertEqual(self.hosts(), {"shop.com": "other.example.com"})

    def test_a_password_is_set_only_on_request_and_never_shown(self):
        self.bench.watch()
        self.done("init", self.request())
        self.done("apply", self.request())
        self.assertFalse(self.bench.site("admin-password-set").exists())
        self.bench.site("sessions").touch()
        result = self.done("apply", self.request(set_admin_password=True))
        self.assertFalse(self.bench.site("sessions").exists(), "who knows the former password is not in any more")
        self.assertEqual(self.bench.site("admin-password-set").read_text(), hashlib.sha256(ADMIN_PASSWORD.encode()).hexdigest())
        seen = self.bench.exposed()
        for value in (ADMIN_PASSWORD, PASSWORD):
            self.assertNotIn(value.encode(), seen)
            self.assertNotIn(value, result.stdout + result.stderr)

    def test_a_rotated_database_password_is_applied(self):
        self.done("init", self.request())
        self.server.root(f"ALTER USER '{DATABASE}'@'%' IDENTIFIED BY 'Rotated0123456789'")
        self.assertEqual(self.bench.run("apply", self.request()).returncode, 10)
        (self.bench.folder / "secrets/password").write_text("Rotated0123456789")
        key = self.config()["encryption_key"]
        (self.bench.folder / "secrets/encryption-key").unlink()
        self.done("apply", self.request())
        self.assertEqual((self.config()["db_password"], self.config()["encryption_key"]), ("Rotated0123456789", key))

    def test_an_app_is_installed_and_migrated_once(self):
        self.done("init", self.request())
        self.bench.forget_calls()
        for _ in range(2):
            self.done("apply", self.request(apps=["erpnext", "hrms"]))
        self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"])
        calls = [call for call in self.bench.calls() if call[0] in ("install-app", "migrate")]
        self.assertEqual(calls, [["install-app", "hrms"], ["migrate"]])

    def test_an_app_whose_installation_failed_is_installed_again_although_frappe_lists_it(self):
        self.done("init", self.request())
        wanted = self.request(apps=["erpnext", "hrms"])
        failed = self.bench.run("apply", wanted, STAND_IN_FAILS="install-app:listed")
        self.assertEqual(failed.returncode, 30)
        self.assertIn("hook of the app failed", self.bench.termination()["error"])
        self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"], "Frappe lies")
        self.done("apply", wanted)
        self.assertIn(["install-app", "--force", "hrms"], self.bench.calls())
        self.assertIn("hook_hrms", self.server.root(f"SHOW TABLES IN {DATABASE}").stdout)

    def test_an_installation_that_stopped_anywhere_in_frappe_is_completed(self):
        """Frappe creates an app's modules before it lists the app, and does not create them again unless --force is set."""
        self.done("init", self.request())
        wanted = self.request(apps=["erpnext", "hrms"])
        for how in ("STAND_IN_DIES", "STAND_IN_FAILS"):
            for moment in ("begun", "modules", "synced", "listed", "installed"):
                with self.subTest(f"{how} {moment}"):
                    self.forget_hrms()
                    self.assertNotEqual(self.bench.run("apply", wanted, **{how: f"install-app:{moment}"}).returncode, 0)
                    self.done("apply", wanted)
                    self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"])
                    # The end is recorded after the process has ended: an installation that was killed just before is repeated.
                    self.assertEqual(self.hooks(), {"erpnext": 1, "hrms": 2 if moment == "installed" else 1})
                    self.assertFalse(self.bench.site(".operator-installing").exists())

    def test_installed_apps_are_not_installed_again_after_a_failed_migration(self):
        self.done("init", self.request())
        wanted = self.request(apps=["erpnext", "hrms"])
        for how in ("STAND_IN_DIES", "STAND_IN_FAILS"):
            self.assertNotEqual(self.bench.run("apply", wanted, **{how: "migrating"}).returncode, 0)
        self.bench.forget_calls()
        self.done("apply", wanted)
        self.assertEqual([call[0] for call in self.bench.calls() if call[0] in ("install-app", "migrate")], ["migrate"])
        self.assertEqual(self.hooks(), {"erpnext": 1, "hrms": 1})

    def test_a_required_app_is_installed_completely_before_the_app_that_requires_it(self):
        """Frappe installs it too, but without --force, and lists it even if its installation failed."""
        self.done("init", self.request())
        for app, requires in (("hrms", ["frappe/payroll", "frappe/erpnext@version-15"]), ("payroll", ["https://github.com/frappe/taxes.git"]), ("taxes", [])):
            self.bench.add_app(app, requires)
        wanted = self.request(apps=["erpnext", "hrms"])
        for how, moment in (("FAILS", "modules:taxes"), ("DIES", "synced:taxes"), ("FAILS", "listed:payroll"), ("DIES", "modules:hrms")):
            self.assertNotEqual(self.bench.run("apply", wanted, **{f"STAND_IN_{how}": f"install-app:{moment}"}).returncode, 0)
        self.done("apply", wanted)
        self.assertEqual(self.installed(), ["frappe", "erpnext", "taxes", "payroll", "hrms"])
        self.assertEqual(self.hooks(), {"erpnext": 1, "taxes": 1, "payroll": 1, "hrms": 1})
        shutil.rmtree(self.bench.folder / "apps/taxes")
        self.assertEqual(self.bench.run("apply", wanted).returncode, 2)
        self.assertEqual(self.bench.termination(), {"step": "apps", "code": "AppsMissing",
                                                    "error": "payroll requires taxes, which the image does not have"})

    def test_an_app_that_frappe_does_not_list_is_not_reported_as_installed(self):
        """An app's before_install can stop an installation, and Frappe reports success."""
        self.done("init", self.request())
        wanted = self.request(apps=["erpnext", "hrms"])
        self.assertEqual(self.bench.run("apply", wanted, STAND_IN_FAILS="before_install:hrms").returncode, 30)
        self.assertEqual(self.bench.termination()["error"],
                         "Frappe reported success but does not list hrms: Installing hrms... hrms wants another one first")
        self.done("apply", wanted)
        self.assertEqual(self.hooks(), {"erpnext": 1, "hrms": 1})

    def test_apply_killed_at_every_step_and_run_again(self):
        self.done("init", self.request(hosts=["old.com"], config={"old": 1}))
        wanted = self.request(apps=["erpnext", "hrms"], set_admin_password=True)
        for step in (steps := Steps(STEPS_MAX)):
            self.done("apply", self.request(hosts=["old.com"], config={"old": 1}))
            self.forget_hrms()
            killed = self.bench.run("apply", wanted, kill_at=step).returncode == KILLED
            self.done("apply", wanted)
            self.assertEqual(self.hosts(), {"shop.com": "shop.example.com", "www.shop.com": "shop.example.com"})
            self.assertNotIn("old", self.config())
            self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"])
            self.assertIn("hook_hrms", self.server.root(f"SHOW TABLES IN {DATABASE}").stdout)
            if not killed:
                break
        self.assertGreater(step, 20)
        print(f"apply: killed at {steps} and run again, as asked every time")

    def test_a_missing_site_is_rejected(self):
        self.assertEqual(self.bench.run("apply", self.request()).returncode, 31)
        self.bench.run("init", self.request(), STAND_IN_FAILS="no-administrator")
        self.assertEqual(self.bench.run("apply", self.request()).returncode, 31)

    def test_hostile_settings_are_rejected(self):
        self.done("init", self.request())
        for bad in ({"hosts": ["../x"]}, {"hosts": ["a b"]}, {"hosts": ["a;}"]}, {"config": {"db_password": "x"}},
                    {"config": {"encryption_key": "x"}}, {"secret_config": ["../admin-password"]}):
            before = self.config()
            self.assertEqual(self.bench.run("apply", self.request(**bad)).returncode, 2, bad)
            self.assertEqual(self.config(), before)


if __name__ == "__main__":
    unittest.main()
