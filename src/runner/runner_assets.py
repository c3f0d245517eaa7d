"""Bundles of the images of a bench. A bundle's name contains a hash of its content, so another image has other bundles, but pages of the
previous image name the previous ones: while its pods run, and as long as a browser or a cache has such a page. So the bundles of
the newest images are kept on the volume, where nginx looks for those that its own image does not have.

Frappe keeps the list of bundles that its pages name in the Redis cache, for all sites and without an end: it must go with the image
that it is of.
"""

import io
import json
import os
import re
import shutil
import time

from runner_common import Failure, locked, read_file, replace_file
from runner_jobs import Reader, common_config, connect
from runner_volume import OWN, SITES, shared

# Folder of the kept bundles, by which nginx finds them, and the lists of each image's bundles, the newest image last.
KEPT = shared(".bundles")
LISTS = os.path.join(KEPT, "images.json")
# By this link, nginx of a later revision finds them below its folder of sites.
LINK_TO_KEPT = os.path.join(SITES, ".bundles")
IMAGES_KEPT = 3
# At most this part of the volume's free space is used.
FREE_PARTS = 2
# A name with a hash: of eight characters or more, with a capital or a digit.
HASHED = re.compile(r".+[.-](?=[^.]*[A-Z0-9])[A-Za-z0-9_-]{8,32}\.[a-z0-9]+")
SOURCE_MAP = ".map"
# Suffix of an incomplete copy.
PART = ".part"
# Folders that contain no bundles, but very many files.
SKIPPED = ("node_modules",)
# Files with the paths of the bundles, by name.
NAMES = ("assets.json", "assets-rtl.json")
# Frappe's key of the same in the Redis cache.
CACHED = "assets_json"
LOOK_SECONDS = float(os.environ.get("SITE_RUNNER_ASSETS_LOOK_SECONDS", "10"))


def keep_bundles():
    """Copies the bundles of this image to the volume, and removes those of images before the newest few. The bench starts without it:
    if there is no room for them, they are not kept."""
    found = dict(bundles())
    if not found:
        return
    try:
        os.makedirs(KEPT, exist_ok=True)
        with locked(os.path.join(KEPT, ".lock"), "the kept bundles"):
            put_bundles(found)
    except (OSError, Failure) as error:
        print(f"bundles of this image are not kept: {error}")


def link_kept():
    """Links the kept bundles to the folder of a later revision."""
    if OWN == 1 or os.path.lexists(LINK_TO_KEPT):
        return
    part = LINK_TO_KEPT + PART
    if os.path.lexists(part):
        os.unlink(part)
    os.symlink(os.path.abspath(KEPT), part)
    os.rename(part, LINK_TO_KEPT)


def bundles():
    """Paths of the bundles below sites, and their files. Each folder of assets is a link to a folder of an app."""
    for app in sorted(os.listdir("assets")) if os.path.isdir("assets") else []:
        top = os.path.realpath(os.path.join("assets", app))
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if name not in SKIPPED]
            for name in files:
                if HASHED.fullmatch(name) and not name.endswith(SOURCE_MAP):
                    path = os.path.join(folder, name)
                    yield os.path.join("assets", app, os.path.relpath(path, top)), path


def put_bundles(found):
    """Copies what is missing, and removes what no recorded image has. The volume may contain anything."""
    new = sorted(found)
    images = [*[names for names in recorded() if names != new][1 - IMAGES_KEPT:], new]
    missing = [name for name in new if not is_copied(found[name], os.path.join(KEPT, name))]
    if sum(os.path.getsize(found[name]) for name in missing) > shutil.disk_usage(KEPT).free // FREE_PARTS:
        print("bundles of this image are not kept: the volume has no room for them")
        return
    replace_file(LISTS, json.dumps(images))
    for name in missing:
        target = os.path.join(KEPT, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        part = target + PART
        if os.path.lexists(part):
            os.unlink(part)
        shutil.copyfile(found[name], part)
        os.replace(part, target)
    wanted = set().union(*images)
    for folder, _, files in os.walk(os.path.join(KEPT, "assets")):
        for name in files:
            path = os.path.join(folder, name)
            if os.path.relpath(path, KEPT) not in wanted:
                os.unlink(path)


def recorded():
    """The bundles of each image that is kept, the newest image last."""
    try:
        lists = json.loads(read_file(LISTS))
    except ValueError:
        return []
    lists = lists if isinstance(lists, list) else []
    return [names for names in lists if isinstance(names, list) and all(isinstance(name, str) for name in names)]


def is_copied(source, target):
    """Whether the file is there, and complete."""
    return os.path.isfile(target) and os.path.getsize(target) == os.path.getsize(source)


def own_list():
    """The list of this image's bundles, as Frappe makes it; empty if the image has no built assets."""
    found = {}
    for name in NAMES:
        found.update(json.loads(read_file(os.path.join(SITES, "assets", name)) or "{}"))
    return found


def watch_list():
    """Deletes the list of bundles from the Redis cache whenever it is another image's, which pods of that image may repeat."""
    while True:
        try:
            if forget_other_list():
                print("the list of bundles in the Redis cache was another image's, and was deleted", flush=True)
        except (OSError, ValueError) as error:
            print(f"the list of bundles cannot be read: {error}", flush=True)
        time.sleep(LOOK_SECONDS)


def forget_other_list():
    """Whether the list in the Redis cache was another image's, and was deleted. Redis may not respond, and its content may be
    anything."""
    url, own = common_config().get("redis_cache"), own_list()
    if not url or not own:
        return False
    redis, error = connect(url)
    try:
        data = redis.get(CACHED)
        return bool(data) and listed(data) != own and redis.delete(CACHED) > 0
    except error:
        return False
    finally:
        redis.close()


def listed(data):
    """The list in the Redis cache; None if it cannot be read."""
    try:
        return Reader(io.BytesIO(data)).load()
    except Exception:  # The data is untrusted.
        return None
