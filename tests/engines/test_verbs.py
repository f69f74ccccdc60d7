"""What install, uninstall and status take and say, whatever the engine."""

import pytest

from engines.verbs import AS_NOBODY, FILE, read, shim, write
from support.host import Host

FILES = {"docker": "--daemon-json", "containerd": "--config"}


@pytest.fixture(name="place")
def _place(host: Host) -> Host:
    """Return a host with a directory to work in, and nothing at its root."""
    host.run("rm -rf /run/t; mkdir -p /run/t/conf")
    return host


@pytest.mark.parametrize(("engine", "option"), FILES.items())
def test_a_relative_path_is_that_of_the_current_directory(
    place: Host, engine: str, option: str
) -> None:
    """Not one below the root directory: it is written, told of and taken out where it is meant."""
    before, words = "cd /run/t;", f"{engine} {option} conf/c"
    place.run("test ! -e /conf")
    done = shim(place, "install", words, "--dry-run", before=before)
    assert "+++ /run/t/conf/c\n" in done.stdout
    shim(place, "install", words, before=before)
    assert b"seccomp-shim" in read(place, "/run/t/conf/c")
    assert "/run/t/conf/c" in shim(place, "status", words, "--json", before=before).stdout
    shim(place, "uninstall", words, before=before)
    place.run("test ! -e /conf -a ! -e /run/t/conf/c")


@pytest.mark.parametrize(("engine", "option"), FILES.items())
@pytest.mark.parametrize("verb", ["install", "uninstall", "status"])
def test_a_file_that_is_not_there_is_an_error(
    place: Host, verb: str, engine: str, option: str
) -> None:
    """Nobody names one but by mistake; install makes a file, but no directory for a named one."""
    named = "/run/t/none/c" if verb == "install" else "/run/t/none"
    done = shim(place, verb, engine, option, named, code=2)
    assert done.stderr == f"seccomp-shim {verb}: /run/t/none: is not there\n"
    assert done.stdout == ""
    place.run("test ! -e /run/t/none")


def test_what_is_no_configuration_of_containerd_is_refused(place: Host) -> None:
    """A file that is not TOML, or a directory, is left alone."""
    write(place, "/run/t/text", b"hello\n")
    for verb, code in (("install", 2), ("uninstall", 2), ("status", 1)):
        for name, why in (("text", "is not valid TOML"), ("conf", "is no regular file")):
            done = shim(place, verb, "containerd --config", f"/run/t/{name}", code=code)
            assert f"/run/t/{name}: {why}" in done.stderr + done.stdout
    assert read(place, "/run/t/text") == b"hello\n"


@pytest.mark.parametrize("engine", ["crio", "containerd", "podman", "docker"])
def test_an_uninstall_of_nothing_asks_for_nothing(place: Host, engine: str) -> None:
    """Where no file of ours is, no restart is asked for, and nothing is said of containers."""
    done = shim(place, "uninstall", engine)
    assert done.stderr == f"{engine}: no file needs to be changed\n"


@pytest.mark.parametrize("engine", ["docker", "containerd", "crio"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["done", "dry-run"])
def test_an_uninstall_without_root_shows_no_diff(
    place: Host, engine: str, dry: tuple[str, ...]
) -> None:
    """What was there before us is in root's record: without it the diff would be another one."""
    write(place, FILE, b'{"default-runtime": "runc"}')
    place.run("mkdir -p /etc/containerd /etc/crio; rm -rf /etc/crio/* /etc/containerd/*")
    shim(place, "install", engine, "--default")
    try:
        done = shim(place, "uninstall", engine, *dry, code=2, before=AS_NOBODY)
        assert done.stdout == ""
        assert "this takes root" in done.stderr
        assert done.stderr.endswith(f" (sudo seccomp-shim uninstall {engine})\n")
        assert "+++ " in shim(place, "uninstall", engine, "--dry-run").stdout
    finally:
        shim(place, "uninstall", engine)
    done = shim(place, "uninstall", engine, *dry, code=2, before=AS_NOBODY)
    assert "this takes root" in done.stderr


def test_a_users_own_registration_takes_no_root(place: Host) -> None:
    """A user's file, with the user's record, is the user's to have back."""
    place.run("mkdir -p /run/t/home; chmod 711 /run/t; chown -R 65534 /run/t/home")
    as_user = AS_NOBODY.replace("/nonexistent", "/run/t/home")
    file = "/run/t/home/.config/containers/containers.conf.d/99-seccomp-shim.conf"
    done = shim(place, "install podman --dry-run", before=as_user)
    assert "without root" not in done.stderr
    shim(place, "install podman", before=as_user)
    place.run(f"test -e {file}")
    shim(place, "uninstall podman", before=as_user)
    place.run(f"test ! -e {file}")


def test_what_cannot_be_seen_without_root_is_not_denied(place: Host) -> None:
    """Whether a dockerd of root's runs is not known to others; root is told that none does."""
    write(place, FILE, b"{}")
    done = shim(place, "install docker --dry-run", before=AS_NOBODY)
    assert f"whether a dockerd runs, and with {FILE}, is not seen without root" in done.stderr
    assert "without root it is not seen what root has recorded" in done.stderr
    assert "no dockerd runs" not in done.stderr
    done = shim(place, "install docker --dry-run")
    assert f"no dockerd runs with {FILE}" in done.stderr
    assert "without root" not in done.stderr
