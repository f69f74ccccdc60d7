"""Podman's precreate hook: the config.json through a pipe, changed or byte for byte."""

import json
import os
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from shim.bpf.program import LD_ABS, encode
from shim.engines import oci
from support import need
from support.containers import ENOSYS, EPERM, OTHER_TEST_SYSCALL, TEST_SYSCALL, profile, real
from support.filters import ALLOW
from support.wrapped import WrappedLab, script

RAW_BPF = "run.oci.seccomp_bpf_data"


@pytest.fixture
def lab(tmp_path: Path) -> WrappedLab:
    """Return a directory with the executables and their log."""
    return WrappedLab(tmp_path, real("crun"))


def passed(lab: WrappedLab, data: bytes, *args: str) -> bytes:
    """Return what the hook prints for ``data``; it must end well and say nothing else."""
    command = [f"{lab.bin}/seccomp-shim-precreate", "--config", f"{lab.folder}/config.yaml", *args]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def config(lab: WrappedLab, **bundle: Any) -> tuple[Path, bytes]:
    """Make a bundle; give its directory and its config.json."""
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)), **bundle)
    return folder, (folder / "config.json").read_bytes()


def test_a_container_for_crun_gets_its_program(lab: WrappedLab) -> None:
    """What the hook prints is started by crun itself, without any other of our parts."""
    folder, data = config(lab)
    new = passed(lab, data, "--test-syscall", str(TEST_SYSCALL), "--runtime", "crun")
    assert RAW_BPF in json.loads(new)["annotations"]
    (folder / "config.json").write_bytes(new)
    with oci.started(lab.real, folder, f"shim-precreate-{os.getpid()}") as process:
        oci.wait_ready(process, folder)
        assert oci.outcomes(process) == {TEST_SYSCALL: ENOSYS, OTHER_TEST_SYSCALL: EPERM}
    (line,) = lab.log()
    assert (line["event"], line["mechanism"]) == ("requested", "raw-bpf")


@pytest.mark.parametrize(
    ("runtime", "mechanism"), [("crun", "raw-bpf"), ("runc", "filter-injection")]
)
def test_one_line_tells_what_was_done(lab: WrappedLab, runtime: str, mechanism: str) -> None:
    """Whichever runtime reads the program, the hook that sees it says what has had an effect."""
    real = need.program(runtime)
    folder, data = config(lab, hooks=lab.hooks(stage="createRuntime"))
    new = passed(lab, data, "--test-syscall", str(TEST_SYSCALL), "--runtime", "crun")
    (folder / "config.json").write_bytes(new)
    with oci.started(real, folder, name := f"shim-precreate-{os.getpid()}") as process:
        oci.wait_ready(process, folder)
        assert oci.outcomes(process) == {TEST_SYSCALL: ENOSYS, OTHER_TEST_SYSCALL: EPERM}
    (line,) = lab.events("adjusted")
    assert (line["mechanism"], line["container"], line["verified"]) == (mechanism, name, True)
    assert (line["before"], line["after"]) == ("ERRNO(1)", "ALLOW")
    assert not lab.events("left-alone")


def test_a_program_of_others_is_no_adjustment(lab: WrappedLab) -> None:
    """One that lets the call through by itself, as its author wanted, is left alone."""
    folder, data = config(lab, hooks=lab.hooks(stage="createRuntime"))
    document = json.loads(data)
    lets = encode([(LD_ABS, 0, 0, 0), ALLOW])
    document["annotations"] = {RAW_BPF: b64encode(lets).decode()}
    (folder / "config.json").write_text(json.dumps(document))
    with oci.started(lab.real, folder, f"shim-precreate-{os.getpid()}") as process:
        oci.wait_ready(process, folder)
    assert not lab.events("adjusted")
    assert lab.events("left-alone")


ID = "5a" * 32


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"linux": {"cgroupsPath": f"machine.slice:libpod:{ID}"}}, ID),
        ({"linux": {"cgroupsPath": f"/libpod_parent/libpod-{ID}"}}, ID),
        ({"mounts": [{"destination": "/run/.containerenv", "source": f"/a/{ID}/userdata/x"}]}, ID),
        ({"linux": {"cgroupsPath": "/mine"}, "mounts": [7, {"destination": 1}]}, None),
        ({"linux": {"cgroupsPath": 7}, "mounts": {}}, None),
    ],
)
def test_the_container_is_named(lab: WrappedLab, more: dict[str, Any], told: str | None) -> None:
    """Podman gives no state at this stage; its own paths have the id."""
    _, data = config(lab)
    document = json.loads(data)
    document["linux"] |= more.pop("linux", {})
    document |= more
    passed(
        lab, json.dumps(document).encode(), "--test-syscall", str(TEST_SYSCALL), "--runtime", "crun"
    )
    (line,) = lab.events("requested")
    assert line.get("container") == told


