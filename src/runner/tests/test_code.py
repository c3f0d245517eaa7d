"""The code of an image, and the record of each site's schema on the volume."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest

from support import DATABASE, KILLED, RUNNER, ServerTest, Steps

sys.path.insert(0, str(RUNNER.parent))

import runner_code  # noqa: E402

STEPS_MAX = 250
# Files whose change requires a migration, and files whose change does not.
SCHEMA = ("patches.txt", "hooks.py", "geo/languages.json", "fixtures/role.json", "stock/fixtures/deep/er/role.json", "stock/custom/item.json",
          "stock/doctype/item/item.json", "deep/er/doctype/item/test_records.json")
OTHERS = ("__init__.py", "stock/doctype/item/item.py", "stock/doctype/item/item.js", "stock/doctype/item.json", "stock/hooks.py", "stock/patches.txt",
          "stock/page/item/item.json", "fixtures/readme.md", "public/doctype/item/item.json", "public/fixtures/role.json", "node_modules/doctype/x/x.json",
          "languages.json", "stock/doctype/item/deep/item.json")


class CodeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.app = self.folder / "apps/big-app/big_app"
        for path in (*SCHEMA, *OTHERS):
            self.put(path, "{}")
        (self.app / "__init__.py").write_text('"""Big."""\n__version__ = "15.27.0"\n')

    def put(self, path, text):
        (self.app / path).parent.mkdir(parents=True, exist_ok=True)
        (self.app / path).write_text(text)

    def code(self):
        with contextlib.chdir(self.folder):
            return runner_code.code_of_image()

    def schema(self):
        return self.code()["big-app"]["schema"]

    def test_each_file_that_requires_a_migration_changes_the_schema(self):
        known = {self.schema()}
        self.assertRegex(self.schema(), r"\A[0-9a-f]{16}\Z")
        for path in SCHEMA:
            before = (self.app / path).read_text()
            self.put(path, '{"changed": 1}')
            self.assertNotIn(self.schema(), known, path)
            known.add(self.schema())
            self.put(path, before)
        for path in SCHEMA:
            if path != "hooks.py":
                (self.app / path).unlink()
                self.assertNotIn(self.schema(), known, f"without {path}")
                known.add(self.schema())

    def test_other_files_do_not_change_it(self):
        before = self.schema()
        for path in OTHERS:
            self.put(path, "changed")
            self.assertEqual(self.schema(), before, path)

    def test_contents_and_paths_are_kept_apart(self):
        """One file's end is not the other's beginning."""
        self.put("fixtures/a.json", "12")
        self.put("fixtures/b.json", "3")
        before = self.schema()
        self.put("fixtures/a.json", "1")
        self.put("fixtures/b.json", "23")
        self.assertNotEqual(self.schema(), before)
        (self.app / "fixtures/b.json").rename(self.app / "fixtures/c.json")
        self.assertNotEqual(self.schema(), before)

    def test_links_are_not_followed(self):
        outside = self.folder / "outside"
        (outside / "doctype/x").mkdir(parents=True)
        (outside / "doctype/x/x.json").write_text("{}")
        before = self.schema()
        (self.app / "linked").symlink_to(outside)
        (self.app / "loop").symlink_to(self.app)
        self.assertEqual(self.schema(), before)
        (self.app / "fixtures/link.json").symlink_to(outside / "doctype/x/x.json")
        (self.app / "fixtures/gone.json").symlink_to(outside / "none")
        linked = self.schema()
        (outside / "doctype/x/x.json").write_text("changed")
        self.assertEqual(self.schema(), linked)

    def test_the_version_is_the_literal_in_the_module(self):
        for text, version in (("", ""), ("__version__ = '1.2.3-dev'\n", "1.2.3-dev"), ('__version__: str = "14.0.0"  # x\n', "14.0.0"),
                              ("from x import __version__\n", ""), (f"__version__ = '{'9' * 50}'", "9" * 32), ("\udcff__version__ = 1", "")):
            (self.app / "__init__.py").write_text(text, errors="surrogateescape")
            self.assertEqual(self.code()["big-app"]["version"], version)
        (self.app / "__init__.py").unlink()
        self.assertEqual(self.code()["big-app"]["version"], "")

    def test_only_folders_with_an_apps_code_count(self):
        (self.folder / "apps/empty").mkdir()
        (self.folder / "apps/.part/.part").mkdir(parents=True)
        (self.folder / "apps/.part/.part/hooks.py").touch()
        (self.folder / "apps/file").touch()
        self.assertEqual(list(self.code()), ["big-app"])
        shutil.rmtree(self.folder / "apps")
        self.assertEqual(self.code(), {})

    def test_a_result_has_room_in_a_termination_message(self):
        code = {f"an-app-with-a-long-name-{number}": {"version": "1" * 32, "schema": "0" * 16} for number in range(100)}
        with contextlib.redirect_stdout(io.StringIO()) as said:
            result = runner_code.with_code({"apps": sorted(code)}, code)
        self.assertLessEqual(len(json.dumps({"result": result})), 3600)
        self.assertEqual(result["apps"], sorted(code))
        self.assertTrue(0 < len(result["code"]) < 20, len(result["code"]))
        self.assertEqual(said.getvalue().count("too long"), 100 - len(result["code"]))


class RecordTest(ServerTest):
    def setUp(self):
        self.server.reset()
        self.new_bench()
        for app in ("frappe", "erpnext", "hrms"):
            self.bench.add_code(app, "first")
        self.code = self.image()

    def image(self):
        self.done("configure", {"common_site_config": {}})
        return self.bench.termination()["result"]["code"]

    def request(self, *apps, **more):
        return self.bench.request(apps=list(apps or ["erpnext"]), **more)

    def assert_recorded(self, *apps):
        wanted = {app: self.code[app] for app in sorted(apps)}
        self.assertEqual(self.bench.record(), {"identity": "id-1", "apps": wanted})
        return wanted

    def job(self, command, request, word):
        self.done(command, request)
        result = self.bench.termination()["result"]
        self.assertEqual(result, {"done": word, "code": self.bench.record()["apps"]})

    def test_configure_reports_the_code(self):
        self.assertEqual(sorted(self.code), ["erpnext", "frappe", "hrms"])
        self.bench.add_code("erpnext", "first", "second", version="1.1.0")
        after = self.image()
        self.assertEqual(after["erpnext"]["version"], "1.1.0")
        self.assertNotEqual(after["erpnext"]["schema"], self.code["erpnext"]["schema"])
        self.assertEqual(after["frappe"], self.code["frappe"])

    def test_the_record_follows_the_sites_apps(self):
        self.job("init", self.request(), "created")
        self.assert_recorded("frappe", "erpnext")
        self.job("init", self.request(), "already created")
        self.job("apply", self.request("erpnext", "hrms"), "applied")
        self.assert_recorded("frappe", "erpnext", "hrms")
        self.job("apply", self.request("erpnext", removed_apps=["hrms"]), "applied")
        self.assert_recorded("frappe", "erpnext")
        self.done("drop", self.bench.request())
        self.assertIsNone(self.bench.record())

    def test_a_job_that_was_killed_after_the_migration_is_completed_with_the_record(self):
        self.done("init", self.request())
        wanted = self.request("erpnext", "hrms")
        for step in (steps := Steps(STEPS_MAX, 3)):
            self.server.root(f"""USE {DATABASE}; DROP TABLE IF EXISTS hook_hrms, tabhrms; DELETE FROM `tabModule Def` WHERE name = 'hrms';
                UPDATE tabDefaultValue SET defvalue = '["frappe", "erpnext"]'""")
            self.done("apply", self.request())
            self.assert_recorded("frappe", "erpnext")
            killed = self.bench.run("apply", wanted, kill_at=step).returncode == KILLED
            self.done("apply", wanted)
            self.assert_recorded("frappe", "erpnext", "hrms")
            if not killed:
                break
        self.assertGreater(step, 10)
        print(f"apply: killed at {steps} and run again, the record complete every time")

    def test_a_ready_site_has_a_record(self):
        for step in (steps := Steps(STEPS_MAX, 3)):
            self.server.reset()
            shutil.rmtree(self.bench.site(), ignore_errors=True)
            shutil.rmtree(self.bench.folder / "sites/.schemas", ignore_errors=True)
            killed = self.bench.run("init", self.request(), kill_at=step).returncode == KILLED
            state = self.bench.site(".operator-state")
            if state.exists() and state.read_text().startswith("ready"):
                self.assert_recorded("frappe", "erpnext")
            if not killed:
                break
        self.assertGreater(step, 20)
        print(f"init: killed at {steps}, no ready site without a record")

    def test_an_adopted_site_is_recorded_once(self):
        self.done("init", self.request())
        for path in self.bench.site().glob(".operator-*"):
            path.unlink()
        shutil.rmtree(self.bench.folder / "sites/.schemas")
        self.job("init", self.request(adopt=True), "already created")
        self.assert_recorded("frappe", "erpnext")
        self.bench.add_code("frappe", "first", "second")
        self.job("init", self.request(adopt=True), "already created")
        self.assert_recorded("frappe", "erpnext")

    def test_a_restored_site_is_recorded(self):
        self.done("init", self.request())
        staging = {"staging": str(self.bench.folder / "staging")}
        self.done("backup", self.request(**staging))
        self.bench.add_code("erpnext", "first", "second", version="1.1.0")
        self.code = self.image()
        self.job("restore", self.request(**staging, run="nightly"), "restored")
        self.assert_recorded("frappe", "erpnext")

    def test_records_are_assumed_on_request_for_ready_sites_without_one(self):
        self.done("init", self.request())
        path = self.bench.folder / "sites/.schemas/shop.example.com"
        path.unlink()
        for name, state in (("half.example.com", "creating id-2"), ("other.example.com", "ready id-3")):
            (self.bench.folder / "sites" / name).mkdir()
            (self.bench.folder / "sites" / name / ".operator-state").write_text(state + "\n")
        self.done("configure", {"common_site_config": {}})
        self.assertFalse(path.exists(), "only on request")
        self.done("configure", {"common_site_config": {}, "assume": True})
        self.assertEqual(self.bench.record(), {"identity": "id-1", "apps": self.code, "assumed": True})
        self.assertEqual(sorted(os.listdir(path.parent)), ["other.example.com", "shop.example.com"])
        before = self.bench.record()
        self.bench.add_code("erpnext", "first", "second")
        self.done("configure", {"common_site_config": {}, "assume": True})
        self.assertEqual(self.bench.record(), before, "a record stays")
        self.bench.add_code("erpnext", "first")
        self.done("apply", self.request())
        wanted = {app: self.code[app] for app in ("erpnext", "frappe")}
        self.assertEqual(self.bench.record(), {"identity": "id-1", "apps": wanted, "assumed": True}, "the Job knows the site's apps")
        self.assertEqual(self.bench.termination()["result"]["code"], wanted)
        self.done("apply", self.request("erpnext", "hrms"))
        self.assert_recorded("frappe", "erpnext", "hrms")

    def test_another_identitys_record_is_neither_used_nor_removed(self):
        self.done("init", self.request())
        path = self.bench.folder / "sites/.schemas/shop.example.com"
        other = json.dumps({**self.bench.record(), "identity": "id-2"})
        path.write_text(other)
        self.done("apply", self.request())
        self.assertEqual(self.bench.termination()["result"], {"done": "applied"})
        self.done("drop", self.bench.request())
        self.assertEqual(path.read_text(), other)

    def test_an_invalid_record_counts_as_none(self):
        self.done("init", self.request())
        path = self.bench.folder / "sites/.schemas/shop.example.com"
        for text in ("", "{", "[]", '{"identity": "id-1"}', '{"identity": 1, "apps": {}}', '{"identity": "id-1", "apps": {"x": 1}}',
                     '{"identity": "id-1", "apps": {"x": {"version": "1", "schema": "../../../etc"}}}', "x" * 100_000):
            path.write_text(text)
            self.done("apply", self.request())
            self.assertEqual(self.bench.termination()["result"], {"done": "applied"}, text[:50])


if __name__ == "__main__":
    unittest.main()
