"""The probe on this very kernel, and the cache of its verdict."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shim.host import cache, probe
from shim.host.libseccomp import system_libseccomp
from shim.host.runtime import knows, libseccomp_version
from support import need

CALLS = {"uretprobe": 335, "uprobe": 336}
BARE = [os.path.realpath(sys.executable), "-I", "-S"]
ROOT = str(Path(cache.__file__).parents[2])


def isolated(code: str, **options: Any) -> Any:
    """Run ``code`` in a fresh interpreter as the start path has it; give what it prints as JSON."""
    code = f"import sys; sys.path.insert(0, {ROOT!r})\n{code}"
    done = subprocess.run(
        [*BARE, "-c", code], check=True, capture_output=True, text=True, cwd="/", **options
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


PROBE = "import json\nfrom shim.host.probe import probe\nprint(json.dumps(probe({calls})))"


def raw_answer(nr: int) -> int:
    """Call ``nr`` without a filter by other means: the errno, or minus the signal it died of."""
    code = f"""
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(4, 0)
libc.syscall({nr})
sys.exit(ctypes.get_errno())
"""
    return subprocess.run([*BARE, "-c", code], check=False).returncode


def test_the_state_agrees_with_what_the_bare_call_gives() -> None:
    """ENOSYS without a filter is absent; SIGILL, ENXIO or EPROTO is filtered or exempt."""
    need.kernel(not probe.filtered_self(), "the tests run inside a seccomp filter")
    for name, found in probe.probe(CALLS).items():
        answer = raw_answer(CALLS[name])
        if os.uname().machine != "x86_64" or answer == 38:
            assert found["state"] == "absent"
        else:
            assert answer in {-4, 6, 71}
            assert found["state"] in {"filtered", "exempt"}


def test_a_number_that_no_kernel_has_is_absent() -> None:
    """A canary number gets ENOSYS without a filter, and that is all absent means."""
    need.kernel(not probe.filtered_self(), "the tests run inside a seccomp filter")
    assert probe.probe({"canary": 400}) == {"canary": {"nr": 400, "state": "absent"}}


def test_a_call_that_filters_can_deny_is_filtered() -> None:
    """An ordinary call (getpid, which cannot fail) is answered by the filter, not by the kernel."""
    assert probe.probe({"getpid": 39})["getpid"]["state"] == "filtered"


def test_an_ordinary_user_gets_the_same_verdict() -> None:
    """The probe needs no privilege."""
    need.root()
    need.kernel(os.access("/usr/bin/setpriv", os.X_OK), "setpriv is not installed")
    code = f"import os; os.setgid(65534); os.setuid(65534)\n{PROBE.format(calls=CALLS)}"
    assert isolated(code) == probe.probe(CALLS)


@pytest.mark.parametrize("errno", [1, 38])
def test_inside_a_filter_it_says_unknown(errno: int) -> None:
    """Under a filter that denies the call, its answer says nothing of the kernel's."""
    need.kernel(os.uname().machine == "x86_64", "this is not x86-64")
    code = f"""
from shim import abi
from shim.host import libc, probe
program = probe._denying(400)
insns = [program[i:i + 8] for i in range(0, 48, 8)]
insns[4] = (6).to_bytes(4, "little") + (0x50000 | {errno}).to_bytes(4, "little")
libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
libc.set_filter(b"".join(insns))
import json
print(json.dumps(probe.probe({{"canary": 400}})))
"""
    found = isolated(code)["canary"]
    assert found["state"] == "unknown"
    assert "inside a seccomp filter" in found["reason"]


def test_the_children_leave_no_core_and_no_noise(tmp_path: Path) -> None:
    """With cores allowed and written to the working folder, none appears and nothing is printed."""
    code = f"""
import os, resource
os.chdir({str(tmp_path)!r})
highest = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (highest, highest))
"""
    isolated(code + PROBE.format(calls=CALLS))
    assert list(tmp_path.iterdir()) == []


