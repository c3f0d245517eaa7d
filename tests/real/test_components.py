"""The components of a bench, with commands, environment, mounts and probes of the rendered Deployments: gunicorn, workers, scheduler,
socketio, and nginx with the image's template, requested through an ingress as a browser does."""

import http.cookies
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import rendered
import report
from cluster import until
from story import Story, needs

HOST = "www.example.com"
# Address of the ingress, by which pods reach the site's public name, too.
INGRESS = "127.0.0.9"
NAMES = ("gunicorn", "socketio", "nginx", "worker-short", "worker-default", "worker-long", "scheduler")
QUEUES = ("short", "default", "long")
# Longest wait for the scheduler's first jobs: version 16 looks every four minutes.
SCHEDULER_SECONDS = 280


class Ingress(threading.Thread):
    """Passes connections to port 80 of its address on to nginx."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.create_server((INGRESS, 80), backlog=100)

    def run(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", 8080))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self.join_both, args=(client, server), daemon=True).start()

    def join_both(self, client, server):
        """Copies in both directions until both have ended."""
        with client, server:
            back = threading.Thread(target=self.copy, args=(server, client), daemon=True)
            back.start()
            self.copy(client, server)
            back.join()

    @staticmethod
    def copy(source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Browser:
    """Requests with the cookies of a session."""

    def __init__(self):
        self.cookies = {}

    def ask(self, path, data=None, host=HOST, **headers):
        """Status and text."""
        request = urllib.request.Request(f"http://{INGRESS}{path}", data=data, headers={"Host": host, **headers})
        if self.cookies:
            request.add_header("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, found, text = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            status, found, text = error.code, error.headers, error.read()
        for line in found.get_all("Set-Cookie") or []:
            self.cookies.update({name: it.value for name, it in http.cookies.SimpleCookie(line).items()})
        return status, text.decode(errors="replace")

    def log_in(self, password):
        return self.ask("/api/method/login", urllib.parse.urlencode({"usr": "Administrator", "pwd": password}).encode())

    def upload(self, name, content, is_private):
        """Uploads a file as the browser's form does; returns its URL."""
        boundary = "part-of-a-form"
        fields = {"is_private": str(is_private), "folder": "Home"}
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()]
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n{content}\r\n--{boundary}--\r\n')
        token = {"X-Frappe-CSRF-Token": self.token()}
        status, text = self.ask("/api/method/upload_file", "".join(parts).encode(), **{"Content-Type": f"multipart/form-data; boundary={boundary}"}, **token)
        return status, json.loads(text).get("message", {}).get("file_url") if status == 200 else text[:500]

    def token(self):
        """The session's token against forged requests, if a page names it."""
        found = re.search(r'csrf_token = "([^"]+)"', self.ask("/app")[1])
        return found[1] if found else ""


