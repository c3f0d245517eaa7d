"""The operator's rendered objects, from the snapshots of its own tests. They are YAML, which the bench's own Python reads."""

import copy
import functools
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
READ = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin.read())))"


@functools.cache
def rendered(python, name):
    """The object of a snapshot."""
    found = list((ROOT / "src/controllers").rglob(f"*{name}.snap"))
    if len(found) != 1:
        raise AssertionError(f"one snapshot {name} expected, found {found}")
    text = found[0].read_text().split("\n---\n", 1)[1]
    return json.loads(subprocess.run([python, "-c", READ], input=text, capture_output=True, text=True, check=True).stdout)


def component(image, name):
    """The container of a component of the bench."""
    spec = rendered(image.python, f"bench__tests__Deployment-prod-{name}")["spec"]["template"]["spec"]
    return copy.deepcopy(spec["containers"][0])


def redis(image, name):
    """The arguments of one of the bench's Redis servers."""
    spec = rendered(image.python, f"bench__tests__StatefulSet-prod-{name}")["spec"]["template"]["spec"]
    return list(spec["containers"][0]["args"])


def configure(image):
    """The container of the configure Job, and its request."""
    spec = rendered(image.python, "bench__tests__Job-prod-configure")["spec"]["template"]["spec"]
    container = copy.deepcopy(spec["containers"][0])
    return container, json.loads(container["args"][1])


def site_job(image, verb, request):
    """The container of a site's Job, which runs this verb."""
    if verb == "run":
        container = rendered(image.python, "site_jobs__pod")["containers"][0]
    elif verb in ("backup", "restore"):
        container = rendered(image.python, "backups__backup_pod")["initContainers"][0]
    else:
        container = rendered(image.python, "creation__Job-shop-init")["spec"]["template"]["spec"]["containers"][0]
    return {**copy.deepcopy(container), "name": verb, "args": [verb, json.dumps(request)]}
