"""Which files belong to a package."""

import subprocess
from pathlib import Path

import pytest

from shim.host import packages
from support import need

STATUS = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
OWNED = {
    "one": ["/usr/share/one/p.json", "/usr/share/one/with a: blank/[x]*?\\.json"],
    "two": ["/lib/two/p.json", "/opt/two/p.json"],
    "three": ["/usr/share/one/p.json"],
}


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Return a root whose dpkg knows three packages."""
    need.program("dpkg-query")
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text("".join(map(STATUS.format, OWNED)))
    for package, files in OWNED.items():
        (info / f"{package}.list").write_text("".join(f"{line}\n" for line in files))
    return str(tmp_path)


def test_dpkg_tells_whose_they_are(root: str) -> None:
    """Odd names, names from before /usr was merged and files of several packages are found."""
    odd = OWNED["one"][1]
    paths = [odd, "/usr/share/one/p.json", "/usr/lib/two/p.json", "/opt/two/p.json", "/opt/p.json"]
    assert packages.owners([*paths, "/usr/share/one/with a: blank/xx.json"], root) == {
        odd: "one",
        "/usr/share/one/p.json": "one, three",
        "/usr/lib/two/p.json": "two",
        "/opt/two/p.json": "two",
    }


def test_thousands_are_asked_about_at_once(root: str) -> None:
    """More paths than one command line takes are asked about in parts."""
    paths = [f"/opt/{'long' * 50}/{number}.json" for number in range(12_000)]
    assert packages.owners([*paths, "/opt/two/p.json"], root) == {"/opt/two/p.json": "two"}


def test_where_the_administrator_rules_nobody_is_asked(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in /etc, where conffiles are, and where no package puts any need no package manager."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    paths = ["/etc/docker/p.json", "/srv/p.json", "/home/u/p.json", "/var/lib/kubelet/seccomp/p"]
    assert packages.owners(paths, root) == {}


@pytest.mark.parametrize("body", ["exec sleep 60", "exit 2"])
def test_without_an_answer_what_lies_in_usr_is_a_packages(
    root: str, body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package manager that hangs or fails costs limited time, and no file of its."""
    program = tmp_path / "dpkg-query"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(packages, "DPKG", str(program))
    monkeypatch.setattr(packages, "_SECONDS_EACH", 0.3)
    found = packages.owners(["/usr/share/one/p.json", "/opt/two/p.json"], root)
    assert found == {"/usr/share/one/p.json": packages.UNTOLD}


def test_a_broken_database_is_no_answer(root: str) -> None:
    """What dpkg cannot read tells of no file that it belongs to nobody."""
    Path(root, "var/lib/dpkg/status").write_text("no status\n")
    assert packages.owners(["/usr/share/x"], root) == {"/usr/share/x": packages.UNTOLD}


def test_rpm_is_asked_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rpm's answers a name is one, and a sentence is none."""
    (tmp_path / "usr/lib/sysimage/rpm").mkdir(parents=True)
    program = tmp_path / "rpm"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *common.json) printf "containers-common\\n";; *) '
        'echo "file $6 is not owned by any package"; exit 1;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(packages, "RPM", str(program))
    found = packages.owners(["/usr/share/common.json", "/usr/share/own.json"], str(tmp_path))
    assert found == {"/usr/share/common.json": "containers-common"}


def test_a_host_without_a_package_manager_has_no_packages(tmp_path: Path) -> None:
    """There nothing is asked, and nothing is a package's."""
    assert packages.owners(["/usr/share/p.json"], str(tmp_path)) == {}
