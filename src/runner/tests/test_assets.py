"""The link to the image's assets: created once, and never missing in between."""

import concurrent.futures
import fcntl
import json
import os
import unittest

from support import KILLED, FolderTest, Steps


class Assets(FolderTest):
    def setUp(self):
        super().setUp()
        for part in ("apps/frappe", "assets/frappe"):
            (self.folder / part).mkdir(parents=True)
        (self.folder / "assets/assets.json").write_text("{}")
        self.link = self.folder / "sites/assets"

    def leads_to_the_image(self):
        self.assertEqual(os.readlink(self.link), str(self.folder / "assets"))
        self.assertEqual([name for name in os.listdir(self.folder / "sites") if name.startswith(".assets")], [])

    def test_a_new_volume_has_the_link(self):
        self.configure()
        self.leads_to_the_image()

    def test_a_correct_link_is_kept(self):
        self.configure()
        before = os.lstat(self.link).st_ino
        self.configure()
        self.assertEqual(os.lstat(self.link).st_ino, before)

    def test_assets_of_an_earlier_image_are_replaced(self):
        self.link.mkdir()
        (self.link / "old.css").write_text("b {}")
        self.configure()
        self.leads_to_the_image()
        self.link.unlink()
        self.link.symlink_to("gone")
        self.configure()
        self.leads_to_the_image()

    def test_the_volumes_assets_are_kept_if_the_image_has_none(self):
        (self.folder / "assets/assets.json").unlink()
        self.link.mkdir()
        self.configure()
        self.assertTrue(self.link.is_dir() and not self.link.is_symlink())

    def test_an_image_without_assets_gets_no_link(self):
        (self.folder / "assets/assets.json").unlink()
        for part in ("assets/frappe", "assets"):
            (self.folder / part).rmdir()
        self.configure()
        self.assertFalse(os.path.lexists(self.link))

    def test_killed_at_every_step_it_succeeds_when_repeated_and_leaves_nothing(self):
        for step in Steps(100):
            if self.link.is_symlink():
                self.link.unlink()
                self.link.mkdir()
                (self.link / "old.css").write_text("b {}")
            killed = self.run_runner(kill_at=step).returncode == KILLED
            self.configure()
            self.leads_to_the_image()
            if not killed:
                break
        self.assertGreater(step, 6)

    def test_files_of_an_earlier_version_are_removed(self):
        sites = self.folder / "sites"
        (sites / ".assets-0123.former").mkdir()
        (sites / ".assets-0123.former/old.css").write_text("b {}")
        (sites / ".assets-4567").symlink_to(self.folder / "assets")
        self.configure()
        self.leads_to_the_image()
        self.assertTrue((self.folder / "assets/assets.json").exists())

    def test_a_lock_of_another_pod_is_reported(self):
        with open(self.folder / "sites/.operator-lock", "w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            done = self.run_runner(SITE_RUNNER_LOCK_WAIT_SECONDS="1")
        self.assertEqual(done.returncode, 75, done.stdout + done.stderr)
        said = json.loads((self.folder / "termination").read_text())
        self.assertEqual(said, {"step": "lock", "code": "SiteLocked", "error": "another pod has been working on what the bench's sites share for 1 s"})

    def test_seven_at_once_all_succeed(self):
        with concurrent.futures.ThreadPoolExecutor(7) as pool:
            for done in [pool.submit(self.configure) for _ in range(7)]:
                done.result()
        self.leads_to_the_image()


if __name__ == "__main__":
    unittest.main()
