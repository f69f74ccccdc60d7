"""What hosts' facts come to, and what is planned for them without asking again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.catalog import kernel_injected
from shim.fleet import known
from shim.fleet.report import judged
from shim.fleet.verdict import VERDICTS, verdict

CALLS = ("uretprobe", "uprobe")
WORDS = ("allows", "denied-by-default", "conditional", "explicit-deny", "supervised", "no-x86-64")
FILE = "/etc/docker/seccomp.json"


def _profile(word: str, who: str = "docker daemon", file: str = FILE) -> dict[str, Any]:
    return {
        "file": file,
        "used_by": [{"who": who, "where": "/etc/docker/daemon.json:1"}],
        "calls": {name: {"verdict": word, "reason": ""} for name in CALLS},
    }


def _engine(name: str = "docker", **more: Any) -> dict[str, Any]:
    about = {"engine": name, "present": True, "registered": False, "covers_all": False}
    return {**about, "version": "28.2.0", "problems": [], **more}


def _facts(
    state: str = "filtered",
    profiles: tuple[dict[str, Any], ...] = (_profile("allows"),),
    libseccomp: str | None = "2.6.1",
    engines: tuple[dict[str, Any], ...] = (_engine(),),
) -> dict[str, Any]:
    states = {"uretprobe": {"state": state}, "uprobe": {"state": "absent"}}
    runtimes = [{"path": "/usr/sbin/runc", "program": "runc", "libseccomp": libseccomp}]
    about = {"syscalls": states, "profiles": list(profiles), "runtimes": runtimes}
    return {**about, "engines": list(engines), "extra_paths": [], "homes": False}


@pytest.mark.parametrize(
    ("facts", "word", "why"),
    [
        (_facts(), "protected", "its profiles allow the calls"),
        (_facts("absent"), "not affected", "uretprobe absent"),
        (_facts("exempt", (_profile("denied-by-default"),)), "not affected", "uretprobe exempt"),
        (_facts("unknown"), "unknown", "could not be asked about uretprobe"),
        (
            _facts(profiles=(_profile("denied-by-default"),)),
            "exposed",
            "1 profile denies by default",
        ),
        (_facts(profiles=(_profile("explicit-deny"),)), "exposed", "1 profile denies by name"),
        (
            _facts(libseccomp="2.5.5"),
            "exposed",
            "libseccomp of runc (2.5.5) drops the name uretprobe",
        ),
        (_facts(libseccomp=None), "exposed", "libseccomp of runc (unknown) drops"),
        (_facts(profiles=(), engines=(_engine(version="28.1.1"),)), "exposed", "Docker 28.1.1 has"),
        (
            _facts(profiles=(), engines=(_engine(version=""),)),
            "exposed",
            "Docker of unknown version",
        ),
        (_facts(profiles=()), "protected", "its runtimes know them"),
        (_facts(engines=(_engine(version="20.10.24"),)), "protected", "its profiles allow"),
        (
            _facts(libseccomp="2.5.4", engines=(_engine(registered=True, covers_all=True),)),
            "protected",
            "through the wrapper",
        ),
        (
            _facts(libseccomp="2.5.4", engines=(_engine(registered=True),)),
            "exposed",
            "drops the name",
        ),
        (
            _facts(
                libseccomp="2.5.4",
                engines=(_engine(registered=True, covers_all=True), _engine("podman")),
            ),
            "exposed",
            "drops the name",
        ),
    ],
)
def test_a_host_is_judged_by_its_facts(facts: dict[str, Any], word: str, why: str) -> None:
    """Kernel, profiles, Docker's own profile, runtimes and wrapper make the verdict together."""
    told, reason = judged(facts)
    assert told == word
    assert why in reason


def test_what_was_changed_since_is_reckoned_in() -> None:
    """A file that was patched denies no more, one that was rolled back does."""
    denying = _facts(profiles=(_profile("denied-by-default"),))
    assert judged(denying, {FILE: "allows"})[0] == "protected"
    assert judged(_facts(), {FILE: "denies"})[0] == "exposed"


@given(
    st.sampled_from(["absent", "filtered", "exempt", "unknown"]),
    st.lists(st.sampled_from(WORDS), max_size=4),
    st.sampled_from([None, "2.5.4", "2.6.0", "2.6.1"]),
    st.booleans(),
)
def test_nothing_that_denies_is_ever_called_protected(
    state: str, words: list[str], libseccomp: str | None, covered: bool
) -> None:
    """On a kernel that kills a host is protected by the wrapper, or if all parts allow the call."""
    profiles = tuple(_profile(word, file=f"/{number}") for number, word in enumerate(words))
    engine = _engine(registered=covered, covers_all=covered)
    told, _ = verdict(_facts(state, profiles, libseccomp, (engine,)), kernel_injected(), {})
    assert told in VERDICTS
    allowed = all(word == "allows" for word in words)
    safe = covered or (allowed and libseccomp in ("2.6.0", "2.6.1"))
    wanted = {"filtered": "protected" if safe else "exposed", "unknown": "unknown"}
    assert told == wanted.get(state, "not affected")


@pytest.mark.parametrize(
    ("facts", "options", "reason"),
    [
        (_facts(profiles=(_profile("denied-by-default"),)), {}, ""),
        (_facts(profiles=(_profile("conditional"),)), {}, ""),
        (_facts(profiles=(_profile("no-x86-64"),)), {}, ""),
        (_facts(), {}, "none of its profiles denies the calls"),
        (_facts(), {"paths": ["/srv"]}, ""),
        (_facts("absent"), {"paths": ["/srv"]}, "its kernel has none of the calls"),
        (_facts(), {"homes": True}, ""),
        (_facts("exempt"), {"when": "needed"}, "its kernel lets no profile deny the calls"),
        (_facts("absent", (_profile("denied-by-default"),)), {"when": "always"}, ""),
        (
            _facts(profiles=(_profile("explicit-deny"),)),
            {},
            "its profiles deny the calls by name (--override-deny allows them)",
        ),
        (_facts(profiles=(_profile("explicit-deny"),)), {"override_deny": True}, ""),
        (_facts("absent"), {"enosys": ["newer"]}, ""),
    ],
)
def test_hosts_with_nothing_to_do_are_not_asked(
    facts: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    """What the facts tell is enough where no profile would change; else the host is asked."""
    given = {"when": "present", "paths": [], "homes": False, "override_deny": False, **options}
    assert known.nothing_to_do(facts, given) == reason


def test_kinds_tell_hosts_apart_by_what_matters() -> None:
    """Another kernel state, runtime or content is another kind, another name is none."""
    line = {"files": [{"before": "a"}]}
    kinds = [
        known.kind(_facts(), line),
        known.kind(_facts("exempt"), line),
        known.kind(_facts(libseccomp="2.5.4"), line),
        known.kind(_facts(engines=()), line),
        known.kind(_facts(), {"files": [{"before": "b"}]}),
    ]
    assert len({repr(each) for each in kinds}) == len(kinds)
    assert known.kind(_facts(), line) == kinds[0]
