"""Which container, pod, unit or user a process belongs to, by the path of its cgroup. Pure.

The outermost name counts: what is inside a container, or in what a user was given, is named by
whoever is in there. A container of a user's own engine is that user's, whatever it calls itself:
nothing below user-N.slice is root's. The kernel allows every byte in a name but the line feed and
the slash (kernel/cgroup/cgroup.c, cgroup_mkdir), so nothing else ends a line here.
"""

import re
from functools import lru_cache
from typing import NamedTuple

_ID = r"(?P<id>[0-9a-f]{64})"
# The last word of systemd's scopes and of the directories of cgroupfs, by engine:
# moby daemon/oci_linux.go, podman libpod/container_internal_linux.go, cri-o
# internal/config/cgmgr, containerd internal/cri/server, nerdctl pkg/cmd/container,
# runc and crun (their own prefix, where --systemd-cgroup is given no other).
_NAMED = (
    ("docker", re.compile(rf"docker-{_ID}\.scope")),
    ("podman", re.compile(rf"libpod-(payload-)?{_ID}(\.scope)?")),
    ("cri-o", re.compile(rf"crio-{_ID}(\.scope)?")),
    ("containerd", re.compile(rf"(cri-containerd|nerdctl)-{_ID}\.scope")),
    ("runc", re.compile(r"runc-(?P<id>[\w+.-]{1,128})\.scope", re.ASCII)),
    ("crun", re.compile(r"crun-(?P<id>[\w+.-]{1,128})\.scope", re.ASCII)),
)
_BARE = re.compile(_ID)
_POD = re.compile(r"(?:kubepods(?:-[a-z]+)?-)?pod(?P<uid>[0-9a-f_-]{32,36})(?:\.slice)?")
_USER = re.compile(r"user-(?P<uid>[0-9]{1,10})\.slice")
_UNIT = re.compile(r".{1,255}\.(?:service|scope|socket)")
# Where logins and managers of systemd are, which is nobody's container.
_LOGIN = re.compile(
    r"(/user\.slice/user-[0-9]+\.slice/(session-[^/]+\.scope|user@[0-9]+\.service))?(/init\.scope)?"
)
# What systemd has above a unit: slices, and those which others are in.
_ABOVE = re.compile(r".+\.slice|(?:user@|session-|init\.scope).*")
# What holds a container's directory where cgroupfs is used and no other parent is asked for:
# dockerd's, those of containerd's namespaces (ctr). A bare id is nobody else's elsewhere, either.
_PARENTS = {"docker": "docker", "default": "containerd", "k8s.io": "containerd"}


class Place(NamedTuple):
    """Where a process is: ``kind`` is container, unit or process.

    ``engine`` may be empty where a container's name is all there is, and ``ident`` is the whole
    path of its cgroup then; ``user`` is whose engine it is, 0 for root's.
    """

    kind: str
    engine: str = ""
    ident: str = ""
    pod: str = ""
    user: int = 0

    def holds(self, other: "Place") -> bool:
        """Tell whether ``other`` is this, or what a container without an engine made below it."""
        below = not self.engine and other.ident.startswith(f"{self.ident}/")
        return self == other or (below and self == other._replace(ident=self.ident))


PLAIN = Place("process")


@lru_cache(maxsize=4096)
def place(cgroup: str, *, nested: bool = False) -> Place:
    """Return where the process with this /proc/PID/cgroup is, by whichever hierarchy knows best.

    ``nested``: it has a pid namespace of its own, so a cgroup with any name is its container's, as
    runc and crun make them on their own (``/NAME``).
    """
    known = paths(cgroup)
    found = [_of_path(path) for path in known]
    # Whom one hierarchy says to be a user's is so in all: he may own another one.
    user = next((each.user for each in found if each.user), 0)
    for kind in ("container", "unit"):
        for each in found:
            if each.kind == kind:
                return each._replace(user=each.user or user)
    named = [path.strip("/") for path in known if path != "/" and not _LOGIN.fullmatch(path)]
    if nested and named:
        return Place("container", "", named[0], "", user)
    return PLAIN._replace(user=user)


@lru_cache(maxsize=4096)
def unit_of(cgroup: str) -> Place:
    """Return the unit that the process with this /proc/PID/cgroup is in; ``PLAIN``: in none.

    Whatever is below the unit is in it: a container that the unit has started, and what its
    processes, which may be anybody's, call the cgroups that it has delegated to them.
    """
    found = [_unit(path) for path in paths(cgroup)]
    user = next((each.user for each in found if each.user), 0)
    unit = next((each for each in found if each.kind == "unit"), PLAIN)
    return unit._replace(user=unit.user or user)


def paths(cgroup: str) -> list[str]:
    """Return the paths in a /proc/PID/cgroup, each once, that of version 2 first."""
    lines = [line.split(":", 2) for line in cgroup.split("\n") if line.count(":") >= 2]
    lines.sort(key=lambda line: (line[0] != "0", "systemd" not in line[1]))
    return list(dict.fromkeys(path for _, _, path in lines))


def ident_of(word: str) -> str:
    """Return ``word`` if it is an id as engines give them, else nothing."""
    return word if _BARE.fullmatch(word) else ""


def _of_path(path: str) -> Place:
    words = path.strip("/").split("/")
    user, pod = None, ""
    for at, word in enumerate(words):
        if user is None and (match := _USER.fullmatch(word)):
            user = int(match["uid"])
            continue
        if match := _POD.fullmatch(word):
            pod = match["uid"].replace("_", "-")
            continue
        for engine, pattern in _NAMED:
            if match := pattern.fullmatch(word):
                return Place("container", engine, match["id"], pod, user or 0)
        parent = _PARENTS.get(words[at - 1]) if at else None
        if _BARE.fullmatch(word):
            return Place("container", parent or "", word, pod, user or 0)
        if parent == "containerd" and len(words) == at + 1 == 2:
            return Place("container", parent, word, pod, user or 0)
    unit = _unit(path)
    return unit if unit.kind == "unit" else PLAIN._replace(user=user or 0)


def _unit(path: str) -> Place:
    """Return the unit that systemd started, the outermost of its own or of a user's.

    systemd has nothing but slices above it. Below another directory names are those of whoever is
    in there: a container of LXC's has /lxc.payload.NAME/system.slice/ssh.service.
    """
    user = None
    for word in path.strip("/").split("/"):
        if user is None and (match := _USER.fullmatch(word)):
            user = int(match["uid"])
        if _ABOVE.fullmatch(word):
            continue
        if _UNIT.fullmatch(word) and not word.startswith(("libpod-conmon-", "crio-conmon-")):
            # An underscore in front is systemd's, of names that cgroups have for themselves
            # (cg_escape).
            return Place("unit", "systemd", word.removeprefix("_"), "", user or 0)
        break
    return PLAIN._replace(user=user or 0)
