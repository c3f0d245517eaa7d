"""nginx of a bench: hosts are mapped to sites by files on the volume, and a change there needs no new pod.

Frappe finds a site by its name, but the site's host may differ. The image's nginx uses the variable `$frappe_site` as the name,
which is mapped from the host here; a host without an entry is used as the site's name, and Frappe responds with 404 if there is
no such site. Changes of the volume cannot be watched, so the folder's modification time is read once a second.
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
from runner_site import HOSTS

CONFIGURATION = os.environ.get("SITE_RUNNER_NGINX_CONFIGURATION", "/etc/nginx/conf.d")
LOOK_SECONDS = float(os.environ.get("SITE_RUNNER_NGINX_LOOK_SECONDS", "1"))
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


def serve(_request):
    """Runs nginx until it is stopped, and returns its exit code."""
    try:
        link_assets(LINK_WAIT_SECONDS)
    except (OSError, Failure) as error:
        # Without the link, nginx serves everything except assets.
        print(f"sites/assets: {error}", flush=True)
    threading.Thread(target=watch_list, daemon=True).start()
    seen = look()
    write_map()
    server = subprocess.Popen(["nginx-entrypoint.sh"])
    signal.signal(signal.SIGTERM, lambda *_: stop(server))
    loaded = time.monotonic()
    corrected = False
    while True:
        try:
            sys.exit(server.wait(LOOK_SECONDS))
        except subprocess.TimeoutExpired:
            pass
        now = look()
        corrected, was = correct_template() or corrected, corrected
        due = now != seen and time.monotonic() - loaded >= RELOAD_SECONDS
        if due:
            seen = now
            write_map()
        if (due or corrected != was) and subprocess.run(["nginx", "-t", "-q"], check=False).returncode == 0:
            subprocess.run(["nginx", "-s", "reload"], check=False)
            loaded = time.monotonic()


def look():
    """Time of the last change of the folder; 0 if it is missing or cannot be read."""
    try:
        return os.stat(HOSTS, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def write_map():
    """Writes the map of hosts to sites."""
    lines = ["map_hash_max_size 65536;", "map_hash_bucket_size 512;", "map $host $frappe_site {", "    default $host;"]
    for host, site in sorted(led().items()):
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
    if corrected == text:
        tell_unknown_template(text)
        return False
    replace_file(path, corrected)
    return True


def tell_unknown_template(text):
    """Logs once what of the image's template is unknown: an origin for websockets, or where assets are."""
    for origin in ORIGIN.findall(text):
        if not any(known in origin for known in KNOWN_ORIGINS):
            tell_once(f"the image's template sets {origin!r}, which this runner does not know: websockets of hosts other than the site's "
                      "name may be rejected (Invalid origin)")
    for assets in ASSETS.findall(text):
        if KEPT_BUNDLES not in assets:
            tell_once(f"the image's template has {' '.join(assets.split())!r}, which this runner does not know: bundles of the previous "
                      "image are not served during a rollout")


def tell_once(message):
    if message not in tell_once.told:
        tell_once.told.add(message)
        print(message, flush=True)


tell_once.told = set()


def stop(server):
    """Stops nginx after the running requests."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if subprocess.run(["nginx", "-s", "quit"], check=False).returncode:
        server.terminate()
