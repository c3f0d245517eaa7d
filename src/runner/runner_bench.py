"""Work for a whole bench: its code on the volume, apps from Git, the common configuration."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import urllib.parse

from runner_assets import keep_bundles, link_kept
from runner_code import assume_records, code_of_image, with_code
from runner_common import APP_NAME, LOCK_WAIT_SECONDS, Failure, last_words, locked, read_file, replace_file, secret
from runner_volume import NUMBER, REVISIONS, SITES, VOLUME, in_volume, shared

REVISION = re.compile(r"[0-9a-f]{8,64}")
# Allowed repositories: no folder of the pod, and no transport for which git runs a helper program.
REPOSITORY = re.compile(r"(https?|ssh|git)://[A-Za-z0-9\[][^\s\x00-\x20]*|[A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s\x00-\x20-][^\s\x00-\x20]*")
# A branch or tag that git does not parse as an option.
BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@#-]*")
# Shorter values are likely to be names: redacting them would remove words from every message.
TOKEN_CHARACTERS_MIN = 8
# The folders of a bench that contain code; they are copied if apps are added.
CODE = ("apps", "env", "assets")
# With revisions, several older ones run, and one that did not come up may lie between them.
CODE_KEPT_MAX = 6 if VOLUME else 3
# Longest wait for another pod that copies code and installs apps.
CODE_WAIT_SECONDS = 900
# Folder of the copies on the volume, one for each revision, and the suffix of an incomplete copy.
COPIES = shared(".apps")
PART = ".part"
# Apps of the bench according to Frappe, and apps that have ever been listed.
LISTED_APPS = os.path.join(SITES, "apps.txt")
KNOWN_APPS = os.path.join(SITES, ".operator-apps")
# Keys of common_site_config.json that the bench's commonSiteConfig has set.
SETTINGS = os.path.join(SITES, ".operator-settings")
SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# The link to the image's assets, and the prefix of temporary files for it: no site's name begins with a dot.
LINK = os.path.join(SITES, "assets")
PART_OF_LINK = os.path.join(SITES, ".assets")
# nginx of each older revision, by number: HOST:PORT.
ROUTES = shared(REVISIONS, "routes.json")
ROUTE = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?:[0-9]{1,5}")
# By what it contains, nginx of an older revision knows a request that the newest one passes on.
TOKEN = shared(REVISIONS, ".token")


def code_folder(revision):
    if not REVISION.fullmatch(revision):
        raise Failure("RequestInvalid", "request", "revision must be hexadecimal digits")
    return os.path.join(COPIES, revision)


def locked_volume(seconds=LOCK_WAIT_SECONDS):
    """Locks files that the bench's sites share. Hold it only briefly: Jobs of sites wait for it."""
    return locked(shared(".operator-lock"), "what the bench's sites share", seconds)


def locked_code():
    """Locks the copies of the code, for the pod that creates a copy or installs apps in it. It may be held for a long time."""
    return locked(shared(".operator-code-lock"), "the bench's code", CODE_WAIT_SECONDS)


def make_folder(request):
    """Makes the folder of a revision, before pods mount it."""
    number = request["number"]
    if not VOLUME or number == 1 or not NUMBER.fullmatch(str(number)):
        raise Failure("RequestInvalid", "request", "number must be 2 or more, and the volume's root must be mounted")
    os.makedirs(in_volume(number), exist_ok=True)
    if not read_file(TOKEN):
        replace_file(TOKEN, secrets.token_hex(16), 0o640)
    return "made"


def seed(request):
    """Copies the image's code to the volume, where apps can be added; an interrupted copy is repeated."""
    folder = code_folder(request["revision"])
    with locked_code():
        if os.path.isdir(folder):
            # It is the newest copy again.
            os.utime(folder)
            return "already copied"
        part = folder + PART
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
    """Removes old copies, each renamed first, and remains of interrupted copies and removals. The newest few are kept, because pods of
    the previous revision use theirs until they are replaced."""
    others = [entry for entry in os.scandir(COPIES) if entry.is_dir() and entry.name != os.path.basename(current)]
    whole = [entry for entry in others if not entry.name.endswith(PART)]
    whole.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    forget_parts_of_code()
    for entry in whole[CODE_KEPT_MAX - 1 :]:
        os.rename(entry.path, entry.path + PART)
    forget_parts_of_code()


