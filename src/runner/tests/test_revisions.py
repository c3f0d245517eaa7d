"""A bench with two revisions: folders of sites on one volume, each with its own configuration, and what they share."""

import json
import os
import shutil
import unittest

from support import DATABASE, KILLED, ServerTest, Steps

SITE = "shop.example.com"
STEPS_MAX = 80


class Revisions:
    """A volume whose root is `volume`. `sites` is a link to a folder of it, as a mount of a pod is."""

    def make_volume(self):
        self.volume = self.bench.folder / "volume"
        (self.bench.folder / "sites").rename(self.volume)
        self.bench.shared = "volume"
        self.mount(1)

    def folder(self, number):
        return self.volume if number == 1 else self.volume / f".revisions/{number}"

    def mount(self, number):
        """From here on, the bench runs pods of this revision."""
        sites = self.bench.folder / "sites"
        if sites.is_symlink():
            sites.unlink()
        sites.symlink_to(self.folder(number))
        # Above a link is another folder than above a mount.
        for name in ("apps", "sites") if number > 1 else ():
            link = self.volume / ".revisions" / name
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(self.bench.folder / name)
        self.bench.more = {"SITE_RUNNER_VOLUME": str(self.volume), "SITE_RUNNER_REVISION": str(number)}

    def begin(self, number, **config):
        """Makes the folder of a revision and configures it, as its configure Job does; the bench runs its pods."""
        self.mount(number)
        if number > 1:
            self.done("folder", {"number": number})
        self.done("configure", {"common_site_config": config, "older": {str(older): f"prod-nginx-r{older}:8080" for older in range(1, number)}})

    def places(self):
        return [number for number in (1, 2, 3) if (self.folder(number) / SITE).exists()]

    def refused(self, command, code, status, **more):
        result = self.bench.run(command, self.bench.request(**more))
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        self.assertEqual(self.bench.termination()["code"], code)
        return self.bench.termination()


