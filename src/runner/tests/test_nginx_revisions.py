"""Two real nginx of a bench with two revisions: the newest leads the sites of the older one there, whole requests, while sites move."""

import http.client
import http.server
import json
import pathlib
import random
import shutil
import socket
import tempfile
import threading
import time
import unittest

from test_nginx_holds import HoldCase

# The relevant parts of the image's template.
TEMPLATE = '''
map $http_x_forwarded_proto $proxy_x_forwarded_proto { default $scheme; https https; }
server {
    listen 127.0.0.1:@PORT@;
    root @SITES@;
    client_max_body_size 50m;
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Forwarded-For;
    real_ip_recursive off;
    add_header X-Frame-Options "SAMEORIGIN";
    location /assets {
        try_files $uri =404;
    }
    location /socket.io {
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        proxy_set_header X-Frappe-Site-Name $frappe_site;
        proxy_set_header Origin $proxy_x_forwarded_proto://$frappe_site;
        proxy_set_header Host $host;
        proxy_pass http://127.0.0.1:@BACKEND@;
    }
    location /which { return 200 "@NUMBER@ $frappe_site"; }
    location / {
        try_files /$frappe_site/public/$uri @webserver;
    }
    location @webserver {
        proxy_http_version 1.1;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $proxy_x_forwarded_proto;
        proxy_set_header X-Frappe-Site-Name $frappe_site;
        proxy_set_header Host $host;
        proxy_redirect off;
        proxy_pass http://127.0.0.1:@BACKEND@;
    }
}
'''
SITES, BATCH, THREADS = 200, 20, 4
# Times within which a change takes effect, and within which addresses are read again.
EFFECT_SECONDS, RELOAD_SECONDS = 1.0, 4
BODY_BYTES = 3 << 20


