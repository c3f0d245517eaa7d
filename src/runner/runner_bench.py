"""What is done for a whole bench: its code on the volume, apps from Git, the common configuration."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse

from runner_common import APP_NAME, LOCK_WAIT_SECONDS, Failure, last_words, locked, read_file, replace_file, secret

REVISION = re.compile(r"[0-9a-f]{8,64}")
# What is cloned from: never a folder of the pod, nor what git runs a program of its own for.
REPOSITORY = re.compile(r"(https?|ssh|git)://[A-Za-z0-9\[][^\s\x00-\x20]*|[A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s\x00-\x20-][^\s\x00-\x20]*")
# A branch or tag, which git does not take for an option.
BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@#-]*")
# Shorter ones are names: they would take words out of every message.
TOKEN_CHARACTERS_MIN = 8
# What of a bench is code: copied where apps are to be added to it.
CODE = ("apps", "env", "assets")
CODE_KEPT_MAX = 3
# Longest wait for another pod that copies code and installs apps.
CODE_WAIT_SECONDS = 900
# Folder of the copies on the volume, one for each revision, and the end of the name of one that is not whole.
COPIES = os.path.join("sites", ".apps")
PART = ".part"
# Apps that Frappe takes the bench to have, and those that any image of it ever had.
LISTED_APPS = os.path.join("sites", "apps.txt")
KNOWN_APPS = os.path.join("sites", ".operator-apps")

# The link by which pods find their image's assets, and how names of files begin on the way to it: no site's name has a dot
# there.
LINK = os.path.join("sites", "assets")
PART_OF_LINK = os.path.join("sites", ".assets")


def code_folder(revision):
    if not REVISION.fullmatch(revision):
        raise Failure("RequestInvalid", "request", "revision must be hexadecimal digits")
    return os.path.join(COPIES, revision)


def locked_volume(seconds=LOCK_WAIT_SECONDS):
    """One pod at a time changes what the bench's sites share: for a moment, since Jobs of sites wait for it."""
    return locked(os.path.join("sites", ".operator-lock"), "what the bench's sites share", seconds)


def locked_code():
    """One pod at a time makes copies of the code, and installs apps in them: that may take long."""
    return locked(os.path.join("sites", ".operator-code-lock"), "the bench's code", CODE_WAIT_SECONDS)


def seed(request):
    """Copies the image's code to the volume, where apps can be added to it; a copy that was cut short is made anew."""
    folder = code_folder(request["revision"])
    with locked_code():
        if os.path.isdir(folder):
            # It is the newest once more.
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
    """Copies beyond the newest few go, each at once: pods of the former revision run theirs until they are replaced. What
    is left of one that was cut short, made or removed, goes too."""
    others = [entry for entry in os.scandir(COPIES) if entry.is_dir() and entry.name != os.path.basename(current)]
    whole = [entry for entry in others if not entry.name.endswith(PART)]
    whole.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    forget_parts_of_code()
    for entry in whole[CODE_KEPT_MAX - 1 :]:
        os.rename(entry.path, entry.path + PART)
    forget_parts_of_code()


def forget_parts_of_code():
    """Removes copies that are not whole."""
    for entry in os.scandir(COPIES):
        if entry.name.endswith(PART):
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
    """Has no password or token of a repository's URL show in any output: git repeats the URL."""
    url = urllib.parse.urlsplit(repository)
    token = url.password or (url.username if url.scheme in ("http", "https") else None)
    if token and len(token) >= TOKEN_CHARACTERS_MIN:
        secret.known.update({token, urllib.parse.unquote(token)})


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
    if request.get("code"):
        with locked_code():
            install_apps(request["code"])
    with locked_volume():
        before = read_file(path)
        config = json.loads(before) if before.strip() else {}
        config.update(request["common_site_config"])
        config.update(secret_urls(request, config))
        replace_file(path, json.dumps(config, indent=1, sort_keys=True) + "\n", 0o640)
        found = sorted(entry.name for entry in os.scandir("apps") if entry.is_dir()) if os.path.isdir("apps") else []
        found = [name for name in found if not name.startswith(".")]
        list_found(found, request.get("apps", []))
        forget_parts_of_link()
    link_assets()
    return {"apps": found}


