import json
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engines import registration
from engines.registration import BIN, install, uninstall
from shim.errors import ShimError
from support import engines, image, need

CHECKOUT = Path(__file__).parents[2]
CONF = "etc/containers/containers.conf"
DROP_IN = "etc/containers/containers.conf.d/99-seccomp-shim.conf"
HOOKS = "etc/containers/oci/podman-hooks.d"
EPERM, ENOSYS = 1, 38

BY_HAND = """\
# by hand
[containers]
pids_limit = 100
[engine]
runtime = "crun"
hooks_dir = ["/usr/share/containers/oci/hooks.d", "/srv/hooks"]
  [engine.runtimes]
  crun = ["/opt/crun/bin/crun", "/usr/bin/crun"]
"""
FILES = {
    "absent": {},
    "empty": {CONF: ""},
    "by hand": {CONF: BY_HAND},
    "drop-ins": {CONF: BY_HAND, f"{CONF}.d/10-a.conf": '[engine]\nhooks_dir = ["/srv/b"]\n'},
}
WAYS = [("--way", "runtime"), ("--way", "hooks")]


def _root(root: Path, files: dict[str, str], runtimes: tuple[str, ...] = ("crun", "runc")) -> Path:
    need.root()  # any other user's own configuration would be meant
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in runtimes:
        registration.program(root / "usr/bin", name, "exit 1")
    return root


