"""Hostile content of a backup, a volume or a Secret runs nothing, accesses nothing, and is reported."""

import gzip
import io
import json
import os
import pathlib
import shutil
import socket
import tarfile
import unittest

from support import DATABASE, PASSWORD, PostgresServer, ServerTest
from test_backup import BackupCase

OTHER_DATABASE = "victim0123456789"


def archive_of(*members):
    """An archive with these members: names with contents, or complete members."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in members:
            if isinstance(name, tarfile.TarInfo):
                archive.addfile(name, content and io.BytesIO(content))
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


class HostileDumpTest(BackupCase):
    """Dumps with client commands, as an attacker who can write to the bucket would store them."""

    def setUp(self):
        super().setUp()
        self.done("backup", self.request())
        self.dump = gzip.decompress((self.staging / "database.sql.gz").read_bytes()).decode("latin-1")
        self.proof = self.bench.folder / "proof"
        self.statements = self.bench.folder / "statements"
        self.statements.write_text("SELECT 1;\n")
        # Would run as the editor if one were started.
        tools = self.bench.folder / "tools"
        tools.mkdir()
        for name in ("vi", "editor"):
            (tools / name).write_text(f"#!/bin/sh\ntouch {self.proof}\n")
            (tools / name).chmod(0o755)
        self.path = f"{tools}{os.pathsep}{os.environ['PATH']}"

    def attempt(self, text):
        """Restores a dump with this after its header; returns the result."""
        contents = self.contents()
        contents["parts"]["database"].pop("unpacked", None)
        (self.staging / "contents.json").write_text(json.dumps(contents))
        self.put_part("database", gzip.compress(text.encode("latin-1")))
        return self.bench.run("restore", self.restoration(), PATH=self.path)

    def test_no_client_command_runs(self):
        sandbox = self.dump.index("/*M!999999") if "/*M!999999" in self.dump else 0
        rest = self.dump[self.dump.index("\n", sandbox) + 1:]
        # The server to which the client would connect with the account's name and credentials.
        other = socket.create_server(("127.0.0.2", self.server.port))
        self.addCleanup(other.close)
        other.setblocking(False)
        for name, text in {
            "system": f"\\! touch {self.proof}\n", "system in words": f"system touch {self.proof}\n",
            "behind the line of the sandbox": f"/*M!999999\\- enable the sandbox mode */\n\\! touch {self.proof}\n",
            "within a comment that is executed": f"/*!50000 \\! touch {self.proof}\n*/;\n",
            "after a statement": f"SELECT 1; \\! touch {self.proof}\n", "tee": f"\\T {self.proof}\nSELECT 1;\n",
            "with another delimiter": f"DELIMITER ;;\n\\! touch {self.proof}\n;;\nDELIMITER ;\n",
            "the editor": "SELECT 1\n\\e\n;\n", "the editor in words": "edit\n",
            "another server": "\\r x 127.0.0.2\n", "another server in words": "connect x 127.0.0.2\n",
            "a file": f"\\. {self.statements}\n", "a file in words": f"source {self.statements}\n",
        }.items():
            with self.subTest(name):
                self.proof.unlink(missing_ok=True)
                ended = self.attempt(text + rest)
                self.assertFalse(self.proof.exists(), "it ran")
                with self.assertRaises(BlockingIOError, msg="it went there"):
                    other.accept()
                self.assertEqual(ended.returncode, 10, ended.stdout + ended.stderr)
                self.assertEqual(self.bench.termination()["step"], "load")
        self.assertEqual(self.attempt(self.dump).returncode, 0, "as it was, it is restored")

    def test_no_file_of_the_pod_is_loaded(self):
        """LOAD DATA LOCAL INFILE of another site's configuration."""
        victim = self.bench.folder / "sites/victim.example.com/site_config.json"
        victim.parent.mkdir()
        victim.write_text("the password of another")
        load = f"CREATE TABLE `loot` (line text);\nLOAD DATA LOCAL INFILE '{victim}' INTO TABLE `loot`;\n"
        head, _, rest = self.dump.partition("\n\n")
        self.assertEqual(self.attempt(f"{head}\n\n{load}{rest}").returncode, 10)
        self.assertIn("local infile", self.bench.termination()["error"])
        self.assertEqual(self.server.root(f"SELECT * FROM {DATABASE}.loot", check=False).stdout, "")

    def test_the_server_rejects_access_to_another_database(self):
        self.server.root(f"CREATE DATABASE {OTHER_DATABASE}; CREATE TABLE {OTHER_DATABASE}.t (a int)")
        self.assertEqual(self.attempt(f"DROP TABLE `{OTHER_DATABASE}`.t;\n{self.dump}").returncode, 10)
        self.assertEqual(self.server.root(f"SHOW TABLES IN {OTHER_DATABASE}").stdout, "t\n")

    def test_a_client_that_cannot_disable_its_commands_loads_nothing(self):
        before = self.rows(), self.files(), self.config()
        folder = self.bench.folder / "old"
        folder.mkdir()
        # The output of a client before 10.6.18.
        (folder / "mariadb").write_text(f'#!/bin/sh\nfor it in "$@"; do [ "$it" != --sandbox ] || '
                                        f'exec {shutil.which("mariadb")} --no-defaults --not-known-here; done\nexec {shutil.which("mariadb")} "$@"\n')
        (folder / "mariadb").chmod(0o755)
        refused = self.bench.run("restore", self.restoration(), PATH=f"{folder}{os.pathsep}{os.environ['PATH']}")
        self.assertEqual(refused.returncode, 2, refused.stdout + refused.stderr)
        self.assertEqual("ClientTooOld", self.bench.termination()["code"])
        self.assertIn("unknown option", self.bench.termination()["error"])
        self.assertEqual((self.rows(), self.files(), self.config()), before)
        self.assertFalse(self.bench.site(".operator-restoring").exists(), "the site is not in maintenance")

    def test_a_dump_that_unpacks_to_more_than_was_backed_up_is_rejected(self):
        self.put_part("database", gzip.compress(self.dump.encode("latin-1") + b"\n" * (32 << 20) + b"-- Dump completed\n"))
        self.refused(33, "unpacks to more than the")