def test_another_architecture_is_absent_without_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off x86-64 no child is even forked."""
    monkeypatch.setattr(
        os, "uname", lambda: os.uname_result(("Linux", "h", "6.12", "v", "aarch64"))
    )
    monkeypatch.setattr(os, "fork", None)
    assert probe.probe(CALLS)["uretprobe"]["state"] == "absent"


def test_the_verdict_is_kept_for_the_boot(tmp_path: Path) -> None:
    """The second time nothing is asked: the same document comes from the file."""
    need.root()
    tmp_path.chmod(0o755)
    first = cache.facts(directory=str(tmp_path))
    kept = tmp_path / "probe.json"
    document = json.loads(kept.read_text())
    assert document == first
    assert kept.stat().st_mode & 0o777 == 0o644
    document["kernel"]["release"] = "from the file"
    kept.write_text(json.dumps(document))
    assert cache.facts(directory=str(tmp_path))["kernel"]["release"] == "from the file"
    assert cache.facts(directory=str(tmp_path), fresh=True) == first


def spoil(kept: Path, how: str) -> None:
    """Make the cache file one that must not be believed."""
    document = json.loads(kept.read_text())
    document["kernel"]["release"] = "spoilt"
    if how == "boot":
        document["kernel"]["boot_id"] = "00000000-0000-0000-0000-000000000000"
    elif how == "calls":
        del document["syscalls"]["uprobe"]
    elif how == "state":
        document["syscalls"]["uprobe"]["state"] = "fine"
    elif how == "shape":
        document["syscalls"] = [document["syscalls"]]
    kept.write_text(json.dumps(document))
    if how == "truncated":
        kept.write_text(kept.read_text()[:-5])
    elif how == "empty":
        kept.write_text("")
    elif how == "owner":
        os.chown(kept, 65534, 65534)
    elif how == "mode":
        kept.chmod(0o666)
    elif how == "symlink":
        kept.rename(kept.with_name("other.json"))
        kept.symlink_to("other.json")
    elif how == "fifo":
        kept.unlink()
        os.mkfifo(kept)
    elif how == "folder owner":
        os.chown(kept.parent, 65534, 65534)
    elif how == "folder mode":
        kept.parent.chmod(0o777)


SPOILS = (
    "boot", "calls", "state", "shape", "truncated", "empty", "owner", "mode", "symlink", "fifo",
    "folder owner", "folder mode",
)  # fmt: skip


@pytest.mark.parametrize("how", SPOILS)
def test_a_cache_not_to_be_believed_is_ignored(tmp_path: Path, how: str) -> None:
    """Damaged, foreign or of another boot: the kernel is asked again."""
    need.root()
    tmp_path.chmod(0o755)
    first = cache.facts(directory=str(tmp_path))
    spoil(tmp_path / "probe.json", how)
    assert cache.facts(directory=str(tmp_path)) == first


def test_an_unwritable_folder_is_no_error() -> None:
    """Where nothing can be kept the verdict is the same."""
    assert cache.facts(directory="/proc/none")["syscalls"] == probe.probe(CALLS)


def test_reading_the_cache_imports_next_to_nothing() -> None:
    """What every container start imports for a kernel that needs nothing, named one by one."""
    code = """
before = set(sys.modules)
from shim.host.cache import facts
facts()
print("[" + ", ".join('"%s"' % n for n in sorted(set(sys.modules) - before)) + "]")
"""
    cache.facts()
    gained = set(isolated(code))
    assert {name for name in gained if name.startswith("shim")} == {
        "shim", "shim.catalog", "shim.catalog.data", "shim.host", "shim.host.cache",
        "shim.startjson",
    }  # fmt: skip
    assert gained - {n for n in gained if n.startswith("shim")} <= {
        "_json", "os", "stat", "_stat", "posixpath", "genericpath", "os.path",
        "_collections_abc", "abc", "_abc",
    }  # fmt: skip


def test_libseccomp_resolves_old_names_and_no_invented_one() -> None:
    """The system's library has a version, knows read, and does not know nonsense."""
    version, known = system_libseccomp(["read", "no_such_call"])
    assert [part.isdigit() for part in version.split(".")] == [True] * 3
    assert known == {"read": True, "no_such_call": False}


def test_runc_tells_its_libseccomp(tmp_path: Path) -> None:
    """Runc names the version it is linked with, and is asked once while it stays the same."""
    runc = os.path.realpath(need.program("runc"))
    tmp_path.chmod(0o755)
    version = libseccomp_version(runc, str(tmp_path))
    assert version is not None
    assert version.startswith("2.")
    if os.geteuid() == 0:
        kept = json.loads((tmp_path / "runtimes.json").read_text())
        assert kept[runc]["libseccomp"] == version


def test_a_runtime_that_tells_nothing_is_unknown(tmp_path: Path) -> None:
    """A program that prints no version, fails, hangs or is not there has none."""
    for name, body in {"silent": "exit 0", "failing": "exit 1", "noisy": "echo '{]'"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        assert libseccomp_version(str(program), str(tmp_path)) is None
    assert libseccomp_version("/nowhere", str(tmp_path)) is None


@pytest.mark.parametrize(
    ("version", "since", "expected"),
    [
        ("2.5.4", "2.5.6", False), ("2.5.6", "2.5.6", True), ("2.6.0", "2.5.6", True),
        ("2.10.0", "2.5.6", True), ("2.6.0-rc1", "2.5.6", True), (None, "2.5.6", False),
        ("2.6.0", "", False), ("", "2.5.6", False), ("x.y.z", "2.5.6", False),
    ],
)  # fmt: skip
def test_versions_are_compared_as_numbers(version: str | None, since: str, expected: bool) -> None:
    """2.10 is later than 2.5, and no version knows nothing."""
    assert knows(version, since) is expected
