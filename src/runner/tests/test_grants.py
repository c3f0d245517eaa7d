"""Privileges of a site's account: the rendered Grant, executed on a real server as the MariaDB operator does."""

import pathlib
import re
import subprocess
import unittest

from support import PASSWORD, ServerTest

SNAPSHOTS = pathlib.Path(__file__).resolve().parents[2] / "controllers/site/tests/snapshots"
# Two sites with very similar names, and the name of a table of each.
OWN, OTHER = "shop0123456789ab", "shop0123456789abc"
CAN, CANNOT = "can", "cannot"
# Statements and their results. The order matters: later statements use objects of earlier ones.
TRIED = [
    ("CREATE TABLE t (a int PRIMARY KEY)", CAN),
    ("INSERT INTO t VALUES (1); UPDATE t SET a = 2; DELETE FROM t; SELECT * FROM t", CAN),
    ("ALTER TABLE t ADD b int; CREATE INDEX i ON t (b)", CAN),
    ("CREATE TABLE u (a int, FOREIGN KEY (a) REFERENCES t (a))", CAN),
    ("CREATE VIEW v AS SELECT * FROM t; SHOW CREATE VIEW v", CAN),
    ("CREATE PROCEDURE p() SELECT 1; CALL p(); DROP PROCEDURE p", CAN),
    ("CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.b = 1", CAN),
    ("CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t", CAN),
    ("CREATE TEMPORARY TABLE w (a int); LOCK TABLES t WRITE; UNLOCK TABLES", CAN),
    ("DROP VIEW v; DROP TABLE u; DROP TABLE t", CAN),
    (f"SELECT * FROM {OTHER}.t", CANNOT),
    (f"INSERT INTO {OTHER}.t VALUES (7)", CANNOT),
    (f"DROP TABLE {OTHER}.t", CANNOT),
    (f"DROP DATABASE {OTHER}", CANNOT),
    ("CREATE DATABASE elsewhere", CANNOT),
    ("SELECT * FROM mysql.global_priv", CANNOT),
    ("CREATE USER thief", CANNOT),
    (f"DROP USER '{OWN}'@'%'", CANNOT),
    (f"GRANT SELECT ON {OWN}.* TO '{OTHER}'@'%'", CANNOT),
    (f"SET PASSWORD FOR '{OTHER}'@'%' = PASSWORD('x')", CANNOT),
    ("SET GLOBAL max_connections = 1", CANNOT),
    ("SELECT 1 INTO OUTFILE '/tmp/out-of-the-database'", CANNOT),
    # In MariaDB, the privilege to drop tables is also the privilege to drop their database.
    (f"DROP DATABASE {OWN}", CAN),
    (f"CREATE DATABASE {OWN}; CREATE TABLE {OWN}.t (a int)", CAN),
]


def rendered():
    """Privileges, database pattern and grant option of the rendered Grant."""
    text = next(SNAPSHOTS.glob("*Grant-shop-grant.snap")).read_text()
    privileges = re.search(r"privileges:\n((?:\s+- .+\n)+)", text).group(1)
    return ([line.strip()[2:] for line in privileges.strip().splitlines()], re.search(r"grantOption: (\w+)", text).group(1),
            re.search(r"database: (\w+)", text).group(1), re.search(r"username: (\w+)", text).group(1))


def grant(server, database, account):
    """The MariaDB operator's statement for a Grant."""
    privileges, option, *_ = rendered()
    with_option = " WITH GRANT OPTION" if option == "true" else ""
    server.root(f"CREATE DATABASE IF NOT EXISTS `{database}`; CREATE OR REPLACE USER '{account}'@'%' IDENTIFIED BY '{PASSWORD}'; "
                f"GRANT {','.join(privileges)} ON `{database}`.* TO '{account}'@'%'{with_option}")


class GrantsTest(ServerTest):
    def as_account(self, account, statement, database=OWN):
        return subprocess.run(["mariadb", "--no-defaults", "--protocol=tcp", "--host=127.0.0.1", f"--port={self.server.port}",
                               f"--user={account}", f"--password={PASSWORD}", "-NB", "-e", statement, database],
                              capture_output=True, text=True, check=False)

    def test_what_an_account_can_and_cannot_do(self):
        for name in (OWN, OTHER):
            grant(self.server, name, name)
        self.server.root(f"CREATE TABLE {OTHER}.t (a int); INSERT INTO {OTHER}.t VALUES (1)")
        rows = []
        for statement, expected in TRIED:
            database = OWN if "CREATE DATABASE " + OWN not in statement else "information_schema"
            done = self.as_account(OWN, statement, database)
            found = CANNOT if done.returncode else CAN
            rows.append((found, statement, done.stderr.strip().splitlines()[-1:]))
            self.assertEqual(found, expected, f"{statement}: {done.stderr}")
        print()
        for found, statement, error in rows:
            print(f"{found:<6} | {statement[:90]} {error[0].split(': ', 1)[0] if error else ''}")
        self.assertEqual(self.server.root(f"SELECT * FROM {OTHER}.t").stdout.strip(), "1", "the neighbour's data is whole")

    def test_names_contain_no_wildcard(self):
        _, option, database, account = rendered()
        self.assertEqual((option, database), ("false", account), "one name for both, and no grant option")
        self.assertRegex(database, "^[a-z][a-z0-9]{1,31}$")
        # The reason for the rule: with an underscore, an account could access another database.
        for name in ("a_b", "axb"):
            self.server.root(f"CREATE OR REPLACE DATABASE {name}; CREATE TABLE {name}.t (a int)")
        grant(self.server, "a_b", "underscored")
        self.assertEqual(self.as_account("underscored", "DROP DATABASE axb", "a_b").returncode, 0)


if __name__ == "__main__":
    unittest.main()
