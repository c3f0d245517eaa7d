"""Where nginx leads a site: to this pod's servers, to none while the site is held, or to nginx of an older revision of the bench.

nginx looks for a file with the site's name in folders of this pod, so a hold or a move takes effect without a reload. A reload is needed
only if sites are in the folder of an older revision whose address it does not have. Workers from before the reload do not know that
revision, and remain for a while: so each set of addresses has its own folder of held sites, which are those that its workers cannot
lead to another revision, too.
"""

import json
import os
import re
import shutil
import socket
import threading

from runner_bench import ROUTE, ROUTES, TOKEN
from runner_code import SCHEMAS, code_of_image, misfits, record_of
from runner_common import SITE_NAME, read_file, replace_file
from runner_maintenance import HOLDS
from runner_site import RESERVED
from runner_volume import NUMBER, OWN, VOLUME, in_volume, revisions

CONFIGURATION = os.environ.get("SITE_RUNNER_NGINX_CONFIGURATION", "/etc/nginx/conf.d")
HELD = os.path.join(CONFIGURATION, "frappe-held")
HOLD = os.path.join(CONFIGURATION, "frappe-hold.server")
RETRY_SECONDS = 30
HOLD_TEXT = """if (-f "HELD/$frappe_site") { rewrite ^ /.frappe-hold last; }
"""
# The location ends the request: the image's own pages for errors, and a 503 of gunicorn, are not affected.
ANSWER_TEXT = f"""location = /.frappe-hold {{
    internal;
    default_type text/plain;
    add_header Retry-After {RETRY_SECONDS} always;
    add_header X-Frappe-Hold $frappe_site always;
    add_header Cache-Control no-store always;
    return 503 "This site is being updated. Please try again soon.\\n";
}}
"""
# Folders of the sites of older revisions, what nginx reads of them, and the names of their addresses there.
OLDER = os.path.join(CONFIGURATION, "frappe-older")
UPSTREAMS = os.path.join(CONFIGURATION, "frappe-revisions.conf")
UPSTREAM = "frappe-revision-"
# How often addresses are looked up.
RESOLVE_SECONDS = float(os.environ.get("SITE_RUNNER_NGINX_RESOLVE_SECONDS", "10"))
# The other nginx has the image's limits of time.
PASS_SECONDS = 3600
# The request as it was received, with the address that it came from: `$request_uri` is not decoded. Without a header of its own, the location would
# repeat those that the other nginx adds.
PASS_TEXT = """location = /.UPSTREAM {
    internal;
    proxy_pass http://UPSTREAM$request_uri;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $frappe_connection;
    proxy_set_header X-Frappe-Client $frappe_client;
    proxy_set_header X-Frappe-Front "FRONT";
    proxy_request_buffering off;
    proxy_buffering off;
    proxy_redirect off;
    proxy_connect_timeout 10s;
    proxy_read_timeout SECONDSs;
    proxy_send_timeout SECONDSs;
    add_header X-Frappe-Revision NUMBER always;
}
""".replace("SECONDS", str(PASS_SECONDS))
MAPS_TEXT = """map $http_upgrade $frappe_connection { default upgrade; "" ""; }
map $http_x_frappe_front $frappe_client { default $remote_addr;FRONT }
"""
TOKEN_TEXT = re.compile(r"[0-9a-f]{32}")


