"""Maintenance mode and background jobs of a site during a restore. Each step is recorded before it is done, so that the next
run completes or reverts it.

Two files in the site's directory record it. `.operator-restoring` has the restored backup (`run`), the configuration `before`
the restore, and whether the restore is still `waiting`: until then nothing of the site was changed. `.operator-set-aside`
contains the name of the separate list in Redis (runner_jobs) that may hold jobs of the site.
"""

import json
import os
import signal
import time

from runner_common import ENDED, Failure, frappe_version, numbers, read_file, replace_file
from runner_jobs import Told, jobs_of

# Web workers of version 16 cache a site's configuration for this long: until then they may write to the database.
MAINTENANCE_WAIT_SECONDS = float(os.environ.get("SITE_RUNNER_MAINTENANCE_WAIT_SECONDS", "60"))
CACHING_VERSION = 16
# Entries in the configuration of a site that is being restored.
MAINTENANCE = {"maintenance_mode": 1, "pause_scheduler": 1}


def restoring(site):
    """State of the unfinished restore; empty if there is none."""
    return json.loads(read_file(site.restoring_path) or "{}")


def put_restoring(site, state):
    replace_file(site.restoring_path, json.dumps(state), 0o640)


def settle_restore(site):
    """Ends maintenance mode and moves jobs back to their queues, if a restore was stopped before it changed anything.
    Rejects a site that is only partly restored."""
    begun = restoring(site)
    if begun and not begun.get("waiting"):
        raise Failure("SiteIncomplete", "state", f"{site.name} is only partly restored ({begun['run']}): complete the restore first")
    if begun:
        print(f"the restore {begun['run']} was stopped while it waited: nothing was changed, and the site is available again")
    if begun or os.path.exists(site.aside_path):
        give_back(site, jobs_of(site))
    if begun:
        serve_again(site)


def maintain(site, run):
    """Starts maintenance mode, and records the previous configuration."""
    config = json.loads(read_file(site.config_path))
    if not restoring(site):
        put_restoring(site, {"run": run, "before": {key: config[key] for key in MAINTENANCE if key in config}, "waiting": True})
    if any(config.get(key) != value for key, value in MAINTENANCE.items()):
        site.put_config({**config, **MAINTENANCE})
    if numbers(frappe_version())[0] >= CACHING_VERSION:
        time.sleep(MAINTENANCE_WAIT_SECONDS)


def serve_again(site):
    """Restores the previous configuration. The marker is removed last, so that an interrupted run is repeated."""
    config = json.loads(read_file(site.config_path))
    for key in MAINTENANCE:
        config.pop(key, None)
    site.put_config({**config, **restoring(site)["before"]})
    os.unlink(site.restoring_path)


def begin_to_touch(site):
    """From here on the site counts as only partly restored until the restore is complete."""
    if restoring(site).get("waiting"):
        put_restoring(site, {**restoring(site), "waiting": False})


def stop_jobs(site, jobs):
    """Ensures that no job of the site runs while its database is replaced. If a job does not end, or the pod is stopped
    while it waits, the site is made available again, unless an interrupted restore already changed it."""
    if not jobs:
        return
    replace_file(site.aside_path, jobs.aside + "\n", 0o640)
    told = []
    former = signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    try:
        jobs.reached(lambda: jobs.stop(lambda: bool(told)))
    except Told:
        if restoring(site).get("waiting"):
            give_back(site, jobs)
            serve_again(site)
        os._exit(ENDED)
    except Failure as failure:
        if not restoring(site).get("waiting"):
            # The site was changed: the restore must be retried.
            code = "SiteIncomplete" if failure.code == "JobsRunning" else failure.code
            raise Failure(code, failure.step, f"{failure.error}; {site.name} is only partly restored") from None
        left = give_back(site, jobs)
        serve_again(site)
        raise Failure(failure.code, failure.step, failure.error + left) from None
    finally:
        signal.signal(signal.SIGTERM, former)


def give_back(site, jobs):
    """Moves the site's jobs back to their queues. If that fails, the next Job of the site does it; returns a message
    about that."""
    try:
        if jobs:
            jobs.reached(jobs.put_back)
    except Failure as failure:
        left = f"; background jobs of the site may remain in a separate list in Redis ({jobs.aside}) until its next backup, restore or change"
        print(f"{failure.error}{left}")
        replace_file(site.aside_path, jobs.aside + "\n", 0o640)
        return left
    forget_aside(site)
    return ""


def discard(site, jobs):
    """Discards jobs that were queued before the restore, and those that running requests have queued since."""
    if not jobs:
        return
    jobs.reached(jobs.set_aside)
    print(f"{jobs.reached(jobs.discard)} queued jobs from before the restore were discarded")
    forget_aside(site)


def forget_aside(site):
    if os.path.exists(site.aside_path):
        os.unlink(site.aside_path)
