"""A site that is out of service while it is restored, and its jobs with it: what was done to it is written down before it is
done, so that whoever comes next brings it to an end.

Two files of the site's directory tell of it. `.operator-restoring` has what is being restored (`run`), the configuration as it
was `before`, and whether the restore is `waiting`: until it is no longer, nothing of the site was touched. `.operator-set-aside`
says that jobs of the site may be in a list of their own in Redis (runner_jobs), by the name of that list.
"""

import json
import os
import signal
import time

from runner_common import ENDED, Failure, frappe_version, numbers, read_file, replace_file
from runner_jobs import Told, jobs_of

# Web workers of version 16 keep a site's configuration for so long: until then they might write to the database.
MAINTENANCE_WAIT_SECONDS = float(os.environ.get("SITE_RUNNER_MAINTENANCE_WAIT_SECONDS", "60"))
CACHING_VERSION = 16
# What a site under restore has in its configuration.
MAINTENANCE = {"maintenance_mode": 1, "pause_scheduler": 1}


def restoring(site):
    """What is being restored, where that began and did not end; nothing otherwise."""
    return json.loads(read_file(site.restoring_path) or "{}")


def put_restoring(site, state):
    replace_file(site.restoring_path, json.dumps(state), 0o640)


def settle_restore(site):
    """Has a site served as before that a restore left when it had touched nothing yet, and brings jobs back that one set
    aside. Refuses a site that is half restored."""
    begun = restoring(site)
    if begun and not begun.get("waiting"):
        raise Failure("SiteIncomplete", "state", f"{site.name} is half restored ({begun['run']}): restore it first")
    if begun:
        print(f"the restore {begun['run']} was stopped while it waited: nothing was changed, and the site is available again")
    if begun or os.path.exists(site.aside_path):
        give_back(site, jobs_of(site))
    if begun:
        serve_again(site)


def maintain(site, run):
    """Takes the site out of service, and writes down how it was before."""
    config = json.loads(read_file(site.config_path))
    if not restoring(site):
        put_restoring(site, {"run": run, "before": {key: config[key] for key in MAINTENANCE if key in config}, "waiting": True})
    if any(config.get(key) != value for key, value in MAINTENANCE.items()):
        site.put_config({**config, **MAINTENANCE})
    if numbers(frappe_version())[0] >= CACHING_VERSION:
        time.sleep(MAINTENANCE_WAIT_SECONDS)


def serve_again(site):
    """Brings maintenance back to what it was. The marker goes last: until then a second run does all of it again."""
    config = json.loads(read_file(site.config_path))
    for key in MAINTENANCE:
        config.pop(key, None)
    site.put_config({**config, **restoring(site)["before"]})
    os.unlink(site.restoring_path)


def begin_to_touch(site):
    """From here on the site is half restored until all is done."""
    if restoring(site).get("waiting"):
        put_restoring(site, {**restoring(site), "waiting": False})


def stop_jobs(site, jobs):
    """Sees to it that no job of the site runs while its database is replaced. Where one does not end, the site is served
    as before, unless it was touched by a restore that was cut short; so it is where the pod is told to end meanwhile."""
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
            # Another try is due: only of a site that was not touched nothing more is to be done.
            code = "SiteIncomplete" if failure.code == "JobsRunning" else failure.code
            raise Failure(code, failure.step, f"{failure.error}; {site.name} is half restored") from None
        left = give_back(site, jobs)
        serve_again(site)
        raise Failure(failure.code, failure.step, failure.error + left) from None
    finally:
        signal.signal(signal.SIGTERM, former)


def give_back(site, jobs):
    """Brings the site's jobs back to their queues, where that can be had; else the next Job of the site does, and what is
    answered says so."""
    try:
        if jobs:
            jobs.reached(jobs.put_back)
    except Failure as failure:
        left = f"; background jobs of the site may stay in a list of their own in Redis ({jobs.aside}) until its next backup, restore or change"
        print(f"{failure.error}{left}")
        replace_file(site.aside_path, jobs.aside + "\n", 0o640)
        return left
    forget_aside(site)
    return ""


def discard(site, jobs):
    """Forgets jobs that were queued before, with what requests that were under way have queued since."""
    if not jobs:
        return
    jobs.reached(jobs.set_aside)
    print(f"{jobs.reached(jobs.discard)} jobs that were queued before are discarded")
    forget_aside(site)


def forget_aside(site):
    if os.path.exists(site.aside_path):
        os.unlink(site.aside_path)
