"""Tests against a real Frappe are not run unnoticed: without a bench, each says so."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class WithoutBench(unittest.TestCase):
    def setUp(self):
        self.environment = {name: value for name, value in os.environ.items() if name not in ("BENCH", "BENCH_NEXT")}

    def test_make_says_what_is_missing(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(["make", "--no-print-directory", "real"], cwd=ROOT, env={**self.environment, "CARGO_TARGET_DIR": folder},
                                  capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("NOT RUN: make real needs a bench with a real Frappe: BENCH=DIR", done.stderr)

    def test_each_test_is_skipped_with_its_reason(self):
        done = subprocess.run([sys.executable, "-m", "unittest", "discover", "--verbose"], cwd=ROOT / "tests" / "real", env=self.environment,
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("test_verbs.OnMariaDb", "test_verbs.OnPostgres", "test_components", "test_kills"):
            self.assertRegex(done.stderr, f'{name}.*skipped "NOT RUN: BENCH must name')
        self.assertRegex(done.stderr, "test_update.*NOT RUN: BENCH and BENCH_NEXT must name")

    def test_a_bench_is_not_used_outside_of_own_namespaces(self):
        environment = {**self.environment, "BENCH": "/nonexistent"}
        done = subprocess.run([sys.executable, "-m", "unittest", "--verbose", "test_kills"], cwd=ROOT / "tests" / "real", env=environment,
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("NOT RUN: only in namespaces of its own, by make real", done.stderr)


if __name__ == "__main__":
    unittest.main()
