"""Docker, Podman, CRI-O and containerd: what their settings name, and where they look."""

import json
import os
import tomllib
from collections.abc import Iterator

from shim.discovery.collector import Collector, Lines

_PODMAN = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
_KUBELET = "/var/lib/kubelet/seccomp"
_KEYS = ("seccomp_profile", "unset_seccomp_profile", "privileged_seccomp_profile")
# In a key: tomllib takes hours for one as long as a file may be, by the square of its steps.
_MAX_DOTS = 32
_NOT_PATHS = ("", "builtin", "default", "unconfined", "RuntimeDefault", "runtime/default")


def collect(collector: Collector) -> None:
    """Look at all four."""
    _docker(collector, collector.homes)
    _podman(collector, collector.homes)
    for path in _with_drop_ins(collector, "/etc/crio/crio.conf", "/usr/share/crio/crio.conf.d"):
        _toml(collector, path, "CRI-O")
    for path in _with_drop_ins(collector, "/etc/containerd/config.toml"):
        _toml(collector, path, "containerd")


def _docker(collector: Collector, homes: list[str]) -> None:
    directories = ["/etc/docker", "/var/snap/docker/current/config"]
    directories += [f"{home}/.config/docker" for home in homes]
    for directory in directories:
        path = f"{directory}/daemon.json"
        settings = _json(collector, path)
        profile = settings.get("seccomp-profile")
        if isinstance(profile, str) and profile not in _NOT_PATHS:
            text = collector.text(path) or ""
            line = Lines(text).first('"seccomp-profile"')
            collector.used(os.path.join(directory, profile), "docker daemon", path, line)
        for each in collector.files(directory, depth=2):
            if each.endswith((".json", ".yaml", ".yml")):
                collector.candidate(each)


def _podman(collector: Collector, homes: list[str]) -> None:
    present = [path for path in _PODMAN if collector.text(path) is not None]
    for index, path in enumerate(present):
        if index == 0:
            collector.built_in(path, "podman, CRI-O (default)")
        collector.candidate(path, own=True)
    mains = ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"]
    mains += [f"{home}/.config/containers/containers.conf" for home in homes]
    for main in mains:
        for path in _with_drop_ins(collector, main):
            _toml(collector, path, "podman")


def _toml(collector: Collector, path: str, who: str) -> None:
    """Note every profile that a TOML file names, under whatever runtime or plugin."""
    text = collector.text(path)
    if text is None or "seccomp" not in text:
        return
    if not collector.believed(path) and any(
        line.count(".") > _MAX_DOTS for line in text.split("\n")
    ):
        collector.note(path, f"has a line with more than {_MAX_DOTS} dots: not looked at", bad=True)
        return
    try:
        profiles = list(_profiles(tomllib.loads(text)))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        collector.note(path, f"is not TOML: {error}", bad=True)
        return
    lines = Lines(text)
    for key, value in profiles:
        if value in _NOT_PATHS:
            continue
        line = lines.first(rf"^[ \t]*{key}[ \t]*=")
        file = os.path.join(_KUBELET, value.removeprefix("localhost/"))
        collector.used(file, who, path, line)


def _profiles(tree: object) -> Iterator[tuple[str, str]]:
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key in _KEYS and isinstance(value, str):
            yield key, value
        else:
            yield from _profiles(value)


def _with_drop_ins(collector: Collector, main: str, *more: str) -> Iterator[str]:
    yield main
    for directory in (f"{main}.d", os.path.join(os.path.dirname(main), "conf.d"), *more):
        crio = directory.endswith("crio.conf.d")  # all that is in it, in subdirectories as well
        for path in collector.files(directory, depth=8 if crio else 0):
            if crio or path.endswith((".conf", ".toml")):
                yield path


def _json(collector: Collector, path: str) -> dict[str, object]:
    text = collector.text(path)
    if text is None:
        return {}
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        collector.note(path, f"is not JSON: {error}", bad=True)
        return {}
    return tree if isinstance(tree, dict) else {}
