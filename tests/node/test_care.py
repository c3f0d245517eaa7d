"""What a user does with a site that exists: files, settings, passwords, another host, backup and restore, and a last backup; and what
happens meanwhile: another version of the operator, a full volume."""

import hashlib
import secrets
import unittest

import suite
from installed import OPERATORS_NAMESPACE, Journey, timed, until

HOST, OTHER_HOST = "shop.example.com", "www.shop.test"
SITES = "/home/frappe/frappe-bench/sites"


class CareTest(Journey):
    SPACE = "care"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.keys = {"accessKey": "access", "secretKey": secrets.token_hex(12)}
        cls.node.apply(*suite.object_store(cls.SPACE, cls.keys), suite.bench("market", cls.SPACE, storageClassName="memory", storageSize="64Mi"),
                       suite.site("shop", cls.SPACE, "market", HOST, deletionPolicy="Backup"))
        timed("the S3 service is ready", cls.kubectl, "rollout", "status", "deployment/s3", "--timeout=120s")

    def setUp(self):
        self.ready("frappebench", "market", 240)
        self.ready("frappesite", "shop", 240)
        ((self.database,), _) = self.databases()

    def backups(self):
        """Folders of backups in the bucket, with the names of their files."""
        listed = self.kubectl("exec", "deployment/s3", "--", "find", "/data/objects/frappe-backups", "-type", "f")
        found = {}
        for path in listed.split():
            *_, folder, name = path.split("/")
            found.setdefault(folder, set()).add(name)
        return found

    def rows(self):
        return self.sql(f"SELECT name FROM `{self.database}`.tabNote ORDER BY name").split()

    def test_1_files_are_uploaded_and_served(self):
        folder = f"{SITES}/{HOST}/public/files"
        self.run_in("gunicorn", "sh", "-c", f"cat >{folder}/price-list.txt", given="one apple: 1\n")
        self.assertEqual(self.ask(HOST, "/files/price-list.txt"), (200, "one apple: 1\n"))

    def test_2_settings_passwords_and_hosts_are_changed(self):
        self.change("frappesite", "shop", spec={"siteConfig": {"mute_emails": 1}, "additionalDomains": [OTHER_HOST]})
        timed("a setting is changed", until, "the setting", 120,
              lambda: '"mute_emails": 1' in self.run_in("gunicorn", "cat", f"{SITES}/{HOST}/site_config.json"))
        timed("another host is served", until, "the host", 60, lambda: self.ask(OTHER_HOST)[0] == 200)
        page = "/socket.io/?EIO=4&transport=polling"
        self.assertEqual(self.ask(OTHER_HOST, page, f"Origin: https://{OTHER_HOST}")[1][:1], "0")

        password = secrets.token_hex(12)
        self.change("secret", "shop-admin-password", stringData={"password": password})
        digest = hashlib.sha256(password.encode()).hexdigest()
        timed("the password of Administrator is changed", until, "the password", 120,
              lambda: digest == self.run_in("gunicorn", "sh", "-c", f"cat {SITES}/{HOST}/admin-password-set || true"))

        password = secrets.token_hex(12)
        self.change("secret", "shop-db-password", stringData={"password": password})
        timed("the password of the database is changed", until, "the password", 120,
              lambda: password in self.run_in("gunicorn", "cat", f"{SITES}/{HOST}/site_config.json"))
        timed("pages are served with it", until, "a page", 60, lambda: self.ask(HOST)[0] == 200)
        self.ready("frappesite", "shop", 60)

    def test_3_a_restored_site_is_as_it_was_backed_up(self):
        self.sql(f"CREATE TABLE `{self.database}`.tabNote (name varchar(140) PRIMARY KEY); INSERT INTO `{self.database}`.tabNote VALUES ('a'), ('b')")
        self.node.apply(suite.backup("before-the-sale", self.SPACE, "shop"))
        timed("the backup is made", self.reason, "sitebackup", "before-the-sale", "BackupSucceeded", 180)
        (name,) = [it for it in self.backups() if it.startswith("before-the-sale")]
        self.assertEqual(self.backups()[name], {"manifest.json", "database.sql.gz", "public-files.tgz", "private-files.tgz"})

        self.sql(f"DELETE FROM `{self.database}`.tabNote WHERE name = 'a'; INSERT INTO `{self.database}`.tabNote VALUES ('c')")
        self.run_in("gunicorn", "rm", f"{SITES}/{HOST}/public/files/price-list.txt")
        self.node.apply(suite.backup("back", self.SPACE, "shop", restore={"backupName": name, "restoreDatabase": True, "restoreFiles": True}))
        timed("the site is restored", self.reason, "sitebackup", "back", "RestoreSucceeded", 240)
        self.assertEqual(self.rows(), ["a", "b"])
        self.assertEqual(self.ask(HOST, "/files/price-list.txt"), (200, "one apple: 1\n"))
        timed("pages are served", until, "a page", 60, lambda: self.ask(HOST)[0] == 200)

    def test_4_jobs_continue_while_the_operator_is_replaced(self):
        before = set(self.backups())
        self.node.apply(suite.backup("meanwhile", self.SPACE, "shop"), suite.site("second", self.SPACE, "market", "second.example.com"))
        operators = ["--namespace", OPERATORS_NAMESPACE, "rollout"]
        self.node.kubectl(*operators, "restart", "deployment")
        timed("all replicas are replaced", self.node.kubectl, *operators, "status", "deployment", "--timeout=180s")
        self.reason("sitebackup", "meanwhile", "BackupSucceeded", 180)
        self.ready("frappesite", "second", 180)
        self.assertEqual(len(set(self.backups()) - before), 1)
        runs = {it["metadata"]["name"]: it.get("status", {}) for it in self.get("jobs")["items"]}
        self.assertEqual([name for name, status in runs.items() if status.get("failed") or not status.get("succeeded")], [])
        self.assertEqual(self.ask("second.example.com")[0], 200)
        self.kubectl("delete", "frappesite/second", "--timeout=120s")

    def test_5_a_full_volume_is_named(self):
        self.run_in("gunicorn", "sh", "-c", f"cat /dev/zero >{SITES}/zeros 2>/dev/null || true")
        self.change("frappesite", "shop", spec={"siteConfig": {"mute_emails": 0}})
        self.named("frappesite", "shop", "No space left", 120)
        self.assertEqual(self.ask(HOST)[0], 200)
        self.run_in("gunicorn", "rm", f"{SITES}/zeros")
        timed("the setting is changed", until, "the setting", 120,
              lambda: '"mute_emails": 0' in self.run_in("gunicorn", "cat", f"{SITES}/{HOST}/site_config.json"))
        self.ready("frappesite", "shop", 60)

    def test_6_a_deleted_site_leaves_its_last_backup(self):
        before = set(self.backups())
        timed("the site is gone", self.kubectl, "delete", "frappesite/shop", "--timeout=240s")
        (last,) = set(self.backups()) - before
        self.assertIn("-final-", last)
        self.assertEqual(self.databases(), ([], []))
        self.assertEqual(self.ask(HOST)[0], 404)
        self.assertEqual(self.run_in("gunicorn", "sh", "-c", f"ls -d {SITES}/{HOST} 2>/dev/null || true"), "")


if __name__ == "__main__":
    unittest.main()
