"""The termination message of a Job: valid JSON within the kubelet's limit for every error."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

# Maximum bytes of a termination message in the kubelet.
KEPT_BYTES = 4096
FOLDER = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = "import json, sys, site_runner; site_runner.report(json.loads(sys.argv[1]))"


class ReportTest(unittest.TestCase):
    def left(self, error):
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "log"
            request = json.dumps({"step": "migrate", "code": "CommandFailed", "error": error})
            subprocess.run([sys.executable, "-c", PROGRAM, request], cwd=FOLDER, check=True, stdout=subprocess.DEVNULL,
                           env={"SITE_RUNNER_TERMINATION_LOG": str(log), "PYTHONIOENCODING": "utf-8:replace"})
            return log.read_bytes()

    def test_an_error_of_any_length_and_characters_keeps_its_code(self):
        for error in ("no", "x" * 5000, "\N{PILE OF POO}" * 5000, "\x01" * 5000, '"' * 5000, "\udcff" * 5000):
            left = self.left(error)
            self.assertLess(len(left), KEPT_BYTES)
            self.assertEqual(json.loads(left)["code"], "CommandFailed")

    def test_a_volume_of_another_user_is_reported_with_advice(self):
        with tempfile.TemporaryDirectory() as folder:
            sites, log = pathlib.Path(folder) / "sites", pathlib.Path(folder) / "log"
            sites.mkdir(mode=0o555)
            pathlib.Path(folder).chmod(0o755)
            log.touch(mode=0o666)
            log.chmod(0o666)
            as_user = ["setpriv", "--reuid=1234", "--regid=1235", "--clear-groups"] if os.geteuid() == 0 else []
            if subprocess.run([*as_user, sys.executable, "-c", f"import os; os.listdir({str(FOLDER)!r})"], check=False, stderr=subprocess.DEVNULL).returncode:
                self.skipTest("root may write everywhere, and another user may not read the runner or its interpreter")
            done = subprocess.run([*as_user, sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import site_runner; "
                                   "sys.exit(site_runner.main(['configure', '{\"common_site_config\": {}}']))", FOLDER], cwd=folder, check=False,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={"SITE_RUNNER_TERMINATION_LOG": str(log)})
            self.assertEqual(done.returncode, 30, done.stderr)
            left = json.loads(log.read_text())
            self.assertEqual(left["code"], "FilesFailed")
            self.assertIn(f"sites belongs to user {sites.stat().st_uid} and group", left["error"])
            self.assertIn("with mode 555, this pod is user", left["error"])


if __name__ == "__main__":
    unittest.main()