class Backend(http.server.BaseHTTPRequestHandler):
    """Says what it got; repeats what it reads after an upgrade."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade") == "websocket":
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
            while data := self.connection.recv(100):
                self.connection.sendall(data.upper())
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        text = json.dumps({"revision": self.server.revision, "path": self.path, "method": self.command, "headers": dict(self.headers.items()),
                           "bytes": len(body), "sum": sum(body)}).encode()
        self.send_response(302 if "redirect" in self.path else 200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Location", "http://elsewhere.com/x")
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = do_GET

    def log_message(self, *_):
        pass


class Pod(HoldCase):
    """nginx of one revision, with a server behind it."""

    number, volume, backend = 0, None, None

    def put_template(self, origin, missing="=404"):
        text = TEMPLATE.replace("@PORT@", str(self.port)).replace("@SITES@", str(self.folder / "sites")).replace("@NUMBER@", str(self.number))
        (self.folder / "template").write_text(text.replace("@BACKEND@", str(self.backend)))

    def begin(self):
        sites = self.folder / "sites"
        if not sites.is_symlink():
            shutil.rmtree(sites)
            sites.symlink_to(self.volume if self.number == 1 else self.volume / f".revisions/{self.number}")
        self.environment |= {"SITE_RUNNER_VOLUME": str(self.volume), "SITE_RUNNER_REVISION": str(self.number), "SITE_RUNNER_NGINX_RESOLVE_SECONDS": "0.5"}
        super().begin()

    def lead(self, host, site):
        """The first host is led by the test itself."""

    def run_none(self):
        """Of no test."""


class RevisionsTest(unittest.TestCase):
    def setUp(self):
        self.pods = {}
        self.volume = None
        for number in (1, 2):
            pod = Pod("run_none")
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
            server.revision, server.daemon_threads = number, True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.addCleanup(server.server_close)
            self.addCleanup(server.shutdown)
            pod.number, pod.backend = number, server.server_address[1]
            if number == 1:
                # Its own folder is made by its setUp.
                pod.volume = self.volume = self.make_volume()
            else:
                pod.volume = self.volume
                self.route({"1": f"127.0.0.1:{self.pods[1].port}"})
            pod.setUp()
            self.addCleanup(pod.doCleanups)
            self.pods[number] = pod
        self.front, self.older = self.pods[2], self.pods[1]
        self.add("new.com", 2)
        self.add("old.com", 1)
        self.until("old.com", "1 old.com")
        self.until("new.com", "2 new.com")
        # Workers from before the template was corrected may respond a moment longer.
        time.sleep(0.5)

    def make_volume(self):
        volume = pathlib.Path(tempfile.mkdtemp(prefix="site-runner-volume-"))
        self.addCleanup(shutil.rmtree, volume, ignore_errors=True)
        volume.chmod(0o755)
        for name in (".revisions/2", ".holds", ".hosts", ".schemas"):
            (volume / name).mkdir(parents=True)
        (volume / "apps.txt").write_text("frappe\n")
        (volume / ".revisions/.token").write_text("0123456789abcdef" * 2)
        return volume

    def route(self, routes):
        part = self.volume / ".revisions/.part"
        part.write_text(json.dumps(routes))
        part.rename(self.volume / ".revisions/routes.json")

    def directory(self, site, number):
        return (self.volume if number == 1 else self.volume / f".revisions/{number}") / site

    def add(self, site, number):
        self.directory(site, number).mkdir()

    def move(self, site, number):
        self.directory(site, 3 - number).rename(self.directory(site, number))

    def hold(self, site, is_held=True):
        path = self.volume / ".holds" / site
        path.write_text("id-1\n") if is_held else path.unlink()

    def which(self, host, pod=None):
        """Status and text of a quick answer."""
        (status, retry, text), _ = (pod or self.front).get(host, "/which")
        self.assertEqual(retry, "30" if status == 503 else None)
        return text if status == 200 else status

    def until(self, host, expected, pod=None, seconds=15):
        begun = time.monotonic()
        while (found := self.which(host, pod)) != expected:
            self.assertLess(time.monotonic() - begun, seconds, f"{host}: {found}, not {expected}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def ask(self, host, path, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.front.port, timeout=10)
        self.addCleanup(connection.close)
        connection.request(method, path, body, {"Host": host, **headers})
        answer = connection.getresponse()
        return answer, json.loads(answer.read())

    def test_whole_requests_are_led_to_the_older_revision(self):
        body = random.Random(1).randbytes(BODY_BYTES)
        for host in ("old.com", "new.com"):
            for path in ("/a%20b/c%2Fd?x=%26&y=%C3%A4+1", "/api//method/..%2fx?", "/%E2%82%AC%3F?q=a%3Db;c", "/files/%25"):
                answer, seen = self.ask(host, path)
                self.assertEqual((seen["path"], seen["revision"]), (path, 1 if host == "old.com" else 2))
                self.assertEqual((answer.headers["X-Frappe-Revision"], answer.headers.get_all("X-Frame-Options")), ("1" if host == "old.com" else None, ["SAMEORIGIN"]))
            self.assertEqual(self.front.get(host, "/.frappe-hold")[0][0], 404)
            _, seen = self.ask(host, "/upload", "POST", body)
            self.assertEqual((seen["method"], seen["bytes"], seen["sum"]), ("POST", len(body), sum(body)))
            answer, seen = self.ask(host, "/redirect", "PUT", b"x", **{"Cookie": "sid=1", "X-Forwarded-For": "6.6.6.6, 198.51.100.7", "X-Forwarded-Proto": "https"})
            self.assertEqual((answer.status, answer.headers["Location"]), (302, "http://elsewhere.com/x"))
            headers = seen["headers"]
            self.assertEqual({key: headers[key] for key in ("Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Frappe-Site-Name", "Cookie")},
                             {"Host": host, "X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https", "X-Frappe-Site-Name": host, "Cookie": "sid=1"})
            _, seen = self.ask(host, "/x", **{"X-Frappe-Client": "6.6.6.6", "X-Frappe-Front": "guessed"})
            self.assertEqual(seen["headers"]["X-Forwarded-For"], "127.0.0.1", "only nginx of a later revision is believed")
            with socket.create_connection(("127.0.0.1", self.front.port), timeout=10) as connection:
                connection.sendall(f"GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode())
                self.assertIn(b"101 Switching Protocols", connection.recv(1000))
                connection.sendall(b"hello")
                self.assertEqual(connection.recv(100), b"HELLO")

    def test_holds_and_places_take_effect_without_a_reload(self):
        self.assertEqual(self.front.get("new.com", "/.frappe-revision-1")[0][0], 404)
        self.add("kept.com", 1)
        self.until("kept.com", "1 kept.com")
        workers = self.front.workers()
        self.hold("old.com")
        self.assertLess(self.until("old.com", 503), EFFECT_SECONDS)
        self.assertEqual(self.front.get("old.com")[1], "old.com")
        self.move("old.com", 2)
        time.sleep(0.5)
        self.assertEqual([self.which("old.com", pod) for pod in (self.front, self.older)], [503, 503])
        self.hold("old.com", False)
        self.assertLess(self.until("old.com", "2 old.com"), EFFECT_SECONDS)
        self.assertEqual(self.which("old.com", self.older), 503, "the site is in the folder of a later revision")
        self.assertEqual((self.which("new.com"), self.which("kept.com"), self.which("unknown.com")), ("2 new.com", "1 kept.com", "2 unknown.com"))
        self.assertEqual(self.front.workers(), workers)
        (self.volume / ".hosts/www.kept.com").write_text("kept.com\n")
        self.until("www.kept.com", "1 kept.com")
        time.sleep(0.5)
        workers = self.front.workers()
        # A record of another schema: of a site elsewhere it says nothing here.
        for site in ("kept.com", "new.com"):
            (self.volume / ".schemas" / site).write_text(json.dumps({"identity": "id-1", "apps": {"frappe": {"version": "1", "schema": "0" * 16}}}))
        self.until("new.com", 503)
        self.until("kept.com", 503, self.older)
        (self.volume / ".schemas/kept.com").unlink()
        self.until("kept.com", "1 kept.com")
        self.assertEqual(self.front.workers(), workers)

    def test_an_unknown_address_holds_sites_until_it_is_known(self):
        self.front.end()
        self.route({"1": "nowhere.invalid:8080", "2": f"127.0.0.1:{self.front.port}", "x": "a:1", "0": 7})
        self.front.begin()
        self.until("new.com", "2 new.com")
        self.until("old.com", 503)
        self.route({"1": f"127.0.0.1:{self.older.port}"})
        self.assertLess(self.until("old.com", "1 old.com"), RELOAD_SECONDS)
        for text in ("[", "[]", '{"1": 7}', '{"1": "a;}:1"}'):
            (self.volume / ".revisions/routes.json").write_text(text)
            self.until("old.com", 503)
            self.assertEqual(self.which("new.com"), "2 new.com")
            self.route({"1": f"127.0.0.1:{self.older.port}"})
            self.until("old.com", "1 old.com")
        self.assertIsNone(self.front.process.poll())

    def test_an_address_that_is_learnt_leads_nobody_to_the_wrong_server(self):
        """Workers from before the reload are asked as well as those after it."""
        self.front.end()
        self.route({})
        self.front.begin()
        self.until("old.com", 503)
        time.sleep(1)
        wrong, stop = [], threading.Event()

        def load():
            while not stop.is_set():
                if (found := self.which("old.com")) not in (503, "1 old.com"):
                    wrong.append(found)

        self.addCleanup(stop.set)
        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            self.route({"1": f"127.0.0.1:{self.older.port}"})
            self.until("old.com", "1 old.com")
            self.route({})
            self.until("old.com", 503)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_a_new_pod_leads_no_site_to_the_wrong_server(self):
        for _ in range(3):
            self.front.end()
            self.front.begin()
            while (found := self.which("old.com")) != "1 old.com":
                self.assertIn(found, (0, 503, "2 held.invalid"))

    def test_sites_move_under_load(self):
        names = [f"site-{number}.com" for number in range(SITES)]
        for name in names:
            self.add(name, 1)
        self.until(names[-1], f"1 {names[-1]}")
        time.sleep(0.5)
        # Of each site: its revision, or None while that changes.
        places = dict.fromkeys(names, 1)
        wrong, answers, stop = [], {}, threading.Event()

        def load(seed):
            chance = random.Random(seed)
            while not stop.is_set():
                name = chance.choice(names)
                before, begun = places[name], time.monotonic()
                (status, _, text), _ = self.front.get(name, "/which")
                answers[status] = answers.get(status, 0) + 1
                is_right = status == 503 or status == 200 and text in (f"1 {name}", f"2 {name}")
                if not is_right or before and before == places[name] and text != f"{before} {name}":
                    wrong.append((name, before, places[name], status, text))

        self.addCleanup(stop.set)
        threads = [threading.Thread(target=load, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        moved = 0
        for start in range(0, SITES, BATCH):
            batch = names[start : start + BATCH]
            for name in batch:
                places[name] = None
                self.hold(name)
            time.sleep(0.5)
            for name in batch:
                self.move(name, 2)
                self.hold(name, False)
                moved += 1
            time.sleep(0.5)
            for name in batch:
                places[name] = 2
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual((sorted(answers), moved), ([200, 503], SITES), answers)
        print(f"{moved} sites moved under load of {THREADS} clients: {answers}, each from the revision that has the site")


if __name__ == "__main__":
    unittest.main()
