"""Updates a site that may be in the folder of another revision of the bench: it is moved to this one, and migrated if its schema is another one.

The phases are those of an update in place (runner_update), with one before the migration:

- `moving`: the site's directory is renamed to this revision's folder.

Its jobs that were set aside go to the queues of the revision that serves it when it is released.

The marker is in the directory and moves with it. It has the revision that served the site before (`from`), to which the site returns after
a failure, and is served there by its former code; the revision that it goes to (`to`), whether it is to `migrate`, and whether it was `held`
before. Where the directory is, is the truth, whatever the marker or the operator says: each step looks there first.

An update that is complete is undone in the same way, by the image of the revision that the site left: instead of a migration, the dump of that
update is loaded, unless the schemas are equal. What was written since is in the dump that is made before.
"""

import json
import os

from runner_apps import check_dump
from runner_bench import locked_volume
from runner_common import Failure, read_file
from runner_jobs import common_config, connect, deferred_keys, forget_deferred, jobs_in, jobs_of
from runner_maintenance import UNTOUCHED, held, updating
from runner_site import find, ready_site
from runner_update import DUMP, ID, TABLES, Update, asked_of, different, opened, shortened
from runner_volume import OWN, VOLUME, folder_of, in_volume, places

# Appends rows to the lists KEYS[2] …, once: KEYS[1] says that it was done, for ARGV[1] seconds. ARGV alternates from there between the number of a
# key and a row.
COPY = """
if redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then
  for at = 2, #ARGV, 2 do redis.call('RPUSH', KEYS[tonumber(ARGV[at])], ARGV[at + 1]) end
end
"""
COPIED_SECONDS = 86400


def update(request):
    """Updates the site to this image's code, or returns to the state before."""
    if not VOLUME:
        site, asked = ready_site(request), asked_of(request)
        return Update(site, opened(site, request), asked).run()
    try:
        site = ready_site(request, find)
        asked = asked_of(request)
        refuse_late(site, asked)
        if not ID.fullmatch(asked.get("undoes", "0" * 8)):
            raise Failure("RequestInvalid", "request", "the id of the update that is undone must be 8 hexadecimal digits")
        moves = site.revision != OWN or "from" in updating(site)
        way = Reversal if asked.get("undoes") else Move
        result = (way if moves else Update)(site, opened(site, request), asked).run()
    except Failure as failure:
        found = places(request["site"])
        failure.revision = found[0] if len(found) == 1 else failure.revision
        raise
    return {**result, "revision": site.revision}


def refuse_late(site, asked):
    """Rejects a request that was made before the site went to a later revision."""
    if site.revision > OWN and asked.get("from") not in (site.revision, updating(site).get("from")):
        raise Failure("SiteElsewhere", "state", f"{site.name} is in the folder of revision {site.revision}, which is later than {OWN}")


