"""Bundles of the newest images are kept on the volume, and the list of bundles in the Redis cache is of the image that runs."""

import json
import os
import shutil
import signal
import subprocess
import time
import unittest

from support import KILLED, RUNNER, FolderTest, Steps, free_port
from test_jobs import environment


class BundlesCase(FolderTest):
    """A bench folder with an image's assets."""

    def put_image(self, number):
        """An image whose bundles have other names than those of the others: assets are links to the apps' folders."""
        for name in ("apps", "assets"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        public = self.folder / "apps/frappe/frappe/public"
        for name in (f"dist/js/desk.bundle.4GEVDN{number}T.js", f"dist/css/desk.bundle.7KEVDN{number}T.css", f"frontend/assets/index-BkWlXl{number}a.js",
                     f"dist/js/desk.bundle.4GEVDN{number}T.js.map", "js/desk.js", "images/logo.svg", "node_modules/it/it.4GEVDN5T.js"):
            (public / name).parent.mkdir(parents=True, exist_ok=True)
            (public / name).write_text(f"{name} of image {number}")
        (self.folder / "assets").mkdir()
        (self.folder / "assets/frappe").symlink_to(public)
        self.list = {"desk.bundle.js": f"/assets/frappe/dist/js/desk.bundle.4GEVDN{number}T.js"}
        (self.folder / "assets/assets.json").write_text(json.dumps(self.list))
        (self.folder / "assets/assets-rtl.json").write_text(json.dumps({"rtl_desk.bundle.css": f"/assets/{number}.css"}))
        self.list["rtl_desk.bundle.css"] = f"/assets/{number}.css"


class KeptBundles(BundlesCase):
    def kept(self):
        folder = self.folder / "sites/.bundles/assets"
        return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}

    def bundles_of(self, *numbers):
        names = ("dist/js/desk.bundle.4GEVDN{}T.js", "dist/css/desk.bundle.7KEVDN{}T.css", "frontend/assets/index-BkWlXl{}a.js")
        return {f"frappe/{name.format(number)}": f"{name.format(number)} of image {number}" for number in numbers for name in names}

    def test_bundles_of_the_newest_three_images_are_kept(self):
        for number, kept in ((1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (1, [1, 2, 3]), (4, [1, 3, 4])):
            self.put_image(number)
            for _ in range(2):
                self.configure()
                self.assertEqual(self.kept(), self.bundles_of(*kept), f"image {number}")

    def test_killed_at_every_step_it_succeeds_when_repeated(self):
        for step in Steps(200):
            shutil.rmtree(self.folder / "sites")
            (self.folder / "sites").mkdir()
            for number in (1, 2, 3):
                self.put_image(number)
                self.configure()
            self.put_image(4)
            killed = self.run_runner(kill_at=step).returncode == KILLED
            self.assertLessEqual(set(self.bundles_of(2, 3).items()), set(self.kept().items()), f"step {step}: the previous ones remain")
            self.configure()
            self.assertEqual(self.kept(), self.bundles_of(2, 3, 4), f"step {step}")
            if not killed:
                break
        self.assertGreater(step, 10)

    def test_an_incomplete_copy_is_repeated(self):
        self.put_image(1)
        self.configure()
        path = self.folder / "sites/.bundles/assets/frappe/dist/js/desk.bundle.4GEVDN1T.js"
        path.write_text("half")
        path.with_name("other.bundle.4GEVDN9T.js.part").write_text("half")
        self.configure()
        self.assertEqual(self.kept(), self.bundles_of(1))

    def test_a_volume_without_room_does_not_stop_the_bench(self):
        self.put_image(1)
        os.truncate(self.folder / "apps/frappe/frappe/public/dist/js/desk.bundle.4GEVDN1T.js", 8 << 40)
        self.assertIn("the volume has no room for them", self.configure())
        self.assertEqual(self.kept(), {})
        self.put_image(2)
        shutil.rmtree(self.folder / "sites/.bundles")
        (self.folder / "sites/.bundles").write_text("a file")
        self.assertIn("bundles of this image are not kept", self.configure())

    def test_the_record_on_the_volume_may_be_anything(self):
        for text in ("{", "7", '[7, ["../../apps"], [["a"]], [{}]]'):
            self.put_image(1)
            (self.folder / "sites/.bundles").mkdir(exist_ok=True)
            (self.folder / "sites/.bundles/images.json").write_text(text)
            self.configure()
            self.put_image(2)
            self.configure()
            self.assertEqual(self.kept(), self.bundles_of(1, 2), text)
        self.assertTrue((self.folder / "apps/frappe").exists())


class ListOfBundles(BundlesCase):
    """Frappe reads the list of bundles from the key `assets_json` of the Redis cache, once it is there."""

    def setUp(self):
        super().setUp()
        self.python, self.port = environment("1.15.1"), free_port()
        server = subprocess.Popen(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder),
                                   "--requirepass", "Secret0123456789"], stdout=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.url = f"redis://:Secret0123456789@127.0.0.1:{self.port}"
        (self.folder / "sites/common_site_config.json").write_text(json.dumps({"redis_cache": self.url}))
        (self.folder / "sites/assets").symlink_to("../assets")
        self.until(lambda: self.redis("redis.ping()") == "True")

    def redis(self, expression):
        program = "import pickle, sys; from redis import Redis; redis = Redis.from_url(sys.argv[1]); print(eval(sys.argv[2]))"
        return subprocess.run([self.python, "-c", program, self.url, expression], capture_output=True, text=True, check=False).stdout.strip()

    def cache(self, value):
        self.redis(f"redis.set('assets_json', {value})")

    def is_cached(self):
        return self.redis("redis.exists('assets_json')") == "1"

    def until(self, true):
        end = time.monotonic() + 20
        while not true():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)

    def test_the_list_of_another_image_is_deleted_while_nginx_runs(self):
        """Pods of the previous image may put it there again."""
        for name, text in (("nginx", "exit 1"), ("nginx-entrypoint.sh", "exec sleep 60")):
            (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.folder / name).chmod(0o755)
        self.put_image(1)
        self.cache(f"pickle.dumps({self.list})")
        self.put_image(2)
        environment = self.environment(PATH=f"{self.folder}{os.pathsep}{os.environ['PATH']}", SITE_RUNNER_ASSETS_LOOK_SECONDS="0.1",
                                       SITE_RUNNER_NGINX_CONFIGURATION=str(self.folder))
        with open(self.folder / "said", "wb") as said:
            process = subprocess.Popen([self.python, str(RUNNER), "nginx", "{}"], cwd=self.folder, env=environment, stdout=said)
        try:
            self.until(lambda: not self.is_cached())
            for value in ("pickle.dumps({'desk.bundle.js': '/assets/frappe/dist/js/desk.bundle.4GEVDN1T.js'})", "b'not a pickle'"):
                self.cache(value)
                self.until(lambda: not self.is_cached())
            self.cache(f"pickle.dumps({self.list})")
            time.sleep(1)
            self.assertTrue(self.is_cached(), "the list of this image stays")
            self.redis("redis.shutdown()")
            time.sleep(1)
            self.assertIsNone(process.poll(), "it runs on without Redis")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        self.assertNotIn("Secret0123456789", (self.folder / "said").read_text())


if __name__ == "__main__":
    unittest.main()
