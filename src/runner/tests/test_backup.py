"""Backups are complete or fail, and a restore reproduces the site."""

import gzip
import hashlib
import json
import pathlib
import shutil
import unittest

from support import DATABASE, ENCRYPTION_KEY, KILLED, PASSWORD, PostgresServer, Scanner, ServerTest, Steps

STEPS_MAX = 400
OTHER_KEY = "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXktMTI="
AWKWARD = "é 'quote\" \\\\ backslash \\n; -- /*!50017 DEFINER=`root`@`%` */ \u2603"


def tree(folder):
    """Every file of a folder with its content and its owner's permissions, and every folder."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = (path.read_bytes(), path.stat().st_mode & 0o777, int(path.stat().st_mtime)) if path.is_file() else None
    return found


class BackupCase(ServerTest):
    """A site with rows, files, a view and a trigger."""

    def setUp(self):
        self.server.reset()
        self.new_bench()
        self.staging = self.bench.folder / "staging"
        self.done("init", self.bench.request())
        self.fill()
        self.bench.forget_calls()

    def fill(self):
        self.server.root(f"""USE {DATABASE};
            CREATE TABLE `tabNote` (name varchar(140) PRIMARY KEY, content longtext, blob_ longblob) DEFAULT CHARSET=utf8mb4;
            CREATE DEFINER=root@localhost SQL SECURITY DEFINER VIEW notes AS SELECT name FROM `tabNote`;
            CREATE DEFINER=root@localhost TRIGGER before_note BEFORE INSERT ON `tabNote` FOR EACH ROW SET NEW.name = TRIM(NEW.name);
            """)
        rows = (f"('note {number}', CONVERT(0x{f'{AWKWARD} {number}'.encode().hex()} USING utf8mb4), 0x00ff0a0d{number:04x})"
                for number in range(200))
        self.server.root(f"INSERT INTO {DATABASE}.tabNote VALUES {', '.join(rows)}")
        files = self.bench.site("public/files")
        (files / "deep/er").mkdir(parents=True)
        (files / "deep/er/é.bin").write_bytes(bytes(range(256)) * 999)
        (files / "empty").write_bytes(b"")
        (files / "empty folder").mkdir()
        private = self.bench.site("private/files")
        (private / "run.sh").write_bytes(b"#!/bin/sh\n")
        (private / "run.sh").chmod(0o750)

    def rows(self, database=DATABASE):
        return self.server.root(f"SELECT name, HEX(content), HEX(blob_) FROM {database}.tabNote ORDER BY name").stdout

    def files(self):
        return tree(self.bench.site("public/files")), tree(self.bench.site("private/files"))

    def config(self):
        return json.loads(self.bench.site("site_config.json").read_text())

    def request(self, **more):
        return self.bench.request(staging=str(self.staging), **more)

    def restoration(self, **more):
        return self.request(**{"run": "nightly-1", **more})

    def spoil(self):
        """Changes by users after a backup."""
        self.server.root(f"DELETE FROM {DATABASE}.tabNote WHERE name < 'note 3'; CREATE TABLE {DATABASE}.later (a int)")
        (self.bench.site("public/files") / "empty").unlink()
        (self.bench.site("public/files") / "later").write_text("later")
        (self.bench.site("private/files") / "run.sh").write_text("changed")

    def contents(self):
        return json.loads((self.staging / "contents.json").read_text())

    def put_part(self, part, data):
        """Replaces a part of the backup, with the correct checksum."""
        contents = self.contents()
        path = self.staging / contents["parts"][part]["file"]
        path.write_bytes(data)
        contents["parts"][part].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        (self.staging / "contents.json").write_text(json.dumps(contents))

    def refused(self, code, words, **more):
        """Asserts that a restore is rejected and changes nothing of the site."""
        before = self.rows(), self.files(), self.config()
        result = self.bench.run("restore", self.restoration(**more))
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        said = self.bench.termination()
        self.assertIn(words, f"{said['code']}: {said['error']}")
        self.assertEqual((self.rows(), self.files(), self.config()), before)
        self.assertFalse(self.bench.site(".operator-restoring").exists())


class BackupTest(BackupCase):
    def test_a_restored_site_equals_the_backed_up_one(self):
        before = self.rows(), self.files(), self.config()
        with Scanner() as scanner:
            made = self.done("backup", self.request())
            self.assertEqual((self.rows(), self.files(), self.config()), before, "a backup changes nothing")
            self.spoil()
            restored = self.done("restore", self.restoration())
        self.assertEqual((self.rows(), self.files(), self.config()), before)
        tables = self.server.root(f"SHOW TABLES IN {DATABASE}").stdout.split()
        self.assertNotIn("later", tables, "what came later is gone")
        self.assertIn("notes", tables)
        self.server.root(f"INSERT INTO {DATABASE}.tabNote VALUES ('  spaces  ', '', '')")
        self.assertIn("\nspaces\t", "\n" + self.rows(), "the trigger is there")
        self.assertEqual([call[0] for call in self.bench.calls() if call[0] != "init"], ["clear-cache", "migrate"])
        parts = self.contents()["parts"]
        self.assertEqual(sorted(parts), ["database", "private-files", "public-files"], "no key leaves the volume unasked")
        self.assertEqual(json.loads((self.bench.folder / "termination").read_text())["result"]["done"], "restored")
        shown = b"".join(scanner.seen) + (made.stdout + made.stderr + restored.stdout + restored.stderr).encode()
        everything = shown + b"".join(path.read_bytes() for path in self.staging.iterdir())
        self.assertNotIn(PASSWORD.encode(), everything)
        self.assertNotIn(ENCRYPTION_KEY.encode(), everything)

    def test_only_the_requested_parts_are_restored(self):
        rows, files = self.rows(), self.files()
        self.done("backup", self.request())
        self.spoil()
        spoiled = self.rows(), self.files()
        self.done("restore", self.restoration(restore_files=False))
        self.assertEqual((self.rows(), self.files()), (rows, spoiled[1]))
        self.spoil_again()
        self.done("restore", self.restoration(restore_database=False))
        self.assertEqual((self.rows(), self.files()), (spoiled[0], files))

    def spoil_again(self):
        self.server.root(f"DELETE FROM {DATABASE}.tabNote WHERE name < 'note 3'")

    def test_frappes_restore_can_read_it(self):
        self.done("backup", self.request())
        head = gzip.decompress((self.staging / "database.sql.gz").read_bytes())[:300].decode()
        self.assertTrue(head.startswith("-- begin frappe metadata\n-- [frappe]\n-- version = 15.1.0\n"), head)

    def test_a_broken_backup_is_rejected_without_changes(self):
        self.done("backup", self.request())
        whole = self.bench.folder / "whole"
        shutil.copytree(self.staging, whole)

        def anew():
            shutil.rmtree(self.staging)
            shutil.copytree(whole, self.staging)

        dump = gzip.decompress((whole / "database.sql.gz").read_bytes())
        statements = dump.split(b";\n")
        for name, part, data, words in [
            ("cut gzip", "database", (whole / "database.sql.gz").read_bytes()[:-2000], "cannot be read"),
            ("cut between two statements", "database", gzip.compress(b";\n".join(statements[:-6]) + b";\n"), "is incomplete"),
            ("no gzip", "database", b"-- Dump completed", "cannot be read"),
            ("cut archive", "public-files", (whole / "public-files.tgz").read_bytes()[:-50], "cannot be read"),
        ]:
            with self.subTest(name):
                anew()
                self.put_part(part, data)
                self.refused(33, words)
        with self.subTest("another byte"):
            anew()
            path = self.staging / "private-files.tgz"
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(bytes(data))
            self.refused(33, "checksum differs")
        with self.subTest("a missing part"):
            anew()
            (self.staging / "public-files.tgz").unlink()
            self.refused(33, "public-files is missing")
        with self.subTest("no contents"):
            anew()
            (self.staging / "contents.json").unlink()
            self.refused(33, "does not list its parts")

    def test_a_truncated_dump_is_not_a_backup(self):
        failed = self.bench.run("backup", self.request(), PATH=self.bench.cut_dumps())
        self.assertEqual(failed.returncode, 31, failed.stdout + failed.stderr)
        self.assertIn("is incomplete", self.bench.termination()["error"])
        self.assertFalse((self.staging / "contents.json").exists())

    def test_an_archive_with_members_outside_of_the_site_is_rejected(self):
        import io
        import tarfile
        self.done("backup", self.request())
        for name, kind in [("./shop.example.com/public/files/../../../../evil", tarfile.REGTYPE), ("/evil", tarfile.REGTYPE),
                           ("./shop.example.com/public/files/link", tarfile.SYMTYPE), ("./a/b/c/fifo", tarfile.FIFOTYPE)]:
            data = io.BytesIO()
            with tarfile.open(fileobj=data, mode="w:gz") as archive:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "/etc/passwd"
                archive.addfile(member)
            self.put_part("public-files", data.getvalue())
            self.refused(33, "which is not allowed")

    def test_a_backup_that_does_not_fit_is_rejected_without_changes(self):
        self.done("backup", self.request(), STAND_IN_VERSION="16.0.0")
        self.refused(32, "BackupNewer: the backup was made with Frappe 16.0.0, the bench has 15.1.0")
        contents = self.contents()
        (self.staging / "contents.json").write_text(json.dumps({**contents, "frappe": "15.99.0", "apps": ["frappe", "hrms"]}))
        self.refused(2, "AppsMissing: the backup has hrms")
        (self.staging / "contents.json").write_text(json.dumps({**contents, "frappe": "15.0.0", "engine": "postgres"}))
        self.refused(32, "BackupMisfit")

    def test_files_are_not_restored_if_the_image_lacks_an_app_of_the_site(self):
        (self.bench.folder / "apps/hrms").mkdir()
        self.done("apply", self.bench.request(apps=["erpnext", "hrms"]))
        self.done("backup", self.request())
        (self.bench.folder / "apps/hrms").rmdir()
        self.refused(2, "AppsMissing: the site has hrms", restore_database=False)
        self.assertIn("tabhrms", self.server.root(f"SHOW TABLES IN {DATABASE}").stdout)

    def test_an_app_of_the_backup_is_listed(self):
        sites = self.bench.folder / "sites"
        (self.bench.folder / "apps/hrms").mkdir()
        (sites / "apps.txt").write_text("frappe\nerpnext\n")
        self.done("backup", self.request())
        contents = self.contents()
        (self.staging / "contents.json").write_text(json.dumps({**contents, "apps": ["frappe", "erpnext", "hrms"]}))
        self.done("restore", self.restoration())
        self.assertEqual((sites / "apps.txt").read_text().split(), ["frappe", "erpnext", "hrms"])

    def test_keys_are_backed_up_only_on_request_and_restored(self):
        self.done("backup", self.request(keys=True))
        self.assertEqual(json.loads((self.staging / "keys.json").read_text()), {"encryption_key": ENCRYPTION_KEY})
        path = self.bench.site("site_config.json")
        path.write_text(json.dumps({**self.config(), "encryption_key": OTHER_KEY, "mine": 1}))
        self.refused(33, "keys that are not encrypted")
        self.done("restore", self.restoration(keys=True))
        self.assertEqual((self.config()["encryption_key"], self.config()["mine"]), (ENCRYPTION_KEY, 1))

    def test_a_backup_of_another_site_without_keys_is_restored_with_a_warning(self):
        self.done("backup", self.request())
        self.done("restore", self.restoration())
        self.assertEqual(self.bench.termination()["result"]["done"], "restored")
        (self.staging / "contents.json").write_text(json.dumps({**self.contents(), "site": "production.example.com"}))
        self.done("restore", self.restoration(restore_database=False))
        self.assertEqual(self.bench.termination()["result"]["done"], "restored")
        said = self.done("restore", self.restoration())
        self.assertIn("enter them again", self.bench.termination()["result"]["warning"])
        self.assertIn("warning: the backup is of another site and has no keys", said.stdout)
        self.done("backup", self.request(keys=True))
        (self.staging / "contents.json").write_text(json.dumps({**self.contents(), "site": "production.example.com"}))
        self.done("restore", self.restoration(keys=True))
        self.assertEqual(self.bench.termination()["result"]["done"], "restored")

    def test_an_earlier_maintenance_mode_is_kept(self):
        self.done("backup", self.request())
        path = self.bench.site("site_config.json")
        path.write_text(json.dumps({**self.config(), "maintenance_mode": 1}))
        self.done("restore", self.restoration())
        self.assertEqual((self.config().get("maintenance_mode"), self.config().get("pause_scheduler")), (1, None))

    def test_a_failed_restore_leaves_the_site_in_maintenance_and_can_be_repeated(self):
        before = self.rows(), self.files(), self.config()
        self.done("backup", self.request())
        self.spoil()
        self.assertEqual(self.bench.run("restore", self.restoration(), STAND_IN_FAILS="migrating").returncode, 30)
        self.assertEqual(self.config()["maintenance_mode"], 1)
        other = self.bench.run("restore", self.restoration(run="another"))
        self.assertEqual(other.returncode, 31)
        self.assertIn("only partly restored (nightly-1)", self.bench.termination()["error"])
        self.assertEqual(self.bench.run("apply", self.bench.request()).returncode, 31, "nothing else is done to it")
        kept = shutil.copytree(self.staging, self.bench.folder / "kept")
        self.assertEqual(self.bench.run("backup", self.request()).returncode, 31, "a partly restored site is not backed up")
        self.assertIn("is kept", self.done("backup", self.request(before="nightly-1")).stdout)
        self.assertFalse((self.staging / "contents.json").exists(), "the safety backup is not done over")
        shutil.copytree(kept, self.staging, dirs_exist_ok=True)
        self.done("restore", self.restoration())
        self.assertEqual((self.rows(), self.files(), self.config()), before)

    def test_backup_killed_at_every_step_and_run_again(self):
        before = self.rows(), self.files(), self.config()
        for step in (steps := Steps(STEPS_MAX)):
            killed = self.bench.run("backup", self.request(), kill_at=step).returncode == KILLED
            self.assertEqual((self.rows(), self.files(), self.config()), before)
            self.done("backup", self.request())
            self.assertEqual(sorted(path.name for path in self.staging.iterdir()),
                             ["contents.json", "database.sql.gz", "private-files.tgz", "public-files.tgz"])
            if not killed:
                break
        self.assertGreater(step, 10)
        print(f"backup: killed at {steps} and run again, whole every time")

    def test_restore_killed_at_every_step_and_run_again(self):
        before = self.rows(), self.files(), self.config()
        self.done("backup", self.request())
        for step in (steps := Steps(STEPS_MAX)):
            self.spoil()
            killed = self.bench.run("restore", self.restoration(), kill_at=step).returncode == KILLED
            self.done("restore", self.restoration())
            self.assertEqual((self.rows(), self.files(), self.config()), before, f"step {step}")
            left = {path.name for path in self.bench.site().iterdir() if path.name.startswith(".operator-")}
            self.assertEqual(left, {".operator-lock", ".operator-settings", ".operator-state"})
            if not killed:
                break
        self.assertGreater(step, 20)
        print(f"restore: killed at {steps} and run again, byte for byte every time")


class PostgresBackupTest(ServerTest):
    make_server = PostgresServer

    def test_a_postgres_site_is_backed_up_and_restored(self):
        self.new_bench()
        self.server.root(f"CREATE ROLE theirs LOGIN PASSWORD '{PASSWORD}'")
        self.server.root("CREATE DATABASE theirs OWNER theirs TEMPLATE template0 ENCODING 'UTF8'")
        connection = self.bench.folder / "secrets/connection"
        connection.mkdir()
        for key, value in {"username": "theirs", "password": PASSWORD, "database": "theirs"}.items():
            (connection / key).write_text(value)
        staging = str(self.bench.folder / "staging")
        request = self.bench.request(
            staging=staging, run="r", database={"type": "postgres", "own": False, "host": "127.0.0.1", "port": self.server.port})
        self.done("init", request)
        self.server.root("SET ROLE theirs; CREATE TABLE note (name text PRIMARY KEY); INSERT INTO note VALUES ('é \\ \" ''')", "theirs")
        rows = self.server.root("SELECT * FROM note", "theirs").stdout
        self.done("backup", request)
        self.server.root("SET ROLE theirs; DROP TABLE note; CREATE TABLE later (a int)", "theirs")
        self.done("restore", request)
        self.assertEqual(self.server.root("SELECT * FROM note", "theirs").stdout, rows)
        self.assertEqual(self.server.root("SELECT to_regclass('later') IS NULL", "theirs").stdout.strip(), "t")


if __name__ == "__main__":
    unittest.main()
