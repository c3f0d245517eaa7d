"""A stand-in for the MariaDB operator that executes SQL: it creates Databases, Users and Grants on an existing server.

    python3 mariadb_operator.py

It runs in the node's network with KUBECONFIG, and lists all objects twice a second. The server of a MariaDB NAME is the pod NAME-0
in its namespace, whose environment contains the password of root.
"""

import base64
import json
import subprocess
import sys
import time

KINDS = "databases.k8s.mariadb.com,users.k8s.mariadb.com,grants.k8s.mariadb.com"
CLIENT = 'exec mariadb --user=root --password="$MARIADB_ROOT_PASSWORD" --batch --skip-column-names'


def name(text):
    return "`" + text.replace("`", "``") + "`"


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def account(spec, user):
    return f"{quoted(user)}@{quoted(spec.get('host', '%'))}"


def wanted(found, password=None):
    """The statements that create what an object describes."""
    spec, own = found["spec"], found["spec"].get("name") or found["metadata"]["name"]
    if found["kind"] == "Database":
        return f"CREATE DATABASE IF NOT EXISTS {name(own)} CHARACTER SET {spec['characterSet']} COLLATE {spec['collate']}"
    if found["kind"] == "User":
        known = f"IDENTIFIED BY {quoted(password)} WITH MAX_USER_CONNECTIONS {spec.get('maxUserConnections', 10)}"
        return f"CREATE USER IF NOT EXISTS {account(spec, own)} {known}; ALTER USER {account(spec, own)} {known}"
    place = f"{name(spec['database'])}.{'*' if spec['table'] == '*' else name(spec['table'])}"
    return f"GRANT {', '.join(spec['privileges'])} ON {place} TO {account(spec, spec['username'])}"


def removal(found):
    """The statements that remove it; none if the object is to be kept, or is removed with the user."""
    spec, own = found["spec"], found["spec"].get("name") or found["metadata"]["name"]
    if spec.get("cleanupPolicy") == "Skip" or found["kind"] == "Grant":
        return None
    return f"DROP DATABASE IF EXISTS {name(own)}" if found["kind"] == "Database" else f"DROP USER IF EXISTS {account(spec, own)}"


def kubectl(*arguments, given=None):
    return subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=True).stdout


def execute(found, statements):
    server = found["spec"]["mariaDbRef"]
    where = server.get("namespace") or found["metadata"]["namespace"]
    kubectl("--namespace", where, "exec", "--stdin", f"{server['name']}-0", "--", "sh", "-c", CLIENT, given=statements)


def password_of(found):
    reference = found["spec"].get("passwordSecretKeyRef")
    if not reference:
        return None
    secret = json.loads(kubectl("--namespace", found["metadata"]["namespace"], "get", "secret", reference["name"], "--output", "json"))
    return base64.b64decode(secret["data"][reference["key"]]).decode()


def patch(found, change, *more):
    metadata = found["metadata"]
    kind = f"{found['kind'].lower()}s.k8s.mariadb.com"
    kubectl("--namespace", metadata["namespace"], "patch", kind, metadata["name"], "--type", "merge", "--patch", json.dumps(change), *more)


def reconcile(found, done):
    """Reconciles an object, once for each of its versions."""
    metadata = found["metadata"]
    own = f"{found['kind'].lower()}.k8s.mariadb.com/finalizer"
    finalizers = metadata.get("finalizers", [])
    if metadata.get("deletionTimestamp"):
        if own in finalizers:
            if statements := removal(found):
                execute(found, statements)
            patch(found, {"metadata": {"finalizers": [it for it in finalizers if it != own]}})
    elif done.get(metadata["uid"]) != metadata["generation"]:
        if own not in finalizers:
            patch(found, {"metadata": {"finalizers": [*finalizers, own]}})
        execute(found, wanted(found, password_of(found)))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = {"type": "Ready", "status": "True", "reason": "Created", "message": "Created", "lastTransitionTime": now}
        patch(found, {"status": {"conditions": [ready]}}, "--subresource", "status")
        done[metadata["uid"]] = metadata["generation"]


if __name__ == "__main__":
    seen = {}
    while True:
        try:
            # Users before the grants that reference them.
            objects = json.loads(kubectl("get", KINDS, "--all-namespaces", "--output", "json"))["items"]
            for each in sorted(objects, key=lambda it: ["Database", "User", "Grant"].index(it["kind"])):
                reconcile(each, seen)
        except subprocess.CalledProcessError as error:
            print(f"{error.cmd[:4]}: {error.stderr}", file=sys.stderr, flush=True)
        time.sleep(0.5)
