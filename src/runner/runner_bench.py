"""What is done for a whole bench: its code on the volume, apps from Git, the common configuration."""

import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import urllib.parse

from runner_common import APP_NAME, Failure, last_words, read_file, replace_file, secret

REVISION = re.compile(r"[0-9a-f]{8,64}")
# What is cloned from: never a folder of the pod, nor what git runs a program of its own for.
REPOSITORY = re.compile(r"(https?|ssh|git)://[A-Za-z0-9\[][^\s\x00-\x20]*|[A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s\x00-\x20-][^\s\x00-\x20]*")
# A branch or tag, which git does not take for an option.
BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@#-]*")
# What of a bench is code: copied where apps are to be added to it.
CODE = ("apps", "env", "assets")
CODE_KEPT_MAX = 3
# Apps that Frappe takes the bench to have, and those that any image of it ever had.
LISTED_APPS = os.path.join("sites", "apps.txt")
KNOWN_APPS = os.path.join("sites", ".operator-apps")


def code_folder(revision):
    if not REVISION.fullmatch(revision):
        raise Failure("RequestInvalid", "request", "revision must be hexadecimal digits")
    return os.path.join("sites", ".apps", revision)


def locked_volume():
    """One pod at a time changes what the bench's sites share."""
    handle = open(os.path.join("sites", ".operator-lock"), "w", encoding="utf-8")
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def seed(request):
    """Copies the image's code to the volume, where apps can be added to it; a copy that was cut short is made anew."""
    folder = code_folder(request["revision"])
    with locked_volume():
        if os.path.isdir(folder):
            return "already copied"
        part = folder + ".part"
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        for name in CODE:
            if os.path.isdir(name):
                shutil.copytree(name, os.path.join(part, name), symlinks=True)
            else:
                os.makedirs(os.path.join(part, name))
        os.rename(part, folder)
        forget_old_code(folder)
    return "copied"


def forget_old_code(current):
    """Copies beyond the newest few go: pods of the former revision run theirs until they are replaced."""
    home = os.path.dirname(current)
    others = [entry for entry in os.scandir(home) if entry.is_dir() and entry.name != os.path.basename(current)]
    others.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in others[CODE_KEPT_MAX - 1 :]:
        shutil.rmtree(entry.path, ignore_errors=True)


def install_apps(code):
    """Clones apps into the copy of the code that is mounted over the image's, and installs them there.

    An app is done when its marker holds what was asked for; one that was cut short is cloned anew.
    """
    markers = os.path.join(code_folder(code["revision"]), "installed")
    os.makedirs(markers, exist_ok=True)
    for app in code["clone"]:
        marker, asked = os.path.join(markers, app["name"]), json.dumps(app, sort_keys=True)
        if read_file(marker) != asked:
            install_app(app)
            replace_file(marker, asked)


def install_app(app):
    """Clones one app, adds it to the virtual environment and links its public files."""
    if not APP_NAME.fullmatch(app["name"]):
        raise Failure("RequestInvalid", "request", "apps must be app names")
    if not REPOSITORY.fullmatch(app["repository"]):
        raise Failure("RequestInvalid", "request", f"the repository of {app['name']} must be a URL that begins with https://, http://, ssh:// or git://, or USER@HOST:PATH")
    if app.get("branch") and not BRANCH.fullmatch(app["branch"]):
        raise Failure("RequestInvalid", "request", f"the branch of {app['name']} is not the name of one")
    module = app["name"].replace("-", "_")
    target, part = os.path.join("apps", module), os.path.join("apps", f".{module}.part")
    shutil.rmtree(part, ignore_errors=True)
    branch = ["--branch", app["branch"]] if app.get("branch") else []
    step(f"clone {app['name']}", ["git", "clone", "--quiet", "--depth", "1", *branch, "--", app["repository"], part])
    if not os.path.isfile(os.path.join(part, module, "hooks.py")):
        raise Failure("CommandFailed", f"clone {app['name']}", f"{app['repository']} is no Frappe app {module}: it has no {module}/hooks.py")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(part, target)
    step(f"install {app['name']}", [os.path.join("env", "bin", "python"), "-m", "pip", "install", "--quiet",
                                    "--no-cache-dir", "--disable-pip-version-check", "-e", target])
    public, link = os.path.join(target, module, "public"), os.path.join("assets", module)
    if os.path.isdir(public) and not os.path.lexists(link):
        os.symlink(os.path.abspath(public), link)


