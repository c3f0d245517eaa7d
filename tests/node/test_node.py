"""The node itself: features that a simulated node does not have, isolation of two nodes, and that a node leaves nothing behind.

Needs root; `make node-test` runs it.
"""

import concurrent.futures
import subprocess
import time
import unittest

from support import NODE, Node, on_the_machine, settings

NAMES = [f"test-{time.time_ns() // 1_000_000 % 1_000_000}-{letter}" for letter in "ab"]
# Any program in an image of the node would do: this one waits.
IMAGE = "node.local/pause:1"


def pod(name, claim, **more):
    """A pod with its own user, which may access a claim's volume by its group."""
    container = {
        "name": "pause",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec | more}


def claim(name):
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


class NodeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        once = settings()
        time.sleep(2)
        # Settings that are counters or clocks change at any time.
        cls.steady = {name for name, value in settings().items() if once.get(name) == value}
        cls.settings, cls.before = settings(), on_the_machine()
        cls.nodes = []
        cls.addClassCleanup(lambda: [it.close() for it in cls.nodes])
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for each in [pool.submit(Node, name) for name in NAMES]:
                cls.nodes.append(each.result())

    @property
    def node(self):
        return self.nodes[0]

    def test_1_pods_share_a_volume_of_their_group_which_is_deleted_with_the_claim(self):
        self.node.apply(claim("shared"), pod("one", "shared"), pod("two", "shared"))
        self.node.kubectl("wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=60s")
        volume = self.node.get("persistentvolumeclaim", "shared")["spec"]["volumeName"]
        folder = self.node.get("persistentvolume", volume)["spec"]["local"]["path"]
        self.assertEqual(self.node.run("stat", "--format", "%g %A", folder).split(), ["2000", "drwxrwsrwx"])
        look = "for it in /proc/[0-9]*; do [ \"$(readlink $it/exe)\" != /pause ] || grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' $it/status; done"
        status = self.node.run("sh", "-c", look)
        self.assertIn("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n", status)
        self.node.kubectl("delete", "pod/one", "pod/two", "pvc/shared", "--timeout=60s")
        self.node.kubectl("wait", "--for=delete", f"persistentvolume/{volume}", "--timeout=60s")
        self.assertEqual(self.node.run("ls", "/var/lib/node/volumes"), "")

    def test_2_services_have_names_and_addresses(self):
        address = self.node.get("service", "kube-dns", "--namespace=kube-system")["spec"]["clusterIP"]
        question = "import socket,struct;q=b'\\0\\1\\1\\0\\0\\1'+bytes(6)+b'\\12kubernetes\\7default\\3svc\\7cluster\\5local\\0\\0\\1\\0\\1'"
        ask = f"{question};s=socket.socket(2,2);s.settimeout(5);s.sendto(q,('{address}',53));print(socket.inet_ntoa(s.recv(512)[-4:]))"
        self.assertEqual(self.node.run("python3", "-c", ask).strip(), "10.96.0.1")

    def test_3_a_missing_image_is_reported_as_by_kubernetes(self):
        container = {"name": "it", "image": "node.local/absent:1", "imagePullPolicy": "Never"}
        self.node.apply(pod("absent", "absent", volumes=[{"name": "data", "emptyDir": {}}], containers=[container]))
        reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull"
        self.node.kubectl("wait", f"--for={reason}", "pod/absent", "--timeout=60s")

    def test_4_nodes_are_isolated(self):
        self.nodes[0].kubectl("create", "namespace", "of-the-first")
        self.assertIn("of-the-first", self.nodes[0].kubectl("get", "namespaces"))
        self.assertNotIn("of-the-first", self.nodes[1].kubectl("get", "namespaces"))

    def test_5_a_name_in_use_is_rejected_and_its_node_continues(self):
        done = subprocess.run([NODE, "up", NAMES[1]], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is there already", done.stderr)
        self.assertIn("node1", self.nodes[1].kubectl("get", "nodes"))

    def test_9_nothing_is_left(self):
        while_up = on_the_machine()
        self.assertTrue(while_up["processes"] - self.before["processes"], "a running node's processes are found")
        self.assertTrue(while_up["cgroups"] - self.before["cgroups"], "a running node's cgroups are found")
        for kind in set(while_up) - {"processes", "cgroups", "files"}:
            self.assertEqual(while_up[kind] - self.before[kind], set(), f"{kind} of the machine, while nodes are up")
        while self.nodes:
            self.nodes.pop().close()
        for kind, now in on_the_machine().items():
            with self.subTest(kind):
                self.assertEqual(now - self.before[kind], set())
        with self.subTest("settings"):
            now = settings()
            self.assertEqual({name: now.get(name) for name in self.steady if now.get(name) != self.settings[name]}, {})
        self.assertFalse(set(subprocess.run([NODE, "list"], capture_output=True, text=True, check=True).stdout.split()) & set(NAMES))


if __name__ == "__main__":
    unittest.main()
