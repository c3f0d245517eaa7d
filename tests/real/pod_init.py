"""First process of a pod: makes the container's file system, gives up its privileges, and becomes the container's command.

Usage, in new mount and process namespaces: pod_init.py SPEC. SPEC is a JSON file, written by `pod.py`. Of the machine, the container has
only programs and libraries, read-only; its root is read-only, too.
"""

import ctypes
import json
import os
import sys

READ_ONLY, NO_SUID, NO_DEV, REMOUNT, BIND, RECURSIVE = 1, 2, 4, 32, 4096, 16384
# Folders with programs and libraries, and files of /etc that these need.
PROGRAMS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
SETTINGS = ("alternatives", "fonts", "ld.so.cache", "localtime", "magic", "mime.types", "nginx/mime.types", "ssl")
DEVICES = ("null", "zero", "full", "random", "urandom")
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind=None, flags=0, data=None):
    """Mounts, or raises OSError."""
    text = [None if it is None else os.fsencode(it) for it in (source, target, kind, data)]
    if LIBC.mount(text[0], text[1], text[2], flags, text[3]):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def bind(source, target, read_only=True):
    """Shows a file or folder at another place."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a", encoding="utf-8"):
            pass
    mount(source, target, flags=BIND | RECURSIVE)
    if read_only:
        mount(None, target, flags=REMOUNT | BIND | READ_ONLY)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def make_system(root, spec):
    """Programs, settings, devices and processes."""
    mount("tmpfs", root, "tmpfs", data="mode=755,size=64m")
    for name in PROGRAMS:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            bind(f"/{name}", f"{root}/{name}")
    for name in SETTINGS:
        if os.path.exists(f"/etc/{name}"):
            bind(f"/etc/{name}", f"{root}/etc/{name}")
    write(f"{root}/etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\nfrappe:x:1000:1000::/home/frappe:/bin/bash\n")
    write(f"{root}/etc/group", "root:x:0:\nfrappe:x:1000:\n")
    write(f"{root}/etc/hosts", "".join(f"{address} {name}\n" for name, address in spec["hosts"].items()))
    write(f"{root}/etc/resolv.conf", "")
    write(f"{root}/etc/nsswitch.conf", "hosts: files\n")
    os.makedirs(f"{root}/dev/shm")
    for name in DEVICES:
        bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", NO_SUID | NO_DEV, "mode=1777")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")
    os.makedirs(f"{root}/proc")
    mount("proc", f"{root}/proc", "proc")


def make_volumes(root, spec):
    """The image's bench with its layers, and the volumes over it."""
    bench = root + spec["bench"]
    os.makedirs(bench)
    if len(spec["layers"]) == 1:
        bind(spec["layers"][0], bench)
    else:
        mount("overlay", bench, "overlay", READ_ONLY, "lowerdir=" + ":".join(spec["layers"]))
    for source, target in spec["image"].items():
        bind(source, root + target)
    for volume in spec["volumes"]:
        target = root + volume["path"]
        if volume.get("memory"):
            os.makedirs(target, exist_ok=True)
            mount("tmpfs", target, "tmpfs", NO_SUID | NO_DEV, f"mode=2777,gid={spec['group']},size={volume['memory']}")
        else:
            bind(volume["source"], target, volume.get("readOnly", False))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    root = spec["root"]
    make_system(root, spec)
    make_volumes(root, spec)
    mount(None, root, flags=REMOUNT | READ_ONLY)
    # The container's user may open its own output again.
    for stream in (0, 1, 2):
        try:
            os.fchown(stream, spec["user"], -1)
        except OSError:
            pass
    os.chroot(root)
    os.chdir(spec["directory"])
    os.umask(0o022)
    identity = ["--reuid", str(spec["user"]), "--regid", str(spec["userGroup"]), "--groups", str(spec["group"])]
    nothing = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    os.execve("/usr/bin/setpriv", ["setpriv", *identity, *nothing, "--", *spec["command"]], spec["environment"])


main()
