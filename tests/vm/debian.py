"""Debian's archive through apt, with package lists of our own: the host's apt is left alone.

The lists stay as they are until ``refresh``: the versions in them are part of every cache key, so
a warm cache stays warm, and needs no network, until somebody asks for newer packages.
"""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from vm import cache
from vm.errors import LabError

MIRROR = os.environ.get("SHIM_MIRROR") or "http://deb.debian.org/debian"
SECURITY = os.environ.get("SHIM_MIRROR_SECURITY") or "http://deb.debian.org/debian-security"
# Debian's keyring, absent from a machine that is no Debian: apt then says so itself.
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def sources(suite: str) -> str:
    """Return the sources.list of ``suite``, its security updates with it."""
    lines = [f"deb [signed-by={KEYRING}] {MIRROR} {suite} main"]
    if suite != "sid":
        lines.append(f"deb [signed-by={KEYRING}] {SECURITY} {suite}-security main")
    return "\n".join(lines) + "\n"


def refresh(suite: str) -> None:
    """Fetch the package lists of ``suite`` anew."""
    lists = _state(suite) / "lists"
    shutil.rmtree(lists, ignore_errors=True)
    (lists / "partial").mkdir(parents=True)
    print(f"lab: fetching Debian {suite}'s package lists", flush=True)
    done = _apt("apt-get", suite, "update", "--error-on=any")
    if done.returncode:
        shutil.rmtree(lists)
        raise LabError(f"apt-get update of {suite} failed: {done.stderr.strip()[-400:]}")
    versions.cache_clear()


@functools.cache
def versions(suite: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Return the newest version of each of ``packages`` in ``suite``."""
    lists = _state(suite) / "lists"
    lists.parent.mkdir(parents=True, exist_ok=True)
    with cache.locked(lists):  # CI builds the kernels and the trees side by side
        if not lists.is_dir():
            refresh(suite)
    out = _apt("apt-cache", suite, "policy", *packages).stdout
    found = dict(re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)$", out, re.MULTILINE))
    missing = [p for p in packages if found.get(p, "(none)") == "(none)"]
    if missing:
        raise LabError(f"Debian {suite} has no package {' '.join(missing)}")
    return found


def check_valid_until() -> str:
    """Say whether this machine's apt minds an expired Release file (a frozen mirror's is)."""
    shell = ["apt-config", "shell", "V", "Acquire::Check-Valid-Until/b"]
    said = subprocess.run(shell, capture_output=True, text=True, check=False).stdout
    return "false" if "false" in said else "true"


def kernel_packages(suite: str) -> dict[str, str]:
    """Return the packages, with versions, that hold ``suite``'s current kernel and its modules."""
    found: dict[str, str] = {}
    wanted = ["linux-image-amd64"]
    while wanted:
        package = wanted.pop()
        found.update(versions(suite, (package,)))
        depends = _apt("apt-cache", suite, "depends", package).stdout
        # Since 7.x the image is split into linux-binary-* and linux-modules-*.
        parts = r"^  Depends: (linux-(?:image|binary|modules)-\d\S+)$"
        wanted += re.findall(parts, depends, re.MULTILINE)
    return found


def download(suite: str, packages: dict[str, str], into: Path) -> list[Path]:
    """Download ``packages`` (name: version) of ``suite``; give the .deb files."""
    into.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}={version}" for name, version in packages.items()]
    done = _apt("apt-get", suite, "download", *wanted, cwd=into)
    if done.returncode:
        raise LabError(
            f"downloading {' '.join(wanted)} failed: {done.stderr.strip()[-400:]} "
            "(an old package list? tests/vm/run --refresh)"
        )
    return sorted(into.glob("*.deb"))


def _state(suite: str) -> Path:
    return cache.root() / "apt" / suite


def _apt(
    tool: str, suite: str, *args: str, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    state = _state(suite)
    (state / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    # Left alone where they are right: apt's own cache is made anew when one of them is newer.
    for name, text in {"sources.list": sources(suite), "status": ""}.items():
        if not (state / name).exists() or (state / name).read_text() != text:
            (state / name).write_text(text)
    options = {
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",  # the cache directory may be unreadable for the user _apt
        "Dir::Cache": state,
        "Dir::Cache::pkgcache": "pkgcache.bin",  # images of Debian have none, to be smaller
        "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return subprocess.run(
        [tool, "-q", *settings, *args], cwd=cwd, capture_output=True, text=True, check=False
    )
