"""Folders of the bench's volume. Its root is the folder of sites of the first revision of the bench; that of a later one is
`.revisions/NUMBER`. A pod has the folder of its own revision as `sites`.

What all revisions share is in the root: records and holds of sites, hosts, dumps, code, bundles, and locks. Each folder has its own
configuration, list of apps and link to the assets, and the directories of the sites that its pods serve: the directory of a
site is in exactly one folder.

SITE_RUNNER_VOLUME is where the root is mounted: a directory can be renamed from one folder to another only below one mount. Without it,
`sites` is the root, and there is one revision. SITE_RUNNER_REVISION is the number of the revision.
"""

import os
import re

SITES = "sites"
VOLUME = os.environ.get("SITE_RUNNER_VOLUME", "")
OWN = int(os.environ.get("SITE_RUNNER_REVISION", "1"))
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
REVISIONS = ".revisions"


def shared(*names):
    """A path that all revisions share."""
    return os.path.join(VOLUME or SITES, *names)


def in_volume(number):
    """Folder of a revision, below the mount of the volume's root."""
    return VOLUME if number == 1 else os.path.join(VOLUME, REVISIONS, str(number))


def folder_of(number):
    """Folder of a revision."""
    return SITES if number == OWN else in_volume(number)


def revisions():
    """Numbers of the revisions that have a folder."""
    if not VOLUME:
        return [OWN]
    above = shared(REVISIONS)
    names = os.listdir(above) if os.path.isdir(above) else []
    later = [int(name) for name in names if NUMBER.fullmatch(name) and name != "1" and os.path.isdir(os.path.join(above, name))]
    return [1, *sorted(later)]


def places(name):
    """Numbers of the revisions in whose folders a site's directory is."""
    return [number for number in revisions() if os.path.lexists(os.path.join(folder_of(number), name))]
