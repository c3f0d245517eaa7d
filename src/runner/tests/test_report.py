"""What the operator reads of a Job that ended: JSON within the kubelet's bound, whatever the error was."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

# Bytes of a termination message that the kubelet keeps.
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

    def test_an_error_of_any_length_and_letters_leaves_its_code(self):
        for error in ("no", "x" * 5000, "\N{PILE OF POO}" * 5000, "\x01" * 5000, '"' * 5000, "\udcff" * 5000):
            left = self.left(error)
            self.assertLess(len(left), KEPT_BYTES)
            self.assertEqual(json.loads(left)["code"], "CommandFailed")


if __name__ == "__main__":
    unittest.main()
