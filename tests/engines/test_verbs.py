"""What install, uninstall and status take and say, whatever the engine."""

import pytest

from support.host import Host
from support.verbs import read, shim, write

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