class HostileArchiveTest(BackupCase):
    def setUp(self):
        super().setUp()
        self.done("backup", self.request())

    def test_an_archive_that_unpacks_to_more_than_was_backed_up_is_rejected(self):
        bomb = archive_of(("./shop.example.com/public/files/zeros", b"\0" * (64 << 20)))
        self.assertLess(len(bomb), 1 << 20)
        self.put_part("public-files", bomb)
        self.refused(33, "BackupTooLarge: public-files.tgz")

    def test_an_archive_that_is_too_large_for_the_volume_is_rejected(self):
        """Also without a size in the manifest: of an earlier version, or by an attacker."""
        room = os.statvfs(self.bench.folder / "sites")
        whole = room.f_bavail * room.f_frsize
        member = tarfile.TarInfo("./shop.example.com/public/files/zeros")
        member.size = whole + (1 << 30)
        # The header of a member is enough: nothing of this size is written.
        data = gzip.compress(member.tobuf() + b"\0" * 4096)
        contents = self.contents()
        contents["parts"]["public-files"].pop("unpacked")
        (self.staging / "contents.json").write_text(json.dumps(contents))
        self.put_part("public-files", data)
        self.refused(33, "public-files.tgz")

    def test_records_of_an_archive_cannot_exhaust_the_memory(self):
        head = tarfile.TarInfo("long")
        head.type, head.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
        self.put_part("public-files", gzip.compress(head.tobuf() + b"a" * (64 << 20)))
        contents = self.contents()
        contents["parts"]["public-files"].pop("unpacked")
        (self.staging / "contents.json").write_text(json.dumps(contents))
        self.refused(33, "a record of")

    def test_members_of_another_folder_are_rejected(self):
        for name in ("./shop.example.com/private/files/of-the-other", "./shop.example.com/site_config.json", "shop.example.com/public/files/a",
                     "./shop.example.com/public/filesystem/a", "./shop.example.com/public/files/./a", "./shop.example.com//public/files/a"):
            with self.subTest(name):
                self.put_part("public-files", archive_of((name, b"x")))
                contents = self.contents()
                contents["parts"]["public-files"].pop("unpacked", None)
                (self.staging / "contents.json").write_text(json.dumps(contents))
                self.refused(33, "which is not allowed")

    def test_invalid_keys_are_rejected(self):
        """Frappe passes one of them to a shell."""
        self.done("backup", self.request(keys=True))
        for value in ("$(touch proof)", {"a": 1}, "a b", "a\n"):
            self.put_part("keys", json.dumps({"backup_encryption_key": value}).encode())
            self.refused(33, "an invalid key", keys=True)

    def test_parts_are_read_by_their_fixed_names_and_not_through_links(self):
        other = self.bench.folder / "elsewhere"
        path = self.staging / "public-files.tgz"
        shutil.move(path, other)
        path.symlink_to(other)
        self.refused(33, "public-files is missing")
        path.unlink()
        contents = self.contents()
        contents["parts"]["public-files"]["file"] = "other.tgz"
        shutil.move(other, self.staging / "other.tgz")
        (self.staging / "contents.json").write_text(json.dumps(contents))
        self.refused(33, "public-files is missing")


