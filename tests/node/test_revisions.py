"""Revisions: pods of two images beside each other, between which sites move; what users see, and who serves a site whose migration fails."""

import time
import unittest

from installed import timed, until
from test_update import HOST, OTHER, UpdateCase


class RevisionsTest(UpdateCase):
    SPACE = "revisions"
    SETTINGS = {"updateStrategy": {"type": "Revisions", "waves": ["100%"], "maxFailures": 2, "scaleDownDelay": "5s"}}

    def revisions(self):
        """Number of the revision of each site."""
        return [self.get(f"frappesite/{site}")["status"].get("revision", 1) for site in ("first", "second")]

    def deployments(self, number):
        names = [it["metadata"]["name"] for it in self.get("deployments")["items"]]
        return sorted(name for name in names if name.endswith(f"-r{number}"))

    def test_sites_move_and_a_failed_one_is_served_by_the_former_image(self):
        self.served()

        def change():
            self.change("frappebench", "market", spec={"imageConfig": {"tag": "v16.0.0"}})
            timed("pods of both images run", until, "the new image", 300,
                  lambda: len(self.get("frappebench/market")["status"].get("revisions", [])) == 2 and self.get("frappebench/market")["status"]["revisions"][1].get("complete"))
            timed("both sites have moved", until, "both sites have moved", 240, lambda: self.revisions() == [2, 2])
            until("a page", 30, lambda: self.ask(HOST)[0] == 200)

        seen = self.during(HOST, change)
        self.assertLessEqual(set(seen["failed"]), {"503"}, "only a site that moves is not served, and nothing else fails")
        self.assertLess(seen["failed"].get("503", 0), seen["asked"] / 2, "it is served until its own move")
        self.both_updated()
        try:
            timed("the former image goes", until, "no pod of the former image", 120, lambda: self.deployments(1) == [])
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state('frappebench', 'market')}") from error
        self.failed_migration()

    def failed_migration(self):
        """A patch that fails after it has changed a table: the database is as before, and the former image goes on serving the site."""
        before = self.columns("first")
        self.change("frappebench", "market", spec={"imageConfig": {"tag": "v16.1.0"}})

        def wait():
            for site in ("first", "second"):
                until(f"{site} has gone back", 400, lambda site=site: self.up_to_date(site) == ("False", "UpdateFailed"))
            time.sleep(3)

        seen = self.during(HOST, wait)
        self.assertLessEqual(set(seen["failed"]), {"503"})
        self.assertEqual((self.columns("first"), self.revisions()), (before, [2, 2]))
        self.assertEqual(self.get("frappesite/first")["status"]["lastUpdate"]["result"], "RolledBack")
        self.assertEqual((self.ask(HOST)[0], self.ask(OTHER)[0]), (200, 200), "the former image serves them")
        self.assertEqual(len(self.deployments(2)), 7)
        self.assertEqual(self.condition("frappesite", "first")["status"], "True")
        print(f"         {self.get('frappebench/market')['status']['rollout']}", flush=True)


if __name__ == "__main__":
    unittest.main()