def forget_parts_of_code():
    """Removes incomplete copies."""
    for entry in os.scandir(COPIES):
        if entry.name.endswith(PART):
            shutil.rmtree(entry.path, ignore_errors=True)


def install_apps(code):
    """Clones apps into the copy of the code that is mounted over the image's, and installs them there.

    An app is complete when its marker contains its request; an interrupted one is cloned again.
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
        raise Failure("RequestInvalid", "request", f"the branch of {app['name']} is not a valid branch name")
    module = app["name"].replace("-", "_")
    keep_token(app["repository"])
    target, part = os.path.join("apps", module), os.path.join("apps", f".{module}.part")
    shutil.rmtree(part, ignore_errors=True)
    branch = ["--branch", app["branch"]] if app.get("branch") else []
    step(f"clone {app['name']}", ["git", "clone", "--quiet", "--depth", "1", *branch, "--", app["repository"], part])
    if not os.path.isfile(os.path.join(part, module, "hooks.py")):
        raise Failure("CommandFailed", f"clone {app['name']}", f"{app['repository']} is not the Frappe app {module}: it has no {module}/hooks.py")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(part, target)
    step(f"install {app['name']}", [os.path.join("env", "bin", "python"), "-m", "pip", "install", "--quiet",
                                    "--no-cache-dir", "--disable-pip-version-check", "-e", target])
    public, link = os.path.join(target, module, "public"), os.path.join("assets", module)
    if os.path.isdir(public) and not os.path.lexists(link):
        os.symlink(os.path.abspath(public), link)


def keep_token(repository):
    """Redacts the password or token of a repository's URL, which git prints."""
    url = urllib.parse.urlsplit(repository)
    token = url.password or (url.username if url.scheme in ("http", "https") else None)
    if token and len(token) >= TOKEN_CHARACTERS_MIN:
        secret.known.update({token, urllib.parse.unquote(token)})


def step(name, command):
    """Runs a program without input; fails with the end of its output."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False)
    sys.stdout.write(done.stdout)
    if done.returncode:
        raise Failure("CommandFailed", name, last_words(done.stdout) or f"exit code {done.returncode}")


def configure(request):
    """Merges keys into common_site_config.json and lists the image's apps in apps.txt; other entries are kept.

    The result contains the apps of the image and their code. With `assume`, sites without a record of their schema get this image's;
    `older` has the nginx of each older revision.
    """
    if "older" in request:
        put_routes(request["older"])
    path = os.path.join(SITES, "common_site_config.json")
    if request.get("code"):
        with locked_code():
            install_apps(request["code"])
    with locked_volume():
        before = read_file(path)
        config = settled(json.loads(before) if before.strip() else {}, request.get("settings", {}))
        config.update(request["common_site_config"])
        config.update(secret_urls(request, config))
        replace_file(path, json.dumps(config, indent=1, sort_keys=True) + "\n", 0o640)
        put_words(SETTINGS, words(SETTINGS), request.get("settings", {}))
        found = sorted(entry.name for entry in os.scandir("apps") if entry.is_dir()) if os.path.isdir("apps") else []
        found = [name for name in found if not name.startswith(".")]
        list_found(found, request.get("apps", []))
        forget_parts_of_link()
        link_kept()
    link_assets()
    keep_bundles()
    if request.get("assume"):
        assume_records()
    return with_code({"apps": found}, code_of_image())


def settled(config, settings):
    """The configuration with a user's settings, without those that an earlier run wrote. Which it may contain is recorded first."""
    if not all(SETTING.fullmatch(key) for key in settings):
        raise Failure("RequestInvalid", "request", "keys of settings must be letters, digits and _")
    former = words(SETTINGS)
    put_words(SETTINGS, former, [*former, *settings])
    return {**{key: value for key, value in config.items() if key not in former}, **settings}