class HostileVolumeTest(BackupCase):
    """Links in a site's directory, created by code of the bench."""

    def victim(self):
        folder = self.bench.folder / "sites/victim.example.com/private/files"
        folder.mkdir(parents=True)
        (folder / "secret.txt").write_text("of another site")
        return folder

    def link(self, name, to):
        path = self.bench.site(name)
        shutil.rmtree(path)
        path.symlink_to(to)

    def test_the_target_of_a_link_is_neither_backed_up_nor_restored_into(self):
        self.done("backup", self.request())
        victim = self.victim()
        for name, to in (("public/files", victim), ("public", victim.parent), ("private/files", "/run")):
            with self.subTest(name):
                kept = shutil.copytree(self.bench.folder / "sites/shop.example.com", self.bench.folder / "kept", symlinks=True)
                self.link(name, to)
                refused = self.bench.run("restore", self.restoration())
                self.assertEqual(refused.returncode, 31, refused.stdout + refused.stderr)
                self.assertIn("reached through a link", self.bench.termination()["error"])
                saved = shutil.copytree(self.staging, self.bench.folder / "saved")
                refused = self.bench.run("backup", self.request())
                self.assertEqual(refused.returncode, 31, refused.stdout + refused.stderr)
                self.assertEqual([path.name for path in victim.rglob("*")], ["secret.txt"], "untouched")
                shutil.rmtree(self.staging)
                shutil.move(saved, self.staging)
                shutil.rmtree(self.bench.folder / "sites/shop.example.com")
                shutil.move(kept, self.bench.folder / "sites/shop.example.com")

    def test_temporary_files_are_not_written_through_links(self):
        victim = self.victim() / "secret.txt"
        self.bench.site(".site_config.json.part").symlink_to(victim)
        self.bench.site(".operator-restored").symlink_to(victim.parent)
        self.done("backup", self.request())
        self.done("restore", self.restoration())
        self.assertEqual(victim.read_text(), "of another site")
        self.assertEqual([path.name for path in victim.parent.iterdir()], ["secret.txt"])


