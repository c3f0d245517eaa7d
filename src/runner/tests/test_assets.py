"""The link by which pods find their image's assets: made once, without a moment in which it is missing."""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from support import RUNNER

REQUEST = json.dumps({"common_site_config": {"bench_id": "a-b"}})


class Assets(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="site-runner-assets-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name).resolve()
        for part in ("apps/frappe", "sites", "assets/frappe"):
            (self.folder / part).mkdir(parents=True)
        (self.folder / "assets/assets.json").write_text("{}")
        self.link = self.folder / "sites/assets"

    def configure(self):
        environment = {**os.environ, "SITE_RUNNER_TERMINATION_LOG": str(self.folder / "termination")}
        done = subprocess.run([sys.executable, str(RUNNER), "configure", REQUEST], cwd=self.folder, env=environment,
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def leads_to_the_image(self):
        self.assertEqual(os.readlink(self.link), str(self.folder / "assets"))
        self.assertEqual([name for name in os.listdir(self.folder / "sites") if name.startswith(".assets")], [])

    def test_a_new_volume_has_the_link(self):
        self.configure()
        self.leads_to_the_image()

    def test_what_leads_there_is_left_alone(self):
        self.configure()
        before = os.lstat(self.link).st_ino
        self.configure()
        self.assertEqual(os.lstat(self.link).st_ino, before)

    def test_what_an_earlier_image_left_gives_way(self):
        self.link.mkdir()
        (self.link / "old.css").write_text("b {}")
        self.configure()
        self.leads_to_the_image()
        self.link.unlink()
        self.link.symlink_to("gone")
        self.configure()
        self.leads_to_the_image()

    def test_the_volumes_own_assets_stay_where_the_image_has_none(self):
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

    def test_seven_at_once_all_succeed(self):
        with concurrent.futures.ThreadPoolExecutor(7) as pool:
            for done in [pool.submit(self.configure) for _ in range(7)]:
                done.result()
        self.leads_to_the_image()


if __name__ == "__main__":
    unittest.main()
