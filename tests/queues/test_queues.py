"""KEDA's triggers use the Redis keys of real workers: of queued and of running jobs.

A real Redis, started with the arguments of the rendered StatefulSet, and real workers of the rq versions that Frappe 15
and 16 pin. Rendered objects are read from the snapshots of the Rust tests. RQ_VERSIONS lists the versions, RQ_CACHE is the
folder where they are installed.
"""

import glob
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SNAPSHOTS = os.path.join(ROOT, "src", "controllers", "bench")
# Versions of rq and of the client library that Frappe pins with it.
VERSIONS = {"1.15.1": "redis~=4.5.5", "2.6.1": "redis~=6.4"}
CACHE = os.environ.get("RQ_CACHE", os.path.join(tempfile.gettempdir(), "rq-versions"))
BENCH_ID = "default-prod"
QUEUES = ["default", "short", "long"]
WAIT_SECONDS = 30


def snapshot(name):
    found = glob.glob(os.path.join(SNAPSHOTS, "**", f"*{name}.snap"), recursive=True)
    if len(found) != 1:
        raise AssertionError(f"one snapshot {name} expected, found {found}")
    with open(found[0], encoding="utf-8") as file:
        return file.read()


def trigger_keys(worker):
    """Keys in a rendered ScaledObject, in order."""
    return re.findall(r'listName: "?([^"\n]+)"?', snapshot(f"scaling__ScaledObject-{worker}"))


def redis_arguments(name="tests__StatefulSet-prod-redis-queue"):
    """Arguments of the rendered queue server."""
    text = snapshot(name)
    block = re.search(r"- args:\n((?: +- .*\n)+)", text).group(1)
    return [line.strip()[2:].strip('"') for line in block.splitlines()]


def environment(version):
    """A virtual environment with this version of rq."""
    folder = os.path.join(CACHE, f"rq-{version}")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(os.path.join(folder, "whole")):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"rq=={version}", VERSIONS[version]],
            check=True,
        )
        open(os.path.join(folder, "whole"), "w", encoding="utf-8").close()
    return python


