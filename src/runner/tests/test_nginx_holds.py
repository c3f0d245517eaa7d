"""A real nginx answers 503 for sites whose schema is not the one of the image's code, and for no others."""

import http.client
import json
import os
import pathlib
import random
import threading
import time
import unittest

from test_nginx import TEMPLATE, NginxCase

# gunicorn, as the other server of this nginx: `/maintenance` is Frappe's page.
GUNICORN = '''
    location /maintenance { proxy_pass http://127.0.0.1:@PORT@/gunicorn/maintenance; }
    location /gunicorn/maintenance { add_header Retry-After 7 always; return 503 "Frappe's page"; }
    location / { return 200 "site $frappe_site"; }
'''
HELD = (503, "30", "This site is being updated. Please try again soon.\n")
SITES = 1000
THREADS = 8
LOAD_SECONDS = 8
# Time within which a change takes effect.
EFFECT_SECONDS = 1.5


class HoldCase(NginxCase):
    template = TEMPLATE.replace('    location / { return 200 "site $frappe_site"; }\n', GUNICORN)

    def begin(self):
        """The image has Frappe and ERPNext."""
        for app in ("frappe", "erpnext"):
            package = self.folder / "apps" / app / app
            package.mkdir(parents=True, exist_ok=True)
            (package / "hooks.py").write_text(f"app_name = {app!r}\n")
        super().begin()

    def put(self, folder, name, text):
        folder = self.folder / "sites" / folder
        folder.mkdir(exist_ok=True)
        part = folder / f".{name}.part"
        part.write_text(text)
        part.rename(folder / name)

    def record(self, site, **apps):
        """Writes the site's record: each app's schema is the image's unless given."""
        apps = {app: {"version": "1", "schema": schema or self.schema(app)} for app, schema in apps.items()}
        self.put(".schemas", site, json.dumps({"identity": "id-1", "apps": apps}))

    def schema(self, app):
        import sys
        from support import RUNNER
        sys.path.insert(0, str(RUNNER.parent))
        from runner_code import schema_of
        return schema_of(str(self.folder / "apps" / app / app))

    def get(self, host, path="/", method="GET"):
        """Status, Retry-After and body, and the site in X-Frappe-Hold."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            return (answer.status, answer.headers["Retry-After"], answer.read().decode()), answer.headers["X-Frappe-Hold"]
        except (OSError, http.client.HTTPException):
            return (0, None, ""), None
        finally:
            connection.close()

    def workers(self):
        """Processes that answer: a reload replaces them."""
        master = (self.folder / "nginx.pid").read_text().strip()
        return pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()

    def until_held(self, host, is_held=True):
        begun = time.monotonic()
        while (self.get(host)[0][0] == 503) != is_held:
            self.assertLess(time.monotonic() - begun, 15, f"{host} is {'not ' * is_held}held")
            time.sleep(0.02)
        return time.monotonic() - begun


    def until_answered(self, statuses):
        """Waits until the hosts are answered so; a worker from before the first reload may answer beside the others for a moment."""
        begun = time.monotonic()
        while (found := {host: self.get(host)[0][0] for host in statuses}) != statuses:
            self.assertLess(time.monotonic() - begun, 15, found)
            time.sleep(0.02)


class HoldTest(HoldCase):
    def test_a_held_site_is_answered_for_all_hosts_and_paths_and_others_are_served(self):
        self.lead("other.com", "other.example.com")
        self.until("site other.example.com", "other.com")
        time.sleep(1)
        workers = self.workers()
        self.record("shop.example.com", frappe="0" * 16, erpnext=None)
        self.record("other.example.com", frappe=None, erpnext=None)
        self.until_held("shop.com")
        for host in ("shop.com", "shop.example.com", "SHOP.com:8080"):
            for path in ("/", "/assets/x.js", "/socket.io/?x=1", "/api/method/ping", "/maintenance", "/.frappe-hold", "/files/a%20b"):
                for method in ("GET", "POST"):
                    self.assertEqual(self.get(host, path, method), (HELD, "shop.example.com"), f"{method} {host}{path}")
        for host in ("other.com", "other.example.com", "unknown.com"):
            self.assertEqual(self.get(host)[0][0], 200)
            self.assertEqual(self.get(host, "/assets/none.js")[0][0], 404)
        self.record("shop.example.com", frappe=None, erpnext=None)
        self.assertLess(self.until_held("shop.com", False), EFFECT_SECONDS)
        self.put(".holds", "shop.example.com", "id-1\n")
        self.assertLess(self.until_held("shop.com"), EFFECT_SECONDS)
        (self.folder / "sites/.holds/shop.example.com").unlink()
        self.assertLess(self.until_held("shop.com", False), EFFECT_SECONDS)
        self.assertEqual(self.workers(), workers, "without a reload")

    def test_only_a_record_of_another_schema_holds_a_site(self):
        self.until("site shop.example.com", "shop.com")
        self.record("a.com", frappe=None)
        self.record("b.com", frappe=None, hrms="0" * 16)
        self.put(".schemas", "c.com", "{")
        self.record("d.com")
        self.until_answered({"a.com": 200, "b.com": 503, "c.com": 200, "d.com": 200, "e.com": 200})
        self.put(".schemas", "b.com", "{")
        (self.folder / "sites/.schemas/Not A Site").write_text("{}")
        time.sleep(1)
        self.assertEqual(self.get("b.com")[0][0], 503, "nothing changes while the record cannot be read")
        (self.folder / "sites/.schemas/b.com").unlink()
        self.until_held("b.com", False)
        self.assertIn("'Not A Site' is skipped", (self.folder / "said").read_text())
        self.assertIsNone(self.process.poll())

    def test_a_503_of_gunicorn_is_passed_on(self):
        self.until("site shop.example.com", "shop.com")
        time.sleep(1)
        self.assertEqual(self.get("shop.com", "/maintenance"), ((503, "7", "Frappe's page"), None))
        self.assertEqual(self.get("shop.com", "/.frappe-hold")[0][0], 404, "only for held sites")

    def test_a_new_pod_holds_from_its_start(self):
        self.until("site shop.example.com", "shop.com")
        self.end()
        self.record("shop.example.com", frappe="0" * 16)
        self.lead("other.com", "other.example.com")
        early = 0
        for _ in range(5):
            self.begin()
            for host in ("shop.com", "shop.example.com"):
                while (found := self.get(host)[0])[0] != 503:
                    self.assertIn(found, ((0, None, ""), (200, None, "site held.invalid")))
                    self.assertIsNone(self.process.poll())
                    early += found[0] == 200
            self.assertEqual(self.get("other.com")[0][2], "site other.example.com")
            self.record("shop.example.com", frappe=None)
            self.until("site shop.example.com", "shop.com")
            self.assertEqual(self.get("shop.example.com")[0][2], "site shop.example.com")
            self.record("shop.example.com", frappe="0" * 16)
            self.end()
        print(f"5 starts: {early} requests led to no site before the template was corrected, none to the held one")

    def test_an_unknown_template_serves_the_site_after_a_while(self):
        self.until("site shop.example.com", "shop.com")
        self.end()
        self.record("shop.example.com", frappe="0" * 16)
        text = (self.folder / "template").read_text().replace("server {", "server # {\n{")
        (self.folder / "template").write_text(text.replace("Origin $scheme://$frappe_site", "Origin $http_origin").replace("$uri =404", "$uri /.bundles$uri =404"))
        self.begin()
        self.until("site held.invalid", "shop.com")
        self.until("site shop.example.com", "shop.com")

    def test_an_unknown_template_is_logged_once(self):
        self.end()
        text = (self.folder / "template").read_text().replace("server {", "server # {\n{")
        (self.folder / "template").write_text(text)
        self.begin()
        self.until("site shop.example.com", "shop.com")
        time.sleep(1)
        self.assertEqual((self.folder / "said").read_text().count("no server block that this runner knows"), 1)

    def test_only_held_sites_are_held_under_load(self):
        names = [f"site-{number}.example.com" for number in range(SITES)]
        for name in names:
            self.record(name, frappe=None, erpnext=None)
            self.lead(f"www.{name}", name)
        self.until(f"site {names[-1]}", f"www.{names[-1]}")
        # Of each site: whether it is held, and since when.
        held = {name: (False, 0) for name in names}
        wrong, answers, stop = [], {200: 0, 503: 0}, threading.Event()

        def load(seed):
            chance = random.Random(seed)
            while not stop.is_set():
                name = chance.choice(names[:60] if chance.random() < 0.5 else names)
                before, begun = held[name], time.monotonic()
                status = self.get(chance.choice(("", "www.")) + name)[0][0]
                answers[status] = answers.get(status, 0) + 1
                if held[name] is before and begun - before[1] > EFFECT_SECONDS and status != (503 if before[0] else 200):
                    wrong.append((name, status, before, begun))

        threads = [threading.Thread(target=load, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        chance, end, changes = random.Random(7), time.monotonic() + LOAD_SECONDS, 0
        while time.monotonic() < end:
            name = chance.choice(names[:60])
            is_held = not held[name][0]
            held[name] = (is_held, time.monotonic() + 60)
            if changes % 3 == 2 and is_held:
                self.put(".holds", name, "id-1\n")
            elif (self.folder / "sites/.holds" / name).exists():
                (self.folder / "sites/.holds" / name).unlink()
            else:
                self.record(name, frappe="0" * 16 if is_held else None)
            held[name] = (is_held, time.monotonic())
            changes += 1
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(sorted(answers), [200, 503], answers)
        self.assertTrue(answers[200] > 500 and answers[503] > 50 and changes > 50, (answers, changes))
        print(f"{SITES} sites, {changes} holds and releases in {LOAD_SECONDS} s, {THREADS} clients: {answers}, no other answer")


if __name__ == "__main__":
    unittest.main()
