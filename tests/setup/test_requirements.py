"""Requirements of the two commands: everything missing is reported at once, with one command, and installed only if that needs no
password."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUIRE = ROOT / "loadtest" / "setup" / "require"
# Programs that the script runs, and those that `make demo` needs.
BASE = ["awk", "bash", "cat", "date", "dirname", "env", "grep", "head", "mkdir", "mv", "rm", "sed", "sh", "sleep", "sort", "tail", "tr", "uname"]
DEMO = ["cc", "make", "flock"]
TEST = ["git", "mariadbd", "mariadb", "mariadb-dump", "initdb", "psql", "nginx", "redis-server", "redis-cli", "musl-gcc", "openssl", "node", "npm"]
PROGRAMS = {
    "cargo": 'echo "cargo 1.99.0 (abc 2026-01-01)"',
    "go": 'case "$2" in GOVERSION) echo go1.99.1 ;; *) echo local ;; esac',
    "kubectl": "",
    "python3": 'echo "Python 3.12.0"',
}
# A stand-in for apt-get: a package installs programs by its name.
APT = """
echo "$@" >>"$CALLS"
[ "$1" = install ] || exit 0
for package in "$@"; do
  case $package in
    mariadb-server-core) made="mariadbd" ;; mariadb-client-core) made=mariadb ;; mariadb-client) made=mariadb-dump ;;
    postgresql) made="initdb psql" ;; nginx-light) made=nginx ;; redis-server) made=redis-server ;; redis-tools) made=redis-cli ;;
    musl-tools) made=musl-gcc ;; git) made=git ;; openssl) made=openssl ;; nodejs) made=node ;; npm) made=npm ;; *) made= ;;
  esac
  for program in $made; do
    to=$BIN
    case $program in initdb) to=$BIN/../postgresql/15/bin && mkdir -p "$to" ;; esac
    [ "$package" = "$ABSENT" ] || cp "$BIN/kubectl" "$to/$program"
  done
