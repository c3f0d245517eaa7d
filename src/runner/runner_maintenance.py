"""Maintenance mode and background jobs of a site during a restore, and while it is held because its schema is not the one of the
image's code. Each step is recorded before it is done, so that the next run completes or reverts it.

Files in the site's directory record it. `.operator-restoring` has the restored backup (`run`), the configuration `before`
the restore, and whether the restore is still `waiting`: until then nothing of the site was changed. `.operator-set-aside`
contains the name of the separate list in Redis (runner_jobs) that may hold jobs of the site. `.operator-held` has the configuration
`before` the hold, and when it began; its jobs are in the separate list until it ends. `.operator-update` has the `phase` of an update.
`.operator-run` has the configuration `before` a command that runs in maintenance mode.
"""

import json
import os
import signal
import time

from runner_code import code_of_image, misfits, record_of
from runner_common import ENDED, Failure, frappe_version, numbers, read_file, replace_file
from runner_jobs import Told, jobs_elsewhere, jobs_of
from runner_volume import shared

# Web workers of version 16 cache a site's configuration for this long: until then they may write to the database.
MAINTENANCE_WAIT_SECONDS = float(os.environ.get("SITE_RUNNER_MAINTENANCE_WAIT_SECONDS", "60"))
CACHING_VERSION = 16
# Entries in the configuration of a site that is being restored or held.
MAINTENANCE = {"maintenance_mode": 1, "pause_scheduler": 1}
# Folder by which nginx answers for sites under an update: a file for each with its identity.
HOLDS = shared(".holds")
# Phases of an update in which nothing of the site was changed.
UNTOUCHED = ("holding", "draining", "dumping")


def restoring(site):
    """State of the unfinished restore; empty if there is none."""
    return json.loads(read_file(site.restoring_path) or "{}")


def put_restoring(site, state):
    replace_file(site.restoring_path, json.dumps(state), 0o640)


def settle_restore(site):
    """Ends maintenance mode and moves jobs back to their queues, if a restore was stopped before it changed anything.
    Rejects a site that is only partly restored."""
    end_run(site)
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
    if not restoring(site):
        put_restoring(site, {"run": run, "before": own_entries(site), "waiting": True})
    put_entries(site, MAINTENANCE)
    if is_cached():
        time.sleep(MAINTENANCE_WAIT_SECONDS)


def serve_again(site):
    """Restores the previous configuration, unless the site is held. The marker is removed last, so that an interrupted run is repeated."""
    put_entries(site, MAINTENANCE if held(site) else restoring(site)["before"])
    os.unlink(site.restoring_path)


def is_cached():
    """Whether web workers cache a site's configuration."""
    return numbers(frappe_version())[0] >= CACHING_VERSION


def own_entries(site):
    """The site's own entries for maintenance mode, without those of a restore, a hold or a command that runs."""
    for marker in (restoring(site), held(site), running(site)):
        if marker:
            return marker["before"]
    config = json.loads(read_file(site.config_path))
    return {key: config[key] for key in MAINTENANCE if key in config}


def put_entries(site, entries):
    """Replaces the entries for maintenance mode in the site's configuration."""
    config = json.loads(read_file(site.config_path))
    wanted = {**{key: value for key, value in config.items() if key not in MAINTENANCE}, **entries}
    if wanted != config:
        site.put_config(wanted)


def held(site):
    """State of the hold; empty if the site is not held."""
    return json.loads(read_file(site.held_path) or "{}")


def hold(site):
    """Starts maintenance mode until the site is released."""
    if not held(site):
        replace_file(site.held_path, json.dumps({"before": own_entries(site), "at": time.time()}), 0o640)
    put_entries(site, MAINTENANCE)


def wait_for_web_workers(site):
    """Waits until web workers that cache a site's configuration know that it is held."""
    if is_cached():
        elapsed = max(time.time() - held(site).get("at", 0), 0)
        time.sleep(max(MAINTENANCE_WAIT_SECONDS - elapsed, 0))


def release(site):
    """Ends the hold: the site's own configuration, and its jobs in their queues. The marker is removed last."""
    marker = held(site)
    if not marker:
        return
    put_entries(site, MAINTENANCE if restoring(site) else marker["before"])
    put_jobs_back(site, jobs_of(site))
    os.unlink(site.held_path)


def running(site):
    """State of a command that runs in maintenance mode, or was interrupted; empty if there is none."""
    return json.loads(read_file(site.running_path) or "{}")


def begin_run(site):
    """Starts maintenance mode for a command, once web workers know it."""
    replace_file(site.running_path, json.dumps({"before": own_entries(site)}), 0o640)
    put_entries(site, MAINTENANCE)
    if is_cached():
        time.sleep(MAINTENANCE_WAIT_SECONDS)


def end_run(site):
    """Ends maintenance mode after a command, unless the site is restored or held. The marker is removed last."""
    marker = running(site)
    if not marker:
        return
    put_entries(site, MAINTENANCE if restoring(site) or held(site) else marker["before"])
    os.unlink(site.running_path)


def begin_to_touch(site):
    """From here on the site counts as only partly restored until the restore is complete. An unfinished update ends."""
    if restoring(site).get("waiting"):
        put_restoring(site, {**restoring(site), "waiting": False})
    if os.path.exists(site.updating_path):
        os.unlink(site.updating_path)


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
    """Moves the site's jobs back to their queues, unless the site is held. If that fails, the next Job of the site does it; returns a
    message about that."""
    return "" if held(site) else put_jobs_back(site, jobs)


def put_jobs_back(site, jobs):
    """The same, whether the site is held or not. Jobs that were set aside before the site was moved come along."""
    try:
        for former in jobs_elsewhere(site) if jobs else ():
            jobs.reached(lambda former=former: jobs.carry(former))
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
    for other in (jobs, *jobs_elsewhere(site)):
        print(f"{other.reached(other.discard)} queued jobs from before the restore were discarded")
    forget_aside(site)


def forget_aside(site):
    if os.path.exists(site.aside_path):
        os.unlink(site.aside_path)


def updating(site):
    """State of the unfinished update; empty if there is none."""
    return json.loads(read_file(site.updating_path) or "{}")


def is_half_updated(site):
    """Whether an unfinished update has changed the site."""
    return updating(site).get("phase") not in (None, *UNTOUCHED)


def refuse_half_updated(site):
    """Rejects a site that an unfinished update has changed."""
    if is_half_updated(site):
        raise Failure("UpdateRequired", "state", f"the update of {site.name} is not complete ({updating(site)['phase']}): complete it first")


def is_outdated(site, installed):
    """Whether an app of the site has another schema in this image."""
    record = record_of(site.name, site.identity)
    return any(app in installed for app in misfits(record, code_of_image()))


def refuse_outdated(site, database):
    """Rejects a site that must be updated first. Otherwise, a hold ends that a former image or a stopped update has left."""
    refuse_half_updated(site)
    installed = json.loads(database.installed_apps())
    if is_outdated(site, installed):
        raise Failure("UpdateRequired", "state", f"the schema of {site.name} is not the one of this image's code: it is updated first")
    end_hold(site)


def end_hold(site):
    """Releases the site; the markers are removed last."""
    release(site)
    for path in (site.hold_path, site.updating_path):
        if os.path.exists(path):
            os.unlink(path)
