"""CRI-O is in no Debian: what is written is held against its documented tables."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engines import registration
from engines.registration import BIN, install, uninstall
from shim.engines.registration import Host, executable
from shim.errors import ShimError

DROP_IN = "etc/crio/crio.conf.d/99-seccomp-shim.conf"
HOOKS = "etc/containers/oci/hooks.d"
# As CRI-O's own packages ship it.
PACKAGED = """\
[crio.image]
signature_policy = "/etc/crio/policy.json"

[crio.runtime]
default_runtime = "crun"

[crio.runtime.runtimes.crun]
runtime_path = "/usr/libexec/crio/crun"
runtime_root = "/run/crun"
monitor_path = "/usr/libexec/crio/conmon"
allowed_annotations = [
    "io.containers.trace-syscall",
]

[crio.runtime.runtimes.runc]
runtime_path = "/usr/libexec/crio/runc"
runtime_root = "/run/runc"
monitor_path = "/usr/libexec/crio/conmon"
"""
# Keys of [crio.runtime.runtimes.NAME] in crio.conf(5) of CRI-O 1.37 that a handler of type oci has.
DOCUMENTED = {
    "runtime_path", "runtime_type", "runtime_root", "monitor_path", "monitor_cgroup",
    "monitor_env", "monitor_exec_cgroup", "privileged_without_host_devices",
    "allowed_annotations", "platform_runtime_paths", "container_min_memory", "no_sync_log",
    "default_annotations", "exec_cpu_affinity", "seccomp_profile", "container_create_timeout",
}  # fmt: skip
FILES: dict[str, dict[str, str]] = {
    "absent": {},
    "empty": {"etc/crio/crio.conf": ""},
    "packaged": {"etc/crio/crio.conf.d/10-crio.conf": PACKAGED},
    "overridden": {
        "etc/crio/crio.conf.d/10-crio.conf": PACKAGED,
        "etc/crio/crio.conf.d/20-mine.conf": '[crio.runtime]\ndefault_runtime = "runc"\n',
    },
}
WAYS = [(), ("--default",), ("--way", "hooks")]


def _root(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    registration.program(root / "bin", "runc", "exit 1")
    for name in ("crun", "runc"):  # where CRI-O's packages have them, and not on PATH
        if PACKAGED in files.values():
            registration.program(root / "usr/libexec/crio", name, "exit 1")
    return root


def _host(root: Path) -> Host:
    return registration.host(root, str(root / "bin"))


def _runtime(root: Path) -> dict[str, Any]:
    found = tomllib.loads((root / DROP_IN).read_text())["crio"]["runtime"]
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
    host = _host(root)
    install("crio", host, *words)
    after = registration.files(root / "etc")
    assert {name: after[name] for name in before} == before
    install("crio", host, *words)
    assert registration.files(root / "etc") == after
    assert registration.status("crio", host)["problems"] == []
    uninstall("crio", host)
    assert (registration.files(root / "etc") if files else {}) == before
    assert (root / "etc").exists() == bool(files)


@pytest.mark.parametrize(
    ("files", "program", "model"),
    [
        ("absent", "runc", {"runtime_root": "/run/runc"}),
        (
            "packaged",
            "crun",
            {
                "runtime_root": "/run/crun",
                "monitor_path": "/usr/libexec/crio/conmon",
                "allowed_annotations": ["io.containers.trace-syscall"],
            },
        ),
        (
            "overridden",
            "runc",
            {"runtime_root": "/run/runc", "monitor_path": "/usr/libexec/crio/conmon"},
        ),
    ],
)
def test_the_handler_is_like_the_default_one(
    files: str, program: str, model: dict[str, Any], tmp_path: Path
) -> None:
    """But for its program it has what the default handler has, in keys that CRI-O documents."""
    root = _root(tmp_path, FILES[files])
    install("crio", _host(root))
    assert _runtime(root).keys() == {"runtimes"}
    handlers = _runtime(root)["runtimes"]
    path = handlers["seccomp-shim"].pop("runtime_path")
    assert handlers == {"seccomp-shim": {**model, "runtime_type": "oci"}}
    assert handlers["seccomp-shim"].keys() <= DOCUMENTED
    if files == "absent":
        assert path == f"{BIN}/seccomp-shim-{program}"
    else:  # not on PATH: the path that CRI-O itself has is called
        assert path == f"{BIN}/seccomp-shim-crio-{program}"
        assert executable.real_of(Path(f"{root}{path}")) == f"/usr/libexec/crio/{program}"


def test_it_is_said_where_the_engine_is_not_installed(tmp_path: Path) -> None:
    """Where no CRI-O is on PATH, install says so and writes all the same; with one it is silent."""
    root = _root(tmp_path, FILES["packaged"])
    assert install("crio", _host(root)).notes[0].startswith("crio is not on PATH")
    registration.program(root / "bin", "crio", "exit 1")
    notes = install("crio", _host(root), "--default").notes
    assert not any("is not on PATH" in note for note in notes)


def test_the_default_is_ours_where_that_is_asked_for(tmp_path: Path) -> None:
    """With --default pods need no RuntimeClass, and are not told to have one."""
    root = _root(tmp_path, FILES["packaged"])
    plan = install("crio", _host(root), "--default")
    assert _runtime(root)["default_runtime"] == "seccomp-shim"
    assert not any("runtimeclass" in step for step in plan.next_steps)


def test_hooks_never_name_precreate(tmp_path: Path) -> None:
    """CRI-O does not start where a hook names the stage precreate: ours name two others."""
    root = _root(tmp_path, {"etc/crio/crio.conf": '[crio.runtime]\nhooks_dir = ["/srv/hooks"]\n'})
    install("crio", _host(root), "--way", "hooks")
    assert _runtime(root) == {"hooks_dir": ["/srv/hooks", f"/{HOOKS}"]}
    entries = [json.loads(path.read_text()) for path in (root / HOOKS).iterdir()]
    stages = sorted(stage for each in entries for stage in each["stages"])
    assert stages == ["createRuntime", "poststart"]


def test_podmans_hooks_are_not_where_cri_o_reads(tmp_path: Path) -> None:
    """Podman's entries, precreate among them, are in a directory that CRI-O is not told of."""
    root = _root(tmp_path, {})
    registration.program(root / "usr/bin", "crun", "exit 1")
    install("podman", _host(root), "--way", "hooks")
    install("crio", _host(root), "--way", "hooks")
    stages = [json.loads(p.read_text())["stages"] for p in (root / HOOKS).glob("*.json")]
    assert ["precreate"] not in stages
    assert "podman-hooks.d" not in (root / DROP_IN).read_text()