def put_routes(routes):
    """Writes where nginx of each older revision is."""
    if not VOLUME or not all(NUMBER.fullmatch(number) and ROUTE.fullmatch(route) for number, route in routes.items()):
        raise Failure("RequestInvalid", "request", "older must have HOST:PORT by numbers, and the volume's root must be mounted")
    os.makedirs(os.path.dirname(ROUTES), exist_ok=True)
    replace_file(ROUTES, json.dumps(routes, sort_keys=True) + "\n")


def list_found(found, wanted):
    """Lists only apps of the image: each Frappe process imports every listed app, and fails if one is missing. An app that was never
    listed is not listed here, because pods of a previous image may run: the first site with the app lists it, after the rollout.

    If the image does not have one of the bench's apps, none of its pods starts, and pods of the previous image continue: then
    their apps stay listed."""
    known, listed = words(KNOWN_APPS), words(LISTED_APPS)
    known = put_words(KNOWN_APPS, known, [*known, *listed])
    if listed and not set(wanted) <= set(found):
        return
    apps = [app for app in [*listed, *found] if app in found and (not listed or app in known)]
    put_words(LISTED_APPS, listed, ["frappe", *apps])
    put_words(KNOWN_APPS, known, [*known, *apps])


def words(path):
    """Words of a file; empty if it does not exist."""
    return read_file(path).split()


def put_words(path, present, wanted):
    """Writes these words to a file, each once and on its own line; returns them."""
    wanted = list(dict.fromkeys(wanted))
    if wanted != present:
        replace_file(path, "\n".join(wanted) + "\n")
    return wanted


def list_apps(apps):
    """Adds a site's apps to the bench's list, if there is one."""
    if not words(LISTED_APPS) or set(apps) <= set(words(LISTED_APPS)):
        return
    with locked_volume():
        listed = words(LISTED_APPS)
        put_words(LISTED_APPS, listed, [*listed, *apps])


def link_assets(wait_seconds=LOCK_WAIT_SECONDS):
    """Makes sites/assets a link to the image's built assets, replacing anything else there, as the image's entrypoint does.

    The entrypoint removes the link before it creates it again, which fails if several pods start at once; so no pod runs it. Here
    a new link replaces the old one atomically, and a correct link is kept. The path is the same in every image: each pod sees the
    assets of its own image. If the image has no built assets, a folder on the volume is kept.
    """
    target = os.path.abspath("assets")
    if not os.path.isdir(target) or is_linked(target):
        return
    with locked_volume(wait_seconds):
        # Another pod may have created it in the meantime.
        if is_linked(target):
            return
        forget_parts_of_link()
        os.symlink(target, PART_OF_LINK + ".new")
        if os.path.lexists(LINK) and not os.path.islink(LINK):
            try:
                os.rename(LINK, PART_OF_LINK + ".former")
            except FileNotFoundError:
                # The image's entrypoint uses no lock.
                pass
        os.rename(PART_OF_LINK + ".new", LINK)
        forget_parts_of_link()


def is_linked(target):
    """Whether sites/assets is a link to the target, or a folder of the volume while the image has no built assets."""
    if os.path.islink(LINK) and os.readlink(LINK) == target:
        return True
    return os.path.lexists(LINK) and not os.path.isfile(os.path.join(target, "assets.json"))


def forget_parts_of_link():
    """Removes temporary files of a run that was killed while it created the link."""
    home, name = os.path.split(PART_OF_LINK)
    for entry in os.scandir(home):
        if not entry.name.startswith(name):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)


def secret_urls(request, config):
    """URLs of Redis servers that are secret or contain a secret."""
    urls = {key: secret(name) for key, name in request.get("secret_urls", {}).items()}
    for key, url in urls.items():
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise Failure("SecretInvalid", "secrets", f"the Secret's value for {key} is not a redis:// URL")
    for key in request.get("password_urls", []):
        password = urllib.parse.quote(secret("redis-password"), safe="")
        urls[key] = config[key].replace("redis://", f"redis://{request.get('redis_user', '')}:{password}@", 1)
    return urls
