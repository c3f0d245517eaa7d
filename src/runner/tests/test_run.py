"""A command, a method or a script for a site: what reaches Frappe, what comes back, and what is left behind."""

import hashlib
import json
import os
import pathlib
import signal
import time
import types
import unittest

from support import Bench

ARGUMENTS = json.loads((pathlib.Path(__file__).resolve().parent / "arguments.json").read_text())
# Of configurations: none of them may be shown.
SECRETS = {"db_password": "DbPassw0rd-äöü", "encryption_key": "Encryption=Key=0123", "backup_encryption_key": "BackupKey0123",
           "mail": "by the name that the request has", "s3_secret_access_key": "s3/secret+key"}
REDIS_PASSWORD = "RedisPassw0rd"
OUTPUT_BYTES = 1 << 20
# What the kubelet keeps of a termination message.
MESSAGE_BYTES_MAX = 4096
APP = """
import json, os, subprocess, sys, time
def echo(*args, **kwargs): return {"args": args, "kwargs": kwargs}
def nothing(): print("done")
def long(): return "x" * 2000
def fails(): raise ValueError("a value of the wrong kind")
def conf(): return json.load(open("shop.example.com/site_config.json"))
class Thing:
    def __str__(self): return "a thing"
def thing(): return [Thing()]
"""


class RunCase(unittest.TestCase):
    def setUp(self):
        self.bench = Bench(types.SimpleNamespace(port=1))
        self.addCleanup(self.bench.close)
        self.bench.site().mkdir()
        self.config = {"db_name": "db", "db_type": "mariadb", **SECRETS}
        self.bench.site("site_config.json").write_text(json.dumps(self.config))
        self.bench.site(".operator-state").write_text("ready id-1\n")
        common = {"redis_queue": f"redis://default:{REDIS_PASSWORD}@queue:6379"}
        (self.bench.folder / "sites/common_site_config.json").write_text(json.dumps(common))
        (self.bench.folder / "python/shop.py").write_text(APP)
        (self.bench.folder / "script").mkdir()
        self.bench.more = {"SITE_RUNNER_SCRIPTS": str(self.bench.folder / "script"), "SITE_RUNNER_GRACE_SECONDS": "1"}

    def request(self, run, **more):
        return {"site": "shop.example.com", "identity": "id-1", "database": None, "run": run, "timeout_seconds": 60, "capture": True,
                "output_bytes": OUTPUT_BYTES, "secret_config": ["mail"], **more}

    def run_it(self, run, **more):
        return self.bench.run("run", self.request(run, **more))

    def script(self, text, **more):
        """Runs this script."""
        (self.bench.folder / "script/script").write_text(text)
        return self.run_it({"script": "job.py", "config_map": "scripts"}, **more)

    def ran(self):
        """What is known of the run."""
        return self.bench.termination()["run"]

    def arguments(self, command="doctor"):
        """The arguments with which Frappe's command was called, each time."""
        return [call[1:] for call in self.bench.calls() if call[0] == command]


class CommandTest(RunCase):
    def test_every_argument_reaches_frappe_as_it_is(self):
        self.assertGreaterEqual(len(ARGUMENTS["reach"]), 200)
        for at in range(0, len(ARGUMENTS["reach"]), 16):
            arguments = ARGUMENTS["reach"][at : at + 16]
            result = self.run_it({"command": ["doctor", *arguments]})
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            self.assertEqual(self.arguments(), [arguments])
            self.bench.forget_calls()

    def test_what_must_not_reach_frappe_is_refused(self):
        # Their length is limited by the API server.
        for argument in (it for it in ARGUMENTS["refused"] if len(it) < 2049):
            result = self.run_it({"command": ["doctor", "--first", argument]})
            self.assertEqual((result.returncode, self.bench.termination()["code"]), (2, "RequestInvalid"), ascii(argument))
        for name in ("", "-x", "--site", "Doctor", "doctor\n", "a b", "../doctor", "doctor;id", "x" * 64):
            self.assertEqual(self.run_it({"command": [name]}).returncode, 2, name)
        self.assertEqual(self.bench.calls(), [])

    def test_another_identity_is_not_run(self):
        result = self.run_it({"command": ["doctor"]}, identity="id-2")
        self.assertEqual((result.returncode, self.bench.termination()["code"]), (22, "SiteNameTaken"))
        self.assertEqual(self.bench.calls(), [])