def _engine(root: Path) -> dict[str, Any]:
    found = tomllib.loads((root / DROP_IN).read_text())["engine"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
@pytest.mark.parametrize("words", WAYS)
def test_uninstall_gives_the_same_files_back(
    files: dict[str, str], words: tuple[str, ...], tmp_path: Path
) -> None:
    """Nobody's file is edited; what install has made, also twice, is gone after uninstall."""
    root = _root(tmp_path, files)
    before = registration.files(root / "etc") if files else {}
    host = registration.host(root)
    install("podman", host, *words)
    after = registration.files(root / "etc")
    assert after.keys() > before.keys()
    assert {name: after[name] for name in before} == before
    install("podman", host, *words)
    assert registration.files(root / "etc") == after
    uninstall("podman", host)
    assert (registration.files(root / "etc") if files else {}) == before
    assert (root / "etc").exists() == bool(files)


def test_the_wrapper_comes_before_podmans_own_paths(tmp_path: Path) -> None:
    """Each runtime that is there keeps its name and its paths, behind the wrapper."""
    root = _root(tmp_path, {CONF: BY_HAND})
    install("podman", registration.host(root))
    assert _engine(root).keys() == {"runtimes"}
    runtimes = _engine(root)["runtimes"]
    assert runtimes["crun"] == [f"{BIN}/seccomp-shim-crun", "/opt/crun/bin/crun", "/usr/bin/crun"]
    assert runtimes["runc"][:2] == [f"{BIN}/seccomp-shim-runc", "/usr/bin/runc"]


def test_no_runtime_is_made_up(tmp_path: Path) -> None:
    """A runtime that is not there gets no entry: podman would take the wrapper for it."""
    root = _root(tmp_path, {}, ("runc",))
    install("podman", registration.host(root))
    assert _engine(root)["runtimes"].keys() == {"runc"}


def test_going_from_one_way_to_the_other(tmp_path: Path) -> None:
    """Installed again by the other way, nothing of the first is left; uninstall removes all."""
    root = _root(tmp_path, {CONF: BY_HAND})
    host = registration.host(root)
    before = registration.files(root / "etc")
    install("podman", host, "--way", "hooks")
    assert (root / HOOKS).is_dir()
    assert _engine(root) == {
        "hooks_dir": ["/usr/share/containers/oci/hooks.d", "/srv/hooks", f"/{HOOKS}"]
    }
    install("podman", host)
    assert _engine(root).keys() == {"runtimes"}
    assert not list((root / HOOKS).glob("*"))
    uninstall("podman", host)
    assert registration.files(root / "etc") == before


@pytest.mark.parametrize(("runtime", "stages"), [
    ("crun", {"createRuntime", "poststart", "precreate"}),
    ("runc", {"createRuntime", "poststart"}),
])  # fmt: skip
def test_hooks_are_entered_for_every_container(
    runtime: str, stages: set[str], tmp_path: Path
) -> None:
    """Entries are of version 1.0.0; precreate is for runtimes that a configuration can help."""
    root = _root(tmp_path, {}, (runtime,))
    install("podman", registration.host(root), "--way", "hooks")
    entries = [json.loads(path.read_text()) for path in (root / HOOKS).glob("*.json")]
    assert {stage for each in entries for stage in each["stages"]} == stages
    for each in entries:
        assert each["version"] == "1.0.0"
        assert each["when"] == {"always": True}
        assert each["hook"]["args"][0] == each["hook"]["path"]
        assert each["hook"]["args"][3].startswith(f"{BIN}/seccomp-shim-")


@pytest.mark.parametrize(
    ("files", "runtimes", "complaint"),
    [
        ({CONF: "[engine\n"}, ("crun",), "etc/containers/containers.conf: is not valid TOML"),
        ({f"{CONF}.d/z.conf": "x"}, ("crun",), "z.conf: is not valid TOML"),
        ({CONF: "engine = 1\n"}, ("crun",), "containers.conf: engine must be a table"),
        ({CONF: '[engine.runtimes]\ncrun = "/x"\n'}, ("crun",), "crun must be a list"),
        ({}, (), "neither crun nor runc"),
        ({CONF: '[engine]\nruntime = "kata"\n'}, ("crun",), "kata, which the wrapper"),
        (
            {f"{CONF}.d/zz.conf": '[engine.runtimes]\ncrun = ["/usr/bin/crun"]\n'},
            ("crun",),
            "zz.conf: is read after",
        ),
    ],
)
def test_what_would_not_work_is_refused(
    files: dict[str, str], runtimes: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    """Invalid, without a runtime, or overruled: one line says so, and nothing is written."""
    root = _root(tmp_path, files, runtimes)
    host = registration.host(root)
    before = registration.files(root)
    with pytest.raises(ShimError, match=complaint):
        install("podman", host)
    assert registration.files(root) == before


def test_executables_that_are_not_there_are_entered_nowhere(tmp_path: Path) -> None:
    """Podman leaves out what is not there without a word: none is entered then."""
    root = _root(tmp_path, {})
    host = registration.host(root)
    for words, name in (WAYS[0], "seccomp-shim-crun"), (WAYS[1], "seccomp-shim-verify"):
        (root / "opt/seccomp-shim/bin" / name).unlink()
        with pytest.raises(ShimError, match=f"{name}: is not there"):
            install("podman", host, *words)
    assert not (root / "etc").exists()


def test_an_old_podman_is_refused(tmp_path: Path) -> None:
    """A podman that reads no drop-in files would read ours neither."""
    root = _root(tmp_path, {})
    registration.program(root / "bin", "podman", "echo podman version 3.0.1")
    with pytest.raises(ShimError, match=r"podman 3\.0 reads no drop-in files"):
        install("podman", registration.host(root, str(root / "bin")))


def test_a_runtime_named_by_its_path_is_named_by_its_name(tmp_path: Path) -> None:
    """For a runtime given as a path podman looks at no list: it is given as a name then."""
    root = _root(tmp_path, {CONF: '[engine]\nruntime = "/usr/bin/runc"\n'})
    host = registration.host(root)
    plan = install("podman", host)
    assert _engine(root)["runtime"] == "runc"
    assert any("/usr/bin/runc becomes runc" in note for note in plan.notes)
    uninstall("podman", host)
    assert not (root / DROP_IN).exists()


@pytest.mark.parametrize("words", WAYS)
def test_what_others_wrote_into_our_file_stays(words: tuple[str, ...], tmp_path: Path) -> None:
    """A setting and a comment added to the drop-in file since outlive uninstall, ours do not."""
    root = _root(tmp_path, {})
    host = registration.host(root)
    install("podman", host, *words)
    mine = "# mine\n[containers]\npids_limit = 7\n"
    (root / DROP_IN).write_text((root / DROP_IN).read_text() + mine)
    uninstall("podman", host)
    assert (root / DROP_IN).read_text().lstrip("\n") == mine
    assert not (root / HOOKS).exists()


def test_status_tells_what_is_wrong(tmp_path: Path) -> None:
    """A program that is gone and a file that overrules ours are problems."""
    root = _root(tmp_path, {})
    host = registration.host(root)
    assert registration.status("podman", host)["registered"] is False
    install("podman", host)
    found = registration.status("podman", host)
    assert (found["registered"], found["way"], found["problems"]) == (True, "runtime", [])
    (root / BIN.relative_to("/") / "seccomp-shim-crun").unlink()
    (root / f"{CONF}.d/zz.conf").write_text('[engine.runtimes]\nrunc = ["/usr/bin/runc"]\n')
    problems = registration.status("podman", host)["problems"]
    assert len(problems) == 2
    assert "seccomp-shim-crun is not there" in problems[0]
    assert "zz.conf overrules" in problems[1]


# --- real podman -----------------------------------------------------------------------------


@contextmanager
def _podman(runtime: str, *, rootless: bool) -> Iterator[engines.Podman]:
    """Yield a podman that reads /etc/containers, on a host where our executables are installed."""
    with engines.podman(runtime, rootless=rootless) as podman:
        podman.host.run(
            "mkdir -p /opt/seccomp-shim/bin /etc/seccomp-shim /var/log/seccomp-shim\n"
            f"cp {podman.conf} /etc/containers/containers.conf\n"
            "echo test_syscall: 400 >/etc/seccomp-shim/config.yaml\n"
            "umask 022; chmod 644 /etc/containers/containers.conf /etc/seccomp-shim/config.yaml\n"
            f"cd {CHECKOUT}; {sys.executable} -c '\n"
            "from pathlib import Path\n"
            "from shim.engines.registration.hookfile import render_all\n"
            'render_all(Path("/opt/seccomp-shim/bin"))\'\n'
        )
        podman.client.remove(f"CONTAINERS_CONF={podman.conf}")
        yield podman


def _verb(podman: engines.Podman, *words: str) -> None:
    podman.host.run(f"cd {CHECKOUT}; {sys.executable} -m shim {' '.join(words)}")


def _audit(podman: engines.Podman, log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in podman.host.run(f"cat {log}").stdout.splitlines()]


@pytest.mark.parametrize(
    ("runtime", "rootless"),
    [("crun", False), ("runc", False), ("crun", True), ("runc", True)],
)
def test_the_wrapper_in_a_real_podman(runtime: str, rootless: bool) -> None:
    """New containers, one made before, and exec are let through, until uninstall."""
    with _podman(runtime, rootless=rootless) as podman:
        run = podman.run_args("run", "--rm", image.NAME, image.CALLER, "400", "401")
        create = podman.run_args("create", "--name", "old", image.NAME, image.CALLER, "400", "stay")
        podman(*create)
        assert podman.calls(*run) == {400: EPERM, 401: EPERM}
        _verb(podman, "install", "podman")
        assert podman.calls(*run) == {400: ENOSYS, 401: EPERM}
        podman("start", "old")
        assert podman.logged("old", 1) == {400: ENOSYS}
        assert podman.calls("exec", "old", image.CALLER, "400", "401") == {400: ENOSYS, 401: EPERM}
        home = f"{podman.folder}/home/.local/state" if rootless else "/var/log"
        lines = _audit(podman, f"{home}/seccomp-shim/audit.jsonl")
        assert {"raw-bpf" if runtime == "crun" else "filter-injection"} == {
            line["mechanism"] for line in lines if line["event"] == "adjusted"
        }
        podman("rm", "--force", "--time", "0", "old")
        _verb(podman, "uninstall", "podman")
        assert podman.calls(*run) == {400: EPERM, 401: EPERM}


@pytest.mark.parametrize(
    ("runtime", "rootless"),
    [("crun", False), ("runc", False), ("crun", True), ("runc", True)],
)
def test_the_hooks_in_a_real_podman(runtime: str, rootless: bool) -> None:
    """Podman runs our entries for new containers, for root and rootless, until uninstall."""
    with _podman(runtime, rootless=rootless) as podman:
        run = podman.run_args("run", "--rm", image.NAME, image.CALLER, "400", "401")
        _verb(podman, "install", "podman", "--way", "hooks")
        assert podman.calls(*run) == {400: ENOSYS, 401: EPERM}
        home = f"{podman.folder}/home/.local/state" if rootless else "/var/log"
        lines = _audit(podman, f"{home}/seccomp-shim/audit.jsonl")
        [line] = [line for line in lines if line["event"] == "adjusted"]
        assert line["mechanism"] == ("raw-bpf" if runtime == "crun" else "filter-injection")
        assert {each["container"] for each in lines if "container" in each} == {line["container"]}
        assert [each["event"] for each in lines].count("requested") == 1
        _verb(podman, "uninstall", "podman")
        assert podman.calls(*run) == {400: EPERM, 401: EPERM}


def test_exec_by_hooks_is_covered_with_crun_only() -> None:
    """What precreate has given crun is kept for exec; runc compiles the profile anew."""
    for runtime, outcome in ("crun", ENOSYS), ("runc", EPERM):
        with _podman(runtime, rootless=False) as podman:
            _verb(podman, "install", "podman", "--way", "hooks")
            words = ("run", "--detach", "--name", "x", image.NAME, image.CALLER, "400", "stay")
            podman(*podman.run_args(*words))
            assert podman.calls("exec", "x", image.CALLER, "400") == {400: outcome}
            podman("rm", "--force", "--time", "0", "x")


def test_injection_in_a_rootless_podman() -> None:
    """Without precreate, too: ptrace works in the namespace in which podman's hooks run."""
    with _podman("crun", rootless=True) as podman:
        _verb(podman, "install", "podman", "--way", "hooks")
        podman.host.run(f"rm /{HOOKS}/seccomp-shim-precreate.json")
        run = podman.run_args("run", "--rm", image.NAME, image.CALLER, "400", "401")
        assert podman.calls(*run) == {400: ENOSYS, 401: EPERM}
        log = f"{podman.folder}/home/.local/state/seccomp-shim/audit.jsonl"
        adjusted = [line for line in _audit(podman, log) if line["event"] == "adjusted"]
        assert [line["mechanism"] for line in adjusted] == ["filter-injection"]


def test_a_user_installs_for_himself() -> None:
    """Without root the drop-in file is the user's own, and so are record and log."""
    with _podman("crun", rootless=True) as podman:
        at = podman.client.index("setpriv")
        user = [*podman.client[at : podman.client.index("env", at)]]
        user += ["env", f"HOME={podman.folder}/home", sys.executable, "-m", "shim"]
        podman.host.run(f"cd {CHECKOUT}; {' '.join(user)} install podman")
        run = podman.run_args("run", "--rm", image.NAME, image.CALLER, "400", "401")
        assert podman.calls(*run) == {400: ENOSYS, 401: EPERM}
        own = f"{podman.folder}/home/.config/containers/containers.conf.d"
        podman.host.run(f"test -e {own}/99-seccomp-shim.conf; ! test -e /{DROP_IN}")
        podman.host.run(f"cd {CHECKOUT}; {' '.join(user)} uninstall podman")
        assert podman.calls(*run) == {400: EPERM, 401: EPERM}
        podman.host.run(f"! test -e {own}")
