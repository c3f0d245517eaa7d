"""What the runner promises for a site that exists: settings, hosts, passwords and apps become what is asked for."""

import hashlib
import json
import unittest

from support import ADMIN_PASSWORD, DATABASE, KILLED, PASSWORD, ServerTest

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

    def test_a_site_is_created_with_its_settings(self):
        self.done("init", self.request())
        self.assertEqual((self.config()["maintenance_mode"], self.config()["mail_password"]), (1, 'mail"pass\\word'))
        self.assertEqual(self.hosts(), {"shop.com": "shop.example.com", "www.shop.com": "shop.example.com"})

    def test_settings_change_and_go_and_what_others_wrote_stays(self):
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

    def test_a_host_that_leads_to_another_by_now_is_left(self):
        self.done("init", self.request())
        (self.bench.folder / "sites/.hosts/shop.com").write_text("other.example.com\n")
        self.done("apply", self.request(hosts=[]))
        self.assertEqual(self.hosts(), {"shop.com": "other.example.com"})
        self.done("drop", self.request())
        self.assertEqual(self.hosts(), {"shop.com": "other.example.com"})

    def test_a_password_is_set_only_when_asked_for_and_never_shown(self):
        self.done("init", self.request())
        self.done("apply", self.request())
        self.assertFalse(self.bench.site("admin-password-set").exists())
        result = self.done("apply", self.request(set_admin_password=True))
        self.assertEqual(self.bench.site("admin-password-set").read_text(), hashlib.sha256(ADMIN_PASSWORD.encode()).hexdigest())
        seen = (self.bench.folder / "calls.proc").read_bytes()
        for value in (ADMIN_PASSWORD, PASSWORD):
            self.assertNotIn(value.encode(), seen)
            self.assertNotIn(value, result.stdout + result.stderr)

    def test_a_rotated_database_password_is_taken_over(self):
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
        failed = self.bench.run("apply", wanted, STAND_IN_FAILS="install-app")
        self.assertEqual(failed.returncode, 30)
        self.assertIn("hook of the app failed", self.bench.termination()["error"])
        self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"], "Frappe lies")
        self.done("apply", wanted)
        self.assertIn(["install-app", "--force", "hrms"], self.bench.calls())
        self.assertIn("hook_hrms", self.server.root(f"SHOW TABLES IN {DATABASE}").stdout)

    def test_apply_killed_at_every_step_and_run_again(self):
        self.done("init", self.request(hosts=["old.com"], config={"old": 1}))
        wanted = self.request(apps=["erpnext", "hrms"], set_admin_password=True)
        for step in range(1, STEPS_MAX):
            self.done("apply", self.request(hosts=["old.com"], config={"old": 1}))
            self.server.root(f"""DROP TABLE IF EXISTS {DATABASE}.hook_hrms;
                UPDATE {DATABASE}.tabDefaultValue SET defvalue = '["frappe", "erpnext"]'""")
            killed = self.bench.run("apply", wanted, kill_at=step).returncode == KILLED
            self.done("apply", wanted)
            self.assertEqual(self.hosts(), {"shop.com": "shop.example.com", "www.shop.com": "shop.example.com"})
            self.assertNotIn("old", self.config())
            self.assertEqual(self.installed(), ["frappe", "erpnext", "hrms"])
            self.assertIn("hook_hrms", self.server.root(f"SHOW TABLES IN {DATABASE}").stdout)
            if not killed:
                break
        self.assertTrue(20 < step < STEPS_MAX - 1, f"{step} steps")
        print(f"apply: killed at each of {step - 1} steps and run again, as asked every time")

    def test_a_site_that_is_not_there_is_refused(self):
        self.assertEqual(self.bench.run("apply", self.request()).returncode, 31)
        self.bench.run("init", self.request(), STAND_IN_FAILS="no-administrator")
        self.assertEqual(self.bench.run("apply", self.request()).returncode, 31)

    def test_hostile_settings_are_refused(self):
        self.done("init", self.request())
        for bad in ({"hosts": ["../x"]}, {"hosts": ["a b"]}, {"hosts": ["a;}"]}, {"config": {"db_password": "x"}},
                    {"config": {"encryption_key": "x"}}, {"secret_config": ["../admin-password"]}):
            before = self.config()
            self.assertEqual(self.bench.run("apply", self.request(**bad)).returncode, 2, bad)
            self.assertEqual(self.config(), before)


if __name__ == "__main__":
    unittest.main()