class MethodTest(RunCase):
    def test_arguments_and_result_are_those_of_the_method(self):
        values = ["a", 1, None, True, {"b": [1.5]}, *ARGUMENTS["reach"][:20]]
        result = self.run_it({"method": "shop.echo", "args": values[:9], "kwargs": {"it": values[9:]}})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(json.loads(self.ran()["value"]), {"args": values[:9], "kwargs": {"it": values[9:]}})
        self.assertIn(["commit"], self.bench.calls())

    def test_a_result_is_json_of_a_bounded_size(self):
        self.run_it({"method": "shop.nothing"})
        self.assertEqual((self.ran().get("value"), self.ran()["output"]), (None, "done\n"))
        self.run_it({"method": "shop.thing"})
        self.assertEqual(self.ran()["value"], '["a thing"]')
        result = self.run_it({"method": "shop.long"})
        self.assertEqual((result.returncode, self.ran()["value"]), (0, None))
        self.assertIn("the result has more than 1024 bytes", result.stdout)

    def test_a_method_that_fails_commits_nothing(self):
        result = self.run_it({"method": "shop.fails"})
        self.assertEqual((result.returncode, self.bench.termination()["code"], self.ran()["exit"]), (30, "CommandFailed", 1))
        self.assertIn("ValueError: a value of the wrong kind", self.ran()["output"])
        self.assertEqual(self.bench.termination()["error"], "exit code 1")
        self.assertNotIn(["commit"], self.bench.calls())

    def test_only_the_path_of_a_function_is_a_method(self):
        for name in ("", "echo", "shop.echo()", "shop.echo\n", "__import__('os').system", "shop..echo", "shop.echo;id"):
            self.assertEqual(self.run_it({"method": name}).returncode, 2, name)

    def test_secrets_of_the_configuration_are_not_in_the_result(self):
        result = self.run_it({"method": "shop.conf"})
        value = json.loads(self.ran()["value"])
        self.assertEqual((value["db_password"], value["mail"], value["db_name"]), ("[secret]", "[secret]", "db"))
        self.assertEqual([it for it in SECRETS.values() if it in result.stdout + json.dumps(self.bench.termination(), ensure_ascii=False)], [])