def look(folder):
    """Time of the last change of the folder; 0 if it is missing or cannot be read."""
    try:
        return os.stat(folder, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


class Holds:
    """The held sites: a file for each in a folder of this pod."""

    def __init__(self):
        try:
            self.image = code_of_image()
        except OSError as error:
            print(f"the image's code cannot be read, only sites under an update are held: {error}", flush=True)
            self.image = None
        self.seen = None
        for folder in (HELD, OLDER) if VOLUME else (HELD,):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
        self.held = set()
        # What is known of each record, by its file: an unchanged one is not read again.
        self.known = {}

    def begin(self):
        """Holds what is to be held before nginx starts."""
        self.follow()
        replace_file(HOLD, HOLD_TEXT.replace("HELD", HELD) + ANSWER_TEXT)

    def follow(self):
        """Holds and releases sites after a change on the volume."""
        now = self.changes()
        if now != self.seen:
            self.apply()
            self.seen = now

    def changes(self):
        """What changes if a site is to be held or released."""
        return look(SCHEMAS), look(HOLDS)

    def apply(self):
        """Holds and releases sites."""
        wanted = self.wanted()
        for site in wanted - self.held:
            with open(os.path.join(HELD, site), "w", encoding="utf-8"):
                print(f"{site} is held until it is updated", flush=True)
        for site in self.held - wanted:
            os.unlink(os.path.join(HELD, site))
            print(f"{site} is released", flush=True)
        self.held = wanted

    def wanted(self, elsewhere=()):
        """Sites to be held, without those whose records are not for this image."""
        # An update ends only after the site's record is written.
        updated, records = set(entries(HOLDS)), list(entries(SCHEMAS))
        self.known = {site: self.known[site] for site in records if site in self.known}
        return {*filter(self.is_outdated, (site for site in records if site not in elsewhere)), *updated}

    def unserved(self):
        """Sites that this pod's servers must not get."""
        return self.held

    def is_stale(self):
        """Whether nginx must read its configuration."""
        return False

    def renew(self):
        """Writes what nginx reads."""

    def loaded(self):
        """nginx has been told to read its configuration."""

    def is_outdated(self, site):
        """Whether the site's schema is not the one of this image's code. While its record cannot be read, nothing changes."""
        try:
            file = os.stat(os.path.join(SCHEMAS, site), follow_symlinks=False)
        except OSError:
            return site in self.held
        file = file.st_ino, file.st_mtime_ns, file.st_size
        if self.known.get(site, (None,))[0] != file:
            record = record_of(site)
            is_outdated = site in self.held if record is None or self.image is None else bool(misfits(record, self.image))
            self.known[site] = file, is_outdated
        return self.known[site][1]


class Routes(Holds):
    """The same for one of several revisions. A site in the folder of an older one is led there; the requests of one in the folder of a later one
    come here only until the others have noticed."""

    def __init__(self):
        super().__init__()
        self.addresses = Addresses()
        # Sites that are not in this revision's folder, with the revision that they are in, and those that are led there.
        self.elsewhere, self.led = {}, {}
        # Addresses of older revisions that nginx has, the last set is the newest; and the sites that are held in the folder of each.
        self.sets = []

    def begin(self):
        self.seen = self.changes()
        self.wanted()
        self.addresses.look_up()
        threading.Thread(target=self.addresses.follow, daemon=True).start()
        self.renew()

    def changes(self):
        return (*super().changes(), look(ROUTES), *((number, look(in_volume(number))) for number in revisions()))

    def wanted(self, elsewhere=()):
        updated = list(entries(HOLDS))
        self.elsewhere = sites_elsewhere()
        self.addresses.want(routes(), set(self.elsewhere.values()))
        return {*super().wanted(self.elsewhere), *updated}

    def apply(self):
        """Nothing leads to a server that does not have the site, at any time: a site is held first, and released last."""
        former, self.held = self.held, self.wanted()
        for site in former ^ self.held:
            print(f"{site} is {'held until it is updated' if site in self.held else 'released'}", flush=True)
        wanted = [self.held | {site for site, revision in self.elsewhere.items() if revision not in known.addresses} for known in self.sets]
        for known, sites in zip(self.sets, wanted):
            known.hold(sites)
        self.lead()
        for known, sites in zip(self.sets, wanted):
            known.release(sites)

    def lead(self):
        """Writes which sites are in the folders of older revisions."""
        older = {site: revision for site, revision in self.elsewhere.items() if revision < OWN}
        for site, revision in older.items():
            if self.led.get(site) != revision:
                os.makedirs(os.path.join(OLDER, str(revision)), exist_ok=True)
                with open(os.path.join(OLDER, str(revision), site), "w", encoding="utf-8"):
                    print(f"{site} is led to revision {revision}", flush=True)
        for site, revision in self.led.items():
            if older.get(site) != revision:
                os.unlink(os.path.join(OLDER, str(revision), site))
                print(f"{site} is not led to revision {revision} any more", flush=True)
        self.led = older

    def unserved(self):
        return {*self.held, *self.elsewhere}

    def is_stale(self):
        known, found = self.sets[-1].addresses, self.addresses.found()
        return any(known.get(revision) != found.get(revision) for revision in set(self.elsewhere.values()))

    def renew(self):
        """Makes a set of the known addresses, if nginx does not have exactly these."""
        found = self.addresses.found()
        if self.sets and self.sets[-1].addresses == found:
            return
        self.sets.append(Set(1 + self.sets[-1].number if self.sets else 1, found))
        self.apply()
        front = read_file(TOKEN)
        front = front if TOKEN_TEXT.fullmatch(front) else ""
        trusted = f' "{front}" $http_x_frappe_client;' if front else ""
        servers = (f"upstream {UPSTREAM}{revision} {{ {' '.join(f'server {it};' for it in addresses)} }}\n" for revision, addresses in found.items())
        replace_file(UPSTREAMS, MAPS_TEXT.replace("FRONT", trusted) + "".join(servers))
        leads = (f'if (-f "{OLDER}/{revision}/$frappe_site") {{ rewrite ^ /.{UPSTREAM}{revision} last; }}\n' for revision in found)
        passes = (PASS_TEXT.replace("UPSTREAM", f"{UPSTREAM}{revision}").replace("NUMBER", str(revision)).replace("FRONT", front) for revision in found)
        replace_file(HOLD, HOLD_TEXT.replace("HELD", self.sets[-1].folder) + "".join(leads) + ANSWER_TEXT + "".join(passes))

    def loaded(self):
        """Workers with the former set may remain."""
        for known in self.sets[:-2]:
            shutil.rmtree(known.folder, ignore_errors=True)
        self.sets = self.sets[-2:]


class Set:
    """Addresses of older revisions, and the sites that workers with these addresses hold."""

    def __init__(self, number, addresses):
        self.number, self.addresses, self.held = number, addresses, set()
        self.folder = os.path.join(HELD, str(number))
        os.makedirs(self.folder)

    def hold(self, sites):
        for site in sites - self.held:
            with open(os.path.join(self.folder, site), "w", encoding="utf-8"):
                pass
        self.held |= sites

    def release(self, sites):
        for site in self.held - sites:
            os.unlink(os.path.join(self.folder, site))
        self.held &= sites


class Addresses:
    """Addresses of nginx of older revisions. They are looked up beside everything else: a name server may not respond."""

    def __init__(self):
        self.wanted, self.known, self.changed = {}, {}, threading.Event()

    def want(self, found, used):
        """Sets the routes of revisions that are used."""
        wanted = {revision: found[revision] for revision in sorted(used) if revision in found}
        if wanted != self.wanted:
            self.wanted = wanted
            self.changed.set()

    def found(self):
        """The known addresses of the wanted routes, by revision."""
        known = self.known
        return {revision: known[route] for revision, route in self.wanted.items() if route in known}

    def follow(self):
        while True:
            self.changed.wait(RESOLVE_SECONDS)
            self.changed.clear()
            self.look_up()

    def look_up(self):
        """Looks up each name. If there is no answer, the former one stays."""
        for route in set(self.wanted.values()):
            host, _, port = route.rpartition(":")
            try:
                found = sorted({entry[4][0] for entry in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)})
            except (OSError, UnicodeError) as error:
                tell_once(f"the address of {route} is not known: {error}")
                continue
            self.known = {**self.known, route: tuple(f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in found)}


