"""The profile built into each Docker daemon: what changed when, and which versions are known."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.data import directory
from shim.errors import ShimError
from shim.profile import document
from shim.profile.docker_releases import builtin, parse
from shim.profile.evaluate import evaluate as oci_evaluate
from support import need

FOLDER = directory("profiles") / "docker"
BASE = (FOLDER / "default.json").read_text()
VERSIONS = (FOLDER / "versions.json").read_text()
DATA: dict[str, Any] = json.loads(VERSIONS)
KNOWN = [DATA["base"], *(delta["since"] for delta in DATA["deltas"])]


def _profile(version: str) -> dict[str, Any]:
    tree, reason = builtin(version, BASE, VERSIONS)
    assert tree is not None, reason
    return tree


def _meaning(profile: dict[str, Any]) -> tuple[set[tuple[str, str]], dict[str, set[str]], Any]:
    """Return what a profile says, free of order, grouping, comments and empty members."""
    rules = {
        (name, json.dumps(_bare(rule), sort_keys=True))
        for rule in profile["syscalls"]
        for name in rule["names"]
    }
    arches = {a["architecture"]: set(a["subArchitectures"] or ()) for a in profile["archMap"]}
    return rules, arches, (profile["defaultAction"], profile.get("defaultErrnoRet"))


def _bare(rule: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in rule.items() if v and k not in {"names", "comment"}}
    for key in ("includes", "excludes"):
        for limit, value in kept.get(key, {}).items():
            kept[key][limit] = sorted(value) if isinstance(value, list) else value
    return kept


def _unconditional(version: str) -> set[str]:
    return {
        name
        for rule in _profile(version)["syscalls"]
        if set(rule) == {"names", "action"} and rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }


def _of(version: str, name: str) -> list[dict[str, Any]]:
    """Return the rules of a call without its name."""
    rules = _profile(version)["syscalls"]
    return [{**rule, "names": []} for rule in rules if name in rule["names"]]


@pytest.mark.parametrize("version", KNOWN)
def test_every_version_has_a_profile_that_docker_reads(version: str) -> None:
    """Each is a well-formed Docker profile that denies by default."""
    profile = _profile(version)
    assert document.detect(profile) is document.DOCKER
    document.DOCKER.check(profile, "")
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert len({name for rule in profile["syscalls"] for name in rule["names"]}) > 300


def test_neighbours_differ() -> None:
    """No delta is idle: each version's profile differs from that of the version before it."""
    ordered = sorted(KNOWN, key=lambda text: [int(part) for part in text.split(".")])
    meanings = [_meaning(_profile(version)) for version in ordered]
    assert all(one != other for one, other in itertools.pairwise(meanings))


def test_deltas_are_written_compactly() -> None:
    """Each names its source, and its names are sorted, as in the base."""
    for delta in DATA["deltas"]:
        assert delta["source"]
        for rule in (*delta.get("add", ()), *delta.get("remove", ())):
            assert rule["names"] == sorted(set(rule["names"]))


def test_what_kills_containers_ends_with_28_2() -> None:
    """The call uretprobe is allowed from 28.2.0 on, and by no daemon before."""
    assert "uretprobe" in _unconditional("28.2.0") & _unconditional("29.7.2")
    before = [version for version in KNOWN if int(version.partition(".")[0]) < 28]
    assert len(before) > 10
    assert not any(_of(version, "uretprobe") for version in before)


def test_what_changed_when() -> None:
    """io_uring, AF_VSOCK, clone3, name_to_handle_at and AF_ALG changed in their releases."""
    assert "io_uring_setup" in _unconditional("24.0.9") & _unconditional("23.0.18")
    assert not _of("25.0.0", "io_uring_setup")
    assert "cachestat" in _unconditional("23.0.10") & _unconditional("25.0.3")
    assert not any(_of(version, "cachestat") for version in ("24.0.9", "25.0.2", "23.0.9"))
    assert "socket" in _unconditional("20.10.21") & _unconditional("20.10.23")
    assert [rule["args"][0]["op"] for rule in _of("20.10.22", "socket")] == ["SCMP_CMP_NE"]
    assert not _of("20.10.9", "clone3")
    assert {"SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"} == {r["action"] for r in _of("20.10.10", "clone3")}
    assert "name_to_handle_at" in _unconditional("20.10.27") & _unconditional("24.0.3")
    assert "name_to_handle_at" not in _unconditional("20.10.25") | _unconditional("24.0.2")
    assert len(_of("29.4.3", "socket")) == 3
    assert [rule["errnoRet"] for rule in _of("29.4.2", "socketcall")] == [38]
    assert "defaultErrnoRet" not in _profile("20.10.27")


