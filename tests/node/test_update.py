"""Another image with another schema: what users see, the database after it, and the way back of a migration that fails."""

import json
import secrets
import time
import unittest

import suite
from installed import Journey, timed, until
from support import ROOT

HOST, OTHER = "first.example.com", "second.example.com"


class UpdateCase(Journey):
    """A bench with two sites whose image changes."""

    SETTINGS = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.node.apply(suite.bench("market", cls.SPACE, siteJobConcurrency=1, **cls.SETTINGS),
                       suite.site("first", cls.SPACE, "market", HOST), suite.site("second", cls.SPACE, "market", OTHER))

    def served(self):
        """Waits until the sites are served by their first image."""
        for kind, name in (("frappebench", "market"), ("frappesite", "first"), ("frappesite", "second")):
            self.ready(kind, name, 240)
        until("a page", 60, lambda: self.ask(HOST)[0] == 200)
        self.assertNotIn("adds_a_column", self.columns("first"))

    def both_updated(self):
        """Asserts that the migration has run on both sites, and that they are served."""
        for site in ("first", "second"):
            self.assertIn("adds_a_column", self.columns(site))
            self.assertEqual(self.get(f"frappesite/{site}")["status"]["lastUpdate"]["result"], "Updated")
        self.assertEqual(self.ask(OTHER)[0], 200)

    def up_to_date(self, site):
        """Status and reason of the condition."""
        conditions = self.get(f"frappesite/{site}").get("status", {}).get("conditions", [])
        return next(((it["status"], it["reason"]) for it in conditions if it["type"] == "UpToDate"), None)

    def columns(self, site):
        """Columns of the app's table in the site's database."""
        name = self.get(f"frappesite/{site}")["status"]["databaseName"]
        return self.sql(f"SELECT column_name FROM information_schema.columns WHERE table_schema = '{name}' AND table_name = 'taberpnext'").split()

    def during(self, host, act):
        """What became of ten requests per second during an action."""
        stop_file = f"/run/stop-traffic-{secrets.token_hex(8)}"
        program = (ROOT / "tests/node/traffic.py").read_text()
        with self.node.start("python3", "-u", "-", self.address(), host, "10", stop_file, given=program, output=True) as traffic:
            try:
                time.sleep(1)
                act()
                time.sleep(3)
            finally:
                self.node.run("touch", stop_file)
            seen = json.loads(traffic.stdout.read())
        print(f"         {host}: {seen}", flush=True)
        return seen


class UpdateTest(UpdateCase):
    SPACE = "updates"

    def updated(self, seconds):
        for site in ("first", "second"):
            self.kubectl("wait", "--for=condition=UpToDate", f"frappesite/{site}", f"--timeout={seconds}s")

    def test_sites_are_migrated_and_a_failed_one_goes_back(self):
        self.served()

        def change():
            self.change("frappebench", "market", spec={"imageConfig": {"tag": "v16.0.0"}})
            until("nginx holds a site", 180, lambda: self.up_to_date("first") != ("True", "UpToDate"))
            timed("both sites have the schema of the other image", self.updated, 240)
            until("a page", 30, lambda: self.ask(HOST)[0] == 200)

        seen = self.during(HOST, change)
        self.assertLessEqual(set(seen["failed"]), {"503"}, "only a site that is held is not served, and nothing else fails")
        self.both_updated()
        self.failed_migration()

    def failed_migration(self):
        """A patch that fails after it has changed a table: the database is as before, and the previous image serves the sites again."""
        before = self.columns("first")
        self.change("frappebench", "market", spec={"imageConfig": {"tag": "v16.1.0"}})
        for site in ("first", "second"):
            until(f"{site} has gone back", 300, lambda site=site: self.up_to_date(site) == ("False", "UpdateFailed"))
        self.assertEqual(self.columns("first"), before)
        self.assertEqual(self.get("frappesite/first")["status"]["lastUpdate"]["result"], "RolledBack")
        self.assertEqual(self.ask(HOST)[0], 503, "the new image does not serve it")
        print(f"         {self.condition('frappesite', 'first')['message']}", flush=True)
        self.change("frappebench", "market", spec={"imageConfig": {"tag": "v16.0.0"}})
        timed("the previous image serves it again", until, "a page", 240, lambda: self.ask(HOST)[0] == 200)
        timed("both sites are up to date", self.updated, 120)
        self.assertEqual(len(self.get("jobs", "--selector=component=site-update")["items"]), 4, "one Job of each site and image")


if __name__ == "__main__":
    unittest.main()
