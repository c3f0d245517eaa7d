"""A real nginx maps hosts to sites by files on the volume, and applies changes without a restart."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import urllib.error
import urllib.request

from support import RUNNER, free_port

# The relevant parts of the image's template.
TEMPLATE = '''
map $http_x_forwarded_proto $proxy_x_forwarded_proto { default $scheme; }
map $http_x_forwarded_proto $http_scheme { default $scheme; }
server {
    listen 127.0.0.1:@PORT@;
    root @SITES@;
    location /socket.io { proxy_set_header @ORIGIN@; proxy_set_header Host $host; proxy_pass http://127.0.0.1:@PORT@/seen; }
    location /seen { add_header X-Seen "$http_x"; return 200 "origin $http_origin"; }
    location /assets {
        try_files $uri @MISSING@;
    }
    location @asset-server { return 200 "gunicorn's answer"; }
    location / { return 200 "site $frappe_site"; }
}
'''


class NginxCase(unittest.TestCase):
    """A folder of sites, and nginx with the image's template."""

    template = TEMPLATE

    def setUp(self):
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
        program = shutil.which("nginx", path=path)
        if not program:
            raise RuntimeError("nginx is missing: apt-get install nginx-light")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="site-runner-nginx-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o755)
        for part in ("sites", "conf.d", "bin", "logs"):
            (self.folder / part).mkdir()
        self.port = free_port()
        (self.folder / "nginx.conf").write_text(textwrap.dedent(f"""
            pid {self.folder}/nginx.pid; error_log {self.folder}/logs/error.log; events {{}}
            http {{ access_log off; include {self.folder}/conf.d/*.conf; }}
            """))
        self.script("nginx", f'exec {program} -c {self.folder}/nginx.conf "$@"')
        self.put_template("$scheme://$frappe_site")
        # As the image's script: writes the configuration, then runs nginx as its child.
        self.script("nginx-entrypoint.sh", f'cp {self.folder}/template {self.folder}/conf.d/frappe.conf\nnginx -g "daemon off;"')
        self.environment = {"PATH": f"{self.folder}/bin:{path}", "SITE_RUNNER_NGINX_CONFIGURATION": str(self.folder / "conf.d"),
                       "SITE_RUNNER_NGINX_LOOK_SECONDS": "0.1", "SITE_RUNNER_NGINX_RELOAD_SECONDS": "0.2"}
        (self.folder / "sites/.hosts").mkdir()
        self.lead("shop.com", "shop.example.com")
        self.addCleanup(self.end)
        self.begin()

    def put_template(self, origin, missing="=404"):
        """The image's template. The websocket server is nginx itself, which responds with the origin."""
        text = self.template.replace("@PORT@", str(self.port)).replace("@SITES@", str(self.folder / "sites"))
        (self.folder / "template").write_text(text.replace("@ORIGIN@", f"Origin {origin}").replace("@MISSING@", missing))

    def begin(self):
        with open(self.folder / "said", "wb") as said:
            self.process = subprocess.Popen([sys.executable, str(RUNNER), "nginx", "{}"], cwd=self.folder, env=self.environment, stdout=said)

    def script(self, name, text):
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def lead(self, host, site):
        part = self.folder / "sites/.hosts" / f".{host}.part"
        part.write_text(site + "\n")
        part.rename(self.folder / "sites/.hosts" / host)

    def ask(self, host, path="/"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return "no answer"

    def until(self, expected, host, path="/"):
        for _ in range(150):
            if (found := self.ask(host, path)) == expected:
                return
            time.sleep(0.1)
        self.fail(f"{host}: {found}, not {expected}")


class NginxTest(NginxCase):
    def test_hosts_are_mapped_to_sites_and_changes_are_applied(self):
        self.until("site shop.example.com", "shop.com")
        self.assertEqual(self.ask("unknown.com"), "site unknown.com", "Frappe answers 404 for a site that is not there")
        self.lead("www.shop.com", "shop.example.com")
        self.lead("include", "shop.example.com")
        self.until("site shop.example.com", "www.shop.com")
        # Also polled: there may be a reload between the two, after which the old workers respond a moment longer.
        self.until("site shop.example.com", "include")
        (self.folder / "sites/.hosts/shop.com").unlink()
        self.until("site shop.com", "shop.com")

    def test_the_origin_of_a_websocket_is_the_host(self):
        self.until("origin http://shop.com", "shop.com", "/socket.io")

    def test_the_origin_is_the_host_with_every_template(self):
        """Since 2026-03, templates have a separate variable for the scheme."""
        for origin in ("$proxy_x_forwarded_proto://$frappe_site", "$http_scheme://$frappe_site"):
            self.end()
            self.put_template(origin)
            self.begin()
            self.until("origin http://shop.com", "shop.com", "/socket.io")
            self.assertNotIn("Invalid origin", (self.folder / "said").read_text())

    def test_an_unknown_origin_is_logged_once(self):
        self.end()
        self.put_template("https://example.com")
        self.begin()
        self.until("origin https://example.com", "shop.com", "/socket.io")
        time.sleep(1)
        self.assertEqual((self.folder / "said").read_text().count("websockets of hosts other than the site's name may be rejected"), 1)

    def test_bundles_of_the_previous_image_are_served(self):
        """Pages of its pods name them during a rollout."""
        for folder, name in (("assets", "new"), (".bundles/assets", "old"), (".bundles/assets", "new")):
            path = self.folder / "sites" / folder / f"frappe/dist/{name}.bundle.4GEVDN5T.js"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} of {folder}")
        path = "/assets/frappe/dist/{}.bundle.4GEVDN5T.js"
        for missing, answer in (("=404", "no answer"), ("@asset-server", "gunicorn's answer")):
            self.end()
            self.put_template("$scheme://$frappe_site", missing)
            self.begin()
            self.until("old of .bundles/assets", "shop.com", path.format("old"))
            self.assertEqual(self.ask("shop.com", path.format("new")), "new of assets", "its own image comes first")
            self.assertEqual(self.ask("shop.com", path.format("none")), answer)
            self.assertEqual(self.ask("shop.com", "/.bundles" + path.format("old")), "site shop.example.com", "only below /assets")
        self.assertNotIn("does not know", (self.folder / "said").read_text())

    def test_an_unknown_place_of_assets_is_logged_once(self):
        self.end()
        self.put_template("$scheme://$frappe_site", "/elsewhere$uri =404")
        self.begin()
        self.until("site shop.example.com", "shop.com")
        time.sleep(1)
        self.assertEqual((self.folder / "said").read_text().count("bundles of the previous image are not served"), 1)

    def test_invalid_hosts_and_sites_are_skipped(self):
        self.until("site shop.example.com", "shop.com")
        # Before the valid file, so that they are read with it.
        for host, site in (("bad host;}", "a"), ("evil.com", 'a"; } server { listen 1; }')):
            self.lead(host, site)
        self.lead("good.com", "shop.example.com")
        self.until("site shop.example.com", "good.com")
        self.assertEqual(self.ask("evil.com"), "site evil.com")

    def test_unreadable_entries_are_skipped_and_logged(self):
        """Other pods may write to the volume: a folder, a link, a pipe, bytes that are not text, and a file that is too large."""
        self.until("site shop.example.com", "shop.com")
        hosts = self.folder / "sites/.hosts"
        (hosts / "folder.com").mkdir()
        (hosts / "binary.com").write_bytes(b"\xff\xfe\x00")
        (hosts / "link.com").symlink_to("/etc/hostname")
        os.mkfifo(hosts / "pipe.com")
        (hosts / "long.com").write_bytes(b"a" * (64 << 20))
        os.chmod(hosts / "binary.com", 0)
        (hosts / os.fsdecode(b"\xff.com")).write_text("shop.example.com")
        self.lead("later.com", "shop.example.com")
        self.until("site shop.example.com", "later.com")
        self.assertIsNone(self.process.poll(), "it runs on")
        for host in ("folder.com", "binary.com", "link.com", "pipe.com", "long.com"):
            self.assertEqual(self.ask(host), f"site {host}")
        said = (self.folder / "said").read_text()
        for host in ("folder.com", "binary.com", "link.com", "pipe.com", "long.com"):
            self.assertIn(f"host skipped: '{host}'", said)

    def test_it_starts_with_unreadable_entries(self):
        """Entries that exist before a pod starts; the folder itself may be something else."""
        self.until("site shop.example.com", "shop.com")
        self.end()
        (self.folder / "sites/.hosts/folder.com").mkdir()
        self.begin()
        self.until("site shop.example.com", "shop.com")
        self.end()
        shutil.rmtree(self.folder / "sites/.hosts")
        (self.folder / "sites/.hosts").symlink_to("/etc")
        self.begin()
        self.until("site shop.com", "shop.com")
        self.assertIn("cannot read hosts", (self.folder / "said").read_text())

    def test_it_ends_at_sigterm(self):
        self.until("site shop.example.com", "shop.com")
        self.process.terminate()
        self.assertEqual(self.process.wait(20), 0)
        self.assertEqual(self.ask("shop.com"), "no answer")


if __name__ == "__main__":
    unittest.main()
