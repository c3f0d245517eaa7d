"""nginx of a bench: hosts are mapped to sites by files on the volume, and a change there needs no new pod.

Frappe finds a site by its name, but the site's host may differ. The image's nginx uses the variable `$frappe_site` as the name,
which is mapped from the host here; a host without an entry is used as the site's name, and Frappe responds with 404 if there is
no such site. Changes of the volume cannot be watched, so the modification times of folders are read once a second.

A site is held if its schema is not the one of this image's code, or while its update says so: its hosts are answered with 503. One that
another revision of the bench serves is led there (runner_routes).
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time

from runner_assets import watch_list
from runner_bench import link_assets
from runner_common import SITE_NAME, Failure, open_plain, read_file, replace_file
from runner_routes import CONFIGURATION, HOLD, holds_of_this_pod, look, tell_once
from runner_site import HOSTS
from runner_volume import VOLUME

LOOK_SECONDS = float(os.environ.get("SITE_RUNNER_NGINX_LOOK_SECONDS", "1"))
# Until the template that the image's script writes at the start is corrected, and for how long at most.
START_LOOK_SECONDS, START_SECONDS = 0.05, 10
# Shortest time between two reloads: after each, the previous workers remain until their connections end.
RELOAD_SECONDS = float(os.environ.get("SITE_RUNNER_NGINX_RELOAD_SECONDS", "5"))
# Longest wait for a pod that creates the link to the assets: this pod must soon answer its probes.
LINK_WAIT_SECONDS = 10
# Words with a special meaning in a map unless a backslash precedes them.
MAP_WORDS, BACKSLASH = ("default", "hostnames", "include", "volatile"), "\\"
# Maximum bytes of a site's name and a line feed.
LINE_BYTES_MAX = 256
# The image's template sends the site's name as the origin of a websocket, which the server compares with the host. Before the name
# is the scheme, which differs between templates.
STOCK_ORIGIN = re.compile(r"(\bproxy_set_header\s+Origin\s+\$\w+://)\$frappe_site\b")
ORIGIN = re.compile(r"\bproxy_set_header\s+Origin\s+[^;]*")
KNOWN_ORIGINS = ("$host", "$http_host", "$http_origin")
# The image's template looks for assets only in the image; what follows if there is none differs between templates.
STOCK_ASSETS = re.compile(r"(\blocation\s+/assets/?\s*\{\s*try_files\s+\$uri)(\s+(?:=404|@[\w-]+)\s*;)")
ASSETS = re.compile(r"\blocation\s+/assets\b[^}]*")
KEPT_BUNDLES = "/.bundles$uri"
# The beginning of the server block, and the directive that is added there.
SERVER = re.compile(r"(^|\n)(\s*server\s*\{)")
INCLUDE = f"include {HOLD};"
# A name that no site has.
NO_SITE = "held.invalid"
# The image's template sends the address that a request came from. One that nginx of a later revision passes on has the address that it
# came from there.
STOCK_CLIENT = re.compile(r"(\bproxy_set_header\s+X-Forwarded-For\s+)\$remote_addr(\s*;)")


def serve(_request):
    """Runs nginx until it is stopped, and returns its exit code."""
    try:
        link_assets(LINK_WAIT_SECONDS)
    except (OSError, Failure) as error:
        # Without the link, nginx serves everything except assets.
        print(f"sites/assets: {error}", flush=True)
    threading.Thread(target=watch_list, daemon=True).start()
    holds = holds_of_this_pod()
    holds.begin()
    seen = look(HOSTS)
    write_map(holds.unserved())
    server = subprocess.Popen(["nginx-entrypoint.sh"])
    signal.signal(signal.SIGTERM, lambda *_: stop(server))
    begun = loaded = time.monotonic()
    # Whether nginx has read the corrected template, whether it must read its configuration, and whether the map is the first one.
    corrected, must_load, is_first = False, False, bool(holds.unserved())
    while True:
        starting = not corrected and time.monotonic() - begun < START_SECONDS
        try:
            sys.exit(server.wait(min(START_LOOK_SECONDS, LOOK_SECONDS) if starting else LOOK_SECONDS))
        except subprocess.TimeoutExpired:
            pass
        holds.follow()
        now = look(HOSTS)
        is_correction = correct_template()
        due = (now != seen or is_first and not starting or holds.is_stale()) and time.monotonic() - loaded >= RELOAD_SECONDS
        if due or is_correction:
            seen, is_first = now, False
            write_map()
            holds.renew()
        must_load = must_load or due or is_correction
        if must_load and (starting or due or is_correction or time.monotonic() - loaded >= RELOAD_SECONDS):
            is_loaded = reload()
            corrected, must_load, loaded = corrected or is_loaded, not is_loaded, time.monotonic()
            if is_loaded:
                holds.loaded()


def reload():
    """Whether nginx is told to read its configuration. It may not have started yet."""
    return all(subprocess.run(["nginx", *arguments], check=False).returncode == 0 for arguments in (["-t", "-q"], ["-s", "reload"]))


def write_map(without=()):
    """Writes the map of hosts to sites. Until nginx has read the corrected template, the hosts of held sites lead to none."""
    lines = ["map_hash_max_size 65536;", "map_hash_bucket_size 512;", "map $host $frappe_site {", "    default $host;"]
    found = led()
    found.update({host: NO_SITE for host in (*without, *found) if found.get(host, host) in without})
    for host, site in sorted(found.items()):
        lines.append(f'    "{BACKSLASH * (host in MAP_WORDS)}{host}" "{site}";')
    replace_file(os.path.join(CONFIGURATION, "frappe-hosts.conf"), "\n".join([*lines, "}", ""]))


def led():
    """Hosts and their sites. The volume may contain anything: invalid entries are skipped and logged."""
    found = {}
    try:
        folder = os.open(HOSTS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return found
    except OSError as error:
        print(f"cannot read hosts: {HOSTS}: {error.strerror}", flush=True)
        return found
    try:
        for host in os.listdir(folder):
            # The runner's lock and temporary files.
            if host.startswith("."):
                continue
            try:
                with open_plain(host, folder) as file:
                    text = file.read(LINE_BYTES_MAX + 1)
                if len(text) > LINE_BYTES_MAX:
                    raise ValueError("is too long")
                site = text.decode().strip()
            except (OSError, ValueError) as error:
                print(f"host skipped: {host!r}: {getattr(error, 'strerror', None) or error}", flush=True)
                continue
            if SITE_NAME.fullmatch(host) and SITE_NAME.fullmatch(site):
                found[host] = site
            else:
                print(f"host skipped: {host!r}: it is not a host name, or its site's name is invalid", flush=True)
    finally:
        os.close(folder)
    return found


def correct_template():
    """Whether the configuration that the image's script wrote had to be corrected."""
    path = os.path.join(CONFIGURATION, "frappe.conf")
    text = read_file(path)
    corrected = STOCK_ORIGIN.sub(r"\1$host", text)
    corrected = STOCK_ASSETS.sub(rf"\1 {KEPT_BUNDLES}\2", corrected)
    if VOLUME:
        corrected = STOCK_CLIENT.sub(r"\1$frappe_client\2", corrected)
    if INCLUDE not in corrected:
        corrected = SERVER.sub(lambda found: f"{found[0]}\n{INCLUDE}", corrected)
    if corrected == text:
        tell_unknown_template(text)
        return False
    replace_file(path, corrected)
    return True


def tell_unknown_template(text):
    """Logs once what of the image's template is unknown: an origin for websockets, where assets are, or a server."""
    for origin in ORIGIN.findall(text):
        if not any(known in origin for known in KNOWN_ORIGINS):
            tell_once(f"the image's template sets {origin!r}, which this runner does not know: websockets of hosts other than the site's "
                      "name may be rejected (Invalid origin)")
    for assets in ASSETS.findall(text):
        if KEPT_BUNDLES not in assets:
            tell_once(f"the image's template has {' '.join(assets.split())!r}, which this runner does not know: bundles of the previous "
                      "image are not served during a rollout")
    if text and INCLUDE not in text:
        tell_once("the image's template has no server block that this runner knows: sites are served while they are updated")


def stop(server):
    """Stops nginx after the running requests."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if subprocess.run(["nginx", "-s", "quit"], check=False).returncode:
        server.terminate()