class PostgresHostileTest(ServerTest):
    make_server = PostgresServer

    def setUp(self):
        self.new_bench()
        self.server.root("DROP DATABASE IF EXISTS theirs")
        self.server.root("DROP ROLE IF EXISTS theirs")
        self.server.root(f"CREATE ROLE theirs LOGIN PASSWORD '{PASSWORD}'")
        self.server.root("CREATE DATABASE theirs OWNER theirs TEMPLATE template0 ENCODING 'UTF8'")
        connection = self.bench.folder / "secrets/connection"
        connection.mkdir()
        for key, value in {"username": "theirs", "password": PASSWORD, "database": "theirs"}.items():
            (connection / key).write_text(value)
        self.staging = self.bench.folder / "staging"
        self.request = self.bench.request(
            staging=str(self.staging), run="r", database={"type": "postgres", "own": False, "host": "127.0.0.1", "port": self.server.port})
        self.done("init", self.request)
        # Rows that look like commands of psql.
        self.server.root("SET ROLE theirs; CREATE TABLE note (name text); "
                         "INSERT INTO note VALUES (E'\\restrict abc'), (E'\\\\restrict abc'), (E'\\\\.'), (E'a\\n\\\\! b')", "theirs")
        self.done("backup", self.request)
        self.dump = gzip.decompress((self.staging / "database.sql.gz").read_bytes()).decode("latin-1")
        self.proof = self.bench.folder / "proof"

    def attempt(self, text, **environment):
        import hashlib
        data = gzip.compress(text.encode("latin-1"))
        (self.staging / "database.sql.gz").write_bytes(data)
        contents = json.loads((self.staging / "contents.json").read_text())
        contents["parts"]["database"] = {"file": "database.sql.gz", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (self.staging / "contents.json").write_text(json.dumps(contents))
        return self.bench.run("restore", self.request, **environment)

    def test_no_client_command_runs(self):
        own = next((line for line in self.dump.splitlines() if line.startswith("\\restrict ")), "\\restrict abc")
        for name, text in {
            "system": f"\\! touch {self.proof}\n", "backticks": f"\\set a `touch {self.proof}`\n", "a program for rows": f"SELECT 1 \\g |touch {self.proof}\n",
            "copy": "CREATE TABLE loot (line text);\n\\copy loot from /etc/passwd\n", "a guessed key": f"\\unrestrict abc\n\\! touch {self.proof}\n",
            "a pair of its own": f"{own}\n\\un{own[1:]}\n\\! touch {self.proof}\n", "another server": "\\c x y 127.0.0.2 1\n",
            "after rows": f"CREATE TABLE rows_ (a text);\nCOPY rows_ FROM stdin;\nx\n\\.\n\\! touch {self.proof}\n",
        }.items():
            with self.subTest(name):
                self.proof.unlink(missing_ok=True)
                ended = self.attempt(text + self.dump)
                self.assertFalse(self.proof.exists(), "it ran")
                self.assertEqual(ended.returncode, 10, ended.stdout + ended.stderr)
                self.assertIn("restrict", self.bench.termination()["error"])

    def test_its_own_dump_is_restored_unchanged(self):
        rows = self.server.root("SELECT encode(convert_to(name, 'UTF8'), 'hex') FROM note ORDER BY 1", "theirs").stdout
        self.server.root("SET ROLE theirs; DELETE FROM note", "theirs")
        ended = self.attempt(self.dump)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertEqual(self.server.root("SELECT encode(convert_to(name, 'UTF8'), 'hex') FROM note ORDER BY 1", "theirs").stdout, rows)
        # A dump by an earlier pg_dump, without `\\restrict`.
        older = "\n".join(line for line in self.dump.split("\n") if not line.startswith(("\\restrict ", "\\unrestrict ")))
        older = older.replace("COPY public.note (name) FROM stdin;\n", "COPY public.note (name) FROM stdin;\n\\restrict abc\n")
        ended = self.attempt(older)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertEqual(self.server.root("SELECT encode(convert_to(name, 'UTF8'), 'hex') FROM note ORDER BY 1", "theirs").stdout, rows)

    def test_a_client_that_cannot_disable_its_commands_loads_nothing(self):
        before = self.server.root("SELECT * FROM note", "theirs").stdout
        folder = self.bench.folder / "old"
        folder.mkdir()
        # The output of a client before 15.14.
        real = shutil.which("psql")
        (folder / "psql").write_text(f'#!/bin/sh\ncase "$*" in *--command=*) exec {real} "$@";; esac\n'
                                     + r"sed 's/^\\\(un\)\{0,1\}restrict/\\never\1restrict/' | " + f'{real} "$@"\n')
        (folder / "psql").chmod(0o755)
        refused = self.attempt(self.dump, PATH=f"{folder}{os.pathsep}{os.environ['PATH']}")
        self.assertEqual(refused.returncode, 2, refused.stdout + refused.stderr)
        self.assertEqual("ClientTooOld", self.bench.termination()["code"])
        self.assertIn("invalid command", self.bench.termination()["error"])
        self.assertEqual(self.server.root("SELECT * FROM note", "theirs").stdout, before)
        self.assertNotIn("maintenance_mode", pathlib.Path(self.bench.site("site_config.json")).read_text())


class HostileRequestTest(ServerTest):
    def setUp(self):
        self.server.reset()
        self.new_bench()

    def refused(self, words, command="init", code=2, **more):
        result = self.bench.run(command, self.bench.request(**more))
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        said = self.bench.termination()
        self.assertIn(words, f"{said['code']}: {said['error']}")

    def test_names_that_frappe_or_the_bench_reserves_are_rejected(self):
        (self.bench.folder / "apps/some_app").mkdir()
        for name in ("currentsite.txt", "apps.txt", "common-site.json", "apps.json", "a.lock", "all", "assets", "archived", "frappe", "erpnext", "some-app"):
            with self.subTest(name):
                self.refused("SiteNameReserved", site=name)
                self.assertFalse((self.bench.folder / "sites" / name).exists())

    def test_the_name_for_all_sites_is_rejected(self):
        """Frappe treats `--site all` as every site of the bench."""
        folder = self.bench.folder / "sites/all"
        folder.mkdir()
        (folder / ".operator-state").write_text("ready id-1\n")
        (folder / "site_config.json").write_text("{}")
        for command in ("init", "apply", "backup", "restore"):
            self.refused("SiteNameReserved", command, site="all", staging=str(self.bench.folder / "staging"), run="r")
        self.assertEqual([call for call in self.bench.calls() if call[0] != "init"], [])
        self.done("drop", self.bench.request(site="all"))
        self.assertFalse(folder.exists(), "one that was made before can be deleted")

    def test_a_line_feed_at_the_end_of_a_name_is_rejected(self):
        self.refused("DNS name", site="shop.example.com\n")
        self.refused("hosts must be", hosts=["a.example.com\n"])
        self.refused("app names", apps=["erpnext\n"])
        self.refused("keys of config", config={"mute_emails\n": 1})
        self.refused("names of database", database={"host": "127.0.0.1", "port": self.server.port, "name": DATABASE + "\n"})
        self.refused("identity", identity="id-1\n")

    def test_an_identity_is_not_a_path(self):
        victim = self.bench.folder / "sites/victim"
        victim.mkdir()
        (self.bench.folder / "sites/.removed-apps/shop.example.com-x").mkdir(parents=True)
        self.refused("identity", "drop", identity="x/../../victim")
        self.assertTrue(victim.exists())

    def test_a_database_of_a_secret_must_not_be_an_option_or_connection_string(self):
        connection = self.bench.folder / "secrets/connection"
        connection.mkdir()
        for name in ("--result-file=proof", "-x", "host=evil dbname=x", "postgresql://evil/x", "a\nb", "../x"):
            for key, value in {"username": DATABASE, "password": PASSWORD, "host": "127.0.0.1", "database": name}.items():
                (connection / key).write_text(value)
            self.refused("database of the connection Secret is invalid", database={"own": False, "port": self.server.port})
        (connection / "database").write_text(DATABASE)
        self.done("init", self.bench.request(database={"own": False, "port": self.server.port}))

    def test_a_site_may_not_set_keys_of_the_runner(self):
        """Other forbidden keys are rejected before a Job is created."""
        self.done("init", self.bench.request(config={"mute_emails": 1, "host_name": "http://a"}))
        before = self.bench.site("site_config.json").read_text()
        for key in ("local_infile", "db_host", "encryption_key"):
            with self.subTest(key):
                self.refused("config must not contain", "apply", config={key: "x"})
                self.refused("config must not contain", "apply", secret_config=[key])
        self.assertEqual(self.bench.site("site_config.json").read_text(), before)

    def test_a_server_never_gets_a_local_file(self):
        """Frappe's client reads `local_infile` from the site's configuration, or else from the bench's."""
        self.done("init", self.bench.request())
        path = self.bench.site("site_config.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "local_infile": 1}))
        self.done("apply", self.bench.request())
        self.assertEqual(json.loads(path.read_text())["local_infile"], 0)


# The tests of the base class run in its own module.
del BackupCase

if __name__ == "__main__":
    unittest.main()
