"""A site's database, accessed by the server's command line client with the site's account.

The account needs no privileges beyond its own database. A database that the operator created is dropped and recreated; an
existing database of the user is emptied, and kept.

A dump is untrusted. Its statements are limited by the account's privileges, but the client is not: both clients have
commands that run programs and read files. So each client runs in a mode that disables its commands, and a client without such a
mode loads nothing:

- mariadb with `--sandbox`, which disables commands that access files and programs, except the editor (`\\e`) and another server
  (`\\r`), with `--binary-mode`, which disables these and all other commands except DELIMITER, and with `--local-infile=0`;
- psql after a `\\restrict` with a random key, which disables all commands; the dump's own `\\restrict` and `\\unrestrict` are
  removed.
"""

import gzip
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time

from runner_common import Failure, last_words, open_plain, replace_file, secret, secret_or_none

DATABASE_WAIT_SECONDS = int(os.environ.get("SITE_RUNNER_DATABASE_WAIT_SECONDS", "120"))
# Names that this operator chooses have no underscore; names of databases that it took over may have one.
OWN_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")
# Names in a connection Secret: a client must not parse them as an option, path or connection string.
GIVEN_USER = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
GIVEN_NAME = re.compile(r"[^-=/\\\x00-\x1f\x7f][^=/\\\x00-\x1f\x7f]{0,127}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?")
PORT = re.compile(r"[0-9]{1,5}")
COPY_BYTES = 1 << 20
# Options by which mariadb does not run client commands in a dump.
COMMANDLESS = ("--sandbox", "--binary-mode", "--local-infile=0")
SANDBOX = re.compile(rb"^/\*M?!999999")
DEFINER = re.compile(rb"/\*!\d+ DEFINER=`[^`]*`@`[^`]*`( SQL SECURITY DEFINER)? ?\*/")
# The first and last lines of a dump by pg_dump, between which psql runs no client commands.
RESTRICT = re.compile(rb"\\restrict ([A-Za-z0-9]+)")
PORTS = {"mariadb": "3306", "postgres": "5432"}
# Connections that have been idle for longer do not count as others; Frappe closes its own after each request and job.
IDLE_SECONDS = 30
# How many tables are read by one statement: it is an argument of the client.
GROUP_TABLES = 50


def database(request):
    """The database of a request: `type`, `own`, `host`, `port`, `name`. For a database that the operator did not create, missing
    fields are read from the files of the connection Secret."""
    engine = {"mariadb": MariaDb, "postgres": Postgres}.get(request.get("type", "mariadb"))
    if engine is None:
        raise Failure("RequestInvalid", "request", "database type must be mariadb or postgres")
    return engine(request)


# Name of a relation, without characters that separate columns or rows of the output.
HEX_NAME = "encode(convert_to(relname::text, 'UTF8'), 'hex')"


