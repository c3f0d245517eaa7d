"""Updates a site to this image's code: its schema is migrated, from a dump to which the site returns if that fails.

The file `.operator-update` in the site's directory has the `phase`, replaced before the phase begins:

- `holding`: nginx answers for the site, and it is in maintenance mode;
- `draining`: its queued jobs are set aside, and running jobs and requests end;
- `dumping`: the database is dumped, with a checksum of each table;
- `migrating`: if it is interrupted, the dump is restored before it begins again;
- `checking`: the site is complete;
- `restoring`: the dump is loaded, and all tables are compared: after a failure (`reason`), or before another attempt;
- `returned`: they are equal, and the update ends with its failure; nobody loads the dump from here;
- `done`: the site is served again; nobody returns to the dump from here.

A site whose database could not be restored stays held. runner_revisions moves a site between revisions, with one more phase.
"""

import json
import os
import re
import shutil
import time

from runner_apps import check_dump, dump_database, frappe, refuse_lost_apps, refuse_without_code
from runner_backup import room
from runner_bench import list_apps
from runner_code import code_of_image, narrow_record, of_apps, put_record, record_of, result_of
from runner_common import Failure, read_file, replace_file
from runner_database import database as open_database
from runner_jobs import LOOK_SECONDS, QUIET_SECONDS, jobs_of
from runner_maintenance import HOLDS, UNTOUCHED, end_hold, hold, is_outdated, release, settle_restore, updating, wait_for_web_workers
from runner_site import check

ID = re.compile(r"[0-9a-f]{8}")
DUMP, TABLES, PART = "database.sql.gz", "tables.json", ".part"
# A dump has at most about this part of the size of the tables, compressed.
DUMP_PARTS = 2
# Frappe's commands, for the options that they have.
COMMANDS = os.path.join("apps", "frappe", "frappe", "commands", "site.py")
WITHOUT_INDEX = "--skip-search-index"
# How many skipped patches and different tables are reported.
NAMES_MAX, NAME_CHARACTERS = 10, 100
# Names of the phases' durations in the result.
SECONDS = {"holding": "hold", "draining": "drain", "dumping": "dump", "moving": "move", "migrating": "migrate", "checking": "check", "restoring": "restore"}


def asked_of(request):
    """What is asked of an update, complete."""
    asked = {"dump": True, "drain_seconds": 300, "keep_seconds": 259200, **request["update"]}
    if not ID.fullmatch(asked["id"]):
        raise Failure("RequestInvalid", "request", "the id of an update must be 8 hexadecimal digits")
    return asked


def opened(site, request):
    """The database of a site that no unfinished restore has touched."""
    settle_restore(site)
    database = open_database(request["database"])
    database.wait()
    return database


