"""Each verb that changes a site is killed at many moments and run again, as a lost node or an OOM kill would do it.

A verb is run once to its end, which tells how long it takes; then it is killed at REAL_KILLS moments of that time, one run after the
other on the same site, and at last run to its end. SIGTERM ends it at once.
"""

import os
import signal
import time

import layers
import report
from story import Story, needs

KILLS = int(os.environ.get("REAL_KILLS", "6"))
STAGING = {"staging": "/run/frappe-backup"}


@needs("BENCH")
class KillsTest(Story):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        child = layers.app(cls.folder / "child", cls.base, "child", requires=("organization/tiny",))
        cls.image = cls.image.with_layers(child)
        cls.site = cls.cluster.new_site("shop.example.com", "id-1")
        cls.second = cls.cluster.new_site("second.example.com", "id-2")

    def series(self, what, whole, verb, site, image=None, between=lambda: "", checked="", **more):
        """Kills the verb at moments of the time that it took as a whole, then runs it to its end."""
        seen = []
        for number in range(1, KILLS + 1):
            moment = whole.seconds * number / (KILLS + 1)
            ended = self.verb(verb, site, image, seconds=moment, **more)
            if ended.code == 0:
                seen.append(f"{moment:.1f} s: it had ended")
                break
            self.assertEqual(ended.code, -signal.SIGKILL, str(ended))
            seen.append(f"{moment:.1f} s: {between() or self.cluster.server.count(site.database)}")
        ended = self.verb(verb, site, image, **more)
        self.assertEqual(ended.code, 0, f"after kills at {seen}: {ended}")
        report.row(self.name(), f"{what}, killed {len(seen)} times", "ok", ended.seconds, ended.cpu, ended.database, f"{checked}; {', '.join(seen)}")

    def refused(self):
        """What a change says meanwhile: the site is as before, or its change is refused."""
        ended = self.verb("apply", self.site, apps=["tiny"])
        self.assertIn(ended.message.get("code"), (None, "SiteIncomplete", "UpdateRequired"), str(ended))
        return ended.message.get("code", "as before")

    def test_01_init(self):
        self.assertEqual(self.configure(apps=["tiny", "child"]).code, 0)
        whole = self.verb("init", self.site, apps=["tiny"])
        self.done("init", whole, "before its kills", "created")
        self.series("init", whole, "init", self.second, apps=["tiny"], checked="tables after each kill")
        self.whole(self.second, ["tiny"], things=[])
        self.assertEqual(self.ask(self.second, "notes")["notes"], ["tiny was installed"])
        self.assertEqual(self.cluster.server.count(self.second.database), self.cluster.server.count(self.site.database))
        self.passed()

    def test_02_install_and_remove_an_app(self):
        apps = ["tiny", "child"]
        installed = self.verb("apply", self.site, apps=apps)
        self.assertEqual(installed.code, 0, str(installed))
        removed = self.verb("apply", self.site, apps=["tiny"], removed_apps=["child"])
        self.assertEqual(removed.code, 0, str(removed))
        before = self.ask(self.site, "notes")["notes"]
        self.series("apply: an app", installed, "apply", self.site, apps=apps, checked="its hook ran once; tables after each kill")
        self.whole(self.site, apps)
        self.assertEqual(len(self.ask(self.site, "notes")["notes"]), len(before) + 1)
        dumps = len(list((self.cluster.volume / ".removed-apps").rglob("*.gz")))
        self.series("apply: without the app", removed, "apply", self.site, apps=["tiny"], removed_apps=["child"], checked="one dump for all attempts; tables after each kill")
        self.assertEqual(len(list((self.cluster.volume / ".removed-apps").rglob("*.gz"))), dumps + 1)
        self.whole(self.site, ["tiny"])
        self.passed()

    def test_03_restore(self):
        self.ask(self.site, "add", name="first")
        backup = self.verb("backup", self.site, **STAGING, keys=True)
        self.assertEqual(backup.code, 0, str(backup))
        self.ask(self.site, "add", name="later")
        whole = self.verb("restore", self.site, **STAGING, run="backup-1", keys=True)
        self.assertEqual(whole.code, 0, str(whole))
        self.whole(self.site, ["tiny"], things=["first"])
        self.series("restore", whole, "restore", self.site, **STAGING, run="backup-2", keys=True, between=self.refused, checked="what a change says after each kill")
        self.whole(self.site, ["tiny"], things=["first"])
        self.passed()

    def test_04_update(self):
        newer = self.image.with_layers(layers.tiny(self.folder / "newer", self.base, version="1.1.0", patches=("working",), python={"working": layers.WORKING}))
        before = self.cluster.server.tables(self.site.database)
        asked = {"id": "0123abcd", "drain_seconds": 30}
        self.assertEqual(self.verb("update", self.second, newer, update=asked).code, 0)
        whole = self.verb("update", self.second, newer, update={**asked, "force": True})
        self.assertEqual(whole.code, 0, str(whole))
        self.kill_in("migrating", newer, asked)
        back = self.verb("update", self.site, newer, update={**asked, "back_only": True})
        self.failed("update killed in its migration, then only back", back, "UpdateFailed", f"{len(before)} tables as before")
        self.assertEqual(self.cluster.server.tables(self.site.database), before)
        self.series("update", whole, "update", self.site, newer, update=asked, between=self.phase, checked="phase after each kill")
        self.whole(self.site, ["tiny"], newer, things=["first"])
        self.assertEqual(self.ask(self.site, "notes", newer)["notes"].count("the patch has run"), 1)
        type(self).image = newer
        self.passed()

    def kill_in(self, phase, image, asked):
        """Kills an update when it has changed something in this phase."""
        pod = self.begin("update", self.site, image, update=asked)
        while pod.first() and self.phase() != phase:
            time.sleep(0.05)
        # In the midst of the child process.
        time.sleep(3)
        pod.send(signal.SIGKILL)
        self.assertEqual(pod.wait(60), -signal.SIGKILL, pod.output())
        self.cluster.end(pod)
        self.assertEqual(self.phase(), phase)

    def phase(self):
        """Phase of the site's update."""
        path = self.cluster.file(self.site, ".operator-update")
        try:
            return path.read_text().split('"phase": "')[1].split('"')[0]
        except FileNotFoundError:
            return "none"

    def test_05_sigterm(self):
        slowest, codes = 0, []
        for moment in (0.3, 1, 2, 4, 8):
            pod = self.begin("restore", self.site, **STAGING, run="backup-3", keys=True)
            pod.wait(moment)
            told = time.monotonic()
            pod.send(signal.SIGTERM)
            codes.append(pod.wait(30))
            slowest = max(slowest, time.monotonic() - told)
            self.cluster.end(pod)
        self.assertLessEqual({*codes}, {143, -signal.SIGTERM})
        self.done(f"restore, SIGTERM {len(codes)} times", self.verb("restore", self.site, **STAGING, run="backup-3", keys=True), f"ended within {slowest:.1f} s: {codes}", "restored")
        self.whole(self.site, ["tiny"], things=["first"])
        self.passed()

    def test_06_no_secret_was_seen(self):
        self.no_leaks()
        self.passed()


del Story
