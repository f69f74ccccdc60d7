"""Which files belong to a package: its next version replaces them, with whatever was changed."""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence

DPKG, RPM = "/usr/bin/dpkg-query", "/usr/bin/rpm"
_DPKG_INFO = "var/lib/dpkg"
_RPM_INFO = ("var/lib/rpm", "usr/lib/sysimage/rpm")
# Where no package puts files (hier(7), FHS), or what it puts is the administrator's to change, as
# dpkg's conffiles and rpm's %config are.
_FREE = (
    *("/etc/", "/home/", "/root/", "/run/", "/srv/", "/usr/local/", "/var/lib/kubelet/"),
    *("/tmp/", "/var/tmp/"),  # noqa: S108 - nothing is made there
)
# Of a merged /usr dpkg may still know the old name.
_MERGED = re.compile(r"/usr(?=/(bin|sbin|lib[^/]*)/)")
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_SECONDS, _SECONDS_EACH = 15, 5
_AT_ONCE = 500
UNTOLD = "(perhaps: the package manager did not answer)"
# What engines read instead where it is there: containers/common's DefaultSeccompPath.
INSTEAD = {"/usr/share/containers/seccomp.json": "/etc/containers/seccomp.json"}


def owners(paths: Iterable[str], top: str = "/") -> dict[str, str]:
    """Return the package that each of ``paths`` belongs to, of those that belong to one.

    ``top`` is the root of all of them. What could not be told in time is taken for a package's if
    it is in /usr.
    """
    asked = [path for path in paths if not path.startswith(_FREE)]
    if not asked:
        return {}
    deadline = time.monotonic() + _SECONDS
    found: dict[str, str] = {}
    try:
        if os.path.isdir(os.path.join(top, _DPKG_INFO)) and os.access(DPKG, os.X_OK):
            for start in range(0, len(asked), _AT_ONCE):
                _refuse_late(deadline)
                found |= _dpkg(asked[start : start + _AT_ONCE], top)
        if any(os.path.isdir(os.path.join(top, each)) for each in _RPM_INFO):
            for path in asked if os.access(RPM, os.X_OK) else ():
                _refuse_late(deadline)
                found |= dict.fromkeys([path] * bool(owner := _rpm(path, top)), owner)
    except OSError:
        untold = (path for path in asked if path.startswith("/usr/"))
        return {**dict.fromkeys(untold, UNTOLD), **found}
    return found


def overriding(path: str) -> str:
    """Return the file of this host that engines would read instead; empty: none, or it is there."""
    instead = INSTEAD.get(path, "")
    return "" if os.path.lexists(instead) else instead


def why_kept(
    path: str, owner: str, instead: str = "", *, made: bool = False, idle: bool = False
) -> str:
    """Say why a package's file stays as it is, and what overrides it.

    ``instead`` is the file that does, and ``made`` that patch --all makes it. ``idle``: no change
    to it would have an effect here, and none is recommended.
    """
    kept = f"belongs to the package {owner}, whose next version would overwrite it"
    if idle:
        return f"{kept}; a change would have no effect here, with --force or to a copy"
    if instead and made:
        kept += f"; Podman and CRI-O read {instead} instead: patch --all makes it"
    elif instead:
        kept += (
            f"; Podman and CRI-O read {instead} instead: cp {path} {instead}, then "
            f"seccomp-shim patch -i {instead}"
        )
    return kept if made else f"{kept} (--force changes it all the same)"


def _refuse_late(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError


def _dpkg(paths: Sequence[str], top: str) -> dict[str, str]:
    """Ask dpkg about all at once. OSError: no answer, or none in time."""
    names = {name: path for path in paths for name in (path, _MERGED.sub("", path))}
    patterns = (re.sub(r"([*?\[\\])", r"\\\1", name) for name in names)
    admin = os.path.join(top, _DPKG_INFO)
    status, output = _answer(DPKG, f"--admindir={admin}", "-S", *patterns)
    if status > 1:  # 1: some belong to none
        raise OSError(f"dpkg-query ended with {status}")
    return {names[name]: owner for owner, name in _lines(output) if name in names}


def _lines(output: str) -> Iterator[tuple[str, str]]:
    """Read ``PACKAGE[:ARCH], ...: /PATH``; diversions are no package's."""
    for line in output.splitlines():
        owner, colon, rest = line.partition(": /")
        if colon and not owner.startswith("diversion by "):
            yield ", ".join(sorted(owner.split(", "))), f"/{rest}"


def _rpm(path: str, top: str) -> str:
    """Ask rpm; empty: it belongs to none. OSError: no answer in time."""
    words = [*(["--root", top] if top != "/" else []), "-qf", "--queryformat", "%{NAME}\\n", path]
    name = _answer(RPM, *words)[1].partition("\n")[0]
    return "" if " " in name else name  # "file PATH is not owned by any package"


def _answer(*command: str) -> tuple[int, str]:
    """Return the exit status of a program and what it printed. OSError: not in time."""
    try:
        done = subprocess.run(
            command,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS_EACH,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    return done.returncode, done.stdout.decode(errors="surrogateescape")
