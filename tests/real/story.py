"""A bench's life against a real Frappe: its methods are run in order, and each needs what the former left."""

import json
import os
import pathlib
import shutil
import signal
import tempfile
import unittest

import layers
import rendered
import report
from cluster import Cluster, MariaDb
from leaks import Leaks
from pod import BENCH_PATH, Image

BENCH, NEXT = os.environ.get("BENCH"), os.environ.get("BENCH_NEXT")
HERE = pathlib.Path(__file__).resolve().parent
# Without them, the ports and processes of this machine would be used.
IS_ALONE = os.getpid() == 1
VERB_SECONDS = int(os.environ.get("REAL_VERB_SECONDS", "1500"))


def needs(*variables):
    """Skips a class loudly unless these variables name benches and the suite runs in its own namespaces."""
    missing = [it for it in variables if not os.environ.get(it)]
    reason = f"NOT RUN: {' and '.join(missing)} must name a bench's directory: make real {' '.join(f'{it}=DIR' for it in variables)}" if missing else ""
    return unittest.skipIf(missing or not IS_ALONE, reason or "NOT RUN: only in namespaces of its own, by make real")


class Ended:
    """How a verb ended."""

    def __init__(self, pod, database_cpu):
        self.code, self.seconds, self.cpu, self.database = pod.code, pod.seconds, pod.cpu, database_cpu
        self.message, self.output = pod.result() if pod.code != -signal.SIGKILL else {}, pod.output()

    @property
    def result(self):
        return self.message.get("result")

    def __str__(self):
        return f"{self.code} {json.dumps(self.message)[:600]}\n{self.output[-3000:]}"


class Story(unittest.TestCase):
    """One bench with the app of the tests."""

    server = MariaDb
    label = ""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="real-story-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.cluster = Cluster(cls.server)
        cls.addClassCleanup(cls.cluster.close)
        cls.base = Image(BENCH)
        cls.tiny = layers.tiny(cls.folder / "tiny", cls.base)
        cls.image = cls.base.with_layers(cls.tiny)
        cls.cluster.start_redis(cls.image)
        cls.leaks = Leaks(cls.cluster).open()
        cls.addClassCleanup(cls.leaks.close)

    def setUp(self):
        self.assertFalse(getattr(type(self), "broken", False), "an earlier step failed")
        type(self).broken = True

    def passed(self):
        """The step is complete: the next may begin."""
        type(self).broken = False

    def name(self, image=None):
        engine = " on PostgreSQL" if self.server.engine == "postgres" else ""
        return f"{(image or self.image).version}{engine}{self.label}"

    def begin(self, verb, site, image=None, **more):
        """Starts a Job of the site."""
        container = rendered.site_job(image or self.image, verb, site.request(self.cluster.server, **more))
        return self.cluster.start(image or self.image, container, site)

    def verb(self, verb, site, image=None, seconds=VERB_SECONDS, **more):
        """Runs a Job of the site to its end, or kills it after the seconds."""
        before = self.cluster.server.cpu()
        pod = self.begin(verb, site, image, **more)
        if pod.wait(seconds) is None:
            pod.send(signal.SIGKILL)
            pod.wait(60)
        ended = Ended(pod, self.cluster.server.cpu() - before)
        self.cluster.end(pod)
        return ended

    def bench_verb(self, verb, request, image=None):
        """Runs a Job of the bench: configure or hold."""
        image = image or self.image
        container, _ = rendered.configure(image)
        before = self.cluster.server.cpu()
        pod = self.cluster.start(image, {**container, "name": verb, "args": [verb, json.dumps(request)]})
        pod.wait(VERB_SECONDS)
        ended = Ended(pod, self.cluster.server.cpu() - before)
        self.cluster.end(pod)
        return ended

    def configure(self, image=None, apps=()):
        """The rendered request of the configure Job, with apps of the bench."""
        request = rendered.configure(image or self.image)[1]
        return self.bench_verb("configure", {**request, "apps": list(apps)}, image)

    def done(self, what, ended, checked, done=None, image=None):
        """The verb succeeded, and a line of the table says so."""
        self.assertEqual(ended.code, 0, str(ended))
        if done:
            self.assertEqual(ended.result.get("done") if isinstance(ended.result, dict) else ended.result, done, str(ended))
        report.row(self.name(image), what, "ok", ended.seconds, ended.cpu, ended.database, checked)
        return ended

    def failed(self, what, ended, code, checked, image=None):
        """The verb failed as it must."""
        self.assertEqual((ended.message.get("code"), ended.code != 0), (code, True), str(ended))
        report.row(self.name(image), what, f"{ended.code} {code}", ended.seconds, ended.cpu, ended.database, checked)
        return ended

    def ask(self, site, do, image=None, **more):
        """Asks Frappe in a pod of the bench."""
        image = image or self.image
        container = rendered.site_job(image, "apply", {})
        command = [f"{BENCH_PATH}/env/bin/python", "/opt/probe/probe.py", json.dumps({"site": site.name, "do": do, **more})]
        probing = image.with_layers()
        probing.folders = {**image.folders, str(self.probe()): "/opt/probe"}
        pod = self.cluster.start(probing, {**container, "workingDir": f"{BENCH_PATH}/sites"}, site, command=command, name="probe")
        pod.wait(300)
        text, code = pod.output(), pod.code
        self.cluster.end(pod)
        self.assertEqual(code, 0, text[-3000:])
        return json.loads(text.strip().split("\n")[-1])

    def probe(self):
        folder = self.folder / "probe"
        folder.mkdir(exist_ok=True)
        shutil.copy(HERE / "probe.py", folder)
        return folder

    def whole(self, site, apps, image=None, things=None, maintenance=0, scheduler=1, **more):
        """The site is complete, as Frappe itself sees it; returns what it says."""
        truth = self.ask(site, "truth", image, **more)
        self.assertEqual(truth["apps"], ["frappe", *apps])
        self.assertEqual((truth["accepted"], truth["wrong"]), (True, False), "the password of Administrator")
        self.assertEqual(truth["twice"], 0, "patches that are logged twice")
        self.assertEqual((truth["maintenance"], truth["scheduler"], truth["paused"]), (maintenance, scheduler, maintenance))
        if things is not None:
            self.assertEqual(truth["things"], {it: f"secret of {it}" for it in things})
        return truth

    def no_leaks(self):
        """No secret was seen anywhere."""
        self.assertEqual((sorted(self.leaks.found), self.leaks.written()), ([], []))
        self.assertGreater(self.leaks.rounds, 100)
        report.row(self.name(), "secrets", "none seen", checked=f"arguments and environments of {len(self.leaks.processes)} processes in "
                   f"{self.leaks.rounds} looks; output and logs of {len(self.cluster.said)} pods; every file of the volume")
