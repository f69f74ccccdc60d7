"""What a local user leaves where root looks is not believed, not run and not written through."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import shim
from shim.engines import oci
from shim.engines.registration import hookfile
from shim.host import cache
from support import need
from support.containers import (
    ENOSYS,
    EPERM,
    OTHER_TEST_SYSCALL,
    OUTPUT,
    TEST_SYSCALL,
    profile,
    supported,
)
from support.host import Host, throwaway
from support.wrapped import WrappedLab, script

NOBODY = 65534
RUN = "/run/seccomp-shim"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Yield a view of the host in which things may be planted."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    (tmp_path / "scratch").mkdir()
    with throwaway(tmp_path / "scratch") as view:
        yield view


def lab_of(tmp_path: Path, runtime: str, test_syscall: int = TEST_SYSCALL) -> WrappedLab:
    """Return a wrapper, and a bundle beside it."""
    lab = WrappedLab(tmp_path, need.program(runtime), test_syscall=test_syscall)
    (tmp_path / "bundle").mkdir()
    oci.bundle(tmp_path / "bundle", profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    return lab


def started(host: Host, lab: WrappedLab, **environment: str) -> str:
    """Start the bundle in the view of the host and return what the container printed."""
    words = ["run", "--bundle", f"{lab.folder}/bundle", f"shim-planted-{os.getpid()}"]
    done = subprocess.run(
        [*host.enter, *oci.command(lab.runtime, *words)], input="\n", capture_output=True,
        text=True, check=False, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_word_of_a_user_that_nothing_is_to_do(host: Host, tmp_path: Path) -> None:
    """A directory that a user made before root did is passed over, whatever lies in it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    packages = Path(shim.__file__).resolve().parents[1]
    facts = cache.facts()
    for call in facts["syscalls"].values():
        call["state"] = "absent"
    host.run(
        f"rm -rf {RUN}; mkdir {RUN}; echo '{boot} {packages}' >{RUN}/idle\n"
        f"echo '{json.dumps(facts)}' >{RUN}/probe.json; chown -R {NOBODY} {RUN}"
    )
    lab = lab_of(tmp_path, "runc", test_syscall=0)
    started(host, lab)
    # The short way would have logged nothing at all, and the planted states say absent.
    (line,) = lab.log()
    assert line["event"] == "left-alone"
    assert "absent" not in str(line["state"])
    assert host.run(f"stat -c %u {RUN}/idle").stdout == f"{NOBODY}\n"


@pytest.mark.parametrize("where", ["run", "XDG_RUNTIME_DIR"])
def test_programs_of_a_user_are_not_loaded(host: Host, tmp_path: Path, where: str) -> None:
    """What crun is handed was compiled by root: a program that lets all through lies in vain.

    Neither in a directory that a user made in /run, nor in the one of his own that ``sudo -E``
    names.
    """
    folder = RUN if where == "run" else f"{tmp_path}/user/seccomp-shim"
    lab = lab_of(tmp_path, "crun")
    keep = Path(tmp_path, "keep")
    started(host, lab)
    host.run(f"cp -r {RUN}/bpf {keep}")
    key = next(each for each in keep.iterdir() if each.stat().st_size > 64)
    evil = bytes.fromhex("060000000000ff7f")
    from shim.start.digest import sha256

    key.write_bytes(sha256(evil).encode() + evil)
    shutil.rmtree(tmp_path / "bundle")
    (tmp_path / "bundle").mkdir()
    oci.bundle(tmp_path / "bundle", profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    host.run(
        f"rm -rf {RUN}; mkdir -p {folder}; cp -r {keep} {folder}/bpf; chmod 700 {folder}/bpf\n"
        f"chown -R {NOBODY} {folder}"
    )
    seen = started(host, lab, XDG_RUNTIME_DIR=f"{tmp_path}/user")
    assert seen == OUTPUT


def test_settings_of_a_user_beside_root_s(tmp_path: Path) -> None:
    """Compiled settings that a user owns name no runtime that root executes."""
    need.root()
    folder = tmp_path / "etc"
    folder.mkdir()
    folder.chmod(0o1777)
    config = folder / "config.yaml"
    good = script(tmp_path / "good", "echo good")
    config.write_text(f"runtimes:\n  mine: {good}\n")
    config.chmod(0o644)
    evil = script(tmp_path / "evil", "echo evil")
    lines = folder / "config.lines"
    lines.write_text(f"on_error allow\ntest_syscall 0\nruntime mine {evil}\n")
    compiled = folder / "config.json"
    source = [config.stat().st_size, config.stat().st_mtime_ns, config.stat().st_ino]
    compiled.write_text(json.dumps({"source": source, "settings": {"runtimes": {"mine": evil}}}))
    for path in (lines, compiled):
        os.utime(path, ns=(config.stat().st_mtime_ns,) * 2)
        os.chown(path, NOBODY, NOBODY)
    (tmp_path / "bin").mkdir()
    wrapper = hookfile.render_all(tmp_path / "bin") / "seccomp-shim-runtime"
    command = [str(wrapper), "--config", str(config), "--real-runtime", "mine"]
    for verb in ("state", "create"):
        done = subprocess.run(
            [*command, verb, "c1"], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.stdout == "good\n", verb


def test_a_link_in_place_of_the_log_in_a_folder_for_all(host: Host, tmp_path: Path) -> None:
    """Where the log is in a directory like /tmp, nothing is written through a link there."""
    lab = lab_of(tmp_path, "crun")
    folder = tmp_path / "sticky"
    folder.mkdir()
    folder.chmod(0o1777)
    victim = tmp_path / "victim"
    victim.write_text("root's\n")
    (folder / "audit.jsonl").symlink_to(victim)
    os.chown(folder / "audit.jsonl", NOBODY, NOBODY, follow_symlinks=False)
    lab.configure("allow", log=folder / "audit.jsonl")
    seen = started(host, lab)
    # What cannot be logged is not adjusted, and the container runs on.
    assert seen == OUTPUT.replace(f"{TEST_SYSCALL} {ENOSYS}", f"{TEST_SYSCALL} {EPERM}")
    assert victim.read_text() == "root's\n"


def test_a_link_in_place_of_config_json(host: Host, tmp_path: Path) -> None:
    """A link stays one, and what else lies in its target's directory is not touched."""
    lab = lab_of(tmp_path, "crun")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "bundle/config.json").rename(other / "config.json")
    (tmp_path / "bundle/config.json").symlink_to(other / "config.json")
    assert started(host, lab) == OUTPUT
    assert (tmp_path / "bundle/config.json").is_symlink()
    assert [each.name for each in other.iterdir()] == ["config.json"]