def list_found(found, wanted):
    """Lists what the image has, and nothing else: Frappe imports every app that is listed, in each of its processes, and
    one that is missing ends them all. So an app that no image had before is not listed yet, since pods of the former
    image run on meanwhile: the first site that has it lists it, or the next run of this.

    Where the image lacks one of the apps that the bench is to have, no pod of it starts, and those of the former image run
    on: what they have stays listed."""
    known, listed = words(KNOWN_APPS), words(LISTED_APPS)
    known = put_words(KNOWN_APPS, known, [*known, *listed])
    if listed and not set(wanted) <= set(found):
        return
    apps = [app for app in [*listed, *found] if app in found and (not listed or app in known)]
    put_words(LISTED_APPS, listed, ["frappe", *apps])
    put_words(KNOWN_APPS, known, [*known, *found])


def words(path):
    """Words of a file, or nothing where there is none."""
    return read_file(path).split()


def put_words(path, present, wanted):
    """Has a file hold these words, each once and on a line of its own; answers them."""
    wanted = list(dict.fromkeys(wanted))
    if wanted != present:
        replace_file(path, "\n".join(wanted) + "\n")
    return wanted


def list_apps(apps):
    """Lists apps of the image that a site is to have, where the bench has a list."""
    if not words(LISTED_APPS) or set(apps) <= set(words(LISTED_APPS)):
        return
    with locked_volume():
        listed = words(LISTED_APPS)
        put_words(LISTED_APPS, listed, [*listed, *apps])


def link_assets(wait_seconds=LOCK_WAIT_SECONDS):
    """Lets sites/assets lead to the built assets of the image, whatever else is there, as the image's entrypoint does.

    That removes the link before it makes it anew, which fails where several pods start at once; so no pod runs it. Here one
    link takes the other's place, and where it leads there already nothing is done. The path is the same in every image: each
    pod sees its own image's assets. A folder on the volume stays where the image has none built.
    """
    target = os.path.abspath("assets")
    if not os.path.isdir(target) or is_linked(target):
        return
    with locked_volume(wait_seconds):
        # Another pod may have made it meanwhile.
        if is_linked(target):
            return
        forget_parts_of_link()
        os.symlink(target, PART_OF_LINK + ".new")
        if os.path.lexists(LINK) and not os.path.islink(LINK):
            try:
                os.rename(LINK, PART_OF_LINK + ".former")
            except FileNotFoundError:
                # An image's entrypoint takes no lock.
                pass
        os.rename(PART_OF_LINK + ".new", LINK)
        forget_parts_of_link()


def is_linked(target):
    """Whether sites/assets leads there, or is the volume's own beside an image without built assets."""
    if os.path.islink(LINK) and os.readlink(LINK) == target:
        return True
    return os.path.lexists(LINK) and not os.path.isfile(os.path.join(target, "assets.json"))


def forget_parts_of_link():
    """Removes what one left that was killed while it made the link."""
    home, name = os.path.split(PART_OF_LINK)
    for entry in os.scandir(home):
        if not entry.name.startswith(name):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)


def secret_urls(request, config):
    """URLs of Redis servers that are secrets, or have a secret in them."""
    urls = {key: secret(name) for key, name in request.get("secret_urls", {}).items()}
    for key, url in urls.items():
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise Failure("SecretInvalid", "secrets", f"the Secret's value for {key} is not a redis:// URL")
    for key in request.get("password_urls", []):
        password = urllib.parse.quote(secret("redis-password"), safe="")
        urls[key] = config[key].replace("redis://", f"redis://{request.get('redis_user', '')}:{password}@", 1)
    return urls
