"""A site's jobs in the queues of its bench: set aside while its database is replaced, put back or discarded after.

Workers take jobs of every site of the bench from lists in Redis, whether the site is in maintenance or not. A job that
was queued before a restore would run on half of a database, or on one that knows nothing of what it is about. So its id
is moved from its queue to a list of the site's own, where no worker looks; what runs is waited for.

Ids begin with the site's name since version 15 of Frappe, and `::` or, with version 2 of rq, `||`. Before, a job says its site in its arguments only, which are
pickled: they are read without importing or calling anything.
"""

import io
import json
import os
import pickle
import re
import time
import urllib.parse
import zlib

from runner_common import Failure, numbers, read_file, secret
from runner_volume import SITES, folder_of, revisions

# Timeout of a job in Frappe's long queue, plus a minute: by then it has ended, or its worker has killed it.
WAIT_SECONDS = float(os.environ.get("SITE_RUNNER_JOBS_WAIT_SECONDS", "1560"))
# A worker registers a job only after it took it from the queue: no job may be found for this time.
QUIET_SECONDS = float(os.environ.get("SITE_RUNNER_JOBS_QUIET_SECONDS", "3"))
LOOK_SECONDS = 0.5
# Redis executes each of these scripts atomically: a job is either in its queue or set aside. Moves the job ARGV[1] from the queue
# KEYS[1] to the end of the list KEYS[2], as ARGV[2], unless a worker was faster.
SET_ASIDE = """
local moved = redis.call('LREM', KEYS[1], 0, ARGV[1])
if moved > 0 then redis.call('RPUSH', KEYS[2], ARGV[2]) end
return moved
"""
# Moves jobs to the heads of the queues KEYS[2], KEYS[3] …, unless they are in the queue, and deletes the list KEYS[1]. ARGV
# alternates between the number of a key and a job.
PUT_BACK = """
local queued = {}
for number = 2, #KEYS do
  queued[number] = {}
  for _, job in ipairs(redis.call('LRANGE', KEYS[number], 0, -1)) do queued[number][job] = true end
end
for at = 1, #ARGV, 2 do
  local number, job = tonumber(ARGV[at]), ARGV[at + 1]
  if not queued[number][job] then redis.call('LPUSH', KEYS[number], job) end
end
return redis.call('DEL', KEYS[1])
"""
# Moves the jobs of the list KEYS[1] to the end of the list KEYS[2]. ARGV has three for each job: its entry in that list, its queue's
# key, and its queue's name; the keys of the jobs are KEYS[3] …. A job without data stays without.
CARRY = """
for at = 1, #ARGV, 3 do
  local job = KEYS[2 + (at + 2) / 3]
  redis.call('RPUSH', KEYS[2], ARGV[at])
  redis.call('SADD', 'rq:queues', ARGV[at + 1])
  if redis.call('EXISTS', job) == 1 then redis.call('HSET', job, 'origin', ARGV[at + 2]) end
end
return redis.call('DEL', KEYS[1])
"""
# Renames a job, unless that was done.
RENAME = """
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('EXISTS', KEYS[2]) == 0 then redis.call('RENAME', KEYS[1], KEYS[2]) end
"""
# Between the site and the rest of a job's id: rq 2 loses jobs with a colon in it.
SEPARATORS = {1: "::", 2: "||"}
CONNECT_SECONDS = 10
# Lists of rows that Frappe inserts later, after the name of the site's database and |.
DEFERRED = ("insert_queue_for_*", "global_search_queue")
# Keys that Redis looks at in one step.
SCAN_COUNT = 1000
SITE_OF_ID = re.compile(r"([^:|]+)(?:::|\|\|)")


def connect(url):
    """A client of a Redis server, and the class of its errors. The password in the URL is redacted from then on."""
    import redis
    password = urllib.parse.unquote(urllib.parse.urlsplit(url).password or "")
    secret.known.update(it for it in (password, url if password else "") if it)
    return redis.Redis.from_url(url, socket_timeout=CONNECT_SECONDS, socket_connect_timeout=CONNECT_SECONDS), redis.RedisError


def common_config(folder=SITES):
    """The configuration that the sites of a folder share."""
    return json.loads(read_file(os.path.join(folder, "common_site_config.json")) or "{}")


def jobs_of(site):
    """The site's jobs; None if the bench has no queues."""
    return jobs_in(site.folder, site.name)