class Database:
    """Common to both servers."""

    engine = None
    programs = ()

    def __init__(self, request):
        self.own = request.get("own", True)
        if self.own:
            self.name = request["name"]
            self.user = request.get("user", self.name)
            self.host, self.port, self.password = request["host"], str(request["port"]), secret("password")
            if not (OWN_NAME.fullmatch(self.name) and OWN_NAME.fullmatch(self.user)):
                raise Failure("RequestInvalid", "request", "names of database and user must consist of lower-case letters, digits and _")
        else:
            self.connect(request)
        self.home = os.environ["HOME"]
        os.makedirs(self.home, exist_ok=True)
        self.client = next((found for found in map(shutil.which, self.programs) if found), None)
        if not self.client:
            raise Failure("ProgramMissing", "database", f"the image has none of the programs {' or '.join(self.programs)}")
        self.write_options()

    def connect(self, request):
        """Host and port of the request have precedence over those of the Secret; the database has the name of its account unless the
        Secret contains another name."""
        self.password = secret("connection/password")
        self.user = secret_or_none("connection/username", hidden=False)
        if not self.user:
            raise Failure("SecretInvalid", "secrets", "the connection Secret has no key username")
        self.name = secret_or_none("connection/database", hidden=False) or self.user
        self.host = request.get("host") or secret_or_none("connection/host", hidden=False)
        port = request.get("port") or secret_or_none("connection/port", hidden=False) or PORTS[self.engine]
        self.port = str(port)
        if not self.host:
            raise Failure("ConnectionInvalid", "database", "no host: set dbConfig.host, or the key host of the connection Secret")
        if not HOST.fullmatch(self.host) or not PORT.fullmatch(self.port):
            raise Failure("ConnectionInvalid", "database", "host or port of the connection Secret is invalid")
        if not GIVEN_USER.fullmatch(self.user):
            raise Failure("SecretInvalid", "secrets", "username of the connection Secret is invalid: it has a control character, or more than 128 characters")
        if not GIVEN_NAME.fullmatch(self.name):
            raise Failure("SecretInvalid", "secrets", "database of the connection Secret is invalid: it must not begin with -, and must have no =, "
                          "slash, backslash or control character, and at most 128 characters")

    def wait(self):
        """Waits until the account can log in: a grant may be created later."""
        end = time.monotonic() + DATABASE_WAIT_SECONDS
        while True:
            try:
                return self.run("SELECT 1")
            except Failure:
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    def execute(self, command, source=None):
        with open(source or os.devnull, "rb") as stdin:
            done = subprocess.run(command, stdin=stdin, capture_output=True, check=False)
        if done.returncode:
            raise Failure("DatabaseFailed", "database", last_words(done.stderr.decode(errors="replace")) or f"exit code {done.returncode}")
        return done.stdout.decode(errors="replace").strip()

    def dump(self, file):
        """Dumps the whole database to a file."""
        program = next((found for found in map(shutil.which, self.dump_programs) if found), None)
        if not program:
            raise Failure("ProgramMissing", "dump", f"the image has none of the programs {' or '.join(self.dump_programs)}")
        with tempfile.TemporaryFile(dir=self.home) as errors:
            process = subprocess.Popen([program, *self.dump_options()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
            with process.stdout as output:
                shutil.copyfileobj(output, file, COPY_BYTES)
            self.ended(process, errors, "dump")

    def load(self, path):
        """Executes a dump, without statements that the account may not execute, by a client with its commands disabled."""
        with open_plain(path) as packed, gzip.open(packed) as dump:
            self.feed(self.statements(pieces(dump)), "load")

    def feed(self, statements, step):
        """Executes statements."""
        with tempfile.TemporaryFile(dir=self.home) as errors:
            process = subprocess.Popen(self.load_command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
            try:
                with process.stdin as sink:
                    for statement in statements:
                        sink.write(statement)
            except BrokenPipeError:
                pass
            self.ended(process, errors, step)

    def fingerprints(self):
        """For each table, a checksum of its rows and a hash of its structure. They are equal after a dump was loaded."""
        found = {}
        names = [bytes.fromhex(name).decode() for name in filter(None, self.run(self.tables_statement()).split("\n"))]
        for start in range(0, len(names), GROUP_TABLES):
            group = names[start : start + GROUP_TABLES]
            for name, checksum in zip(group, self.checksums(group), strict=True):
                found[name] = f"rows {checksum}"
        digests = {}
        for statement in self.structure_statements():
            for row in filter(None, self.run(statement).split("\n")):
                digests.setdefault(bytes.fromhex(re.split(r"[\t|]", row)[0]).decode(), hashlib.sha256()).update(row.encode() + b"\n")
        for name, digest in digests.items():
            found[name] = f"{found.get(name, '')} structure {digest.hexdigest()[:32]}".strip()
        return found

    def ended(self, process, errors, step):
        if process.wait():
            errors.seek(0)
            raise Failure("DatabaseFailed", step, last_words(errors.read().decode(errors="replace")) or f"exit code {process.returncode}")

    def config(self):
        """Entries for Frappe's configuration."""
        return {"db_type": self.engine, "db_host": self.host, "db_port": int(self.port), "db_name": self.name,
                "db_user": self.user, "db_password": self.password}

    def administrators(self):
        return self.run(f"SELECT COUNT(*) FROM {self.quoted('__Auth')} WHERE doctype = 'User' AND name = 'Administrator' "
                        "AND fieldname = 'password'")

    def installed_apps(self):
        """The site's list of installed apps, as JSON."""
        return self.run(f"SELECT defvalue FROM {self.quoted('tabDefaultValue')} WHERE parent = '__global' "
                        "AND defkey = 'installed_apps'")


class MariaDb(Database):
    """MariaDB or MySQL."""

    engine = "mariadb"
    programs = ("mariadb", "mysql")
    dump_programs = ("mariadb-dump", "mysqldump")

    def config(self):
        # A malicious server can respond to a query with a request for a local file: always disabled, whatever the bench sets.
        return {**super().config(), "local_infile": 0}

    def write_options(self):
        self.options = os.path.join(self.home, ".my.cnf")
        lines = ["[client]", f"host={self.host}", f"port={self.port}", f"user={option(self.user)}",
                 f"password={option(self.password)}", "protocol=tcp", ""]
        replace_file(self.options, "\n".join(lines), 0o600)

    def quoted(self, table):
        return f"{identifier(self.name)}.{identifier(table)}"

    def run(self, statement, source=None):
        """Executes a statement and returns its rows as text; or executes the content of the file `source`."""
        command = [self.client, f"--defaults-extra-file={self.options}", "--batch", "--skip-column-names"]
        command += [f"--database={self.name}"] if source else ["--execute", statement]
        return self.execute(command, source)

    def dump_options(self):
        """A consistent snapshot of all tables without a lock, as in Frappe's backup."""
        return [f"--defaults-extra-file={self.options}", "--single-transaction", "--quick", "--lock-tables=false",
                "--no-tablespaces", "--default-character-set=utf8mb4", self.name]

    def load_command(self):
        return [self.client, f"--defaults-extra-file={self.options}", *COMMANDLESS, "--default-character-set=utf8mb4",
                f"--database={self.name}"]

    def refuse_client(self):
        """Fails if the client cannot disable its commands."""
        known = subprocess.run([self.client, "--no-defaults", *COMMANDLESS, "--version"], stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, check=False)
        if known.returncode:
            raise Failure("ClientTooOld", "database", f"{os.path.basename(self.client)} of the image cannot disable client commands "
                          f"in a dump ({last_words(known.stderr)}): use an image with a MariaDB client of 10.6.18, 10.11.8 or later")

    @staticmethod
    def statements(pieces):
        """The dump without DEFINER clauses, which only an administrator may set, and without the sandbox line of newer dumps, which
        older clients reject."""
        for piece, begins_line in pieces:
            if not begins_line or not piece.startswith(b"/*"):
                yield piece
            elif not SANDBOX.match(piece):
                yield DEFINER.sub(b"", piece)

    def tables(self):
        return int(self.run(f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {literal(self.name)}"))

    def bytes(self):
        """Size of the tables."""
        return int(self.run(f"SELECT CAST(COALESCE(SUM(data_length), 0) AS UNSIGNED) FROM information_schema.tables WHERE table_schema = {literal(self.name)}"))

    def others(self):
        """Number of other connections of the account to this database."""
        return int(self.run(f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = {literal(self.name)} AND user = {literal(self.user)} "
                            f"AND id <> CONNECTION_ID() AND NOT (command = 'Sleep' AND time > {IDLE_SECONDS})"))

    def tables_statement(self):
        return (f"SELECT HEX(table_name) FROM information_schema.tables WHERE table_schema = {literal(self.name)} AND table_type <> 'VIEW' "
                "ORDER BY table_name")

    def checksums(self, tables):
        rows = self.run(f"CHECKSUM TABLE {', '.join(map(self.quoted, tables))}").split("\n")
        return [row.rpartition("\t")[2] for row in rows]

    def structure_statements(self):
        where = f"WHERE table_schema = {literal(self.name)} ORDER BY table_name"
        return (f"SELECT HEX(table_name), table_type, engine FROM information_schema.tables {where}",
                "SELECT HEX(table_name), ordinal_position, column_name, column_type, is_nullable, column_default, extra, collation_name "
                f"FROM information_schema.columns {where}, ordinal_position",
                "SELECT HEX(table_name), index_name, seq_in_index, column_name, non_unique, sub_part, index_type "
                f"FROM information_schema.statistics {where}, index_name, seq_in_index",
                f"SELECT HEX(table_name), MD5(view_definition) FROM information_schema.views {where}",
                "SELECT HEX(event_object_table), trigger_name, action_timing, event_manipulation, MD5(action_statement) FROM "
                f"information_schema.triggers WHERE trigger_schema = {literal(self.name)} ORDER BY event_object_table, trigger_name")

    def wipe(self):
        """Empties the database, and sets Frappe's character set if the operator created it. The account has the privileges for this."""
        if self.own:
            self.run(f"DROP DATABASE IF EXISTS {identifier(self.name)}; CREATE DATABASE {identifier(self.name)} "
                     "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        else:
            self.empty()

    def drop(self):
        if self.own:
            self.run(f"DROP DATABASE IF EXISTS {identifier(self.name)}")
        else:
            self.empty()

    def empty(self):
        rows = self.run(f"SELECT table_type, HEX(table_name) FROM information_schema.tables "
                        f"WHERE table_schema = {literal(self.name)}")
        rows += "\n" + self.run(f"SELECT routine_type, HEX(routine_name) FROM information_schema.routines "
                                f"WHERE routine_schema = {literal(self.name)}")
        statements = ["SET FOREIGN_KEY_CHECKS = 0"]
        for row in filter(None, rows.split("\n")):
            kind, name = row.split("\t")
            word = {"BASE TABLE": "TABLE", "SYSTEM VERSIONED": "TABLE"}.get(kind, kind)
            statements.append(f"DROP {word} IF EXISTS {self.quoted(bytes.fromhex(name).decode())}")
        self.run("; ".join(statements))


class Postgres(Database):
    """PostgreSQL. The user always provides database and account."""

    engine = "postgres"
    programs = ("psql",)
    dump_programs = ("pg_dump",)

    def write_options(self):
        fields = [self.host, self.port, self.name, self.user, self.password]
        line = ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields)
        replace_file(os.path.join(self.home, ".pgpass"), line + "\n", 0o600)

    def quoted(self, table):
        return '"' + table.replace('"', '""') + '"'

    def run(self, statement, source=None):
        command = [self.client, "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align",
                   "--set=ON_ERROR_STOP=1", *self.login()]
        return self.execute(command + ([] if source else [f"--command={statement}"]), source)

    def dump_options(self):
        return ["--no-password", "--no-owner", "--no-privileges", *self.login()]

    def load_command(self):
        return [self.client, "--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1", *self.login()]

    def login(self):
        return [f"--host={self.host}", f"--port={self.port}", f"--username={self.user}", f"--dbname={self.name}"]

    def refuse_client(self):
        """Fails if the client cannot disable its commands."""
        key = secrets.token_hex(16).encode()
        try:
            self.feed([b"\\restrict " + key + b"\n\\unrestrict " + key + b"\n"], "database")
        except Failure as failure:
            if "restrict" not in failure.error:
                raise
            raise Failure("ClientTooOld", "database", f"psql of the image cannot disable client commands in a dump "
                          f"({failure.error}): use an image with psql 13.22, 14.19, 15.14, 16.10, 17.6 or later") from None

    @staticmethod
    def statements(pieces):
        """The dump between a `\\restrict` with a random key and its end, without the dump's own `\\restrict`, which comes before any
        statement: later, such a line is a row of a table."""
        yield b"\\restrict " + secrets.token_hex(16).encode() + b"\n"
        head, end = True, None
        for piece, begins_line in pieces:
            if begins_line and head:
                line = piece.strip()
                if found := RESTRICT.fullmatch(line):
                    head, end = False, b"\\unrestrict " + found[1]
                    continue
                head = not line or line.startswith(b"--")
            elif begins_line and end and piece.strip() == end:
                continue
            yield piece

    def tables(self):
        return int(self.run("SELECT COUNT(*) FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S') "
                            "AND relnamespace = 'public'::regnamespace"))

    def bytes(self):
        """Size of the tables."""
        return int(self.run("SELECT pg_database_size(current_database())"))

    def others(self):
        """Number of other connections of the account to this database."""
        return int(self.run("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user "
                            "AND pid <> pg_backend_pid() AND backend_type = 'client backend' "
                            f"AND NOT (state = 'idle' AND state_change < now() - interval '{IDLE_SECONDS} seconds')"))

    def tables_statement(self):
        return (f"SELECT {HEX_NAME} FROM pg_class WHERE relkind IN ('r', 'p', 'm') AND relnamespace = 'public'::regnamespace "
                "ORDER BY relname")

    def checksums(self, tables):
        """Number of rows, and the sum of their hashes: the order of rows does not matter."""
        parts = (f"SELECT {number} AS number, COUNT(*) AS rows, COALESCE(SUM(('x' || left(md5(counted_row::text), 15))::bit(60)::bigint), 0) AS hashes "
                 f"FROM public.{self.quoted(name)} AS counted_row" for number, name in enumerate(tables))
        rows = self.run(f"SELECT rows, hashes FROM ({' UNION ALL '.join(parts)}) AS each ORDER BY number").split("\n")
        return [row.replace("|", ":") for row in rows]

    def structure_statements(self):
        where = "relnamespace = 'public'::regnamespace"
        tables = f"FROM pg_class WHERE {where} AND relkind IN ('r', 'p', 'v', 'm', 'S')"
        return (f"SELECT {HEX_NAME}, relkind {tables} ORDER BY relname",
                f"SELECT {HEX_NAME}, row_number() OVER (PARTITION BY relname ORDER BY attnum), attname, format_type(atttypid, atttypmod), attnotnull, "
                "md5(pg_get_expr(adbin, adrelid)) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid LEFT JOIN pg_attrdef ON adrelid = attrelid "
                f"AND adnum = attnum WHERE {where} AND relkind IN ('r', 'p', 'v', 'm') AND attnum > 0 AND NOT attisdropped ORDER BY relname, attnum",
                f"SELECT {HEX_NAME}, md5(pg_get_indexdef(indexrelid)) FROM pg_class JOIN pg_index ON indrelid = pg_class.oid WHERE {where} ORDER BY 1, 2",
                f"SELECT {HEX_NAME}, conname, md5(pg_get_constraintdef(pg_constraint.oid)) FROM pg_class JOIN pg_constraint ON conrelid = pg_class.oid "
                f"WHERE {where} AND contype <> 'n' ORDER BY relname, conname",
                f"SELECT {HEX_NAME}, tgname, md5(pg_get_triggerdef(pg_trigger.oid)) FROM pg_class JOIN pg_trigger ON tgrelid = pg_class.oid "
                f"WHERE {where} AND NOT tgisinternal ORDER BY relname, tgname",
                f"SELECT {HEX_NAME}, md5(pg_get_viewdef(oid)) FROM pg_class WHERE {where} AND relkind IN ('v', 'm') ORDER BY relname",
                "SELECT encode(convert_to(sequencename, 'UTF8'), 'hex'), last_value FROM pg_sequences WHERE schemaname = 'public' ORDER BY sequencename")

    def wipe(self):
        self.run("""DO $$ DECLARE statements text[]; statement text; BEGIN
            SELECT array_agg(format('DROP %s IF EXISTS %I.%I CASCADE', CASE relkind WHEN 'v' THEN 'VIEW'
                WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, 'public', relname))
                FROM pg_class INTO statements
                WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S');
            FOREACH statement IN ARRAY coalesce(statements, '{}') LOOP EXECUTE statement; END LOOP;
            SELECT array_agg(format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure)) FROM pg_proc INTO statements
                WHERE pronamespace = 'public'::regnamespace AND pg_has_role(proowner, 'USAGE');
            FOREACH statement IN ARRAY coalesce(statements, '{}') LOOP EXECUTE statement; END LOOP;
        END $$""")

    drop = wipe


def pieces(file):
    """Pieces of a file's lines, each with whether it is the beginning of a line: long lines have several pieces."""
    begins_line = True
    while piece := file.readline(COPY_BYTES):
        yield piece, begins_line
        begins_line = piece.endswith(b"\n")


def identifier(name):
    """A quoted name in a MariaDB statement."""
    return "`" + name.replace("`", "``") + "`"


def literal(text):
    """A quoted string in a MariaDB statement."""
    return f"CONVERT(0x{text.encode().hex()} USING utf8mb4)"


def option(text):
    """A quoted value in a MariaDB option file."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
