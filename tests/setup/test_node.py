"""The node's scripts without a node: images, volumes, programs, and rejected arguments."""

import hashlib
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
import unittest

from test_cluster_programs import GO
from test_download import MACHINE, Server, program

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODE = ROOT / "loadtest" / "node"


def script(path):
    """Loads a Python program as a module."""
    loader = importlib.machinery.SourceFileLoader(path.stem, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a folder ")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)


class Image(Folder):
    def members(self, *images):
        subprocess.run([NODE / "image", self.folder / "it.tar", json.dumps(images)], check=True)
        with tarfile.open(self.folder / "it.tar") as tar:
            names = tar.getnames()
            self.assertEqual(len(names), len(set(names)))
            return {it.name: tar.extractfile(it).read() for it in tar}

    def test_an_archives_index_references_every_layer_by_digest(self):
        (self.folder / "root/bin").mkdir(parents=True)
        (self.folder / "root/bin/program").write_text("one")
        (self.folder / "root/bin/program").chmod(0o755)
        with tarfile.open(self.folder / "upper.tar", "w") as tar:
            entry = tarfile.TarInfo("data")
            entry.type, entry.uid, entry.mode = tarfile.DIRTYPE, 999, 0o1777
            tar.addfile(entry)
        one = {"name": "example.com/it:1", "layers": [f"{self.folder}/root", f"{self.folder}/upper.tar"], "config": {"User": "7"}}
        members = self.members(one, {"name": "example.com/other:1", "layers": one["layers"][:1], "config": {}})

        def blob(described):
            kind, sum_ = described["digest"].split(":")
            data = members[f"blobs/{kind}/{sum_}"]
            self.assertEqual((hashlib.sha256(data).hexdigest(), len(data)), (sum_, described["size"]))
            return data

        manifest, other = json.loads(members["index.json"])["manifests"]
        self.assertEqual(manifest["annotations"], {"io.containerd.image.name": "example.com/it:1"})
        layers = json.loads(blob(manifest))["layers"]
        self.assertEqual(json.loads(blob(other))["layers"], layers[:1], "a common layer is stored once")
        config = json.loads(blob(json.loads(blob(manifest))["config"]))
        self.assertEqual(config["config"], {"User": "7"})
        self.assertEqual(config["rootfs"]["diff_ids"], [it["digest"] for it in layers])
        lower, upper = (tarfile.open(fileobj=io.BytesIO(blob(it))) for it in layers)
        entry = lower.getmember("bin/program")
        self.assertEqual((lower.extractfile(entry).read(), entry.mode, entry.uid, entry.uname), (b"one", 0o755, os.getuid(), ""))
        entry = upper.getmember("data")
        self.assertEqual((entry.uid, entry.mode), (999, 0o1777))
        self.assertEqual({it.name for it in self.folder.iterdir()}, {"root", "upper.tar", "it.tar"}, "no temporary files are left")


class Operator(Folder):
    operator = script(NODE / "images" / "operator")

    def test_the_image_equals_the_dockerfiles_last_stage(self):
        program_ = self.folder / "program"
        program_.write_bytes(program("frappe-operator"))
        program_.chmod(0o755)
        subprocess.run([NODE / "images" / "operator", self.folder / "it.tar", program_, "example.com/operator:1"], check=True)
        with tarfile.open(self.folder / "it.tar") as tar:
            blobs = [tar.extractfile(it).read() for it in tar if it.name.startswith("blobs/")]
        layer = tarfile.open(fileobj=io.BytesIO(max(blobs, key=len)))
        files = {it.name for it in layer if it.isfile()}
        self.assertEqual(files, {"frappe-operator", "etc/ssl/certs/ca-certificates.crt", "licenses/LICENSE", "licenses/NOTICE"})
        self.assertEqual((layer.extractfile("frappe-operator").read(), layer.getmember("frappe-operator").mode), (program("frappe-operator"), 0o755))
        (config,) = [json.loads(it)["config"] for it in blobs if it.startswith(b'{"architecture"')]
        wanted = {"User": "65532:65532", "ExposedPorts": {"8080/tcp": {}}, "Entrypoint": ["/frappe-operator"], "Cmd": ["run"]}
        self.assertEqual(config, wanted)

    def test_a_last_stage_that_is_not_empty_is_rejected(self):
        with self.assertRaises(ValueError):
            self.operator.last_stage("FROM rust AS build\nRUN true\nFROM alpine\nUSER 1\n")


class Provisioner(Folder):
    provisioner = script(NODE / "provisioner")

    def claim(self, **spec):
        spec = {"storageClassName": "folders", "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}} | spec
        return {"metadata": {"namespace": "shop", "name": "sites", "uid": "u-1"}, "spec": spec}

    def volume(self, phase="Released", **spec):
        made = self.provisioner.volume_for(self.claim(), self.folder / "u-1")
        return made | {"spec": made["spec"] | spec, "status": {"phase": phase}}

    def test_only_pending_claims_of_the_class_get_a_volume(self):
        self.assertTrue(self.provisioner.wanted(self.claim()))
        self.assertFalse(self.provisioner.wanted(self.claim(volumeName="there")))
        self.assertFalse(self.provisioner.wanted(self.claim(storageClassName="another")))
        self.assertFalse(self.provisioner.wanted(self.claim() | {"metadata": {"deletionTimestamp": "2026-11-30T00:00:00Z"}}))

    def test_a_volume_is_bound_to_its_claim_and_supports_groups(self):
        made = self.provisioner.volume_for(self.claim(), "/folder/u-1")
        reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "sites", "uid": "u-1"}
        self.assertEqual(made["spec"]["claimRef"], reference)
        self.assertEqual((made["spec"]["local"], made["spec"]["accessModes"]), ({"path": "/folder/u-1"}, ["ReadWriteMany"]))

    def test_only_its_own_released_volumes_are_deleted(self):
        self.assertTrue(self.provisioner.released(self.volume()))
        self.assertFalse(self.provisioner.released(self.volume("Bound")))
        self.assertFalse(self.provisioner.released(self.volume(storageClassName="another")))
        self.assertFalse(self.provisioner.released(self.volume(persistentVolumeReclaimPolicy="Retain")))

    def test_objects_are_parsed_one_by_one_from_kubectls_output(self):
        printed = "".join(json.dumps(it, indent=4) + "\n" for it in [{"a": {"b": "}"}}, {"c": []}])
        self.assertEqual(list(self.provisioner.objects(io.StringIO(printed))), [{"a": {"b": "}"}}, {"c": []}])


class MariadbOperator(unittest.TestCase):
    operator = script(ROOT / "tests" / "node" / "mariadb_operator.py")

    def made(self, kind, **spec):
        return {"kind": kind, "metadata": {"name": "it"}, "spec": {"name": "shop_1", "host": "%", "cleanupPolicy": "Delete"} | spec}

    def test_each_kind_has_its_statement_with_escaped_names_and_passwords(self):
        database = self.made("Database", characterSet="utf8mb4", collate="utf8mb4_unicode_ci")
        self.assertEqual(self.operator.wanted(database), "CREATE DATABASE IF NOT EXISTS `shop_1` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        user = self.operator.wanted(self.made("User", name="a'b", maxUserConnections=7), "p'\\")
        self.assertIn("ALTER USER 'a\\'b'@'%' IDENTIFIED BY 'p\\'\\\\' WITH MAX_USER_CONNECTIONS 7", user)
        grant = self.made("Grant", username="shop_1", database="a`b", table="*", privileges=["SELECT", "CREATE VIEW"])
        self.assertEqual(self.operator.wanted(grant), "GRANT SELECT, CREATE VIEW ON `a``b`.* TO 'shop_1'@'%'")

    def test_objects_to_keep_are_not_dropped(self):
        self.assertEqual(self.operator.removal(self.made("Database")), "DROP DATABASE IF EXISTS `shop_1`")
        self.assertEqual(self.operator.removal(self.made("User")), "DROP USER IF EXISTS 'shop_1'@'%'")
        for kind in ("Database", "User", "Grant"):
            self.assertIsNone(self.operator.removal(self.made(kind, cleanupPolicy="Skip")))


class Programs(Folder):
    def setUp(self):
        super().setUp()
        (self.folder / "bin").mkdir()
        (self.folder / "bin/go").write_text(GO.replace("*/cmd/*)", "*/cmd/* | ./*)"))
        (self.folder / "bin/go").chmod(0o755)

    def build(self, url="http://127.0.0.1:9", **variables):
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("STEP_")}
        environment |= {"FRAPPE_OPERATOR_CACHE": str(self.folder / "cache"), "GO_CALLS": str(self.folder / "calls")}
        environment |= {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "CARGO_TARGET_DIR": str(self.folder), "KWOK_KUBE_BINARY_PREFIX": url} | variables
        return subprocess.run([NODE / "programs"], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    def built(self):
        calls = (self.folder / "calls").read_text().splitlines()
        return [it.rsplit("/", 1)[-1] for line in calls if line.startswith("build ") for it in line.split() if "/cmd/" in it or it.startswith("./")]

    def test_they_are_built_once(self):
        done = self.build()
        self.assertEqual(done.returncode, 0, done.stderr)
        folder = pathlib.Path(done.stdout.strip())
        self.assertEqual({it.name for it in folder.iterdir()}, {"kubelet", "kube-proxy", "pause.tar", "coredns.tar"})
        self.assertEqual(self.built(), ["kubelet", "kube-proxy", "coredns", "pause"])
        again = self.build()
        self.assertEqual((again.stdout, again.stderr, len(self.built())), (done.stdout, "", 4))

    @unittest.skipIf(MACHINE is None, "there are no ready-made programs for this machine")
    def test_ready_made_ones_are_not_built(self):
        answers = {f"/{name}": program(name) for name in ("kubelet", "kube-proxy")}
        server = Server(answers | {f"{path}.sha256": hashlib.sha256(data).hexdigest().encode() for path, data in answers.items()})
        self.addCleanup(server.close)
        done = self.build(server.url)
        self.assertEqual((done.returncode, self.built()), (0, ["coredns", "pause"]), done.stderr)
        self.assertEqual((pathlib.Path(done.stdout.strip()) / "kubelet").read_bytes(), program("kubelet"))

    def test_a_build_that_fails_keeps_nothing(self):
        (self.folder / "bin/go").write_text('#!/bin/sh\n[ "$1" != build ] || { echo "no space left" >&2; exit 1; }\n')
        done = self.build()
        self.assertEqual((done.returncode != 0, done.stdout), (True, ""))
        self.assertIn("no space left", done.stderr)
        self.assertEqual(list((self.folder / "cache/node").glob("*[0-9a-f]")), [])

    def test_all_have_the_version_of_the_control_plane(self):
        def version(file):
            return re.search(r"k8s.io/kubernetes (v\S+)", file.read_text()).group(1)

        wanted = version(NODE.parent / "controlplane" / "go.mod")
        self.assertEqual(version(NODE / "kubernetes" / "go.mod"), wanted)
        self.assertIn(f"\nversion={wanted}\n", (NODE / "programs").read_text())


class Refusals(Folder):
    def node(self, *arguments, path=os.environ["PATH"]):
        environment = {"PATH": path, "HOME": str(self.folder), "FRAPPE_OPERATOR_CACHE": str(self.folder / "cache")}
        return subprocess.run([NODE / "node", *arguments], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    def program(self, name, text):
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)

    def refused(self):
        # If it is not rejected, at least nothing is built.
        self.program("go", "exit 1")
        done = self.node("up", "it", path=f"{self.folder}:{os.environ['PATH']}")
        self.assertEqual(done.returncode, 1)
        self.assertFalse((self.folder / "cache/nodes/it").exists(), "nothing was started")
        return done.stderr

    def test_missing_root_is_reported(self):
        self.program("id", "echo 1000")
        self.assertIn("a node needs root", self.refused())

    def test_missing_namespaces_are_reported(self):
        self.program("id", "echo 0")
        self.program("unshare", "exit 1")
        self.assertIn("namespaces cannot be made", self.refused())

    def test_missing_kernel_features_are_reported(self):
        self.program("id", "echo 0")
        for name in ("ip", "nft", "mount"):
            self.program(name, "exit 1")
        self.program("unshare", 'while [ "$1" != true ] && [ -z "${1##--*}" -o "$1" = private ]; do shift; done; exec "$@"')
        said = self.refused()
        for wanted in ("no bridges", "no pairs of virtual links", "no nftables", "cannot overlay folders", "/proc/sys cannot be covered"):
            self.assertIn(wanted, said)
        self.assertEqual(list((self.folder / "cache/nodes").iterdir()), [], "the probe leaves nothing")

    def test_invalid_names_are_rejected(self):
        for name in ("../it", "It", "-it", "a b"):
            self.assertIn("NAME must have only", self.node("up", name).stderr)

    def test_a_missing_node_is_down(self):
        done = self.node("down", "it")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("node it is not up", self.node("run", "it", "true").stderr)
        self.assertEqual(self.node("list").stdout, "")

    def test_a_reused_process_id_is_not_killed(self):
        (self.folder / "cache/nodes/it/run/node").mkdir(parents=True)
        with subprocess.Popen(["sleep", "60"]) as other:
            (self.folder / "cache/nodes/it/run/node/pid").write_text(f"{other.pid}\n")
            self.assertEqual(self.node("down", "it").returncode, 0)
            self.assertIsNone(other.poll())
            other.kill()
        self.assertFalse((self.folder / "cache/nodes/it").exists())


if __name__ == "__main__":
    unittest.main()