def jobs_in(folder, name=""):
    """Jobs of a site in the queues of the revision with this folder; None if it has no queues."""
    config = common_config(folder)
    url = config.get("redis_queue")
    return Jobs(name, url, config.get("bench_id", ""), folder == SITES) if url else None


def jobs_elsewhere(site):
    """Jobs of the site in the queues of other revisions: those that were set aside there before it was moved."""
    found = (jobs_in(folder_of(number), site.name) for number in revisions() if number != site.revision)
    return [jobs for jobs in found if jobs]


def deferred_keys(redis, database_name):
    """Keys of the rows that Frappe has put into the Redis cache to insert them later, by its scheduler."""
    prefix = re.sub(r"([][*?\\])", r"\\\1", database_name)
    for pattern in DEFERRED:
        yield from redis.scan_iter(match=f"{prefix}|{pattern}", count=SCAN_COUNT)


def forget_deferred(database_name, folder=SITES):
    """Deletes the rows that wait in the Redis cache: they are from before a restore, or were copied. Frappe's own clear-cache keeps them."""
    url = common_config(folder).get("redis_cache")
    if not url:
        return
    redis, error = connect(url)
    try:
        for key in deferred_keys(redis, database_name):
            redis.delete(key)
    except error as failure:
        print(f"rows that wait in the Redis cache were not deleted: {type(failure).__name__}: {failure}")


