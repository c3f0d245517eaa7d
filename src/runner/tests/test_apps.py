"""Apps from Git: a real repository and a real virtual environment; killed at every step and run again."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from support import KILLED, RUNNER, Bench, Steps

sys.path.insert(0, str(RUNNER.parent))

STEPS_MAX = 200
# Every how many of at most how many steps of the copy, a prime.
COPIES, COPIES_MAX = 97, 20_000
REVISION = "0123456789abcdef"


class NoServer:
    port = 0


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def make_app(folder, module, version="1.0"):
    """A repository with a Frappe app: a Python package with hooks and public files."""
    package = pathlib.Path(folder) / module
    (package / "public").mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(f"__version__ = '{version}'\n")
    (package / "hooks.py").write_text(f"app_name = '{module}'\n")
    (package / "public" / "app.css").write_text("a {}\n")
    (pathlib.Path(folder) / "pyproject.toml").write_text(
        f"[project]\nname = '{module}'\nversion = '{version}'\n"
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
        f"[tool.setuptools]\npackages = ['{module}']\n"
    )
    git(folder, "init", "--quiet", "--initial-branch", "main") if not (pathlib.Path(folder) / ".git").exists() else None
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", version)


class Apps(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """An image's environment, which each test copies: its own would take as long as the test."""
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.environment = pathlib.Path(folder.name) / "env"
        subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", cls.environment], check=True)

    def setUp(self):
        self.bench = Bench(NoServer)
        self.addCleanup(self.bench.close)
        self.repository = tempfile.TemporaryDirectory()
        self.addCleanup(self.repository.cleanup)
        make_app(self.repository.name, "custom_app")
        shutil.copytree(self.environment, self.bench.folder / "env", symlinks=True)
        (self.bench.folder / "assets").mkdir()
        (self.bench.folder / "assets" / "frappe.css").write_text("b {}\n")

    def request(self, branch="main", repository="https://git.example.com/custom-app"):
        clone = [{"name": "custom-app", "repository": repository, "branch": branch}]
        return {"common_site_config": {"bench_id": "b"}, "code": {"revision": REVISION, "clone": clone}}

    def run_in_pod(self, request, folder=None, seed_until=None, configure_until=None, **more):
        """Seeds, then configures with the copy mounted over the image's folders, as the Job's two containers do; each is killed at a
        step, if one is given. git finds the repository in a folder instead of on its server."""
        more = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{folder or self.repository.name}.insteadOf",
                "GIT_CONFIG_VALUE_0": "https://git.example.com/custom-app", **more}
        seeded = self.bench.run("seed", request["code"], kill_at=seed_until, **more)
        if seeded.returncode:
            return seeded
        copy = self.bench.folder / "sites" / ".apps" / request["code"]["revision"]
        for part in ("apps", "env", "assets"):
            original = self.bench.folder / f"image-{part}"
            if not original.exists():
                (self.bench.folder / part).rename(original)
            (self.bench.folder / part).unlink(missing_ok=True)
            (self.bench.folder / part).symlink_to(copy / part)
        try:
            return self.bench.run("configure", request, kill_at=configure_until, PIP_NO_BUILD_ISOLATION="1", **more)
        finally:
            for part in ("apps", "env", "assets"):
                (self.bench.folder / part).unlink()
                (self.bench.folder / f"image-{part}").rename(self.bench.folder / part)

    def copy(self, path):
        return self.bench.folder / "sites" / ".apps" / REVISION / path

    def whole(self):
        found = self.bench.termination()["result"]
        self.assertEqual((found["apps"], list(found["code"])), (["custom_app", "erpnext", "frappe"], ["custom_app"]))
        self.assertTrue((self.copy("apps/custom_app/custom_app/hooks.py")).is_file())
        self.assertTrue(os.path.lexists(self.copy("assets/custom_app")))
        self.assertTrue(self.copy("assets/frappe.css").is_file(), "the image's assets are there too")
        self.assertFalse((self.bench.folder / "apps" / "custom_app").exists(), "the image's own code is untouched")
        self.assertIn("custom_app", (self.bench.folder / "sites" / "apps.txt").read_text().split())

    def test_an_app_is_installed_once(self):
        for _ in range(2):
            done = self.run_in_pod(self.request())
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.whole()
        before = self.copy("apps/custom_app/custom_app/hooks.py").stat().st_mtime_ns
        self.run_in_pod(self.request())
        self.assertEqual(self.copy("apps/custom_app/custom_app/hooks.py").stat().st_mtime_ns, before, "not cloned anew")

    def test_killed_at_every_step_it_succeeds_when_repeated(self):
        """Most steps of the first container copy a file of the image's environment."""
        for container, steps in (("seed", Steps(COPIES_MAX, COPIES)), ("configure", Steps(STEPS_MAX))):
            for step in steps:
                killed = self.run_in_pod(self.request(), **{f"{container}_until": step}).returncode == KILLED
                if not killed:
                    break
                for marker in self.copy("installed").glob("*"):
                    self.assertTrue((self.copy("apps/custom_app/custom_app/hooks.py")).is_file(), "marked, so it is whole")
            self.assertGreater(step, 3)
            print(f"{container}: killed at {steps}")
        done = self.run_in_pod(self.request())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.whole()

    def test_failures_are_reported(self):
        done = self.run_in_pod(self.request(branch="absent"))
        self.assertEqual(done.returncode, 30)
        self.assertEqual(self.bench.termination()["step"], "clone custom-app")
        self.assertIn("absent", self.bench.termination()["error"])
        done = self.run_in_pod(self.request(), folder=self.no_app())
        self.assertEqual(done.returncode, 30)
        self.assertIn("is not the Frappe app custom_app", self.bench.termination()["error"])

    def test_a_token_in_a_repositorys_url_is_redacted(self):
        for address in ("https://Token0123456789@127.0.0.1:1/a", "https://git:Token0123456789@127.0.0.1:1/a"):
            done = self.run_in_pod(self.request(repository=address))
            self.assertEqual(done.returncode, 30, done.stdout + done.stderr)
            self.assertIn("127.0.0.1", self.bench.termination()["error"])
            self.assertNotIn("Token0123456789", json.dumps(self.bench.termination()) + done.stdout + done.stderr)
        address = "https://Token0123456789@git.example.com/a"
        more = {"GIT_CONFIG_KEY_0": f"url.file://{self.no_app()}.insteadOf", "GIT_CONFIG_VALUE_0": address}
        done = self.run_in_pod(self.request(repository=address), **more)
        self.assertEqual(done.returncode, 30, done.stdout + done.stderr)
        self.assertTrue(self.bench.termination()["error"].startswith("https://[secret]@git.example.com/a is not the Frappe app"))

    def no_app(self):
        """A repository without a Frappe app."""
        other = tempfile.TemporaryDirectory()
        self.addCleanup(other.cleanup)
        make_app(other.name, "something_else")
        return other.name

    def test_repositories_are_on_servers_and_are_no_options(self):
        """git can run programs that a repository's URL names, and accepts folders of the pod as repositories."""
        for repository in ("ext::sh -c touch% proof", "file:///etc", "/run/frappe-secrets", "../..", "--upload-pack=touch proof", "https://a b/c",
                           "https://git.example.com/a\n", "ssh://-oProxyCommand=touch/x", "-oProxyCommand@host:path", "git@-host:path", "git@host:-path"):
            with self.subTest(repository):
                done = self.run_in_pod(self.request(repository=repository))
                self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
                self.assertIn("the repository of custom-app must be a URL", self.bench.termination()["error"])
        for branch in ("--upload-pack=x", "a b", "main\n"):
            done = self.run_in_pod(self.request(branch=branch))
            self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        for repository in ("https://github.com/frappe/erpnext", "https://token@git.example.com:8443/a/b.git", "ssh://git@git.example.com/a",
                           "git@github.com:frappe/erpnext.git", "http://gitea.git.svc:3000/a/b"):
            import runner_bench
            self.assertTrue(runner_bench.REPOSITORY.fullmatch(repository), repository)

    def test_a_copy_that_is_used_again_is_among_the_newest(self):
        home = self.bench.folder / "sites" / ".apps"
        for number in range(4):
            folder = home / f"{number:08x}"
            folder.mkdir(parents=True)
            os.utime(folder, (number, number))
        self.assertEqual(self.bench.run("seed", {"revision": "00000000"}).returncode, 0)
        self.assertEqual(self.bench.run("seed", {"revision": REVISION}).returncode, 0)
        self.assertEqual(sorted(entry.name for entry in home.iterdir()), ["00000000", "00000003", REVISION], "its pods run until they are replaced")

    def test_a_partly_removed_copy_is_not_used(self):
        home = self.bench.folder / "sites" / ".apps"
        shutil.rmtree(self.bench.folder / "env")
        for step in Steps(STEPS_MAX):
            for number in range(4):
                folder = home / f"{number:08x}"
                folder.mkdir(parents=True, exist_ok=True)
                for part in ("apps", "env"):
                    (folder / part).write_text("code")
                os.utime(folder, (number, number))
            killed = self.bench.run("seed", {"revision": REVISION}, kill_at=step).returncode == KILLED
            for folder in home.glob("0000000?"):
                self.assertEqual(sorted(entry.name for entry in folder.iterdir()), ["apps", "env"], f"step {step}")
            if not killed:
                break
            shutil.rmtree(home / REVISION, ignore_errors=True)
        self.assertGreater(step, 5)
        self.assertEqual(self.bench.run("seed", {"revision": "a" * 16}).returncode, 0)
        self.assertEqual([entry.name for entry in home.iterdir() if entry.name.endswith(".part")], [])

    def test_old_copies_are_removed_and_the_newest_kept(self):
        home = self.bench.folder / "sites" / ".apps"
        for number in range(5):
            folder = home / f"{number:08x}"
            folder.mkdir(parents=True)
            os.utime(folder, (number, number))
        self.assertEqual(self.run_in_pod(self.request()).returncode, 0)
        self.assertEqual(sorted(entry.name for entry in home.iterdir()), ["00000003", "00000004", REVISION])


if __name__ == "__main__":
    unittest.main()
