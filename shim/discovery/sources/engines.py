"""Docker, Podman, CRI-O and containerd: what their settings name, and where they look."""

import json
import os
import tomllib
from collections.abc import Iterator

from shim.discovery.collector import Lines, Look

_PODMAN = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
_KUBELET = "/var/lib/kubelet/seccomp"
_KEYS = ("seccomp_profile", "unset_seccomp_profile", "privileged_seccomp_profile")
# In a key: tomllib takes hours for one as long as a file may be, by the square of its steps.
_MAX_DOTS = 32
_NOT_PATHS = ("", "builtin", "default", "unconfined", "RuntimeDefault", "runtime/default")


def look(look: Look) -> None:
    """Look at all four."""
    _docker(look, look.homes)
    _podman(look, look.homes)
    for path in _with_drop_ins(look, "/etc/crio/crio.conf", "/usr/share/crio/crio.conf.d"):
        _toml(look, path, "CRI-O")
    for path in _with_drop_ins(look, "/etc/containerd/config.toml"):
        _toml(look, path, "containerd")


def _docker(look: Look, homes: list[str]) -> None:
    directories = ["/etc/docker", "/var/snap/docker/current/config"]
    directories += [f"{home}/.config/docker" for home in homes]
    for directory in directories:
        path = f"{directory}/daemon.json"
        settings = _json(look, path)
        profile = settings.get("seccomp-profile")
        if isinstance(profile, str) and profile not in _NOT_PATHS:
            text = look.text(path) or ""
            line = Lines(text).first('"seccomp-profile"')
            look.used(os.path.join(directory, profile), "docker daemon", path, line)
        for each in look.files(directory, depth=2):
            if each.endswith((".json", ".yaml", ".yml")):
                look.lying(each)


def _podman(look: Look, homes: list[str]) -> None:
    present = [path for path in _PODMAN if look.text(path) is not None]
    for index, path in enumerate(present):
        if index == 0:
            look.built_in(path, "podman, CRI-O (default)")
        look.lying(path, own=True)
    mains = ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"]
    mains += [f"{home}/.config/containers/containers.conf" for home in homes]
    for main in mains:
        for path in _with_drop_ins(look, main):
            _toml(look, path, "podman")


def _toml(look: Look, path: str, who: str) -> None:
    """Note every profile that a TOML file names, under whatever runtime or plugin."""
    text = look.text(path)
    if text is None or "seccomp" not in text:
        return
    if not look.believed(path) and any(line.count(".") > _MAX_DOTS for line in text.split("\n")):
        look.note(path, f"has a line with more than {_MAX_DOTS} dots: not looked at", bad=True)
        return
    try:
        profiles = list(_profiles(tomllib.loads(text)))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        look.note(path, f"is not TOML: {error}", bad=True)
        return
    lines = Lines(text)
    for key, value in profiles:
        if value in _NOT_PATHS:
            continue
        line = lines.first(rf"^[ \t]*{key}[ \t]*=")
        file = os.path.join(_KUBELET, value.removeprefix("localhost/"))
        look.used(file, who, path, line)


def _profiles(tree: object) -> Iterator[tuple[str, str]]:
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key in _KEYS and isinstance(value, str):
            yield key, value
        else:
            yield from _profiles(value)


def _with_drop_ins(look: Look, main: str, *more: str) -> Iterator[str]:
    yield main
    for directory in (f"{main}.d", os.path.join(os.path.dirname(main), "conf.d"), *more):
        crio = directory.endswith("crio.conf.d")  # all that is in it, in subdirectories as well
        for path in look.files(directory, depth=8 if crio else 0):
            if crio or path.endswith((".conf", ".toml")):
                yield path


def _json(look: Look, path: str) -> dict[str, object]:
    text = look.text(path)
    if text is None:
        return {}
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        look.note(path, f"is not JSON: {error}", bad=True)
        return {}
    return tree if isinstance(tree, dict) else {}
