"""Each verb of the runner, on one site of a real bench, from configure to drop."""

import gzip
import json
import os
import shutil
import unittest

import layers
from cluster import Postgres
from pod import Image
from story import BENCH, Story, needs

PHRASE = "a setting by a Secret"


class Verbs(Story):
    """Without tests of its own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        child = layers.app(cls.folder / "child", cls.base, "child", requires=("organization/tiny",))
        cls.tiny_only, cls.image = cls.image, cls.image.with_layers(child)
        cls.site = cls.cluster.new_site("shop.example.com", "id-1")
        cls.other = cls.cluster.new_site("other.example.com", "id-2")

    def dumps(self):
        return list((self.cluster.volume / ".removed-apps").rglob("*.gz"))

    def config(self, site):
        return json.loads(self.cluster.file(site, "site_config.json").read_text())

    def test_01_configure(self):
        first = self.configure(apps=["tiny"])
        self.done("configure", first, "apps and their code in the result")
        self.assertEqual(set(first.result["apps"]), {it.name for it in (self.base.bench / "apps").iterdir() if it.is_dir()} | {"tiny", "child"})
        self.assertEqual(first.result["code"]["frappe"]["version"], self.image.version)
        common = (self.cluster.volume / "common_site_config.json").read_text()
        self.done("configure again", self.configure(apps=["tiny"]), "same common configuration; apps listed")
        self.assertEqual((self.cluster.volume / "common_site_config.json").read_text(), common)
        self.assertIn("tiny", (self.cluster.volume / "apps.txt").read_text().split())
        self.passed()

    def test_02_init(self):
        made = self.verb("init", self.site, apps=["tiny"])
        self.assertEqual(made.code, 0, str(made))
        truth = self.whole(self.site, ["tiny"], things=[])
        self.assertEqual(self.ask(self.site, "notes")["notes"].count("tiny was installed"), 1)
        self.assertIn("tiny", made.result["code"])
        self.assertEqual(self.cluster.server.collations(self.site.database), {"utf8mb4_unicode_ci"})
        tables = self.cluster.server.count(self.site.database)
        self.done("init with an app", made, f"{tables} tables, {truth['patches']} patches, none twice; password, scheduler, app's hook ran once", "created")
        again = self.verb("init", self.site, apps=["tiny"])
        self.done("init again", again, "nothing was made", "already created")
        self.passed()

    def test_03_settings(self):
        self.site.secrets["config/phrase"] = PHRASE
        settings = {"config": {"limit": 3, "words": ["ä", "%"]}, "secret_config": ["phrase"], "hosts": ["www.example.com", self.site.name]}
        self.done("apply: settings, a secret one, a host", self.verb("apply", self.site, apps=["tiny"], **settings), "as Frappe reads them", "applied")
        found = self.whole(self.site, ["tiny"], keys=["limit", "words", "phrase"])["config"]
        self.assertEqual(found, {"limit": 3, "words": ["ä", "%"], "phrase": PHRASE})
        self.assertEqual((self.cluster.volume / ".hosts/www.example.com").read_text().strip(), self.site.name)
        del self.site.secrets["config/phrase"]
        self.done("apply: without them", self.verb("apply", self.site, apps=["tiny"]), "gone from configuration and hosts", "applied")
        self.assertEqual({"limit", "words", "phrase"} & set(self.config(self.site)), set())
        self.assertEqual([it for it in (self.cluster.volume / ".hosts").iterdir() if not it.name.startswith(".")], [])
        self.passed()

    def test_04_passwords(self):
        for password in ("admin", 'a "b\' $c % ö \\'):
            self.site.secrets["admin-password"] = password
            ended = self.verb("apply", self.site, apps=["tiny"], set_admin_password=True)
            self.assertEqual(ended.code, 0, str(ended))
            self.whole(self.site, ["tiny"])
        self.site.secrets["admin-password"] = self.site.secrets["admin-password"].join(["Rotated", "Password0123456789"])
        self.done("apply: Administrator's password", self.verb("apply", self.site, apps=["tiny"], set_admin_password=True), "accepted, also with quotes, blanks, $ and %", "applied")
        self.ask(self.site, "add", name="first")
        self.cluster.server.set_password(self.site.database, "RotatedDatabasePassword0123456789")
        self.site.secrets["password"] = "RotatedDatabasePassword0123456789"
        self.done("apply: database's password", self.verb("apply", self.site, apps=["tiny"]), "stored passwords still decrypt", "applied")
        self.whole(self.site, ["tiny"], things=["first"])
        self.passed()

    def test_05_apps(self):
        added = self.verb("apply", self.site, apps=["tiny", "child"])
        self.done("apply: an app that requires another", added, "hook ran once", "applied")
        self.whole(self.site, ["tiny", "child"], things=["first"])
        self.assertEqual(self.ask(self.site, "notes")["notes"].count("child was installed"), 1)
        refused = self.verb("apply", self.site, apps=["child"], removed_apps=["tiny"])
        self.failed("apply: remove an app that another requires", refused, "AppRequired", "no dump, nothing changed")
        self.assertEqual(self.dumps(), [])
        removed = self.verb("apply", self.site, apps=["tiny"], removed_apps=["child"])
        self.done("apply: remove an app", removed, "one dump, complete", "applied")
        self.assertEqual(len(self.dumps()), 1)
        with gzip.open(self.dumps()[0]) as file:
            self.assertIn(b"dump complete", file.read()[-400:].replace(b"Dump completed", b"dump complete"))
        self.whole(self.site, ["tiny"], things=["first"])
        self.passed()

    def test_06_backup_and_restore(self):
        self.done("backup without keys", self.verb("backup", self.site, staging="/run/frappe-backup"), "no keys")
        self.assertFalse((self.cluster.staging / "keys.json").exists())
        made = self.verb("backup", self.site, staging="/run/frappe-backup", keys=True)
        contents = json.loads((self.cluster.staging / "contents.json").read_text())
        self.assertEqual(set(contents["parts"]), {"database", "public-files", "private-files", "keys"})
        self.done("backup with keys", made, f"{contents['parts']['database']['unpacked'] >> 20} MiB of SQL, archives read to their ends")
        self.ask(self.site, "add", name="later")
        for part in ("public", "private"):
            (self.cluster.file(self.site, f"{part}/files/first-{int(part == 'private')}.txt")).unlink()
        back = self.verb("restore", self.site, staging="/run/frappe-backup", run="backup-1", keys=True)
        self.done("restore", back, "later row and files gone, earlier ones back, password, scheduler, stored passwords", "restored")
        self.whole(self.site, ["tiny"], things=["first"])
        files = sorted(it.name for part in ("public", "private") for it in self.cluster.file(self.site, f"{part}/files").iterdir())
        self.assertEqual(files, ["first-0.txt", "first-1.txt"])
        self.assertNotIn("later", self.ask(self.site, "notes")["notes"])
        self.passed()

    def test_07_restore_into_another_site(self):
        self.done("init of a second site", self.verb("init", self.other), "complete", "created")
        back = self.verb("restore", self.other, staging="/run/frappe-backup", run="backup-1", keys=True)
        self.done("restore of another site's backup with keys", back, "stored passwords decrypt", "restored")
        self.other.secrets["admin-password"] = self.site.secrets["admin-password"]
        self.whole(self.other, ["tiny"], things=["first"])
        path = self.cluster.staging / "database.sql.gz"
        shutil.copy(path, self.folder / "whole")
        before = self.cluster.server.count(self.other.database)
        path.write_bytes(path.read_bytes()[:-2000])
        cut = self.verb("restore", self.other, staging="/run/frappe-backup", run="backup-2", keys=True)
        self.failed("restore of a truncated backup", cut, "BackupBroken", "site as before")
        shutil.copy(self.folder / "whole", path)
        self.assertEqual(self.cluster.server.count(self.other.database), before)
        self.whole(self.other, ["tiny"], things=["first"])
        self.passed()

    def test_08_hold_and_update(self):
        self.assertEqual(self.bench_verb("hold", {"drain_seconds": 30}).result, {"done": "held", "held": 0, "released": 0})
        newer = self.image.with_layers(layers.tiny(self.folder / "newer", self.base, version="1.1.0", patches=("working",), python={"working": layers.WORKING}))
        self.assertEqual(self.configure(newer, ["tiny"]).code, 0)
        held = self.bench_verb("hold", {"drain_seconds": 30}, newer)
        self.assertEqual(held.result, {"done": "held", "held": 2, "released": 0}, str(held))
        self.whole(self.site, ["tiny"], newer, maintenance=1)
        self.done("hold", held, "both sites in maintenance, scheduler paused")
        back = self.bench_verb("hold", {"drain_seconds": 30})
        self.assertEqual(back.result, {"done": "held", "held": 0, "released": 2}, str(back))
        self.done("hold with the former image", back, "both sites released")
        self.whole(self.site, ["tiny"])
        self.failed("apply with an image of another schema", self.verb("apply", self.site, newer, apps=["tiny"]), "UpdateRequired", "nothing changed")
        updated = self.verb("update", self.site, newer, update={"id": "0123abcd"})
        self.done("update", updated, f"patch ran once; {updated.result and updated.result.get('seconds')}", "updated")
        self.assertEqual(self.ask(self.site, "notes", newer)["notes"].count("the patch has run"), 1)
        self.whole(self.site, ["tiny"], newer, things=["first"])
        self.done("update again", self.verb("update", self.site, newer, update={"id": "0123abce"}), "nothing done", "up to date")
        type(self).image = newer
        self.passed()

    def run_it(self, run, **more):
        """Runs something for the site, in a pod that has only the site's directory."""
        more = {"timeout_seconds": 300, "capture": True, "output_bytes": 1 << 20, "secret_config": [], **more}
        return self.verb("run", self.site, run=run, **more)

    def script(self, text, **more):
        """Runs a script."""
        file = self.cluster.claim(f"script-{len(self.cluster.said)}") / "script"
        file.write_text(text)
        os.chmod(file, 0o644)
        self.cluster.script = file.parent
        return self.run_it({"script": "job.py", "config_map": "scripts"}, **more)

    def test_08_run(self):
        commands = [["list-apps"], ["clear-cache"], ["clear-website-cache"], ["build-search-index"], ["rebuild-global-search"], ["doctor"],
                    ["show-pending-jobs"], ["disable-scheduler"], ["enable-scheduler"], ["destroy-all-sessions"], ["reset-perms"],
                    ["trigger-scheduler-event", "frappe.email.queue.flush"]]
        for command in commands:
            ended = self.run_it({"command": command})
            self.assertEqual((ended.code, ended.message.get("run", {}).get("exit")), (0, 0), f"{command}: {ended}")
        self.done(f"run: {len(commands)} commands", ended, ", ".join(it[0] for it in commands))
        ended = self.run_it({"method": "frappe.utils.data.add_days", "args": ["2026-01-31"], "kwargs": {"days": 1}})
        self.done("run: a method", ended, ended.message["run"]["value"])
        self.assertIn("2026-02-01", ended.message["run"]["value"])
        made = "frappe.get_doc({'doctype': 'Note', 'title': 'by a job', 'content': 'x'}).insert()\n"
        self.done("run: a script", self.script(f"{made}print(frappe.db.count('Note', {{'title': 'by a job'}}))"), "it sees what it made")
        ended = self.failed("run: a script that fails", self.script(f"{made.replace('by a job', 'lost')}raise ValueError('no')"), "CommandFailed", "nothing was committed")
        self.assertIn("ValueError: no", ended.message["run"]["output"])
        ended = self.script("print([frappe.db.count('Note', {'title': it}) for it in ('by a job', 'lost')])")
        self.assertEqual(ended.message["run"]["output"], "[1, 0]\n", str(ended))
        self.failed("run: a script that hangs", self.script("import time; time.sleep(600)", timeout_seconds=5), "DeadlineExceeded", "ended after 5 s")
        ended = self.script("print('the password is', frappe.conf.db_password)", maintenance=True)
        self.assertEqual(ended.message["run"]["output"], "the password is [secret]\n", str(ended))
        self.done("run: a script that prints a password, in maintenance mode", ended, "[secret]")
        self.assertNotIn("maintenance_mode", self.config(self.site))
        ended = self.script("for number in range(10): print('x' * 1_000_000)\nprint('the end')")
        self.assertTrue(ended.message["run"]["output"].endswith("the end\n") and len(ended.output) < 1_100_000, len(ended.output))
        self.done("run: a script that prints 10 MB", ended, "1 MiB in the log, the end in the message")
        ended = self.script("import os; print(sorted(os.listdir('.')))")
        self.assertNotIn(self.other.name, ended.message["run"]["output"])
        self.assertEqual(self.run_it({"command": ["doctor", "--site", self.other.name]}).code, 2)
        self.passed()

    def test_09_drop(self):
        for what in ("drop", "drop again"):
            self.done(what, self.verb("drop", self.site), "directory, database, record, dumps gone", "dropped")
            self.assertFalse(self.cluster.file(self.site, "").exists())
            self.assertEqual(self.cluster.server.has(self.site.database) and self.cluster.server.count(self.site.database), self.left())
        self.assertEqual(self.dumps(), [])
        self.whole(self.other, ["tiny"])
        self.passed()

    def left(self):
        """What a dropped site's database is: gone."""
        return False

    def test_10_no_secret_was_seen(self):
        self.no_leaks()
        self.passed()


@needs("BENCH")
class OnMariaDb(Verbs):
    """With MariaDB."""


@needs("BENCH")
class OnPostgres(Verbs):
    """With PostgreSQL, on which Frappe 14 cannot use an existing database."""

    server = Postgres

    @classmethod
    def setUpClass(cls):
        if Image(BENCH).major < 15:
            raise unittest.SkipTest("NOT RUN: Frappe 14 cannot create a site on an existing PostgreSQL database")
        super().setUpClass()

    def left(self):
        """The account may not drop its database."""
        return 0


# Only their subclasses are run.
del Verbs, Story
