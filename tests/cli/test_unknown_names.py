"""Names in a profile that are no call of any kernel, and what every verb says of them."""

import ctypes
import json
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from shim import cli
from shim.catalog import known_names
from shim.host.libseccomp import about_unknown, unknown
from shim.profile.document import names, read
from support.filters import shipped
from support.profiles import DOCKER

LINE = (
    "'unknown', 'flibbertigibbet': no system calls of any kernel that we know; libseccomp drops "
    "them"
)
PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [
        {"names": ["read", "exit_group", "unknown", "flibbertigibbet"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["unknown", "cacheflush", "uretprobe"], "action": "SCMP_ACT_ALLOW"},
    ],
}
# Numbers of the arm kernel's own calls, of MIPS (by ABI), x32, and what libseccomp counts itself.
RANGES = ((0, 1000), (4000, 7000), (0xF0000, 0xF0010), (0x40000000, 0x40000300), (-10500, -10000))
OTHERS = ("arm_fadvise64_64", "breakpoint", "s390_pci_mmio_read", "sync_file_range2", "cacheflush")


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return the path of a profile with two names that nobody knows."""
    path = tmp_path / "p.json"
    path.write_text(json.dumps(PROFILE))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """Run the program; give what it printed, and what it said."""
    cli.main([*words])
    done = capsys.readouterr()
    return done.out, done.err


def test_patch_names_them(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb patch says it in one line for a person, and as a list in its JSON."""
    _, said = run(capsys, "patch", "--when=always", file)
    assert f"{file}: {LINE}\n" in said
    out, _ = run(capsys, "patch", "--when=always", "--json", file)
    assert json.loads(out)["files"][0]["unknown_names"] == ["unknown", "flibbertigibbet"]


def test_verify_names_them(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb verify names those of both sides, once."""
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**PROFILE, "syscalls": PROFILE["syscalls"][:1]}))
    assert f"{LINE}\n" in run(capsys, "verify", file, str(other))[0]
    out, _ = run(capsys, "verify", "--json", file, str(other))
    assert json.loads(out)["unknown_names"] == ["unknown", "flibbertigibbet"]


@pytest.mark.parametrize("verb", [["find"], ["patch", "--all", "--when=always", "--check"]])
def test_find_and_patch_all_name_them(
    verb: list[str], file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host's list has the line under WHY, its JSON the list."""
    folder = tmp_path / "root/etc/docker"
    folder.mkdir(parents=True)
    (folder / "p.json").write_text(Path(file).read_text())
    words = [*verb, f"--root={tmp_path}/root"]
    assert LINE in run(capsys, *words)[0]
    [line] = run(capsys, *words, "--json")[0].splitlines()
    assert json.loads(line)["unknown_names"] == ["unknown", "flibbertigibbet"]


@pytest.mark.parametrize("tree", [DOCKER, shipped()], ids=["odd", "shipped"])
def test_ordinary_profiles_have_none(tree: dict[str, Any]) -> None:
    """What Docker ships is known whole, the calls of other architectures too."""
    assert unknown(names(read(json.dumps(tree).encode(), "p.json"))) == ()
    assert unknown(OTHERS) == ()


def test_every_name_of_libseccomp_is_known() -> None:
    """Whatever number of whatever architecture libseccomp has a name for, the name is known."""
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_num_arch
    resolve.restype, resolve.argtypes = ctypes.c_char_p, [ctypes.c_uint32, ctypes.c_int]
    arches = [getattr(pyseccomp.Arch, each) for each in dir(pyseccomp.Arch) if each[0] != "_"]
    found = {
        name.decode()
        for arch in arches
        for first, last in RANGES
        for number in range(first, last)
        if (name := resolve(arch, number))
    }
    assert len(found) > 450
    assert found - known_names() == set()


def test_what_is_told_stays_one_short_line() -> None:
    """Many names, long ones and control characters make no long line and no other."""
    told = about_unknown([f"x{number}\n" + "y" * 5000 for number in range(1000)])
    assert told.isprintable()
    assert len(told) < 500
    assert "and 995 more" in told
    assert about_unknown([]) == ""
    assert unknown(["", "read\0x", "\ud800"]) == ("", "read\0x", "\ud800")
