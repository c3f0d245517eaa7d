"""The objects of the tests: a namespace with restricted pods, a MariaDB, an S3 service, benches, sites and backups."""

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


def object_store(where, keys):
    """An S3 service with a bucket, and the Secret of its keys."""
    script = "mkdir -p /data/objects/frappe-backups /data/metadata && exec versitygw --quiet posix --sidecar /data/metadata /data/objects"
    container = {
        "name": "s3",
        "image": "docker.io/versity/versitygw:1",
        "command": ["sh", "-c", script],
        "env": [
            {"name": f"ROOT_{name}_KEY", "valueFrom": {"secretKeyRef": {"name": "bucket-keys", "key": key}}}
            for name, key in (("ACCESS", "accessKey"), ("SECRET", "secretKey"))
        ],
        "ports": [{"containerPort": 7070}],
        "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    labels = {"app": "s3"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return [
        thing("Secret", "bucket-keys", where, stringData=keys),
        thing("Service", "s3", where, spec={"selector": labels, "ports": [{"port": 7070}]}),
        thing("Deployment", "s3", where, "apps/v1", spec=spec),
    ]


def bench(name, where, **more):
    spec = {
        "frappeVersion": "15",
        "apps": [{"name": "erpnext", "source": "image"}],
        "storageDeletionPolicy": "Delete",
        "dbConfig": {"mariadbRef": {"name": "mariadb"}},
        "componentResources": {it: SMALL for it in COMPONENTS},
        "redisConfig": {"resources": SMALL},
    }
    return thing("FrappeBench", name, where, "vyogo.tech/v1alpha1", spec=spec | more)


def site(name, where, bench_name, host, **more):
    spec = {"siteName": host, "benchRef": {"name": bench_name}, "apps": ["erpnext"], "deletionPolicy": "Delete"}
    return thing("FrappeSite", name, where, "vyogo.tech/v1alpha1", spec=spec | more)


def backup(name, where, site_name, **more):
    """A SiteBackup in the bucket of `object_store`."""
    storage = {"s3": {"bucket": "frappe-backups", "endpoint": f"http://s3.{where}:7070", "credentialsSecretRef": {"name": "bucket-keys"}}}
    return thing("SiteBackup", name, where, "vyogo.tech/v1alpha1", spec={"siteRef": {"name": site_name}, "storage": storage} | more)