class Update:
    """One attempt of a site's update."""

    def __init__(self, site, database, asked):
        self.site, self.database, self.asked = site, database, asked
        self.marker = updating(site)
        self.jobs = jobs_of(site)
        self.since = time.monotonic()

    def run(self):
        phase = self.marker.get("phase")
        if phase == "done":
            return self.finish()
        if phase == "returned":
            self.give_up()
        if phase in (None, *UNTOUCHED):
            installed = json.loads(self.database.installed_apps())
            if not self.is_required(installed):
                return self.up_to_date(installed)
            if self.asked.get("back_only"):
                self.undo(installed)
                raise Failure("UpdateFailed", "update", "it was stopped before it changed anything")
            self.prepare(installed)
        elif phase != "checking" or self.asked.get("back_only"):
            self.resume()
            if not self.is_required(self.marker["apps"]) and self.marker["dump"]:
                return self.up_to_date(self.marker["apps"])
        if self.marker["phase"] != "checking":
            self.migrate()
        self.check()
        return self.finish()

    def is_required(self, installed):
        """Whether the site's schema is not, or not known to be, the one of this image's code."""
        record, image = record_of(self.site.name, self.site.identity), code_of_image()
        known = record["apps"] if record else {}
        schemas = [(known.get(app, {}).get("schema"), image.get(app, {}).get("schema")) for app in installed]
        return bool(self.asked.get("force")) or not record or any(ours != theirs for ours, theirs in schemas)

    def up_to_date(self, installed):
        """The result if nothing is to be done: a hold ends."""
        narrow_record(self.site, installed)
        end_hold(self.site)
        self.forget_old()
        return result_of(self.site, "up to date")

    def put(self, phase, **more):
        """Records the phase that begins, and how long the former took."""
        now, seconds = time.monotonic(), dict(self.marker.get("seconds", {}))
        if name := SECONDS.get(self.marker.get("phase")):
            seconds[name] = round(seconds.get(name, 0) + now - self.since, 1)
        self.since = now
        self.marker = {**self.marker, **more, "phase": phase, "seconds": seconds}
        replace_file(self.site.updating_path, json.dumps(self.marker), 0o640)

    def folder(self):
        """Folder of the dump. It belongs to the update that made it, also if another one returns to it."""
        return os.path.join(self.site.updates_path, self.marker["id"])

    def prepare(self, installed):
        """Everything before the migration. Nothing is changed: if it fails, the site is as before."""
        refuse_lost_apps()
        refuse_without_code(installed)
        marker = self.first_marker(installed)
        if marker["dump"]:
            self.database.refuse_client()
            self.refuse_small_volume()
        self.marker = marker
        try:
            self.put("holding")
            self.hold()
            self.put("draining")
            self.drain()
            if marker["dump"]:
                self.put("dumping")
                self.dump()
            self.move()
            list_apps(installed)
            frappe(self.site, "clear-cache", "clear-cache")
        except (Failure, OSError):
            shutil.rmtree(self.folder(), ignore_errors=True)
            self.undo(installed)
            raise

    def first_marker(self, installed):
        """What the marker has in every phase."""
        return {"id": self.asked["id"], "dump": self.asked["dump"], "apps": installed}

    def move(self):
        """Moves the site to where its new code serves it, which is where it is."""

    def refuse_small_volume(self):
        """Fails if the volume may have no room for the dump."""
        free, needed = room()[0], self.database.bytes() // DUMP_PARTS
        if free < needed:
            raise Failure("FilesFailed", "verify", f"the volume has {free} free bytes, and the dump of the database may need {needed}: expand the volume")

    def hold(self):
        os.makedirs(HOLDS, exist_ok=True)
        replace_file(self.site.hold_path, self.site.identity + "\n")
        hold(self.site)
        config = json.loads(read_file(self.site.config_path))
        current = {**config, **self.database.config()}
        if current != config:
            self.site.put_config(current)
        wait_for_web_workers(self.site)

    def drain(self):
        """Sets queued jobs aside, and waits until no job and no request uses the database."""
        begun = quiet_since = time.monotonic()
        while True:
            moved, running = self.jobs.reached(lambda: (self.take_jobs(), self.jobs.running())) if self.jobs else (0, set())
            others = self.database.others()
            now = time.monotonic()
            if moved or running or others:
                quiet_since = now
                if now - begun >= self.asked["drain_seconds"]:
                    jobs = f"{len(running)} jobs of {self.site.name} are running: {', '.join(sorted(running))[:200]}"
                    use = f"its database is in use by {others} connections" if others else f"{self.site.name} still queues jobs"
                    raise Failure("JobsRunning", "jobs", f"after {int(now - begun)} s {jobs if running else use}")
            elif now - quiet_since >= QUIET_SECONDS:
                return
            time.sleep(min(LOOK_SECONDS, QUIET_SECONDS))

    def take_jobs(self):
        """Takes the site's jobs from the queues; returns their number. Those that a migration has queued are discarded with what it did to
        the database."""
        return self.jobs.forget_queued() if self.marker["phase"] == "restoring" else self.jobs.set_aside()

    def dump(self):
        """Dumps the database. A dump without the suffix of a part is complete, and has the checksums beside it."""
        shutil.rmtree(self.folder(), ignore_errors=True)
        os.makedirs(self.folder(), mode=0o750)
        path = os.path.join(self.folder(), DUMP)
        dump_database(self.database, path + PART, self.marker["apps"])
        check_dump(path + PART, "FilesFailed", "the dump before the update")
        with open(path + PART, "rb") as file:
            os.fsync(file.fileno())
        replace_file(os.path.join(self.folder(), TABLES), json.dumps(self.database.fingerprints()), 0o640)
        os.replace(path + PART, path)

    def migrate(self):
        before = self.skipped()
        self.put("migrating")
        commands = read_file(COMMANDS)
        options = [WITHOUT_INDEX] if f'"{WITHOUT_INDEX}"' in commands else []
        options += ["--skip-failing"] if self.asked.get("skip_failing") else []
        try:
            frappe(self.site, "migrate", "migrate", *options)
        except Failure as failure:
            self.fail(failure)
        self.put("checking", skipped=[patch for patch in self.skipped() if patch not in before], index=WITHOUT_INDEX in options)

    def skipped(self):
        """Patches that Frappe has skipped so far. Before version 15, it does not record them."""
        try:
            rows = self.database.run(f"SELECT patch FROM {self.database.quoted('tabPatch Log')} WHERE skipped = 1 ORDER BY patch")
        except Failure:
            return []
        return rows.split("\n") if rows else []

    def check(self):
        try:
            check(self.database, [app for app in self.marker["apps"] if app != "frappe"])
        except Failure as failure:
            self.fail(failure)

    def fail(self, failure):
        """Returns to the dump after a failed migration, and fails. An unreachable database is none: the next attempt decides."""
        self.database.wait()
        if not self.marker["dump"]:
            self.put("migrating")
            raise Failure("UpdateFailed", failure.step, failure.error) from None
        self.go_back({"step": failure.step, "error": failure.error})

    def resume(self):
        """Continues after an interrupted migration or return: the database is as in the dump then."""
        if not self.marker["dump"]:
            if self.asked.get("back_only"):
                raise Failure("UpdateFailed", "update", "there is no dump to return to")
            return
        reason = self.marker.get("reason")
        if self.asked.get("back_only"):
            reason = reason or {"step": "migrate", "error": "it was interrupted, and the site has returned to the state before"}
        if reason:
            self.go_back(reason)
        self.put("restoring")
        self.put_dump_back()

    def go_back(self, reason):
        """Returns to the dump and ends the update with this failure."""
        self.put("restoring", reason=reason)
        self.put_dump_back()
        self.move_back()
        self.put("returned")
        self.give_up()

    def move_back(self):
        """Moves the site back to where it was before."""

    def give_up(self):
        """Fails after the return to the dump."""
        reason = self.marker["reason"]
        self.undo(self.marker["apps"])
        self.forget_old()
        raise Failure("UpdateFailed", reason["step"], reason["error"]) from None

    def put_dump_back(self):
        """Loads the dump unless the database is equal to it, which is checked for every table before and after."""
        path = os.path.join(self.folder(), DUMP)
        check_dump(path, "RollbackFailed", "the dump before the update")
        wanted = json.loads(read_file(os.path.join(self.folder(), TABLES)) or "{}")
        try:
            # The migration may have queued jobs.
            self.drain()
        except Failure as failure:
            print(f"not waiting longer: {failure.error}")
        if different(self.database, wanted):
            try:
                self.database.wipe()
                self.database.load(path)
            except Failure as failure:
                self.database.wait()
                raise Failure("RollbackFailed", failure.step, failure.error) from None
            if names := different(self.database, wanted):
                raise Failure("RollbackFailed", "compare", f"{len(names)} tables differ from the dump: {', '.join(shortened(names))}")
        self.clear_cache()

    def clear_cache(self):
        """Clears the cache of a site that returns to its dump."""
        try:
            frappe(self.site, "clear-cache", "clear-cache")
        except Failure as failure:
            print(f"the cache was not cleared: {failure.error}")

    def undo(self, installed):
        """Ends the update without a change. If the site's schema does not fit this image, the site stays held, and its jobs aside."""
        if not self.stays_held(installed):
            end_hold(self.site)
            return
        for path in (self.site.hold_path, self.site.updating_path):
            if os.path.exists(path):
                os.unlink(path)

    def stays_held(self, installed):
        """Whether the site is not served after it ended without a change."""
        return is_outdated(self.site, installed)

    def finish(self):
        """Releases the site; its configuration before nginx, because web workers may cache it. The marker is removed last."""
        if self.marker["phase"] != "done":
            installed = json.loads(self.database.installed_apps())
            self.put("done", code=of_apps(code_of_image(), installed))
        self.serve()
        if self.marker.get("index"):
            try:
                frappe(self.site, "build-search-index", "build-search-index")
            except Failure as failure:
                print(f"the search index was not built: {failure.error}")
        return result_of(self.site, self.word(), seconds=self.marker["seconds"], skipped=shortened(self.marker.get("skipped", [])))

    def serve(self):
        """Releases the site after its update."""
        release(self.site)
        put_record(self.site, self.marker["code"])
        self.forget_old()
        end_hold(self.site)

    def word(self):
        """What was done."""
        return "updated"

    def forget_old(self):
        """Removes older dumps of the site, and incomplete ones, but not this update's."""
        for entry in os.scandir(self.site.updates_path) if os.path.isdir(self.site.updates_path) else []:
            whole = os.path.exists(os.path.join(entry.path, DUMP))
            is_old = entry.name != self.marker.get("id") and time.time() - entry.stat().st_mtime > self.asked["keep_seconds"]
            if is_old or not whole:
                shutil.rmtree(entry.path, ignore_errors=True)


def different(database, wanted):
    """Names of the tables that differ from those of the dump."""
    found = database.fingerprints()
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def shortened(names):
    """The first names, for a message."""
    return [name[:NAME_CHARACTERS] for name in names[:NAMES_MAX]]