@needs("BENCH")
class ComponentsTest(Story):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.site = cls.cluster.new_site("shop.example.com", "id-1")
        cls.pods, cls.ready = {}, {}
        cls.ingress = Ingress()
        cls.ingress.start()
        cls.addClassCleanup(cls.ingress.socket.close)

    def test_01_a_site(self):
        self.assertEqual(self.configure(apps=["tiny"]).code, 0)
        # The probe's rights of the web session need no token in API requests.
        made = self.verb("init", self.site, apps=["tiny"], hosts=[HOST], config={"ignore_csrf": 1, "host_name": f"http://{HOST}"})
        self.done("init", made, "a site with another host", "created")
        self.passed()

    def test_02_every_component_becomes_ready(self):
        for name in NAMES:
            self.pods[name] = self.cluster.start(self.image, rendered.component(self.image, name), hosts={HOST: INGRESS})
        begun = time.monotonic()
        for name in NAMES:
            pod = self.pods[name]
            until(f"{name} is ready", lambda pod=pod: self.is_ready(pod), 300)
            self.ready[name] = time.monotonic() - begun
        for name, pod in self.pods.items():
            self.assertTrue(pod.answers("livenessProbe"), f"{name}: {pod.output()[-2000:]}")
        report.row(self.name(), "components", "ready", checked=", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.ready.items()))
        self.passed()

    def is_ready(self, pod):
        self.assertTrue(pod.first(), f"{pod.name} has ended: {pod.output()[-3000:]}")
        return pod.answers("startupProbe") and pod.answers()

    def test_03_requests(self):
        guest, user = Browser(), Browser()
        until("the host is mapped", lambda: guest.ask("/api/method/ping")[0] == 200, 60)
        self.assertEqual(json.loads(guest.ask("/api/method/ping")[1]), {"message": "pong"})
        self.assertEqual(guest.ask("/api/method/ping", host="unknown.example.com")[0], 404)
        self.assertEqual(guest.log_in("wrong")[0], 401)
        status, text = user.log_in(self.site.secrets["admin-password"])
        self.assertEqual(status, 200, text[:500])
        begun = time.monotonic()
        self.assertEqual([user.ask("/api/method/frappe.auth.get_logged_user")[0] for _ in range(50)], [200] * 50)
        report.row(self.name(), "requests through nginx", "ok", time.monotonic() - begun, checked="host that is not the site's name, unknown host 404, wrong password 401, login; 50 requests in this time")
        kinds = ("public", "private")
        uploaded = {kind: user.upload(f"{kind}.txt", f"a {kind} file", int(kind == "private")) for kind in kinds}
        self.assertEqual([uploaded[kind][0] for kind in kinds], [200, 200], str(uploaded))
        self.assertEqual([user.ask(uploaded[kind][1]) for kind in kinds], [(200, f"a {kind} file") for kind in kinds])
        self.assertEqual([guest.ask(uploaded[kind][1])[0] for kind in kinds], [200, 403])
        report.row(self.name(), "files", "ok", checked="uploaded and served; the private one not to a guest")
        type(self).user = user
        self.passed()

    def test_04_a_websocket(self):
        """By polling: the server authenticates the user at the site's public name, from its own pod."""
        path = "/socket.io/?EIO=4&transport=polling"
        status, text = self.user.ask(path, Origin=f"http://{HOST}")
        self.assertEqual(status, 200, text)
        session = f"{path}&sid={json.loads(text[1:])['sid']}"
        # Version 14 has no namespace for each site.
        space = "" if self.image.major == 14 else f"/{self.site.name},"
        connect = {"Origin": f"http://{HOST}", "Content-Type": "text/plain"}
        self.assertEqual(self.user.ask(session, f"40{space}".encode(), **connect), (200, "ok"))
        answer = self.user.ask(session, **connect)[1]
        self.assertTrue(answer.startswith(f"40{space}"), answer)
        report.row(self.name(), "websocket", "ok", checked="connected and authenticated on a host that is not the site's name")
        self.passed()

    def test_05_jobs(self):
        begun = time.monotonic()
        self.ask(self.site, "enqueue", name="a job,", queues=QUEUES)
        wanted = {f"a job, {queue}" for queue in QUEUES}
        until("a job of each queue has run", lambda: wanted <= set(self.ask(self.site, "notes")["notes"]), 120, 1)
        report.row(self.name(), "jobs", "ok", time.monotonic() - begun, checked="one of each queue")
        self.assertTrue(self.pods["scheduler"].answers("livenessProbe"), self.pods["scheduler"].output())
        checked = "runs; the ids of its jobs say nothing in version 14"
        if self.image.major > 14:
            keys = ("--scan", "--pattern", f"rq:job:{self.site.name}*scheduled_job*")
            until("the scheduler has queued jobs", lambda: self.cluster.ask_redis("redis-queue", *keys), SCHEDULER_SECONDS, 2)
            checked = "has queued the site's scheduled jobs"
        report.row(self.name(), "scheduler", "ok", time.monotonic() - begun, checked=checked)
        self.passed()

    def test_06_maintenance(self):
        path = self.cluster.file(self.site, "site_config.json")
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), "maintenance_mode": 1}))
        begun = time.monotonic()
        until("503", lambda: self.user.ask("/api/method/ping")[0] == 503, 90)
        report.row(self.name(), "maintenance mode", "503", time.monotonic() - begun, checked="until the first such response")
        path.write_text(before)
        os.chown(path, self.cluster.volume.stat().st_uid, self.cluster.volume.stat().st_gid)
        until("200", lambda: self.user.ask("/api/method/ping")[0] == 200, 90)
        self.passed()

    def test_07_a_password_change_ends_sessions(self):
        self.assertEqual(self.user.ask("/api/method/frappe.auth.get_logged_user")[0], 200)
        self.site.secrets["admin-password"] += "Changed"
        ended = self.verb("apply", self.site, apps=["tiny"], set_admin_password=True, hosts=[HOST], config={"ignore_csrf": 1, "host_name": f"http://{HOST}"})
        self.assertEqual(ended.code, 0, str(ended))
        self.assertIn(self.user.ask("/api/method/frappe.auth.get_logged_user")[0], (401, 403))
        report.row(self.name(), "sessions after a new password", "ended", checked="the former cookie is refused")
        self.passed()

    def test_08_every_component_ends(self):
        self.ask(self.site, "enqueue", name="a slow job,", queues=["short"], seconds=5)
        time.sleep(2)
        said = []
        for name in reversed(NAMES):
            pod, begun = self.pods[name], time.monotonic()
            pod.send(signal.SIGTERM)
            code = pod.wait(30)
            if code is None:
                # As PID 1, these two ignore SIGTERM: the kubelet kills them after their short grace period.
                self.assertIn(name, ("scheduler", "socketio"))
                pod.send(signal.SIGKILL)
                pod.wait(30)
            said.append(f"{name} {'ignores it' if code is None else f'{code} in {time.monotonic() - begun:.1f} s'}")
            self.cluster.end(pod)
        self.assertIn("a slow job, short", self.ask(self.site, "notes")["notes"])
        report.row(self.name(), "SIGTERM", "ok", checked=f"{', '.join(said)}; a running job was completed")
        self.passed()

    def test_09_no_secret_was_seen(self):
        self.no_leaks()
        self.passed()


del Story
