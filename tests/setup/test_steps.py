"""The output of a long step, and that no process of it is left after Ctrl-C."""

import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
import unittest

SETUP = pathlib.Path(__file__).resolve().parents[2] / "loadtest" / "setup"
STEP = SETUP / "step"


def processes(text):
    """Other processes whose command line contains this text."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(folder.name) != os.getpid():
            found.append(line)
    return found


class Terminal:
    """A program with its own terminal."""

    def __init__(self, command, environment, folder=None):
        self.id, self.file = pty.fork()
        if self.id == 0:
            # The tests may be started with these signals ignored; a user's shell ignores none of them.
            for it in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                signal.signal(it, signal.SIG_DFL)
            if folder:
                os.chdir(folder)
            os.execvpe(command[0], [str(it) for it in command], environment)
        self.text = ""

    def read(self, seconds):
        """Reads the output within a time; returns whether there may be more."""
        if not select.select([self.file], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.file, 65536)
        except OSError:
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def until(self, text, seconds=20):
        end = time.monotonic() + seconds
        while text not in self.text:
            if time.monotonic() > end or not self.read(0.1):
                raise AssertionError(f"{text!r} did not come:\n{self.text}")

    def interrupt(self):
        os.write(self.file, b"\x03")

    def end(self):
        """Waits for the end; returns the exit code, as a shell does."""
        while self.read(1):
            pass
        _, status = os.waitpid(self.id, 0)
        os.close(self.file)
        return os.waitstatus_to_exitcode(status)


class Steps(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a folder ")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("STEP_")}
        self.environment |= {"CARGO_TARGET_DIR": str(self.folder / "build folder"), "TERM": "xterm", "CI": ""}

    def step(self, title, script, *options, **variables):
        command = [STEP, *options, title, "bash", "-c", script]
        return subprocess.run(command, env=self.environment | variables, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def test_without_a_terminal_a_step_is_one_line_without_colour(self):
        done = self.step("unit tests", "echo noise; echo more >&2")
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertRegex(done.stderr, r"^\[ 0:0\d\] unit tests: done in \d s\n$")

    def test_a_long_step_reports_its_progress_regularly(self):
        # Each state lasts for two polls, so that it is also seen on a busy machine.
        script = "echo running 3 tests; sleep 2.5; echo test a ... ok; sleep 2.5; echo test b ... ok; echo test c ... ok"
        done = self.step("unit tests", script, STEP_EVERY_SECONDS="1")
        self.assertRegex(done.stderr, r"unit tests: 0 of 3 tests \(\d s\)\n")
        self.assertRegex(done.stderr, r"unit tests: 1 of 3 tests \(\d s\)\n")
        self.assertRegex(done.stderr, r"unit tests: 3 of 3 tests: done in \d s\n$")

    def test_crates_are_counted_by_cargos_progress(self):
        script = "printf '   Compiling a\\n    Building [==>   ] 12/345: a, b\\r'; sleep 2.5"
        done = self.step("operator", script, STEP_EVERY_SECONDS="1")
        self.assertRegex(done.stderr, r"operator: 12 of 345 crates \(\d s\)")
        self.assertRegex(done.stderr, r"operator: 345 crates: done in \d s\n$")

    def test_a_failing_step_prints_the_end_and_the_path_of_its_log(self):
        done = self.step("clippy", "printf '    Building [==>   ] 1/3: a\\r'; seq 100; echo the error; exit 7")
        self.assertEqual(done.returncode, 7)
        self.assertIn("clippy: failed after", done.stderr)
        self.assertIn("    the error\n", done.stderr)
        self.assertNotIn("    60\n", done.stderr, "of a long log only the end is shown")
        log = pathlib.Path(re.search(r"All that it printed: (.*)\n", done.stderr).group(1))
        self.assertEqual(log.read_text().split(), [str(it) for it in range(1, 101)] + ["the", "error"])
        self.assertEqual([it.name for it in log.parent.iterdir()], ["clippy.log"])

    def test_a_terminal_has_one_line_that_is_redrawn(self):
        terminal = Terminal([STEP, "clippy", "sleep", "1.5"], self.environment)
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(terminal.text.count("\n"), 1, terminal.text)
        self.assertGreater(terminal.text.count("\r\x1b[K"), 2, terminal.text)

    def test_a_terminal_that_cannot_redraw_gets_lines(self):
        terminal = Terminal([STEP, "clippy", "sleep", "1"], self.environment | {"TERM": "dumb"})
        self.assertEqual(terminal.end(), 0)
        self.assertNotIn("\x1b", terminal.text)

    def test_parallel_steps_do_not_redraw_each_others_lines(self):
        terminal = Terminal([STEP, "clippy", "sleep", "1"], self.environment | {"STEP_PARALLEL": "1"})
        self.assertEqual(terminal.end(), 0)
        self.assertNotIn("\x1b[K", terminal.text)

    def test_ctrl_c_ends_the_command_and_its_descendants(self):
        mark = f"mark-{os.getpid()}-all"
        # A process that ignores signals, and one in the background, for which shells ignore Ctrl-C.
        script = f"trap '' INT TERM; sh -c 'sleep 300; : {mark}' & sh -c 'sleep 300; : {mark}'; : {mark}"
        terminal = Terminal([STEP, "build", "bash", "-c", script], self.environment)
        terminal.until("build")
        while not processes(mark):
            time.sleep(0.1)
        terminal.interrupt()
        self.assertEqual(terminal.end(), 130)
        self.assertEqual(processes(mark), [])
        self.assertIn("build: ended after", terminal.text)

    def test_a_step_that_must_not_be_interrupted_is_completed_first(self):
        done = self.folder / "done"
        terminal = Terminal([STEP, "--finish", "install", "bash", "-c", f"sleep 2; touch '{done}'"], self.environment)
        terminal.until("install")
        terminal.interrupt()
        self.assertEqual(terminal.end(), 130)
        self.assertTrue(done.exists())

    def test_ctrl_c_stops_a_step_below_make_and_unlocks_the_folder(self):
        mark = f"mark-{os.getpid()}-make"
        makefile = self.folder / "Makefile"
        makefile.write_text(f'all:\n\t@"{SETUP}/in-build-folder" $(MAKE) --no-print-directory inner\ninner:\n'
                            f"\t@\"{STEP}\" build sh -c 'sleep 300; : {mark}'\n")
        environment = self.environment | {"FRAPPE_OPERATOR_CACHE": str(self.folder / "the cache")}
        del environment["CARGO_TARGET_DIR"]
        terminal = Terminal(["make"], environment, self.folder)
        terminal.until("build")
        while not processes(mark):
            time.sleep(0.1)
        terminal.interrupt()
        self.assertNotEqual(terminal.end(), 0)
        self.assertEqual(processes(mark), [])
        again = [SETUP / "in-build-folder", "sh", "-c", 'echo "$CARGO_TARGET_DIR"']
        done = subprocess.run(again, env=environment, check=True, capture_output=True, text=True)
        self.assertEqual(done.stdout, f"{self.folder}/the cache/target\n")

    def test_concurrent_runs_have_separate_folders(self):
        environment = self.environment | {"FRAPPE_OPERATOR_CACHE": str(self.folder / "the cache")}
        del environment["CARGO_TARGET_DIR"]
        here = [SETUP / "in-build-folder", "sh", "-c", 'echo "$CARGO_TARGET_DIR"; read -r line']
        options = {"env": environment, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(here, **options) as first:
            one = first.stdout.readline()
            with subprocess.Popen(here, **options) as second:
                two = second.stdout.readline()
                second.communicate("end\n")
            first.communicate("end\n")
        with subprocess.Popen(here, **options) as third:
            three = third.stdout.readline()
            third.communicate("end\n")
        cache = self.folder / "the cache"
        self.assertEqual((one, two, three), (f"{cache}/target\n", f"{cache}/target-2\n", f"{cache}/target\n"))

    def test_a_stopped_run_ends_its_processes(self):
        mark = f"mark-{os.getpid()}-told"
        environment = self.environment | {"FRAPPE_OPERATOR_CACHE": str(self.folder / "the cache")}
        command = [SETUP / "in-build-folder", STEP, "build", "sh", "-c", f"sleep 300; : {mark}"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as run:
            while not processes(mark):
                time.sleep(0.1)
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=20)
        self.assertNotEqual(run.returncode, 0)
        self.assertEqual(processes(mark), [])


if __name__ == "__main__":
    unittest.main()
