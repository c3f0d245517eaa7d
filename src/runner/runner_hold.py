"""Holds the sites whose schema is not the one of this image's code: a bench's new image serves them only after their updates. Those that
another image held, and that fit this one, are released."""

import os
import time

from runner_code import code_of_image, complete_directories, misfits, record_of
from runner_common import SITE_NAME, Failure
from runner_jobs import jobs_in
from runner_maintenance import end_hold, hold, is_half_updated, restoring
from runner_site import IDENTITY, Site
from runner_volume import SITES

# How many sites are locked at once: each lock is an open file, and each group reads the queues once.
GROUP = 100
LOOK_SECONDS = 1
# How many sites a message names.
NAMES_MAX = 5


def hold_sites(request):
    """Starts maintenance mode of these sites and sets their queued jobs aside, so that no worker of the new image runs one. A site on
    which another pod works is tried again for the seconds of the request; then the Job fails, after all others are held."""
    end = time.monotonic() + request.get("drain_seconds", 0)
    image, done = code_of_image(), 0
    sites = complete_sites()
    waiting = [site for site in sites if misfits(record_of(site.name, site.identity), image)]
    released = sum(release_fitting(site, image) for site in sites if os.path.exists(site.held_path))
    while waiting:
        locked = []
        for start in range(0, len(waiting), GROUP):
            taken, busy = hold_group(waiting[start : start + GROUP], image)
            done += taken
            locked += busy
        waiting = locked
        if not waiting or time.monotonic() >= end:
            break
        time.sleep(LOOK_SECONDS)
    if waiting:
        # Workers of the new image must not start yet.
        names = ", ".join(site.name for site in waiting[:NAMES_MAX])
        raise Failure("SiteLocked", "hold", f"another pod is working on {len(waiting)} sites: {names}")
    return {"done": "held", "held": done, "released": released}


def complete_sites():
    """Sites of the volume that were created completely."""
    valid = ((name, identity) for name, identity in complete_directories() if SITE_NAME.fullmatch(name) and IDENTITY.fullmatch(identity))
    return [Site({"site": name, "identity": identity}) for name, identity in valid]


def release_fitting(site, image):
    """Whether a held site fits the image, and was released. A site on which another pod works is left to that pod."""
    try:
        site.lock()
    except (Failure, FileNotFoundError):
        return False
    try:
        record = record_of(site.name, site.identity)
        if record is None or misfits(record, image) or is_half_updated(site) or restoring(site):
            return False
        end_hold(site)
        print(f"{site.name} is released: its schema is the one of this image's code", flush=True)
        return True
    finally:
        site.unlock()


def hold_group(sites, image):
    """Holds sites, each locked until its jobs are set aside; returns how many, and those on which another pod works."""
    taken, busy = [], []
    try:
        for site in sites:
            try:
                site.lock()
            except Failure:
                busy.append(site)
                continue
            except FileNotFoundError:
                # It was dropped in the meantime.
                continue
            if not misfits(record_of(site.name, site.identity), image):
                # It was updated in the meantime.
                site.unlock()
                continue
            taken.append(site)
            hold(site)
        if taken and (jobs := jobs_in(SITES)):
            moved = jobs.reached(lambda: jobs.set_aside_of({site.name for site in taken}))
            print(f"{len(taken)} sites are held, {moved} of their queued jobs are set aside", flush=True)
    finally:
        for site in taken:
            site.unlock()
    return len(taken), busy
