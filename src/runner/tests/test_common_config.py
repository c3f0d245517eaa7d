"""A user's entries of common_site_config.json: set, changed, removed, and never those of others."""

import json
import unittest

from support import KILLED, FolderTest, Steps

OWN = {"bench_id": "a-b", "redis_cache": "redis://cache:6379"}


class CommonConfig(FolderTest):
    def setUp(self):
        super().setUp()
        (self.folder / "apps/frappe").mkdir(parents=True)
        self.path = self.folder / "sites/common_site_config.json"
        self.path.write_text(json.dumps({"by_hand": 1}))

    def command(self, settings):
        return "configure", json.dumps({"common_site_config": OWN, **({"settings": settings} if settings else {})})

    def configured(self, settings):
        self.configure(self.command(settings))
        return json.loads(self.path.read_text())

    def test_entries_are_set_changed_and_removed_and_others_stay(self):
        before = {"by_hand": 1, **OWN}
        self.assertEqual(self.configured({}), before)
        first = {"server_script_enabled": 1, "mail": {"server": "smtp", "ports": [25, None]}, "nothing": None}
        self.assertEqual(self.configured(first), {**before, **first})
        self.assertEqual(self.configured({"server_script_enabled": 0}), {**before, "server_script_enabled": 0})
        self.assertEqual(self.configured({}), before)

    def test_the_operators_entries_have_precedence(self):
        self.assertEqual(self.configured({"bench_id": "other"})["bench_id"], "a-b")

    def test_a_name_that_is_none_is_refused_and_changes_nothing(self):
        before = self.configured({"a": 1})
        done = self.run_runner(command=self.command({"a b": 1}))
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(json.loads(self.path.read_text()), before)

    def test_killed_at_every_step_a_removed_entry_goes_when_it_is_repeated(self):
        for step in Steps(100):
            self.configured({"a": 1, "b": 1})
            killed = self.run_runner(step, self.command({"b": 2, "c": 3})).returncode == KILLED
            self.assertEqual(self.configured({"b": 2}), {"by_hand": 1, **OWN, "b": 2}, f"step {step}")
            if not killed:
                break
        self.assertGreater(step, 6)


if __name__ == "__main__":
    unittest.main()