class Move(Update):
    """One attempt to move a site to this revision."""

    def __init__(self, site, database, asked):
        super().__init__(site, database, asked)
        self.home = self.marker.get("from", site.revision)

    def run(self):
        if self.marker.get("phase") == "done":
            self.go_to(self.marker["to"])
            if self.marker["to"] == OWN:
                return self.finish()
            # The move to another revision was complete.
            self.serve()
            self.marker, self.home = {}, self.site.revision
        phase = self.marker.get("phase")
        if phase == "returned":
            self.give_up()
        if phase in (None, *UNTOUCHED, "moving"):
            self.begin()
        elif phase != "checking" or self.asked.get("back_only") or self.site.revision != OWN:
            self.resume()
            self.go_on()
        if self.marker["phase"] != "checking":
            self.migrate()
        self.check()
        return self.finish()

    def begin(self):
        """Everything before the migration; nothing of the database has been changed."""
        installed = json.loads(self.database.installed_apps())
        if self.asked.get("back_only"):
            self.undo(installed)
            raise Failure("UpdateFailed", "update", "it was stopped before it changed anything")
        self.refuse_other_queues()
        self.prepare(installed)

    def refuse_other_queues(self):
        """Fails if jobs cannot be moved from the queues of the site's revision to this one's."""
        here, there = jobs_in(folder_of(OWN)), jobs_in(folder_of(self.home))
        if here and there and not here.has_server_of(there):
            raise Failure("QueueUnreachable", "jobs", f"the queues of the revisions {self.home} and {OWN} are in different databases of Redis")

    def first_marker(self, installed):
        migrate = self.is_required(installed)
        return {**super().first_marker(installed), "dump": self.asked["dump"] and migrate, **self.aim(migrate)}

    def aim(self, migrate):
        """Where the site goes, and what it returns to."""
        return {"from": self.home, "to": OWN, "migrate": migrate, "held": self.marker.get("held", bool(held(self.site)))}

    def move(self):
        self.put("moving")
        self.go_to(OWN)
        self.forget_copied()

    def go_on(self):
        """Continues after the database is as before, or was partly migrated without a dump."""
        migrate = self.is_required(self.marker["apps"])
        if self.marker["dump"] or not self.migrates():
            self.put("moving", **self.aim(migrate))
        self.go_to(OWN)
        self.forget_copied()
        self.clear_cache()

    def migrates(self):
        """Whether the database is, or was to be, migrated."""
        return self.marker.get("migrate", True)

    def migrate(self):
        if self.migrates():
            super().migrate()
        else:
            self.put("checking")

    def fail(self, failure):
        if self.migrates():
            super().fail(failure)
        self.database.wait()
        self.go_back({"step": failure.step, "error": failure.error})

    def resume(self):
        if self.migrates():
            super().resume()
        elif self.asked.get("back_only") or "reason" in self.marker:
            self.go_back(self.marker.get("reason", {"step": "update", "error": "it was interrupted, and the site has returned to its former revision"}))

    def put_dump_back(self):
        if self.marker["dump"]:
            super().put_dump_back()

    def take_jobs(self):
        """A migration has queued none in the revision where the site was."""
        return self.jobs.set_aside() if self.site.revision == self.home else super().take_jobs()

    def clear_cache(self):
        """The cache of the former revision has nothing of a migration."""
        if self.site.revision == OWN:
            super().clear_cache()

    def move_back(self):
        self.forget_copied()
        self.go_to(self.home)

    def undo(self, installed):
        """Ends the update where the site was before, and was served unless it was held."""
        self.move_back()
        super().undo(installed)

    def stays_held(self, _installed):
        return self.marker.get("held", bool(held(self.site)))

    def go_to(self, revision):
        """Moves the site's directory to the folder of a revision, unless it is there."""
        if self.site.revision != revision:
            rename(self.site, revision)
            self.jobs = jobs_of(self.site)

    def finish(self):
        if self.marker["phase"] != "done":
            self.copy_deferred()
        return super().finish()

    def serve(self):
        if self.caches_differ():
            forget_deferred(self.database.name, folder_of(self.home))
        super().serve()

    def word(self):
        return "updated" if self.migrates() else "moved"

    def copied(self):
        """Key of Redis that says that the rows of this update were copied."""
        return f"frappe-operator:deferred:{self.site.name}:{self.marker.get('id')}"

    def caches_differ(self):
        """Whether the cache of the former revision is another one."""
        former, own = (common_config(folder_of(number)).get("redis_cache") for number in (self.home, self.site.revision))
        return bool(former and own and former != own)

    def copy_deferred(self):
        """Copies the rows that wait in the Redis cache of the former revision. A cache may not respond: its rows may be lost at any time."""
        if not self.caches_differ():
            return
        (former, error), (own, _) = (connect(common_config(folder_of(number))["redis_cache"]) for number in (self.home, self.site.revision))
        try:
            lists = {key: former.lrange(key, 0, -1) for key in deferred_keys(former, self.database.name) if former.type(key) == b"list"}
            rows = [text for number, key in enumerate(lists, 2) for row in lists[key] for text in (number, row)]
            own.eval(COPY, 1 + len(lists), self.copied(), *lists, COPIED_SECONDS, *rows)
        except error as failure:
            print(f"rows that wait in the Redis cache were not copied: {type(failure).__name__}: {failure}")

    def forget_copied(self):
        """Deletes such rows from the Redis cache of this revision: they were copied, or are of a migration that is undone."""
        if not self.caches_differ() or self.site.revision != OWN:
            return
        forget_deferred(self.database.name)
        redis, error = connect(common_config()["redis_cache"])
        try:
            redis.delete(self.copied())
        except error as failure:
            print(f"the Redis cache does not respond: {type(failure).__name__}")


class Reversal(Move):
    """One attempt to undo an update: to return to the revision that the site left by it, with the database of before."""

    def begin(self):
        if not self.asked.get("back_only") and self.is_required(json.loads(self.database.installed_apps())):
            self.refuse_without_dump()
        super().begin()

    def refuse_without_dump(self):
        """Fails if the dump of the update is gone: there is no other way back from a migration."""
        if not (os.path.exists(self.undone(DUMP)) and os.path.exists(self.undone(TABLES))):
            raise Failure("DumpMissing", "dump", f"the dump of the update {self.asked['undoes']} is not on the volume: it was deleted, or none was made")

    def undone(self, name):
        """A file of the dump of the update that is undone."""
        return os.path.join(self.site.updates_path, self.asked["undoes"], name)

    def migrate(self):
        if not self.migrates():
            super().migrate()
            return
        self.put("migrating")
        try:
            self.refuse_without_dump()
            check_dump(self.undone(DUMP), "FilesFailed", f"the dump of the update {self.asked['undoes']}")
            self.database.wipe()
            self.database.load(self.undone(DUMP))
            if names := different(self.database, json.loads(read_file(self.undone(TABLES)))):
                raise Failure("FilesFailed", "compare", f"{len(names)} tables differ from the dump: {', '.join(shortened(names))}")
        except Failure as failure:
            self.fail(failure)
        self.clear_cache()
        self.put("checking")

    def word(self):
        return "undone"


def rename(site, revision):
    """Moves the site's directory. It is in one of both folders at every instant: both are below one mount."""
    source, target = (os.path.join(in_volume(number), site.name) for number in (site.revision, revision))
    # No directory of this name is made in the meantime.
    with locked_volume():
        if os.path.lexists(target):
            raise Failure("SiteTwice", "move", f"{target} exists as well as {source}: move away the directory that is not in use")
        os.rename(source, target)
    site.lie_in(revision)
    print(f"{site.name} is in {target} now", flush=True)