@pytest.mark.parametrize(
    ("text", "words", "complaint"),
    [
        ("[crio", (), "crio.conf: is not valid TOML"),
        ("[crio]\nruntime = 1\n", (), "crio.conf: crio.runtime must be a table"),
        ("", ("--way", "hooks", "--default"), "--default is for --way runtime"),
        (
            '[crio.runtime]\ndefault_runtime = "kata"\n'
            '[crio.runtime.runtimes.kata]\nruntime_type = "vm"\n',
            (),
            "kata is no OCI runtime",
        ),
    ],
)
def test_what_would_not_work_is_refused(
    text: str, words: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    """Invalid or impossible: one line says so, and nothing is written."""
    root = _root(tmp_path, {"etc/crio/crio.conf": text})
    host = _host(root)
    before = registration.files(root)
    with pytest.raises(ShimError, match=complaint):
        install("crio", host, *words)
    assert registration.files(root) == before


def test_an_executable_that_is_not_there_is_not_named(tmp_path: Path) -> None:
    """Without the wrapper pods could not start: one line says what to do, nothing is done."""
    root = _root(tmp_path, FILES["packaged"])
    host = _host(root)
    shutil.rmtree(root / "opt")
    before = registration.files(root)
    with pytest.raises(ShimError, match="is not there"):
        install("crio", host)
    assert registration.files(root) == before


def test_what_others_wrote_into_our_file_stays(tmp_path: Path) -> None:
    """A handler added to the drop-in file since outlives uninstall, ours does not."""
    root = _root(tmp_path, {})
    host = _host(root)
    install("crio", host, "--default")
    mine = '\n[crio.runtime.runtimes.mine]\nruntime_path = "/x"\n'
    (root / DROP_IN).write_text((root / DROP_IN).read_text() + mine)
    uninstall("crio", host)
    assert (root / DROP_IN).read_text().strip() == mine.strip()
