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

KINDS = "databases.k8s.mariadb.com,users.k8s.mariadb.com,grants.k8s.mariadb.com,secrets"
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


def place_of(found):
    """Namespace and name of the server's pod."""
    server = found["spec"]["mariaDbRef"]
    return server.get("namespace") or found["metadata"]["namespace"], f"{server['name']}-0"


def server_of(found):
    """The server's pod; nothing if it does not exist any more."""
    where, pod = place_of(found)
    return kubectl("--namespace", where, "get", "pod", pod, "--ignore-not-found", "--output=name").strip()


def execute(found, statements):
    where, pod = place_of(found)
    kubectl("--namespace", where, "exec", "--stdin", pod, "--", "sh", "-c", CLIENT, given=statements)


def password_of(found, known):
    """The password that a user's Secret has now."""
    reference = found["spec"].get("passwordSecretKeyRef")
    return base64.b64decode(known[found["metadata"]["namespace"], reference["name"]][reference["key"]]).decode() if reference else None


def patch(found, change, *more):
    metadata = found["metadata"]
    kind = f"{found['kind'].lower()}s.k8s.mariadb.com"
    kubectl("--namespace", metadata["namespace"], "patch", kind, metadata["name"], "--type", "merge", "--patch", json.dumps(change), *more)


def reconcile(found, known, done):
    """Reconciles an object, once for each of its versions and for each password."""
    metadata = found["metadata"]
    own = f"{found['kind'].lower()}.k8s.mariadb.com/finalizer"
    finalizers = metadata.get("finalizers", [])
    if metadata.get("deletionTimestamp"):
        if own in finalizers:
            if (statements := removal(found)) and server_of(found):
                execute(found, statements)
            patch(found, {"metadata": {"finalizers": [it for it in finalizers if it != own]}})
    elif done.get(metadata["uid"]) != (metadata["generation"], password := password_of(found, known)):
        if own not in finalizers:
            patch(found, {"metadata": {"finalizers": [*finalizers, own]}})
        execute(found, wanted(found, password))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = {"type": "Ready", "status": "True", "reason": "Created", "message": "Created", "lastTransitionTime": now}
        patch(found, {"status": {"conditions": [ready]}}, "--subresource", "status")
        done[metadata["uid"]] = metadata["generation"], password


def turn(done):
    """Reconciles all objects. One that fails does not delay the others."""
    objects = json.loads(kubectl("get", KINDS, "--all-namespaces", "--output", "json"))["items"]
    passwords = {(it["metadata"]["namespace"], it["metadata"]["name"]): it.get("data", {}) for it in objects if it["kind"] == "Secret"}
    objects = [it for it in objects if it["kind"] != "Secret"]
    # Users before the grants that reference them.
    for each in sorted(objects, key=lambda it: ["Database", "User", "Grant"].index(it["kind"])):
        try:
            reconcile(each, passwords, done)
        except (subprocess.CalledProcessError, KeyError) as error:
            print(f"{each['kind']} {each['metadata']['name']}: {getattr(error, 'stderr', None) or repr(error)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    seen = {}
    while True:
        try:
            turn(seen)
        except subprocess.CalledProcessError as error:
            print(error.stderr, file=sys.stderr, flush=True)
        time.sleep(0.5)