def test_releases_between_have_the_profile_of_the_one_before() -> None:
    """A release that changed nothing has what the last change left."""
    for release, since in (
        ("20.10.9", "20.10.4"), ("20.10.24", "20.10.23"), ("26.1.5", "25.0.3"),
        ("28.1.1", "25.0.3"), ("28.5.2", "28.2.0"), ("29.4.1", "28.2.0"), ("29.7.2", "29.4.3"),
    ):  # fmt: skip
        assert _meaning(_profile(release)) == _meaning(_profile(since)), release


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("20.10.24+dfsg1", "20.10.24"),
        ("26.1.5+dfsg1", "26.1.5"),
        ("28.5.2+dfsg3-1", "28.5.2"),
        ("20.10.17-ce", "20.10.17"),
        ("v24.0.7", "24.0.7"),
    ],
)
def test_distributions_builds_are_the_release_they_are_of(text: str, release: str) -> None:
    """A distribution's suffix changes nothing."""
    assert parse(text) == parse(release)
    assert _profile(text) == _profile(release)


@pytest.mark.parametrize(
    "text",
    [
        "dev", "", "library-import", "28", "28.2", "28.2.0-rc.1", "25.0.8m2", "20.10.43",
        "19.03.15", "29.7.3", "29.8.0", "30.0.0", "5.4.0", "28.5.2 ", "28.5.2\n", "２８.5.2",
        "999999999999999999.0.0",
    ],
)  # fmt: skip
def test_what_nobody_has_looked_at_has_none(text: str) -> None:
    """Newer and older releases, pre-releases and others' builds have no profile, for a reason."""
    tree, reason = builtin(text, BASE, VERSIONS)
    assert tree is None
    assert reason


@given(st.text() | st.from_regex(r"v?[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}([+-][a-z0-9.]+)?"))
def test_any_text_gets_a_profile_or_a_reason(text: str) -> None:
    """Whatever a daemon calls its version, there is either a profile or a reason, never both."""
    tree, reason = builtin(text, BASE, VERSIONS)
    assert (tree is None) == bool(reason)


def test_a_delta_that_removes_what_is_not_there_is_refused() -> None:
    """A mistake in the data is an error, not a profile that looks right."""
    rule = {"names": ["nonesuch"], "action": "SCMP_ACT_ALLOW"}
    delta = {"since": "25.0.0", "like": "25.0.3", "source": "none", "remove": [rule]}
    broken = json.dumps({**DATA, "deltas": [delta]})
    with pytest.raises(ShimError, match="nonesuch"):
        builtin("25.0.1", BASE, broken)


def test_reads_as_the_start_path_reads() -> None:
    """A daemon's flat rules of 28.2 allow uretprobe by name, those of 26.1 deny it by default."""
    for version, verdict in (("28.2.0", "allows"), ("26.1.5", "denied-by-default")):
        rules = [r for r in _profile(version)["syscalls"] if "includes" not in r]
        flat: dict[str, object] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
        assert oci_evaluate(flat, "uretprobe")[0] == verdict


@pytest.mark.skipif("SHIM_REFERENCE" not in os.environ, reason="SHIM_REFERENCE names no folder")
@pytest.mark.parametrize("version", ["20.10.24", "23.0.0", "24.0.9", "26.1.5", "28.2.0"])
def test_means_what_docker_publishes(version: str) -> None:
    """Each says the same as the profile in Docker's source of that version."""
    reference = Path(os.environ["SHIM_REFERENCE"]) / "moby" / f"v{version}.json"
    need.kernel(reference.exists(), f"{reference} is not there")
    assert _meaning(_profile(version)) == _meaning(json.loads(reference.read_bytes()))