def test_a_failure_names_the_container(lab: WrappedLab) -> None:
    """As the adjustment would: a profile that cannot be understood is left to the hook."""
    mount = {"destination": "/run/.containerenv", "source": f"/a/{ID}/userdata/x"}
    document = {"mounts": [mount], "linux": {"seccomp": {"defaultAction": 1}}}
    passed(
        lab, json.dumps(document).encode(), "--test-syscall", str(TEST_SYSCALL), "--runtime", "crun"
    )
    (line,) = lab.events("failed")
    assert line["container"] == ID


def test_where_the_runtime_cannot_be_told_nothing_is_changed(lab: WrappedLab) -> None:
    """A program would be crun's alone: with runc on the host as well it is the hook's turn."""
    need.program("runc")
    _, data = config(lab)
    assert passed(lab, data, "--test-syscall", str(TEST_SYSCALL)) == data
    assert passed(lab, data, "--test-syscall", str(TEST_SYSCALL), "--runtime", "runc") == data


def knowing(lab: WrappedLab, version: str) -> str:
    """Write a runtime that says it has that libseccomp; give its path."""
    features = json.dumps({"annotations": {"io.github.seccomp.libseccomp.version": version}})
    body = f"[ $1 = features ] && echo '{features}' && exit\necho 'runc version 1.3.0'"
    return script(lab.folder / f"runc-{version}", body)


def filtered(lab: WrappedLab) -> None:
    """Have the executables believe that this kernel lets filters deny uretprobe."""
    template = lab.bin / "seccomp-shim-precreate"
    text = template.read_text()
    told = (
        "    import shim.host.cache\n"
        '    state = {"nr": 335, "state": "filtered"}\n'
        '    shim.host.cache.facts = lambda: {"syscalls": {"uretprobe": state}}\n'
    )
    template.write_text(text.replace("    new = main(", f"{told}    new = main("))


def test_a_runtime_that_knows_the_name_gets_the_name(lab: WrappedLab) -> None:
    """One rule more, first of all, and nothing else; once is enough."""
    filtered(lab)
    _, data = config(lab)
    new = passed(lab, data, "--runtime", knowing(lab, "2.6.0"))
    before, after = json.loads(data), json.loads(new)
    rule = after["linux"]["seccomp"]["syscalls"].pop(0)
    assert rule == {"names": ["uretprobe"], "action": "SCMP_ACT_ALLOW"}
    assert after == before
    assert passed(lab, new, "--runtime", knowing(lab, "2.6.0")) == new
    assert [line["mechanism"] for line in lab.log()] == ["name"]


def test_a_runtime_that_does_not_know_the_name_is_left_to_the_hook(lab: WrappedLab) -> None:
    """A name that the library drops would change nothing."""
    filtered(lab)
    _, data = config(lab)
    assert passed(lab, data, "--runtime", knowing(lab, "2.5.5")) == data


def test_what_is_larger_than_any_config_goes_through(lab: WrappedLab) -> None:
    """It is not kept as a whole before it is passed on."""
    data = b'{"x": "' + b"x" * (20 << 20) + b'"}'
    assert passed(lab, data) == data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"linux": null}',
        b'{"linux": {"seccomp": {"defaultAction": 1}}}', b"[" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_config_comes_out_as_it_went_in(lab: WrappedLab, data: bytes) -> None:
    """Whatever is wrong with it is for Podman or the runtime to say."""
    assert passed(lab, data, "--test-syscall", str(TEST_SYSCALL), "--runtime", "crun") == data


@pytest.mark.parametrize("args", [["--foo"], ["--test-syscall", "1"], ["--runtime", "/nowhere"]])
def test_a_wrong_option_changes_nothing(lab: WrappedLab, args: list[str]) -> None:
    """Podman would not start a single container over a typing error in the hook's entry."""
    _, data = config(lab)
    options = args if args[0] != "--runtime" else [*args, "--test-syscall", str(TEST_SYSCALL)]
    assert passed(lab, data, *options) == data
    assert not lab.events("requested")
