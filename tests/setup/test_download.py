"""Ready-made programs of the control plane: accepted only completely, with the expected checksum, and within the timeout."""

import hashlib
import http.server
import io
import json
import os
import pathlib
import platform
import re
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest

CONTROLPLANE = pathlib.Path(__file__).resolve().parents[2] / "loadtest" / "controlplane"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
ETCD = re.search(r"go.etcd.io/etcd/server/v3 (v\S+)", (CONTROLPLANE / "go.mod").read_text()).group(1)
ALL = {"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kwok", "kwokctl"}


def program(name):
    return f"#!/bin/sh\necho {name}\n".encode()


def archive():
    """The archive that contains etcd."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as file:
        entry = tarfile.TarInfo(f"etcd-{ETCD}-linux-{MACHINE}/etcd")
        entry.size, entry.mode = len(program("etcd")), 0o755
        file.addfile(entry, io.BytesIO(program("etcd")))
    return data.getvalue()


def published():
    """Responses of the three release servers, by path."""
    answers = {}
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]:
        answers[f"/kube/{name}"] = program(name)
        answers[f"/kube/{name}.sha256"] = hashlib.sha256(program(name)).hexdigest().encode()
    etcd = f"etcd-{ETCD}-linux-{MACHINE}.tar.gz"
    answers[f"/etcd/{etcd}"] = archive()
    others = "".join(f"{'0' * 64}  etcd-{ETCD}-{other}.tar.gz\n" for other in ["darwin-amd64", "linux-s390x"])
    answers["/etcd/SHA256SUMS"] = (others + f"{hashlib.sha256(archive()).hexdigest()}  {etcd}\n").encode()
    assets = []
    for name in ["kwok", "kwokctl"]:
        answers[f"/kwok/{name}-linux-{MACHINE}"] = program(name)
        for system, sum_ in [("darwin", "0" * 64), ("linux", hashlib.sha256(program(name)).hexdigest())]:
            uploader = {"login": "bot", "id": 1}
            asset = {"id": 1, "name": f"{name}-{system}-{MACHINE}", "label": "", "uploader": uploader, "size": 1, "digest": f"sha256:{sum_}"}
            assets.append(asset)
    answers["/api"] = json.dumps({"name": "v0", "assets": assets}).encode()
    return answers


class Server:
    """Responds by path; with None, it keeps the connection without a response."""

    def __init__(self, answers):
        over = self.over = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = answers.get(self.path, b"")
                if body is None:
                    over.wait(60)
                    return
                self.send_response(200 if body else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@unittest.skipIf(MACHINE is None, "there are no ready-made programs for this machine")
class Download(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a folder ")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def download(self, answers, **variables):
        """Downloads from a server with these responses; returns the programs and the output."""
        server = Server(answers)
        self.addCleanup(server.close)
        return self.download_from(server.url, **variables)

    def download_from(self, url, **variables):
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment |= {"KWOK_KUBE_BINARY_PREFIX": f"{url}/kube", "KWOK_ETCD_BINARY_PREFIX": f"{url}/etcd"}
        environment |= {"KWOK_BINARY_PREFIX": f"{url}/kwok", "KWOK_RELEASE_API": f"{url}/api", "DOWNLOAD_ANSWER_SECONDS": "2"} | variables
        done = subprocess.run([CONTROLPLANE / "download", self.folder], env=environment, check=True, capture_output=True, text=True)
        return {it.name for it in self.folder.iterdir()}, done.stderr

    def test_every_program_with_its_checksum_is_accepted_and_runs(self):
        came, said = self.download(published())
        self.assertEqual((came, said), (ALL, ""))
        for name in ALL:
            self.assertEqual(subprocess.run([self.folder / name], check=True, capture_output=True, text=True).stdout, f"{name}\n")

    def test_a_program_with_another_checksum_is_rejected(self):
        for name, path in [("kube-scheduler", "/kube/kube-scheduler"), ("kwok", f"/kwok/kwok-linux-{MACHINE}")]:
            came, said = self.download(published() | {path: program("another")})
            self.assertEqual(came, ALL - {name})
            self.assertIn(f"{name} is not taken: its SHA-256 is", said)
            (self.folder / "kube-scheduler").unlink(missing_ok=True)
            (self.folder / "kwok").unlink(missing_ok=True)

    def test_an_archive_with_another_checksum_is_not_unpacked(self):
        sums = f"{'0' * 64}  etcd-{ETCD}-linux-{MACHINE}.tar.gz\n".encode()
        came, said = self.download(published() | {"/etcd/SHA256SUMS": sums})
        self.assertEqual(came, ALL - {"etcd"})
        self.assertIn("etcd is not taken", said)

    def test_without_a_checksum_nothing_is_requested(self):
        came, said = self.download(published() | {"/kube/kube-apiserver.sha256": b"<html>sign in</html>", "/api": b""})
        self.assertEqual(came, ALL - {"kube-apiserver", "kwok", "kwokctl"})
        self.assertIn("kube-apiserver is not downloaded: no checksum from its server", said)

    def test_a_missing_program_is_skipped_and_the_others_are_downloaded(self):
        came, said = self.download(published() | {"/kube/kube-apiserver": b""})
        self.assertEqual(came, ALL - {"kube-apiserver"})
        self.assertIn("kube-apiserver is not downloaded", said)

    def test_a_server_that_hangs_costs_seconds(self):
        begun = time.monotonic()
        came, said = self.download({path: None for path in published()})
        self.assertEqual(came, set())
        self.assertLess(time.monotonic() - begun, 6)
        self.assertEqual(len(said.splitlines()), 6, said)

    def test_a_stalled_download_ends(self):
        begun = time.monotonic()
        came, said = self.download(published() | {"/kube/kube-apiserver": None}, DOWNLOAD_SECONDS="3")
        self.assertEqual(came, ALL - {"kube-apiserver"}, said)
        self.assertLess(time.monotonic() - begun, 8)

    def test_a_refused_connection_is_reported_at_once(self):
        begun = time.monotonic()
        came, said = self.download_from("http://127.0.0.1:9")
        self.assertEqual(came, set())
        self.assertLess(time.monotonic() - begun, 3)
        self.assertEqual(len(said.splitlines()), 6, said)

    def test_no_request_is_sent_if_downloads_are_disabled(self):
        self.assertEqual(self.download(published(), CONTROLPLANE_DOWNLOAD="no"), (set(), ""))

    def test_existing_programs_are_not_downloaded_again(self):
        for name in ALL:
            (self.folder / name).write_bytes(program("mine"))
            (self.folder / name).chmod(0o755)
        came, said = self.download({})
        self.assertEqual((came, said), (ALL, ""))
        self.assertEqual((self.folder / "etcd").read_bytes(), program("mine"))


if __name__ == "__main__":
    unittest.main()