done
"""


class Requirements(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a folder ")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.bin, self.calls = self.folder / "bin", self.folder / "calls"
        self.bin.mkdir()
        for name in BASE:
            (self.bin / name).symlink_to(shutil.which(name))
        for name in DEMO:
            self.program(name)
        for name, text in PROGRAMS.items():
            self.program(name, text)
        self.program("id", "echo 1000")

    def program(self, name, text=""):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def without(self, name):
        (self.bin / name).unlink()

    def require(self, purpose, **variables):
        # A copy of the script that searches only this folder for programs.
        place = self.folder / "project" / "loadtest" / "setup"
        place.mkdir(parents=True, exist_ok=True)
        folders = "/usr/local/sbin /usr/sbin /usr/lib/postgresql/*/bin"
        text = REQUIRE.read_text()
        self.assertIn(folders, text)
        text = text.replace(folders, f"'{self.folder}/postgresql/'*/bin")
        text = text.replace("policy=/usr/sbin/policy-rc.d", f"policy='{self.folder}/policy'")
        (place / "require").write_text(text)
        shutil.copy(REQUIRE.parent / "step", place / "step")
        (place.parent / "controlplane").mkdir(exist_ok=True)
        shutil.copy(ROOT / "loadtest" / "controlplane" / "go.mod", place.parent / "controlplane")
        shutil.copy(ROOT / "Cargo.toml", place.parent.parent)
        environment = {"PATH": str(self.bin), "HOME": str(self.folder), "CARGO_TARGET_DIR": str(self.folder / "build"), "ABSENT": ""}
        environment |= {"BIN": str(self.bin), "CALLS": str(self.calls)} | variables
        command = [shutil.which("bash"), place / "require", purpose]
        return subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def test_the_demo_does_not_need_the_tests_programs_such_as_python(self):
        self.without("python3")
        done = self.require("demo")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_everything_missing_is_reported_at_once_with_one_command(self):
        self.program("apt-get", APT)
        done = self.require("test")
        self.assertEqual(done.returncode, 1)
        for name in TEST:
            self.assertIn(name, done.stderr)
        (command,) = [line for line in done.stderr.splitlines() if line.startswith("Install with: ")]
        self.assertEqual(
            command,
            "Install with: sudo apt-get install --yes --no-install-recommends git mariadb-server-core mariadb-client-core"
            " mariadb-client postgresql postgresql-client nginx-light redis-server redis-tools musl-tools openssl nodejs npm",
        )
        self.assertFalse(self.calls.exists(), "without root or sudo nothing is installed")

    def test_other_package_managers_have_their_command(self):
        for manager, wanted in [("dnf", "sudo dnf install --assumeyes "), ("pacman", "sudo pacman -S --needed "), ("apk", "sudo apk add ")]:
            self.program(manager)
            done = self.require("test")
            self.assertIn(f"Install with: {wanted}git mariadb", done.stderr)
            self.without(manager)

    def test_toolchains_are_reported_with_their_source(self):
        self.without("go")
        self.without("kubectl")
        self.program("cargo", 'echo "cargo 1.70.0 (abc 2023-01-01)"')
        done = self.require("demo")
        self.assertEqual(done.returncode, 1)
        for wanted in ["Go 1.26", "https://go.dev/dl", "kubectl: https://", "or later, here is 1.70.0"]:
            self.assertIn(wanted, done.stderr)

    def test_as_root_with_apt_they_are_installed_without_starting_services(self):
        self.program("id", "echo 0")
        self.program("apt-get", APT)
        self.program("printf", f'exec {shutil.which("printf")} "$@"')
        (self.bin / "chmod").symlink_to(shutil.which("chmod"))
        (self.bin / "cp").symlink_to(shutil.which("cp"))
        self.program("apt-get", APT + f'[ -x "{self.folder}/policy" ] || exit 9\n')
        done = self.require("test")
        self.assertEqual(done.returncode, 0, done.stderr)
        calls = self.calls.read_text().splitlines()
        self.assertEqual(calls[0], "update")
        self.assertIn("--no-remove", calls[1])
        self.assertFalse((self.folder / "policy").exists(), "it exists only during the installation")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_programs_that_apt_does_not_install_are_reported(self):
        self.program("id", "echo 0")
        (self.bin / "chmod").symlink_to(shutil.which("chmod"))
        (self.bin / "cp").symlink_to(shutil.which("cp"))
        self.program("apt-get", APT)
        done = self.require("test", ABSENT="nginx-light")
        self.assertEqual(done.returncode, 1)
        self.assertIn("make test needs more than is here:\n  nginx\nInstall with: apt-get install", done.stderr)

    def test_another_system_is_reported(self):
        self.without("uname")
        self.program("uname", "echo Darwin")
        done = self.require("demo")
        self.assertEqual(done.returncode, 1)
        self.assertIn("needs Linux", done.stderr)


class Makefile(unittest.TestCase):
    def lines(self, *arguments):
        environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        command = ["make", "--dry-run", "--no-print-directory", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment | {"CARGO_TARGET_DIR": "/a b/c"}, check=True, capture_output=True, text=True).stdout

    def test_the_demo_builds_and_requires_only_what_it_runs(self):
        text = self.lines("demo", "ONCE=1")
        self.assertIn("require demo", text)
        self.assertNotIn("require test", text)
        self.assertNotIn("--workspace", text)
        self.assertIn('"/a b/c/debug/demo" --operator "/a b/c/debug/frappe-operator" --once', text)

    def test_continuous_integration_runs_the_two_commands_and_nothing_else(self):
        lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
        self.assertEqual(lines, ["set -e", 'cd "$(dirname "$0")/.."', "make demo ONCE=1", "make test"])

    def test_dependencies_are_always_checked(self):
        self.assertIn("cargo deny --log-level error check bans licenses sources", self.lines("test"))


if __name__ == "__main__":
    unittest.main()
