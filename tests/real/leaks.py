"""Looks for secrets: in arguments and environments of every process of the machine, in what pods print and log, and on the volume."""

import os
import threading
import time

LOOK_SECONDS = 0.01
# Files of a site that have its passwords: Frappe reads them there.
KNOWN = ("site_config.json",)
# Shorter secrets of tests, such as `admin`, are words.
CHARACTERS_MIN = 16


class Leaks:
    """Looks continuously while it is open."""

    def __init__(self, cluster):
        self.cluster, self.found, self.rounds, self.processes, self.words = cluster, set(), 0, set(), set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def known(self):
        """Secrets of all sites, also former ones."""
        found = {value for site in self.cluster.sites for value in list(site.secrets.values())}
        self.words |= {it for it in found if len(it) >= CHARACTERS_MIN}
        return self.words

    def look(self):
        while not self.stop.is_set():
            self.rounds += 1
            words = [it.encode() for it in [*self.known()]]
            for entry in filter(str.isdigit, os.listdir("/proc")):
                for file in ("cmdline", "environ"):
                    try:
                        with open(f"/proc/{entry}/{file}", "rb") as handle:
                            text = handle.read()
                    except OSError:
                        continue
                    self.processes.add(entry)
                    if any(word in text for word in words):
                        self.found.add(f"{file}: {text[:200]!r}")
            time.sleep(LOOK_SECONDS)

    def written(self):
        """Where secrets are in outputs of pods, or in files of the volume that are not for them."""
        words = [*self.known()]
        # A probe of the tests prints what Frappe knows.
        said = [(name, text) for name, text in self.cluster.said if name != "probe"]
        found = [f"output of {name}" for name, text in said if any(word in text for word in words)]
        for folder, _, files in os.walk(self.cluster.volume):
            for name in files:
                if name in KNOWN:
                    continue
                with open(os.path.join(folder, name), "rb") as file:
                    text = file.read()
                if any(word.encode() in text for word in words):
                    found.append(os.path.relpath(os.path.join(folder, name), self.cluster.volume))
        return found

    def open(self):
        self.thread.start()
        return self

    def close(self):
        self.stop.set()
        self.thread.join()