def routes():
    """Where nginx of each older revision is. The volume may contain anything."""
    try:
        found = json.loads(read_file(ROUTES) or "{}")
        return {int(number): route for number, route in found.items() if NUMBER.fullmatch(number) and int(number) < OWN and ROUTE.fullmatch(route)}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        tell_once(f"{ROUTES} cannot be read: {error}")
        return {}


def sites_elsewhere():
    """Sites that are not in this revision's folder, with the revision that they are in."""
    own, older, later = set(), {}, {}
    for revision in revisions():
        for site in directories(in_volume(revision)):
            if revision == OWN:
                own.add(site)
            else:
                (older if revision < OWN else later)[site] = revision
    return {site: revision for site, revision in {**later, **older}.items() if site not in own}


def directories(folder):
    """Names of the sites in a folder."""
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in found if SITE_NAME.fullmatch(entry.name) and entry.name not in RESERVED and entry.is_dir()]
    except OSError as error:
        tell_once(f"{folder} cannot be read: {error}")
        return []


def holds_of_this_pod():
    """What this pod's nginx holds, and leads elsewhere."""
    return Routes() if VOLUME else Holds()


def entries(folder):
    """Names of sites in a folder of the volume. An unknown entry is logged once."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        tell_once(f"{folder} cannot be read: {error.strerror}")
        return
    for name in names:
        if SITE_NAME.fullmatch(name):
            yield name
        elif not name.startswith("."):
            tell_once(f"{folder}: {name!r} is skipped: it is not a site's name")


def tell_once(message):
    if message not in tell_once.told:
        tell_once.told.add(message)
        print(message, flush=True)


tell_once.told = set()
