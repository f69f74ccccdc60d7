"""The verb scan on real processes and real runtimes."""

import ctypes
import json
import mmap
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from risk.processes import filtered
from risk.test_live_filters import field
from shim import cli
from shim.bpf.program import allow, encode
from shim.cli import scan as verb
from shim.engines import oci
from shim.host import kernel_calls
from shim.host.cache import facts
from shim.host.ptrace import Tracee
from shim.risk import container_names, live_filters, scan
from shim.risk.container_names import Known
from shim.risk.groups import Place
from shim.risk.live_filters import FilterSet, Process
from shim.risk.outlook import Call, outlook
from support import need
from support.checkout import CHECKOUT
from support.containers import TEST_SYSCALL, Lab, real
from support.filters import X86_64, denying

CALL = f"test-syscall-{TEST_SYSCALL}"
SCHEMA = json.loads((CHECKOUT / "docs/scan.schema.json").read_text())
GOLDEN = Path(__file__).parent / "golden"
DENY = denying(*range(337))
OURS = allow(DENY, X86_64, TEST_SYSCALL)


def scanned(capsys: pytest.CaptureFixture[str], *words: str, code: int) -> dict[str, Any]:
    """Scan, and hold the document to its schema."""
    assert cli.main(["scan", "--json", *words]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    return document


def test_the_exit_status_tells_of_this_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    """Who would die of a call that filters decide on makes it 1; an exempt one kills nobody."""
    with filtered(denying(*range(335))) as bad, filtered(OURS) as good:
        document = scanned(capsys, "--pid", str(bad), "--syscall", CALL, code=1)
        assert document["processes_at_risk"] == 1
        document = scanned(capsys, "--pid", str(good), "--syscall", CALL, code=0)
        [group] = document["groups"]
        told = group["processes"][0]["calls"][CALL]
        assert (told["outcome"], told["why"]) == ("safe", "allowed by us (filter-injection)")
        kills = facts()["syscalls"]["uretprobe"]["state"] in scan.DECIDING
        document = scanned(capsys, "--pid", str(bad), code=int(kills))
        assert document["processes_at_risk_elsewhere"] == 1


def test_everybody_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    """Without options each process of the host that has a filter is told of."""
    with filtered(DENY) as one, filtered(OURS) as other:
        document = scanned(capsys, "--syscall", CALL, code=1)
        told = {
            process["pid"]: process["calls"][CALL]["outcome"]
            for group in document["groups"]
            for process in group["processes"]
        }
        assert (told[one], told[other]) == ("dies", "safe")
        assert document["threads_stopped"] >= 2


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_container_of_a_runtime_alone(
    runtime: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is predicted of a live container is what its calls end with, adjusted or not."""
    lab = Lab(tmp_path, real(runtime))
    for hooks, outcome, code in ((None, "dies", 1), (lab.hooks(), "safe", 0)):
        with lab.container(hooks=hooks) as container:
            pid = container.ready()
            document = scanned(capsys, "--pid", str(pid), "--syscall", CALL, code=code)
            [group] = document["groups"]
            [process] = group["processes"]
            assert process["calls"][CALL]["outcome"] == outcome
            if runtime == "runc":  # crun runs without cgroups here
                assert (group["kind"], group["id"]) == ("container", container.name)
            ended = container.outcomes()[TEST_SYSCALL]
            assert ended == (1 if outcome == "dies" else 38)


def test_a_filter_of_the_programs_own_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container that is let through and then denies itself the call is its program's affair."""
    lab = Lab(tmp_path, real("runc"))
    code = (
        "import ctypes, sys; libc = ctypes.CDLL(None)\n"
        f"program = bytes.fromhex('{DENY.hex()}')\n"
        "code = ctypes.create_string_buffer(program)\n"
        "fprog = (len(program) // 8).to_bytes(8, 'little')"
        " + ctypes.addressof(code).to_bytes(8, 'little')\n"
        "assert libc.prctl(22, 2, fprog) == 0\n"
        "print('ready', flush=True); sys.stdin.readline()"
    )
    args = [os.path.realpath(sys.executable), "-IS", "-c", code]
    with lab.container(hooks=lab.hooks(), args=args) as container:
        pid = oci.wait_ready(container.process, container.folder)
        document = scanned(capsys, "--pid", str(pid), "--syscall", CALL, code=1)
        told = document["groups"][0]["processes"][0]["calls"][CALL]
        assert (told["owner"], told["outcome"]) == ("own", "dies")
        assert "that it loaded itself" in told["why"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pid", "4194304"], "4194304: there is no such process"),
        (["--container", "nobody"], "nobody: no such container runs here"),
        (["--syscall", "nothing"], "nothing: is no system call of x86-64"),
        (["--syscall", "test-syscall-3"], "test-syscall-3: is no test system call (337 to 423)"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What failed and on what; exit status 2."""
    need.root()
    assert cli.main(["scan", *words]) == 2
    assert capsys.readouterr().err.startswith(f"seccomp-shim scan: {said}")


def test_ordinary_users_are_told_to_be_root(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else may read what a process is confined by."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["scan"]) == 2
    assert "only root" in capsys.readouterr().err


def made(state: str) -> scan.Scan:
    """Return a host with one of each, on a kernel in this state."""
    asked = [Call("uretprobe", 335, True), Call("uprobe", 336, True)]
    web, db = Place("container", "docker", "a" * 64), Place("container", "podman", "b" * 64)
    unit, alone = Place("unit", "systemd", "sshd.service"), Place("process")
    old = denying(*range(335))
    both = allow(allow(old, X86_64, 336), X86_64, 335)

    def group(place: Place, known: Known, *processes: Process) -> scan.Group:
        contained = place.kind == "container"
        return scan.Group(
            place,
            known,
            [
                scan.ScannedProcess(
                    each, {c.name: outlook(each, c, contained=contained) for c in asked}
                )
                for each in processes
            ],
        )

    def process(pid: int, name: str, *programs: bytes, **more: Any) -> Process:
        sets = (FilterSet(programs, 1, pid),) if programs else ()
        return Process(pid, "1", name, 0, pid, 2, 1, "", sets, stopped=(90,))._replace(**more)

    return scan.Scan(
        asked,
        {"uretprobe": state, "uprobe": "absent" if state == "filtered" else state},
        [
            group(
                web,
                Known("web\x1b[2J", "nginx:1.27", "the daemon's default", engine="docker"),
                process(812, "nginx", old),
                process(840, "nginx", old),
            ),
            group(
                db,
                Known("db", "postgres:16", engine="podman"),
                process(900, "x", both),
            ),
            group(
                unit,
                Known("sshd.service", engine="systemd"),
                process(700, "sshd", old),
            ),
            group(
                alone,
                Known(),
                process(950, "strace'd", unread="traced by process 949"),
            ),
        ],
        0.0123,
        ["containerd"],
    )


@pytest.mark.parametrize("state", ["filtered", "exempt", "absent"])
def test_the_screen(
    state: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What people read at 80 columns, on each kind of kernel; names are harmless."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("L", "h", "6.12.1", "", "")))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    verb.show(made(state), verbose=False)
    text = capsys.readouterr().out
    golden = GOLDEN / f"scan-{state}.txt"
    if os.environ.get("SHIM_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_a_pipe_gets_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is wrapped or coloured for a program; --verbose tells each process and the stops."""
    verb.show(made("filtered"), verbose=True)
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("!!")]
    assert len(rows) == 3
    assert "5 threads stood for 90 microseconds (median), 90 at most" in text


def test_a_32_bit_program_is_undecided() -> None:
    """Its probes make no call, if it is what it says: it may not die, and is not called safe."""
    old, call = denying(*range(335)), scan.calls()[0]
    made_ = Process(1, "1", "x", 0, 1, 2, 1, "", (FilterSet((old,), 1, 1),), in_32_bits=True)
    told = scan._seen(made_, [call], Place("process")).outlooks[call.name]
    assert (told.outcome, told.signal) == ("undecided", "")
    assert "a program of 32 bits" in told.why
    open_ = made_._replace(sets=(FilterSet((encode([(6, 0, 0, 0x7FFF0000)]),), 1, 1),))
    assert scan._seen(open_, [call], Place("process")).outlooks[call.name].outcome == "safe"


def in_32_bit_mode() -> None:
    """Wait in pause(2) of i386: beyond a far return to the code segment of 32 bits."""
    code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, 7)  # MAP_32BIT, rwx
    at = ctypes.addressof(ctypes.c_char.from_buffer(code))
    far = b"\x6a\x23\x68" + (at + 16).to_bytes(4, "little") + b"\x48\xcb"  # push, push, lretq
    wait = b"\xb8\x1d\0\0\0\xcd\x80\xeb\xf7"  # mov $29, %eax; int $0x80; jmp back
    code[: 16 + len(wait)] = far.ljust(16, b"\x90") + wait
    ctypes.CFUNCTYPE(None)(at)()


def test_in_which_mode_a_program_stood() -> None:
    """The processor's mode tells, whatever the program's file says of itself."""
    need.kernel(bool(kernel_calls.is_served("i386")), "the kernel runs no code of 32 bits")
    all_pass = encode([(6, 0, 0, 0x7FFF0000)])
    with filtered(all_pass, then=in_32_bit_mode) as pid, filtered(OURS) as other:
        deadline = time.monotonic() + 20
        while not (narrow := live_filters.read_one(pid)) or not narrow.in_32_bits:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert narrow.sets
        wide = live_filters.read_one(other)
        assert wide
        assert not wide.in_32_bits
        assert field(pid, "State")[0] == "S"


def test_one_thread_in_64_bit_mode_makes_no_program_of_32_bits() -> None:
    """A probe kills that one: another in the other mode must not make it a question."""
    need.kernel(bool(kernel_calls.is_served("i386")), "the kernel runs no code of 32 bits")

    def both() -> None:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        in_32_bit_mode()

    with filtered(encode([(6, 0, 0, 0x7FFF0000)]), then=both) as pid:
        deadline = time.monotonic() + 20
        while not Path(f"/proc/{pid}/syscall").read_text().startswith("29 "):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = live_filters.read_one(pid)
    assert found
    assert (found.threads, found.in_32_bits) == (2, False)


def test_not_knowing_is_not_safe(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody is known to be at risk, but somebody was not read, the exit status is 3."""
    with filtered(OURS) as pid, filtered(OURS) as other:
        tracee = Tracee(other)
        words = ("--pid", str(pid), "--pid", str(other), "--syscall", CALL)
        assert scanned(capsys, *words, code=3)["processes_unread"] == 1
        tracee.detach()
        assert scanned(capsys, *words, code=0)["processes_unread"] == 0
    with filtered(DENY) as pid, filtered(OURS) as other:
        tracee = Tracee(other)
        scanned(capsys, "--pid", str(pid), "--pid", str(other), "--syscall", CALL, code=1)
        tracee.detach()


def test_what_docker_says_of_a_profile() -> None:
    """Of what a container was asked for with, the profile is told in words."""
    told = container_names._docker_profile
    assert told({"HostConfig": {"Privileged": True}}) == "unconfined (privileged)"
    assert told({"HostConfig": {"SecurityOpt": ["seccomp=unconfined"]}}) == "unconfined"
    assert told({"HostConfig": {"SecurityOpt": ['seccomp={"x": 1}']}}) == "its own"
    assert told({"HostConfig": {"SecurityOpt": None}}) == "the daemon's default"
