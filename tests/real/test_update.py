"""A bench gets the image of another version of Frappe, and its site is updated; before that, to an image of which a patch fails: the site
returns to the state before, table by table, and the former image serves it again. BENCH is updated to BENCH_NEXT."""

import json
import signal
import threading
import time

import layers
import rendered
import report
from cluster import until
from pod import Image
from story import NEXT, Story, needs

QUEUES = ("short", "default", "long")


class Phases:
    """Durations of an update's phases, from the site's marker."""

    def __init__(self, path):
        self.path, self.seconds, self.stop = path, {}, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        last = time.monotonic()
        while not self.stop.wait(0.02):
            now = time.monotonic()
            try:
                phase = json.loads(self.path.read_text())["phase"]
                self.seconds[phase] = self.seconds.get(phase, 0) + now - last
            except (OSError, ValueError):
                pass
            last = now

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def __str__(self):
        return ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in self.seconds.items() if seconds >= 0.05)


@needs("BENCH", "BENCH_NEXT")
class UpdateTest(Story):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        following = Image(NEXT)
        cls.following = following.with_layers(layers.tiny(cls.folder / "following", following, version="1.1.0", patches=("working",), python={"working": layers.WORKING}))
        cls.failing = following.with_layers(layers.tiny(cls.folder / "failing", following, version="1.2.0", patches=("failing",), python={"failing": layers.FAILING}))
        # Apps of both benches, such as ERPNext.
        found = [{it.name for it in (image.base if image is cls else image).bench.glob("apps/*") if it.is_dir()} for image in (cls, following)]
        cls.apps = ["tiny", *sorted(found[0] & found[1] - {"frappe"})]
        cls.site = cls.cluster.new_site("shop.example.com", "id-1")
        cls.from_to = f"{cls.image.version} → {cls.following.version}"

    def name(self, image=None):
        return self.from_to

    def roll(self, image, held, released):
        """What a bench's rollout does to its sites before the new workers start."""
        configured = self.configure(image, self.apps)
        self.assertEqual(configured.code, 0, str(configured))
        ended = self.bench_verb("hold", {"drain_seconds": 60}, image)
        self.assertEqual(ended.result, {"done": "held", "held": held, "released": released}, str(ended))
        return ended

    def queued(self):
        """Ids of the jobs that wait in the queues, in order."""
        return [job for it in QUEUES for job in self.cluster.ask_redis("redis-queue", "LRANGE", f"rq:queue:default-prod:{it}", "0", "-1").split()]

    def updated(self, image, **more):
        with Phases(self.cluster.file(self.site, ".operator-update")) as phases:
            ended = self.verb("update", self.site, image, update={"id": "0123abcd", "drain_seconds": 60, **more})
        return ended, phases

    def test_01_a_site_of_the_first_version(self):
        self.assertEqual(self.configure(apps=self.apps).code, 0)
        made = self.verb("init", self.site, apps=self.apps, config={"server_script_enabled": 0})
        self.done("init", made, f"apps {', '.join(self.apps)}; {self.cluster.server.count(self.site.database)} tables", "created")
        self.ask(self.site, "add", name="first")
        self.whole(self.site, self.apps, things=["first"])
        self.cluster.ask_redis("redis-queue", "FLUSHALL")
        self.ask(self.site, "enqueue", name="a job of before,", queues=QUEUES)
        type(self).jobs = self.queued()
        self.assertGreaterEqual(len(self.jobs), len(QUEUES))
        type(self).before = self.cluster.server.tables(self.site.database)
        self.passed()

    def test_02_an_update_that_fails(self):
        self.done("hold", self.roll(self.failing, 1, 0), f"the site in maintenance, its {len(self.jobs)} queued jobs set aside")
        self.assertEqual(self.queued(), [])
        ended, phases = self.updated(self.failing)
        self.failed("update whose patch fails", ended, "UpdateFailed", f"all {len(self.before)} tables as before; {phases}")
        self.assertIn("this patch fails", ended.message["error"], str(ended))
        self.same_tables()
        ended = self.roll(self.image, 0, 1)
        self.done("hold with the former image", ended, "the site is served again, its jobs are queued again")
        self.assertEqual(self.queued(), self.jobs)
        self.same_tables()
        self.whole(self.site, self.apps, things=["first"])
        self.passed()

    def same_tables(self):
        after = self.cluster.server.tables(self.site.database)
        self.assertEqual(sorted(name for name in {*after, *self.before} if after.get(name) != self.before.get(name)), [])

    def test_03_an_update(self):
        self.roll(self.following, 1, 0)
        ended, phases = self.updated(self.following)
        truth = self.whole(self.site, self.apps, self.following, things=["first"])
        self.assertEqual(truth["version"], self.following.version)
        notes = self.ask(self.site, "notes", self.following)["notes"]
        self.assertEqual([notes.count(it) for it in ("first", "the patch has run")], [1, 1])
        self.assertEqual(ended.result["skipped"], [])
        tables = self.cluster.server.count(self.site.database)
        self.done("update", ended, f"{tables} tables, {truth['patches']} patches; {phases}", "updated")
        # The migration has queued more.
        queued = self.queued()
        self.assertEqual([it for it in queued if it in self.jobs], self.jobs, queued)
        again = self.verb("update", self.site, self.following, update={"id": "4567ef01"})
        self.done("update again", again, "nothing done", "up to date")
        self.passed()

    def test_04_jobs_of_before_run_on_the_new_version(self):
        workers = []
        for name in ("worker-short", "worker-long"):
            workers.append(self.cluster.start(self.following, rendered.component(self.following, name)))
        wanted = {f"a job of before, {queue}" for queue in QUEUES}
        until("jobs have run", lambda: wanted <= set(self.ask(self.site, "notes", self.following)["notes"]), 240, 2)
        for worker in workers:
            worker.send(signal.SIGTERM)
            self.assertEqual(worker.wait(60), 0, worker.output())
            self.cluster.end(worker)
        report.row(self.from_to, "jobs that were set aside", "ok", checked="run once by workers of the new version")
        self.passed()

    def test_05_no_secret_was_seen(self):
        self.no_leaks()
        self.passed()


del Story
