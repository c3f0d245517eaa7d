"""The objects of the test: a namespace with restricted pods, a MariaDB, a bench and a site."""

BENCH_IMAGE = "docker.io/frappe/erpnext:version-15"
# On two cores, a site's Job does not fit beside pods with the default requests.
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}}
COMPONENTS = ["gunicorn", "nginx", "socketio", "scheduler", "worker-default", "worker-short", "worker-long"]


def thing(kind, name, namespace, version="v1", **fields):
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | fields


def namespace(name):
    made = thing("Namespace", name, None)
    made["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    return made


def mariadb(where, password):
    """A server with a volume, with the published image as a non-root user."""
    labels = {"app": "mariadb"}
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "mariadb",
        "image": "docker.io/library/mariadb:10.6",
        "env": [{"name": "MARIADB_ROOT_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "mariadb-root", "key": "password"}}}],
        "ports": [{"containerPort": 3306}],
        "readinessProbe": {"tcpSocket": {"port": 3306}, "periodSeconds": 1},
        "securityContext": security,
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/mysql"}],
    }
    pod = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    spec = {
        "serviceName": "mariadb",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        "volumeClaimTemplates": [claim],
    }
    return [
        thing("Secret", "mariadb-root", where, stringData={"password": password}),
        thing("Service", "mariadb", where, spec={"selector": labels, "ports": [{"port": 3306}]}),
        thing("StatefulSet", "mariadb", where, "apps/v1", spec=spec),
        thing("MariaDB", "mariadb", where, "k8s.mariadb.com/v1alpha1", spec={}),
    ]


def bench(name, where):
    spec = {
        "frappeVersion": "15",
        "apps": [{"name": "erpnext", "source": "image"}],
        "storageDeletionPolicy": "Delete",
        "dbConfig": {"mariadbRef": {"name": "mariadb"}},
        "componentResources": {it: SMALL for it in COMPONENTS},
        "redisConfig": {"resources": SMALL},
    }
    return thing("FrappeBench", name, where, "vyogo.tech/v1alpha1", spec=spec)


def site(name, where, bench_name, host):
    spec = {"siteName": host, "benchRef": {"name": bench_name}, "apps": ["erpnext"], "deletionPolicy": "Delete"}
    return thing("FrappeSite", name, where, "vyogo.tech/v1alpha1", spec=spec)