class RevisionsTest(Revisions, ServerTest):
    def setUp(self):
        self.server.reset()
        self.new_bench()
        self.make_volume()

    def tree(self):
        """Everything on the volume but locks, with the time of each file's change."""
        paths = [path for path in self.volume.rglob("*") if not path.name.endswith("lock")]
        return {str(path.relative_to(self.volume)): path.lstat().st_mtime_ns for path in paths if not path.is_dir()}

    def test_a_folder_is_made_whenever_it_is_killed(self):
        for number in (0, 1, "../x", -3, 2.5, "02", None):
            self.assertEqual(self.bench.run("folder", {"number": number}).returncode, 2, number)
        self.assertFalse((self.volume / ".revisions").exists())
        (self.bench.folder / "sites").unlink()
        for step in Steps(20):
            shutil.rmtree(self.volume / ".revisions", ignore_errors=True)
            killed = self.bench.run("folder", {"number": 2}, kill_at=step).returncode == KILLED
            self.done("folder", {"number": 2})
            token = (self.volume / ".revisions/.token").read_text()
            self.assertEqual(len(token), 32)
            (self.volume / ".revisions/2/apps.txt").write_text("frappe\n")
            self.done("folder", {"number": 2})
            self.assertEqual((self.volume / ".revisions/2/apps.txt").read_text(), "frappe\n")
            self.assertEqual((self.volume / ".revisions/.token").read_text(), token)
            if not killed:
                break
        self.assertGreater(step, 3)
        self.assertEqual(self.bench.run("folder", {"number": 2}, SITE_RUNNER_VOLUME="").returncode, 2)

    def test_each_folder_has_its_own_configuration_and_the_rest_is_shared(self):
        for folder in ("apps/frappe/frappe", "assets/frappe/dist"):
            (self.bench.folder / folder).mkdir(parents=True)
        (self.bench.folder / "apps/frappe/frappe/hooks.py").touch()
        (self.bench.folder / "assets/assets.json").write_text("{}")
        (self.bench.folder / "assets/frappe/dist/old.bundle.4GEVDN5T.js").write_text("old")
        self.begin(1, bench_id="prod")
        shutil.rmtree(self.bench.folder / "apps/erpnext")
        (self.bench.folder / "assets/frappe/dist/old.bundle.4GEVDN5T.js").rename(self.bench.folder / "assets/frappe/dist/new.bundle.5GEVDN5T.js")
        self.begin(2, bench_id="prod-r2")
        for number, bench_id, apps in ((1, "prod", "frappe\nerpnext\n"), (2, "prod-r2", "frappe\n")):
            folder = self.folder(number)
            self.assertEqual(json.loads((folder / "common_site_config.json").read_text()), {"bench_id": bench_id})
            self.assertEqual((folder / "apps.txt").read_text(), apps)
            self.assertEqual(os.readlink(folder / "assets"), str(self.bench.folder / "assets"))
            for name in ("old.bundle.4GEVDN5T.js", "new.bundle.5GEVDN5T.js"):
                self.assertTrue((folder / ".bundles/assets/frappe/dist" / name).is_file(), f"{number} {name}")
        self.assertTrue((self.folder(2) / ".bundles").is_symlink())
        self.assertEqual(json.loads((self.volume / ".revisions/routes.json").read_text()), {"1": "prod-nginx-r1:8080"})
        self.assertEqual({path.name for path in self.folder(2).iterdir()}, {"common_site_config.json", "apps.txt", ".operator-apps", "assets", ".bundles"})
        self.done("init", self.bench.request(apps=[], hosts=["shop.com"]))
        self.done("apply", self.bench.request(apps=[], hosts=["shop.com"]))
        self.assertEqual(self.places(), [2])
        self.assertTrue(all((self.volume / name).exists() for name in (f".schemas/{SITE}", ".hosts/shop.com", ".operator-lock")))
        self.done("drop", self.bench.request())
        self.assertEqual((self.places(), (self.volume / ".schemas" / SITE).exists()), ([], False))

    def test_invalid_routes_are_refused(self):
        for older in ({"x": "a:1"}, {"1": "a;}:1"}, {"1": "a"}, {"0": "a:1"}, {"1": "a:1\n"}):
            result = self.bench.run("configure", {"common_site_config": {}, "older": older})
            self.assertEqual(result.returncode, 2, older)
        self.assertFalse((self.volume / ".revisions").exists())

    def test_a_site_of_another_revision_is_not_touched(self):
        self.begin(1)
        self.done("init", self.bench.request())
        self.begin(2)
        database = self.server.root(f"SHOW TABLES IN {DATABASE}").stdout
        before = self.tree()
        for command, more in (("init", {}), ("init", {"identity": "id-2"}), ("init", {"adopt": True}), ("apply", {}), ("backup", {"staging": str(self.bench.folder / "staging")}),
                              ("restore", {"staging": str(self.bench.folder / "staging"), "run": "x"}), ("drop", {}), ("drop", {"identity": "id-2"})):
            failed = self.refused(command, "SiteElsewhere", 23, **more)
            self.assertEqual((failed["revision"], failed["error"]), (1, f"{SITE} is in {self.volume}, the folder of revision 1, not of revision 2"), command)
            self.assertEqual((self.tree(), self.server.root(f"SHOW TABLES IN {DATABASE}").stdout), (before, database), command)
        self.mount(1)
        self.done("apply", self.bench.request())
        (self.volume / SITE).rename(self.folder(2) / SITE)
        self.assertEqual(self.refused("apply", "SiteElsewhere", 23)["revision"], 2)
        self.mount(2)
        self.done("apply", self.bench.request())

    def test_a_site_in_two_folders_is_not_touched(self):
        self.begin(1)
        self.done("init", self.bench.request())
        self.begin(2)
        shutil.copytree(self.volume / SITE, self.folder(2) / SITE)
        before = self.tree()
        for number in (1, 2):
            self.mount(number)
            for command in ("init", "apply", "drop"):
                self.assertIn(f"{self.bench.folder}", self.refused(command, "SiteTwice", 22)["error"])
                self.assertEqual(self.tree(), before)

    def test_a_drop_that_another_revision_began_is_completed(self):
        self.begin(1)
        self.begin(2)
        for step in (steps := Steps(STEPS_MAX, 5)):
            self.mount(1)
            self.server.reset()
            self.done("init", self.bench.request())
            killed = self.bench.run("drop", kill_at=step).returncode == KILLED
            self.mount(2)
            if self.places():
                self.refused("drop", "SiteElsewhere", 23)
                self.mount(1)
            self.done("drop", self.bench.request())
            self.assertEqual([str(path) for path in self.volume.rglob(f"*{SITE}*")], [], f"step {step}")
            if not killed:
                break
        self.assertGreater(step, 5)
        print(f"drop: killed at {steps} and run again by another revision, nothing left every time")


if __name__ == "__main__":
    unittest.main()
