"""Backup and restore with only Frappe replaced by a stand-in: the site runner dumps a site on a real MariaDB, the operator's
program stores the dump in a real S3 server and fetches it again, and the runner restores it.

OPERATOR is the path of the program `frappe-operator`, OBJECT_STORE that of the S3 server (`loadtest/objectstore/build`).
"""

import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "src/runner/tests"))

from support import ENCRYPTION_KEY, PASSWORD, PRIVILEGES, Scanner, free_port  # noqa: E402
from test_backup import BackupCase, tree  # noqa: E402

KEYS = {"accessKey": "access", "secretKey": "a-secret-key-of-the-bucket"}
NAME = "daily-backup-2026-11-26-0200"
# A key that is only used in this test, as age-keygen writes it.
IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
OTHER_KEY = "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXktMTI="


def with_another_byte(content, at):
    """The content with one byte changed, whichever it was."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


class ObjectStore:
    """An S3 server on loopback, with a bucket."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="frappe-object-store-"))
        (self.folder / "objects/frappe-backups").mkdir(parents=True)
        (self.folder / "metadata").mkdir()
        self.port = free_port()
        self.process = subprocess.Popen(
            [os.environ["OBJECT_STORE"], "--port", f"127.0.0.1:{self.port}", "--access", KEYS["accessKey"], "--secret",
             KEYS["secretKey"], "--quiet", "posix", "--sidecar", str(self.folder / "metadata"), str(self.folder / "objects")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1)
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the S3 server does not answer")

    def objects(self):
        """Every file of every backup on the server's disk."""
        return {str(path.relative_to(self.folder / "objects/frappe-backups")): path
                for path in (self.folder / "objects/frappe-backups/default").rglob("*") if path.is_file()}

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class JourneyTest(BackupCase):
    def setUp(self):
        super().setUp()
        self.store = ObjectStore()
        self.addCleanup(self.store.close)
        self.keys = self.bench.folder / "storage"
        self.keys.mkdir()
        for name, value in KEYS.items():
            (self.keys / name).write_text(value)

    def transfer(self, **what):
        """Runs the operator's program as the Job's second container does; returns its exit code and output."""
        request = {"place": {"s3": {"bucket": "frappe-backups", "endpoint": f"http://127.0.0.1:{self.store.port}", "pathStyle": True}},
                   "folder": "default/shop", **what}
        log = self.bench.folder / "transferred"
        log.unlink(missing_ok=True)
        done = subprocess.run([os.environ["OPERATOR"], "transfer", json.dumps(request), "--staging", str(self.staging),
                               "--credentials", str(self.keys), "--termination-log", str(log)],
                              capture_output=True, text=True, check=False)
        for shown in (done.stdout, done.stderr, log.read_text()):
            self.assertNotIn(KEYS["secretKey"], shown)
        return done.returncode, json.loads(log.read_text())

    def storing(self, name, site_backup="daily-backup", **more):
        return {"store": {"name": name, "siteBackup": site_backup, "site": "default/shop", "identity": "id-1",
                          "scheduledAt": "2026-11-26T02:00:00Z", **more}}

    def backed_up(self):
        self.done("backup", self.request())
        code, said = self.transfer(**self.storing(NAME))
        self.assertEqual(code, 0, said)
        shutil.rmtree(self.staging)

    def test_a_restored_site_equals_the_original(self):
        before = self.rows(), self.files(), self.config()
        with Scanner() as scanner:
            self.backed_up()
            self.spoil()
            spoiled = self.rows(), self.files()
            # As the Job of a restore: a safety backup, then the backup of that day, then the restore.
            self.done("backup", self.request(before="restore-job"))
            code, said = self.transfer(**self.storing("restore-job-before-2026-11-26-0300", "restore-job", mayBeStored=True),
                                       fetch="daily-backup-2026-11-26")
            self.assertEqual((code, said["result"]["fetched"]), (0, NAME), said)
            self.done("restore", self.restoration(run="restore-job"))
        self.assertEqual((self.rows(), self.files(), self.config()), before)
        # And back to the state before the restore.
        self.assertEqual(self.transfer(fetch="restore-job-before")[0], 0)
        self.done("restore", self.restoration(run="undo"))
        self.assertEqual((self.rows(), self.files()), spoiled)
        # The S3 server was started with its key as an argument.
        shown = [it for it in scanner.seen if not it.startswith(os.environ["OBJECT_STORE"].encode())]
        everything = b"".join(shown) + b"".join(path.read_bytes() for path in self.store.objects().values())
        for value in (PASSWORD, ENCRYPTION_KEY, KEYS["secretKey"]):
            self.assertTrue(value.encode() not in everything, "a secret is shown")

    def test_a_site_is_restored_from_an_encrypted_backup_with_its_keys(self):
        (self.keys / "identity").write_text(IDENTITY)
        before = self.rows(), self.files(), self.config()
        self.done("backup", self.request(keys=True))
        code, said = self.transfer(**self.storing(NAME))
        self.assertEqual(code, 0, said)
        shutil.rmtree(self.staging)
        self.spoil()
        path = self.bench.site("site_config.json")
        path.write_text(json.dumps({**self.config(), "encryption_key": OTHER_KEY}))
        code, said = self.transfer(fetch=NAME)
        self.assertEqual((code, said["result"]["fetched"]), (0, NAME), said)
        self.done("restore", self.restoration(keys=True))
        self.assertEqual((self.rows(), self.files(), self.config()), before)
        everything = b"".join(path.read_bytes() for path in self.store.objects().values())
        for value in (ENCRYPTION_KEY, IDENTITY, "note 17"):
            self.assertNotIn(value.encode(), everything)

    def test_with_a_key_files_of_the_buckets_owner_reach_no_site(self):
        """A dump with a client command and correct checksums replaces an encrypted backup."""
        (self.keys / "identity").write_text(IDENTITY)
        self.done("backup", self.request(keys=True))
        self.assertEqual(self.transfer(**self.storing(NAME))[0], 0)
        before = self.rows(), self.files(), self.config()
        dump = gzip.compress(b"\\! touch proof\n-- Dump completed\n")
        folder = self.store.folder / "objects/frappe-backups/default/shop" / NAME
        manifest = json.loads((folder / "manifest.json").read_text())
        part = {"file": "database.sql.gz", "bytes": len(dump), "sha256": hashlib.sha256(dump).hexdigest()}
        for what, change in {
            "a plain part": lambda it: it["contents"]["parts"].update(database=part),
            "plain parts only": lambda it: it["contents"].update(parts={"database": part}),
            "no authentication": lambda it: it.pop("authentication"),
            "another version": lambda it: it["contents"].update(frappe="14.0.0"),
        }.items():
            with self.subTest(what):
                changed = json.loads(json.dumps(manifest))
                change(changed)
                (folder / "manifest.json").write_text(json.dumps(changed))
                (folder / "database.sql.gz").write_bytes(dump)
                code, said = self.transfer(fetch=NAME)
                self.assertEqual(code, 1, said)
                self.assertIn(said["code"], ("BackupNotEncrypted", "BackupNotAuthentic", "EncryptionKeyWrong"))
        self.assertEqual((self.rows(), self.files(), self.config()), before)

    def test_another_site_becomes_a_copy_and_keeps_its_own_identity(self):
        copy = "copy0123456789ab"
        self.server.root(f"CREATE DATABASE {copy}; CREATE USER '{copy}'@'%' IDENTIFIED BY '{PASSWORD}'; "
                         f"GRANT {PRIVILEGES} ON `{copy}`.* TO '{copy}'@'%'")
        self.addCleanup(self.server.root, f"DROP USER '{copy}'@'%'")
        mine = {"site": "copy.example.com", "identity": "id-2",
                "database": {"host": "127.0.0.1", "port": self.server.port, "name": copy}}
        self.backed_up()
        self.done("init", self.request(**mine))
        site = self.bench.folder / "sites/copy.example.com"
        config = (site / "site_config.json").read_text()
        original = self.rows(), self.files(), self.config()
        code, said = self.transfer(folder="default/copy", fetch=NAME, fetchFolder="default/shop")
        self.assertEqual((code, said["result"]["fetched"]), (0, NAME), said)
        self.done("restore", self.restoration(run="clone", **mine))
        self.assertEqual((self.rows(copy), (tree(site / "public/files"), tree(site / "private/files"))), original[:2])
        self.assertEqual(json.loads((site / "site_config.json").read_text()), json.loads(config))
        self.assertEqual((self.rows(), self.files(), self.config()), original, "the other site is as it was")
        self.assertEqual(list((self.store.folder / "objects/frappe-backups/default").iterdir()),
                         [self.store.folder / "objects/frappe-backups/default/shop"])

    def test_corrupt_objects_in_the_bucket_reach_no_site(self):
        self.backed_up()
        before = self.rows(), self.files(), self.config()
        whole = {name: path.read_bytes() for name, path in self.store.objects().items()}
        dump = f"default/shop/{NAME}/database.sql.gz"
        archive = f"default/shop/{NAME}/public-files.tgz"
        for what, name, content in [("a cut dump", dump, whole[dump][:-100]), ("a missing part", archive, None),
                                    ("another byte", archive, with_another_byte(whole[archive], -9))]:
            with self.subTest(what):
                path = self.store.objects()[name]
                path.unlink() if content is None else path.write_bytes(content)
                code, said = self.transfer(fetch=NAME)
                self.assertEqual((code, said["code"]), (1, "BackupBroken"), said)
                self.assertEqual((self.rows(), self.files(), self.config()), before)
                path.write_bytes(whole[name])
        self.assertEqual(self.transfer(fetch=NAME)[0], 0, "as it was, it is whole")

    def test_an_unreachable_bucket_leaves_the_site_unchanged_and_the_next_run_recovers(self):
        before = self.rows(), tree(self.bench.site())
        self.done("backup", self.request())
        (self.keys / "secretKey").write_text("wrong")
        code, said = self.transfer(**self.storing(NAME))
        self.assertEqual((code, said["code"]), (1, "CredentialsRefused"), said)
        (self.keys / "secretKey").write_text(KEYS["secretKey"])
        self.assertEqual((self.rows(), tree(self.bench.site())), before)
        self.backed_up()


# The tests of the base class run in its own module.
del BackupCase

if __name__ == "__main__":
    unittest.main()