class ScriptTest(RunCase):
    def test_a_script_runs_with_frappe(self):
        result = self.script("frappe.record('script', __name__)\nprint('ran', frappe.conf.site)\n")
        self.assertEqual((result.returncode, self.ran()["exit"], self.ran()["output"]), (0, 0, "ran shop.example.com\n"), result.stderr)
        self.assertIn(["script", "__main__"], self.bench.calls())
        self.assertIn(["commit"], self.bench.calls())

    def test_a_script_that_is_missing_or_another_one_is_not_run(self):
        result = self.run_it({"script": "job.py", "config_map": "scripts"})
        self.assertEqual((result.returncode, self.bench.termination()["code"]), (2, "ScriptMissing"))
        text = "frappe.record('script')\n"
        (self.bench.folder / "script/script").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        run = {"script": "job.py", "config_map": "scripts", "sha256": digest}
        self.assertEqual(self.run_it(run).returncode, 0)
        (self.bench.folder / "script/script").write_text(text + "\n")
        self.bench.forget_calls()
        self.assertEqual((self.run_it(run).returncode, self.bench.termination()["code"]), (2, "ScriptChanged"))
        self.assertEqual(self.bench.calls(), [])

    def test_an_exit_code_and_a_signal_are_reported(self):
        self.assertEqual((self.script("import sys; print('no'); sys.exit(7)").returncode, self.ran()["exit"]), (30, 7))
        self.assertEqual(self.bench.termination()["error"], "exit code 7")
        self.script("import os; os.kill(os.getpid(), 9)")
        self.assertEqual((self.ran()["exit"], self.bench.termination()["error"]), (-9, "signal 9"))

    def test_a_script_that_hangs_is_ended(self):
        for how in ("", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"):
            begin = time.monotonic()
            result = self.script(f"{how}import time; print('begun'); time.sleep(600)", timeout_seconds=1)
            self.assertEqual((result.returncode, self.bench.termination()["code"]), (124, "DeadlineExceeded"), result.stderr)
            self.assertEqual(self.ran()["output"], "begun\n")
            self.assertLess(time.monotonic() - begin, 20)

    def test_what_a_script_leaves_behind_is_ended(self):
        """It holds the output open."""
        begin = time.monotonic()
        result = self.script("import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid)")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLess(time.monotonic() - begin, 30)
        status = pathlib.Path(f"/proc/{int(self.ran()['output'])}/stat")
        self.assertTrue(not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z")

    def test_a_script_that_reads_its_input_does_not_wait(self):
        self.assertEqual(self.script("import sys; print(repr(sys.stdin.read()))").returncode, 0)
        self.assertEqual(self.ran()["output"], "''\n")


class OutputTest(RunCase):
    def test_no_secret_is_shown_however_it_is_printed(self):
        values = [*SECRETS.values(), REDIS_PASSWORD]
        text = f"""
import os, sys
for value in {values!r}:
    print("whole", value)
    for part in value.encode():
        os.write(1, bytes([part]))
    print()
    print("x" * 65530 + value, file=sys.stderr)
raise ValueError({values[0]!r})
"""
        result = self.script(text)
        said = result.stdout + json.dumps(self.bench.termination(), ensure_ascii=False)
        self.assertEqual([it for it in values if it in said], [])
        self.assertGreaterEqual(said.count("[secret]"), 3 * len(values))

    def test_much_output_is_bounded_and_its_end_is_kept(self):
        result = self.script("for number in range(200_000): print(f'{number:06d}', '🙂' * 10, '\"')\nprint('the end')")
        self.assertEqual(result.returncode, 0)
        self.assertTrue(result.stdout.startswith("000000 🙂"))
        self.assertLess(len(result.stdout.encode()), OUTPUT_BYTES + 1000)
        self.assertRegex(result.stdout, r"\[\d+ more bytes are not shown\]")
        ran = self.ran()
        self.assertTrue(ran["output"].endswith("the end\n") and ran["cut"], ran)
        self.assertGreater(ran["omitted"], 8_000_000)
        size = (self.bench.folder / "termination").stat().st_size
        self.assertTrue(2000 < size <= MESSAGE_BYTES_MAX, size)

    def test_the_message_of_a_failure_is_bounded_too(self):
        self.script("print('🙂\\\"' * 5000); raise ValueError('\\\"🙂' * 5000)")
        self.assertEqual(self.bench.termination()["code"], "CommandFailed")
        self.assertLessEqual((self.bench.folder / "termination").stat().st_size, MESSAGE_BYTES_MAX)

    def test_a_terminal_is_not_controlled(self):
        result = self.script(r"print('\x1b[31mred\x1b[0m \x07\x1b]0;title\x07 a\rb \x9b31m tab\t')")
        self.assertEqual(self.ran()["output"], "red 0;title ab 31m tab\t\n")
        self.assertFalse(any(it in result.stdout for it in "\x1b\x07\r\x9b"))

    def test_bytes_that_are_no_text_are_replaced(self):
        self.script("import os; os.write(1, b'a\\xff\\xc3')")
        self.assertEqual(self.ran()["output"], "a\ufffd\ufffd")

    def test_nothing_is_shown_on_request(self):
        result = self.script("print('a name'); raise ValueError('another name')", capture=False)
        self.assertEqual((result.returncode, self.bench.termination()["error"], self.ran()), (30, "exit code 1", {"exit": 1}))
        self.assertNotIn("name", result.stdout + result.stderr)
        self.run_it({"method": "shop.echo", "args": ["a name"]}, capture=False)
        self.assertEqual(self.ran(), {"exit": 0})


class MaintenanceTest(RunCase):
    ASK = "import json\nc = json.load(open('shop.example.com/site_config.json'))\nprint(c.get('maintenance_mode'), c.get('pause_scheduler'))\n"

    def maintained(self):
        return json.loads(self.bench.site("site_config.json").read_text())

    def test_the_site_is_in_maintenance_mode_while_it_runs(self):
        for text in (self.ASK, self.ASK + "raise ValueError\n"):
            self.script(text, maintenance=True)
            self.assertTrue(self.ran()["output"].startswith("1 1\n"))
            self.assertEqual(self.maintained(), self.config)
            self.assertFalse(self.bench.site(".operator-run").exists())
        self.script(self.ASK)
        self.assertEqual(self.ran()["output"], "None None\n")

    def start_hanging(self, **environment):
        (self.bench.folder / "script/script").write_text("import os, time\nfrappe.record('begun', os.getpid())\ntime.sleep(600)\n")
        process = self.bench.start("run", self.request({"script": "job.py", "config_map": "scripts"}, maintenance=True), **environment)
        while not self.arguments("begun"):
            self.assertIsNone(process.poll(), "it ended")
            time.sleep(0.05)
        self.assertEqual(self.maintained()["maintenance_mode"], 1)
        return process

    def test_a_stopped_pod_ends_it(self):
        process = self.start_hanging()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        self.assertEqual((process.returncode, self.bench.termination()["code"]), (143, "JobStopped"))
        self.assertEqual(self.maintained(), self.config)

    def test_after_a_kill_the_next_job_ends_it(self):
        for command in ("run", "settle"):
            self.bench.site("site_config.json").write_text(json.dumps({**self.config, "maintenance_mode": 0}))
            process = self.start_hanging()
            process.kill()
            process.communicate(timeout=30)
            os.kill(self.arguments("begun")[0][0], signal.SIGKILL)
            self.assertEqual(self.maintained()["maintenance_mode"], 1)
            self.bench.forget_calls()
            more = {"settle": True} if command == "settle" else {}
            result = self.run_it({"method": "shop.nothing"}, **more)
            self.assertEqual(result.returncode, 0, result.stdout)
            self.assertEqual(self.maintained(), {**self.config, "maintenance_mode": 0})
            self.assertEqual(self.bench.termination()["result"], "settled" if command == "settle" else "ran")
            self.assertEqual(bool(self.bench.calls()), command == "run")

    def test_a_held_or_half_updated_site_is_not_run(self):
        for name, state in ((".operator-held", {"before": {}, "at": 0}), (".operator-update", {"phase": "migrating"})):
            self.bench.site(name).write_text(json.dumps(state))
            result = self.run_it({"command": ["doctor"]})
            self.assertEqual((result.returncode, self.bench.termination()["code"]), (31, "UpdateRequired"), name)
            self.bench.site(name).unlink()
        self.assertEqual(self.bench.calls(), [])


class NarrowTest(RunCase):
    def test_a_pod_without_the_other_files_of_the_bench_suffices(self):
        """Only the site's directory, the list of apps and the common configuration are mounted."""
        (self.bench.folder / "assets").mkdir()
        self.assertEqual(sorted(it.name for it in (self.bench.folder / "sites").iterdir()), ["common_site_config.json", "shop.example.com"])
        self.assertEqual(self.run_it({"command": ["doctor"]}).returncode, 0)
        self.assertEqual((self.bench.folder / "sites/assets").resolve(), (self.bench.folder / "assets").resolve())


if __name__ == "__main__":
    unittest.main()
