"""Sources of the cluster script's programs: a given folder, ready-made programs, or Go."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from test_download import ALL, CONTROLPLANE, MACHINE, Server, program, published

# A stand-in for `go`: it prints packages and writes programs.
GO = """#!/bin/sh
echo "$@" >>"$GO_CALLS"
case $1 in
  list) for package in "$@"; do echo "$package"; done ;;
  build)
    while [ $# -gt 0 ]; do
      [ "$1" != -o ] || folder=$2
      case $1 in
        */v3) echo "$1" >&2; printf '#!/bin/sh\\n' >"$folder/server"; chmod +x "$folder/server" ;;
        */cmd/*) echo "$1" >&2; printf '#!/bin/sh\\n' >"$folder/${1##*/}"; chmod +x "$folder/${1##*/}" ;;
      esac
      shift
    done ;;
esac
"""


class Programs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a home ")
        self.addCleanup(folder.cleanup)
        self.home = pathlib.Path(folder.name)
        (self.home / "bin").mkdir()
        (self.home / "bin" / "go").write_text(GO)
        (self.home / "bin" / "go").chmod(0o755)
        self.calls = self.home / "calls"

    def build(self, url, **variables):
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("STEP_")}
        environment |= {"HOME": str(self.home), "FRAPPE_OPERATOR_CACHE": str(self.home / "the cache"), "GO_CALLS": str(self.calls)}
        environment |= {"PATH": f"{self.home / 'bin'}:/usr/bin:/bin", "CARGO_TARGET_DIR": str(self.home / "build folder")}
        environment |= {"KWOK_KUBE_BINARY_PREFIX": f"{url}/kube", "KWOK_ETCD_BINARY_PREFIX": f"{url}/etcd"}
        environment |= {"KWOK_BINARY_PREFIX": f"{url}/kwok", "KWOK_RELEASE_API": f"{url}/api"} | variables
        return subprocess.run([CONTROLPLANE / "cluster", "build"], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def kept(self):
        folders = [it for it in (self.home / "the cache" / "controlplane").iterdir() if it.is_dir()]
        self.assertEqual(len(folders), 1, folders)
        return {it.name for it in folders[0].iterdir()}

    def built(self):
        return self.calls.read_text().count("build ") if self.calls.exists() else 0

    @unittest.skipIf(MACHINE is None, "there are no ready-made programs for this machine")
    def test_ready_made_programs_need_no_go(self):
        server = Server(published())
        self.addCleanup(server.close)
        done = self.build(server.url)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.kept(), self.built()), (ALL, 0))
        self.assertEqual(self.build("http://127.0.0.1:9").returncode, 0, "they are kept")

    @unittest.skipIf(MACHINE is None, "there are no ready-made programs for this machine")
    def test_only_missing_programs_are_built(self):
        server = Server(published() | {"/etcd/SHA256SUMS": b"", "/kube/kube-scheduler": program("another")})
        self.addCleanup(server.close)
        done = self.build(server.url)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.kept(), ALL)
        (call,) = [line for line in self.calls.read_text().splitlines() if line.startswith("build ")]
        self.assertEqual([it.rsplit("/", 1)[-1] for it in call.split() if "/cmd/" in it or it.endswith("/v3")], ["kube-scheduler", "v3"])

    def test_without_release_servers_all_are_built_at_once(self):
        done = self.build("http://127.0.0.1:9")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.kept(), self.built()), (ALL, 1))
        self.assertRegex(done.stderr, r"control plane, once for this machine: 6 of 6 programs: done in")

    def test_a_failing_build_reports_its_log_and_keeps_nothing(self):
        (self.home / "bin" / "go").write_text('#!/bin/sh\n[ "$1" != build ] || { echo "no space left" >&2; exit 1; }\n')
        done = self.build("http://127.0.0.1:9")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no space left", done.stderr)
        log = done.stderr.rsplit("All that it printed: ", 1)[1].strip()
        self.assertIn("no space left", pathlib.Path(log).read_text())
        self.assertFalse(any(it.name == "kube-apiserver" for it in (self.home / "the cache").rglob("*")))

    def test_a_given_folder_has_precedence(self):
        named = self.home / "named"
        named.mkdir()
        for name in ALL:
            (named / name).write_bytes(program(name))
            (named / name).chmod(0o755)
        done = self.build("http://127.0.0.1:9", CONTROLPLANE_BIN=str(named))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(str(named), done.stderr)
        self.assertEqual(self.built(), 0)


if __name__ == "__main__":
    unittest.main()