class Jobs:
    """Jobs of one site, in all queues of its bench."""

    def __init__(self, site, url, bench, is_own):
        self.redis, self.error = connect(url)
        self.site, self.url, self.bench = site, url, bench
        # Whether the workers have this image's version of rq. Those of another revision know its own ids.
        self.is_own = is_own
        # Sites of jobs whose ids do not contain the site.
        self.sites = {}
        self.aside = self.aside_of(site)

    def aside_of(self, site):
        """Key of the list for jobs of a site that are set aside."""
        return f"frappe-operator:set-aside:{self.bench}:{site}"

    def reached(self, action):
        """Result of the action; fails if Redis does not respond."""
        try:
            return action()
        except self.error as error:
            raise Failure("QueueUnreachable", "jobs", f"Redis of the bench's queues: {type(error).__name__}: {error}") from None

    def set_aside(self):
        """Moves queued jobs out of the queues; returns their number."""
        return self.set_aside_of((self.site,))

    def set_aside_of(self, sites):
        """The same for jobs of these sites, each in the list of its site."""
        moved = 0
        for queue in self.queues():
            for job in self.redis.lrange(queue, 0, -1):
                if (site := self.owner(job)) in sites:
                    entry = json.dumps([queue.decode(), job.decode()])
                    moved += bool(self.redis.eval(SET_ASIDE, 2, queue, self.aside_of(site), job, entry))
        return moved

    def stop(self, is_ending=lambda: False):
        """Sets queued jobs aside and waits until none runs; a running job may queue another. Stops waiting when the
        pod is stopped."""
        begun = quiet_since = time.monotonic()
        told = None
        while True:
            moved, running = self.set_aside(), self.running()
            now = time.monotonic()
            if moved or running:
                quiet_since = now
            elif now - quiet_since >= QUIET_SECONDS:
                return
            if running and running != told:
                print(f"waiting for {len(running)} running jobs of {self.site}: {', '.join(sorted(running))}", flush=True)
                told = running
            if is_ending():
                raise Told
            if now - begun >= WAIT_SECONDS:
                left = f"{len(running)} jobs of {self.site} are still running: {', '.join(sorted(running))[:200]}" if running else f"{self.site} still queues jobs"
                raise Failure("JobsRunning", "jobs", f"after {int(now - begun)} s {left}")
            time.sleep(min(LOOK_SECONDS, QUIET_SECONDS))

    def put_back(self):
        """Moves the jobs that were set aside to the head of their queues, in order. A job that is queued already stays there."""
        entries = [json.loads(entry) for entry in dict.fromkeys(self.redis.lrange(self.aside, 0, -1))]
        if self.is_own and has_rq_2():
            entries = [(queue, self.renamed(job)) for queue, job in entries]
        keys = [self.aside, *dict.fromkeys(queue for queue, _ in entries)]
        jobs = [text for queue, job in reversed(entries) for text in (keys.index(queue) + 1, job)]
        self.redis.eval(PUT_BACK, len(keys), *keys, *jobs)

    def has_server_of(self, other):
        """Whether both are in the same database of the same server."""
        mine, others = (urllib.parse.urlsplit(url) for url in (self.url, other.url))
        return (mine.hostname, mine.port, mine.path.strip("/") or "0") == (others.hostname, others.port, others.path.strip("/") or "0")

    def carry(self, former):
        """Moves jobs that were set aside in another revision to this one's list, for its queues of the same names."""
        if not self.has_server_of(former):
            return
        keys, arguments = [former.aside, self.aside], []
        for entry in dict.fromkeys(self.redis.lrange(former.aside, 0, -1)):
            queue, job = json.loads(entry)
            name = queue.removeprefix("rq:queue:").removeprefix(f"{former.bench}:")
            keys.append(f"rq:job:{job}")
            arguments += [json.dumps([f"rq:queue:{self.bench}:{name}", job]), f"rq:queue:{self.bench}:{name}", f"{self.bench}:{name}"]
        if arguments:
            self.redis.eval(CARRY, len(keys), *keys, *arguments)

    def forget_queued(self):
        """Discards queued jobs, their data first; returns their number."""
        found = 0
        for queue in self.queues():
            for job in self.redis.lrange(queue, 0, -1):
                if self.is_ours(job):
                    self.forget(job.decode())
                    found += self.redis.lrem(queue, 0, job)
        return found

    def forget(self, job):
        """Deletes a job's data."""
        self.redis.delete(f"rq:job:{job}", f"rq:job:{job}:dependents", f"rq:results:{job}")

    def renamed(self, job):
        """The job's id as rq 2 accepts it; it was queued by a former image's version."""
        wanted = job.replace(SEPARATORS[1], SEPARATORS[2], 1)
        if wanted != job:
            self.redis.eval(RENAME, 2, f"rq:job:{job}", f"rq:job:{wanted}")
        return wanted

    def discard(self):
        """Discards the jobs that were set aside, their data first: while it exists, Frappe treats a scheduled job as queued
        and does not queue it again. Returns their number."""
        jobs = {json.loads(entry)[1] for entry in self.redis.lrange(self.aside, 0, -1)}
        for job in jobs:
            self.forget(job)
        self.redis.delete(self.aside)
        return len(jobs)

    def queues(self):
        """Keys of the bench's queues; the server may have other users."""
        return sorted(queue for queue in self.redis.smembers("rq:queues") if queue.startswith(f"rq:queue:{self.bench}:".encode()))

    def running(self):
        """Ids of the site's running jobs. Entries of a dead worker no longer count once they have expired."""
        found = set()
        now = int(time.time())
        for queue in self.queues():
            name = queue.decode().removeprefix("rq:queue:")
            found.update(self.redis.zrangebyscore(f"rq:wip:{name}", now, "+inf"))
            found.update(self.redis.lrange(f"rq:queue:{name}:intermediate", 0, -1))
        for worker in self.redis.smembers("rq:workers"):
            job = self.redis.hget(worker, "current_job") or b""
            origin = self.redis.hget(b"rq:job:" + job, "origin") or b""
            if origin.startswith(f"{self.bench}:".encode()):
                found.add(job)
        return {job.decode() for job in found if job and self.is_ours(job)}

    def is_ours(self, job):
        """Whether a job is the site's."""
        return self.owner(job) == self.site

    def owner(self, job):
        """The site of a job, by its id or its arguments."""
        if named := SITE_OF_ID.match(job.decode(errors="replace")):
            return named[1]
        # rq 2 registers a run with its own id after the job's.
        job = job.partition(b":")[0]
        if job not in self.sites:
            data = self.redis.hget(b"rq:job:" + job, "data")
            self.sites[job] = site_of(data) if data else None
        return self.sites[job]


def has_rq_2():
    """Whether the image has version 2 of rq or later."""
    try:
        import rq
        return numbers(rq.VERSION)[0] >= 2
    except ImportError:
        return False


class Told(Exception):
    """The pod received SIGTERM."""


class Inert:
    """Placeholder for any class or function that a pickle names."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __setstate__(self, _state):
        pass


class Reader(pickle.Unpickler):
    """Reads a pickle without importing or calling anything that it names."""

    def find_class(self, _module, _name):
        return Inert


def site_of(data):
    """The site in the arguments of a job, as rq stores them: function, instance, arguments, keywords."""
    try:
        _, _, _, keywords = Reader(io.BytesIO(zlib.decompress(data))).load()
        return keywords.get("site")
    except Exception as error:  # The data is untrusted.
        print(f"skipping a job that cannot be parsed: {type(error).__name__}")
        return None