def step(name, command):
    """Runs a program that asks nothing; its last words are told if it fails."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False)
    sys.stdout.write(done.stdout)
    if done.returncode:
        raise Failure("CommandFailed", name, last_words(done.stdout) or f"exit code {done.returncode}")


def configure(request):
    """Merges keys into common_site_config.json and lists the image's apps in apps.txt; keeps what others wrote.

    The result names the apps that the image has.
    """
    path = os.path.join("sites", "common_site_config.json")
    with locked_volume():
        if request.get("code"):
            install_apps(request["code"])
        before = read_file(path)
        config = json.loads(before) if before.strip() else {}
        config.update(request["common_site_config"])
        config.update(secret_urls(request, config))
        replace_file(path, json.dumps(config, indent=1, sort_keys=True) + "\n", 0o640)
        found = sorted(entry.name for entry in os.scandir("apps") if entry.is_dir()) if os.path.isdir("apps") else []
        found = [name for name in found if not name.startswith(".")]
        list_found(found)
    link_assets()
    return {"apps": found}


def list_found(found):
    """Lists what the image has, and nothing else: Frappe imports every app that is listed, in each of its processes, and
    one that is missing ends them all. So an app that no image had before is not listed yet, since pods of the former
    image run on meanwhile: the first site that has it lists it, or the next run of this."""
    known = read_file(KNOWN_APPS).split()
    listed = read_file(LISTED_APPS).split()
    first = not listed
    apps = [app for app in dict.fromkeys(["frappe", *listed, *found]) if app == "frappe" or app in found and (first or app in (*listed, *known))]
    if apps != listed:
        replace_file(LISTED_APPS, "\n".join(apps) + "\n")
    every = list(dict.fromkeys([*known, *found]))
    if every != known:
        replace_file(KNOWN_APPS, "\n".join(every) + "\n")


def list_apps(apps):
    """Lists apps of the image that a site is to have, where the bench has a list."""
    if not read_file(LISTED_APPS).strip() or set(apps) <= set(read_file(LISTED_APPS).split()):
        return
    with locked_volume():
        listed = list(dict.fromkeys([*read_file(LISTED_APPS).split(), *apps]))
        replace_file(LISTED_APPS, "\n".join(listed) + "\n")


def link_assets():
    """Lets sites/assets lead to the built assets of the image, whatever else is there, as the image's entrypoint does.

    That removes the link before it makes it anew, which fails where several pods start at once; so no pod runs it. Here one
    link takes the other's place, and where it leads there already nothing is done. The path is the same in every image: each
    pod sees its own image's assets. A folder on the volume stays where the image has none built.
    """
    target, link = os.path.abspath("assets"), os.path.join("sites", "assets")
    is_link, is_there = os.path.islink(link), os.path.lexists(link)
    built = os.path.isfile(os.path.join(target, "assets.json"))
    if not os.path.isdir(target) or (is_link and os.readlink(link) == target) or (is_there and not built):
        return
    part = os.path.join("sites", f".assets-{secrets.token_hex(8)}")
    os.symlink(target, part)
    former = part + ".former"
    if is_there and not is_link:
        os.rename(link, former)
    os.rename(part, link)
    shutil.rmtree(former, ignore_errors=True)


def secret_urls(request, config):
    """URLs of Redis servers that are secrets, or have a secret in them."""
    urls = {key: secret(name) for key, name in request.get("secret_urls", {}).items()}
    for key, url in urls.items():
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise Failure("SecretInvalid", "secrets", f"the secret for {key} is no redis:// URL")
    for key in request.get("password_urls", []):
        password = urllib.parse.quote(secret("redis-password"), safe="")
        urls[key] = config[key].replace("redis://", f"redis://{request.get('redis_user', '')}:{password}@", 1)
    return urls