class Queues(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def serve(self, name, *before):
        arguments = redis_arguments(name)
        self.assertEqual(arguments[0], "redis-server")
        place = arguments.index("--dir")
        arguments[place + 1] = self.folder
        process = self.start([*before, *arguments, "--bind", "127.0.0.1", "--port", str(self.port)])
        self.wait("Redis answers", lambda: self.redis("PING").startswith(("PONG", "NOAUTH")))
        return process

    def start(self, command, **options):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def redis(self, *command):
        output = subprocess.run(
            ["redis-cli", "-p", str(self.port), *command], capture_output=True, text=True, check=False
        )
        return output.stdout.strip()

    def wait(self, what, true):
        end = time.monotonic() + WAIT_SECONDS
        while not true():
            self.assertLess(time.monotonic(), end, f"not in {WAIT_SECONDS} s: {what}")
            time.sleep(0.05)

    def enqueue(self, python, queue, release):
        code = (
            "import sys; from redis import Redis; from rq import Queue; import jobs; "
            "Queue(sys.argv[2], connection=Redis(port=int(sys.argv[1]))).enqueue(jobs.hold, sys.argv[3])"
        )
        subprocess.run(
            [python, "-c", code, str(self.port), f"{BENCH_ID}:{queue}", release],
            check=True,
            env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        )

    def test_a_password_is_required_and_not_shown_anywhere(self):
        name = "redis__StatefulSet-prod-redis-queue"
        command = re.search(r"command:\n((?: +- .*\n)+)", snapshot(name)).group(1)
        shell = [json.loads(it) if it.startswith('"') else it for it in re.findall(r"- (.*)\n", command)]
        password = 'a"b\\c d#e$f'
        file = os.path.join(self.folder, "password")
        with open(file, "w", encoding="utf-8") as handle:
            handle.write(password + "\n")
        self.assertIn("/run/redis-password/password", shell[2])
        shell[2] = shell[2].replace("/run/redis-password/password", file)
        process = self.serve(name, *shell)
        self.assertIn("NOAUTH", self.redis("PING"))
        self.assertEqual(self.redis("--no-auth-warning", "-a", password, "PING"), "PONG")
        for what in ["cmdline", "environ"]:
            with open(f"/proc/{process.pid}/{what}", "rb") as handle:
                self.assertNotIn(password.encode(), handle.read(), what)

    def protected(self, name):
        """Starts the server of a new bench, with its password in a file; returns the password."""
        text = snapshot(name)
        command = re.search(r"command:\n((?: +- .*\n)+)", text).group(1)
        shell = [json.loads(it) if it.startswith('"') else it for it in re.findall(r"- (.*)\n", command)]
        password = secrets.token_hex(16)
        file = os.path.join(self.folder, "password")
        with open(file, "w", encoding="utf-8") as handle:
            handle.write(password)
        shell[2] = shell[2].replace("/run/redis-password/password", file)
        # As without enforced NetworkPolicies: the server is reachable, and its protected mode is off.
        process = self.serve(name, *shell)
        with open(f"/proc/{process.pid}/cmdline", "rb") as handle:
            self.assertNotIn(password.encode(), handle.read())
        return password

    def run_python(self, python, code, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
        done = subprocess.run([python, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_without_the_password_no_client_runs_code_in_the_workers(self):
        """An attack on an unprotected server: a forged job in a queue, whose pickle a worker executes."""
        password = self.protected("protection__StatefulSet-prod-redis-queue")
        attack = (
            "import sys; from redis import Redis; r = Redis(port=int(sys.argv[1])); "
            "r.hset('rq:job:x', mapping={'data': b'x'}); r.rpush('rq:queue:default-prod:default', 'x')"
        )
        for version in VERSIONS:
            python = environment(version)
            code, said = self.run_python(python, attack, str(self.port))
            print(f"rq {version}, HSET and RPUSH without a password:", said.strip().splitlines()[-1], flush=True)
            self.assertNotEqual(code, 0)
            self.assertIn("Authentication required", said)
        self.assertEqual(self.redis("--no-auth-warning", "-a", password, "DBSIZE"), "0")

    def test_workers_and_enqueue_with_the_url_of_the_bench(self):
        """The URL that the runner writes is accepted by a server with the password, and by one that requires none yet."""
        for name in ["protection__StatefulSet-prod-redis-queue", "tests__StatefulSet-prod-redis-queue"]:
            open_server = name.startswith("tests")
            password = secrets.token_hex(16) if open_server else self.protected(name)
            process = self.serve(name) if open_server else None
            url = self.written_url(password).replace("prod-redis-queue:6379", f"127.0.0.1:{self.port}")
            for version in VERSIONS:
                with self.subTest(server=name, rq=version):
                    self.works(version, url)
            if process:
                process.terminate()
            self.setUp()

    def written_url(self, password):
        """The URL that the runner writes for the rendered request of the configure Job."""
        sys.path.insert(0, os.path.join(ROOT, "src", "runner"))
        import runner_bench

        text = snapshot("protection__Job-prod-configure")
        # In a snapshot, the argument is a quoted string.
        request = json.loads(json.loads(re.search(r'- ("\{.*\}")\n', text).group(1)))
        before, runner_bench.secret = runner_bench.secret, lambda name: password
        try:
            url = runner_bench.secret_urls(request, dict(request["common_site_config"]))["redis_queue"]
        finally:
            runner_bench.secret = before
        self.assertEqual(url, f"redis://default:{password}@prod-redis-queue:6379")
        return url

    def works(self, version, url):
        python = environment(version)
        done = os.path.join(self.folder, f"done-{version}-{self.port}")
        open(done, "w", encoding="utf-8").close()
        enqueue = (
            "import sys; from redis import Redis; from rq import Queue; import jobs; "
            "print(Queue(sys.argv[2], connection=Redis.from_url(sys.argv[1])).enqueue(jobs.hold, sys.argv[3]).id)"
        )
        code, said = self.run_python(python, enqueue, url, f"{BENCH_ID}:short", done)
        self.assertEqual(code, 0, said)
        worker = subprocess.run(
            [os.path.join(os.path.dirname(python), "rq"), "worker", "--burst", "--url", url, f"{BENCH_ID}:short"],
            env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)}, capture_output=True, text=True, check=False,
        )
        self.assertIn("Job OK", worker.stdout + worker.stderr)
        print(f"rq {version}: enqueued and done through {url.split(':')[0]}://default:…", flush=True)

    def test_a_starting_worker_is_stopped_once_it_listens(self):
        """The hook of the rendered pod, with the worker as process 1. An earlier signal would end the worker here at once, with
        another code; in a pod, the kernel ignores it."""
        self.serve("tests__StatefulSet-prod-redis-queue")
        hook = re.search(r'preStop:\n(?: +[^"\n]*\n){3} +- "-c"\n +- (".*")\n', snapshot("tests__Deployment-prod-worker-short"))
        for version in VERSIONS:
            program = os.path.join(os.path.dirname(environment(version)), "rq")
            worker = self.start([program, "worker", "--url", f"redis://127.0.0.1:{self.port}", f"{BENCH_ID}:short"])
            begun = time.monotonic()
            script = json.loads(hook.group(1)).replace("/proc/1/", f"/proc/{worker.pid}/")
            subprocess.run(["sh", "-c", script], check=True)
            print(f"rq {version}: listens after {time.monotonic() - begun:.1f} s", flush=True)
            worker.terminate()
            self.assertEqual(worker.wait(WAIT_SECONDS), 0)

    def test_the_triggers_use_the_keys_of_the_workers(self):
        self.serve("tests__StatefulSet-prod-redis-queue")
        keys = trigger_keys("prod-worker-long")
        self.assertEqual(len(keys), 6, keys)
        for version in VERSIONS:
            with self.subTest(rq=version):
                self.redis("FLUSHALL")
                self.fills(version, keys)

    def fills(self, version, keys):
        python = environment(version)
        release = os.path.join(self.folder, f"release-{version}")
        for queue in QUEUES:
            for _ in range(2):
                self.enqueue(python, queue, release)
        lengths = lambda: {key: int(self.redis("LLEN" if ":queue:" in key else "ZCARD", key)) for key in keys}
        print(f"rq {version}, two jobs in each queue and no worker:", lengths(), flush=True)
        self.assertEqual(lengths(), {key: 2 if ":queue:" in key else 0 for key in keys})
        names = [f"{BENCH_ID}:{queue}" for queue in ["long", "default", "short"]]
        worker = self.start(
            [os.path.join(os.path.dirname(python), "rq"), "worker", "--url", f"redis://127.0.0.1:{self.port}", *names],
            env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        )
        running = f"rq:wip:{BENCH_ID}:long"
        self.wait("a job runs", lambda: int(self.redis("ZCARD", running)) == 1)
        print(f"rq {version}, one worker of long,default,short:", lengths(), flush=True)
        self.assertEqual(int(self.redis("LLEN", f"rq:queue:{BENCH_ID}:long")), 1, "the other job waits")
        open(release, "w", encoding="utf-8").close()
        self.wait("all jobs are done", lambda: not any(lengths().values()))
        worker.terminate()
        worker.wait(WAIT_SECONDS)


if __name__ == "__main__":
    unittest.main()
