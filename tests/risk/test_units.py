"""Units of systemd, judged by the filters that their processes really have, by every verb."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cli import viewed
from risk.units import as_systemd, unit
from shim import abi, cli
from shim.errors import ShimError
from shim.host import libc, processes
from shim.host.tracing.refusals import Ended
from shim.risk import units
from shim.risk.groups import Place
from shim.risk.watch_scope import Watched
from support import need
from support.checkout import CHECKOUT
from support.filters import X86_64, denying

SCHEMA = json.loads((CHECKOUT / "docs/find.schema.json").read_text())
NAME = f"shimtest-{os.getpid()}"
ID = "0123456789abcdef" * 4
_PR_SET_SECCOMP = 22
FOLDER = "/run/systemd/system"
LIST = b"[Service]\nSystemCallFilter=@system-service\n"
ALLOWING = denying(*range(337))  # uretprobe and uprobe are 335 and 336
REFUSING = denying(*range(335))


def found(folder: Path, *names: str) -> dict[str, Any]:
    """Return what find says of units with these names, by file; each document is checked."""
    need.root()
    files = {f"{FOLDER}/{name}": LIST for name in names}
    done = viewed.run(folder, ("-m", "shim", "find", "--json"), files)
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    for document in documents:
        jsonschema.validate(document, SCHEMA)
    return {each["file"].removeprefix(f"{FOLDER}/"): each for each in documents}


def test_find_judges_a_unit_by_what_its_processes_have(tmp_path: Path) -> None:
    """Whatever the unit's text says; one that does not run is judged by that."""
    with unit(f"{NAME}.service", as_systemd("mseal")) as [pid]:
        told = found(tmp_path, f"{NAME}.service", f"{NAME}-idle.service")
    one = told[f"{NAME}.service"]
    assert (one["state"], one["judged_by"]) == ("denies", "processes")
    [live] = one["units"]
    assert (live["unit"], live["pid"], live["processes"]) == (f"{NAME}.service", pid, 1)
    assert live["calls"]["uretprobe"]["verdict"] == "ERRNO(1)"
    assert live["calls"]["uretprobe"]["outcome"] == "dies"
    idle = told[f"{NAME}-idle.service"]
    assert (idle["state"], idle["judged_by"], idle["units"]) == ("not judged", "text", [])
    assert idle["reason"] == "allows only what it lists, by its text (no process of it runs)"


def test_processes_of_one_unit_are_told_apart() -> None:
    """One that allows, one that refuses, one without a filter: the worst counts, and how many."""
    path = f"{FOLDER}/{NAME}.service"
    with unit(f"{NAME}.service", [ALLOWING], [REFUSING], []):
        one = units.live([path])[path]
    assert one.state == "denies"
    assert one.why() == (
        "uretprobe, uprobe: ERRNO(1) in 1 of them; no filter in 1 of them "
        f"(by 3 processes of {NAME}.service)"
    )
    [document] = one.documents()
    assert document["unfiltered"] == 1
    assert document["calls"]["uprobe"] == {
        "outcome": "denied",
        "verdict": "ERRNO(1)",
        "why": "ERRNO(1) by a filter of its own (or of its unit)",
        "processes": 1,
    }
    with unit(f"{NAME}.service", [ALLOWING]):
        one = units.live([path])[path]
    assert one.state == "allows"
    assert one.why() == f"they pass (by 1 process of {NAME}.service)"


def test_a_users_unit_is_nobody_elses() -> None:
    """A user names his units as he likes: they answer for no file of root's, nor for its name."""
    user = "user.slice/user-1000.slice/user@1000.service/app.slice"
    with unit(f"{NAME}.service", [REFUSING], slice_=user) as pids:
        assert units.live([f"{FOLDER}/{NAME}.service"]) == {}
        with pytest.raises(ShimError, match="no such unit runs here"):
            units.running(NAME)
        assert units.running(f"1000:{NAME}").pids == pids


@pytest.mark.parametrize(
    "below", [f"libpod-payload-{ID}", f"docker-{ID}.scope", ID, "user-1000.slice", "x.service"]
)
def test_all_below_a_unit_is_in_it(below: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Podman --cgroups=split has its container there; whoever is delegated one names it at will."""
    inside = f"system.slice/{NAME}.service"
    with unit(f"{NAME}.service", []) as own, unit(below, [REFUSING], slice_=inside) as pids:
        assert units.running(NAME).pids == [*own, *pids]
        assert cli.main(["guard", "--unit", NAME, "--syscall", "test-syscall-400", "true"]) == 3
        assert "1 of 2 processes would die" in capsys.readouterr().err
        call = refused(pids[0], place=processes.namespace(pids[0], "mnt"))
        assert Watched(unit=units.unit(NAME))(call) == f"systemd {NAME}.service"


def test_a_unit_inside_of_a_foreign_container_is_not_the_hosts() -> None:
    """LXC names a directory of its own; what is below it is named by the container's systemd."""
    with unit(f"{NAME}.service", [REFUSING], slice_="lxc.payload.box/system.slice"):
        assert units.live([f"{FOLDER}/{NAME}.service"]) == {}
        with pytest.raises(ShimError, match="no such unit runs here"):
            units.running(NAME)


def test_what_has_ended_is_its_units_only_in_the_same_mount_namespace() -> None:
    """The nearest that lives above a container that has ended is no caller of its calls."""
    with unit(f"{NAME}.service", []) as [pid]:
        here = processes.namespace(pid, "mnt")
        watched = Watched(unit=units.unit(NAME))
        ended = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(ended, 0)
        assert watched(refused(ended, pid, place=here)) == f"systemd {NAME}.service"
        assert Watched(unit=units.unit(NAME))(refused(ended, pid, place=here + 1)) is None


def refused(pid: int, *above: int, place: int) -> Ended:
    """Return a call of process ``pid`` that a filter has refused."""
    return Ended(0, pid, pid, above, place, "x", X86_64, 417, (0,) * 6, 0, 1, (REFUSING,))


def test_another_hosts_units_are_judged_by_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes that run here have nothing to do with --root."""
    file = tmp_path / f"root{FOLDER}/{NAME}.service"
    file.parent.mkdir(parents=True)
    file.write_bytes(LIST)
    with unit(f"{NAME}.service", [REFUSING]):
        assert cli.main(["find", "--json", "--root", str(tmp_path / "root")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["judged_by"] == "text"
    assert told["reason"].endswith("(a process of another host cannot be asked)")


@pytest.mark.parametrize(
    ("file", "name", "fits"),
    [
        ("x.service", "x.service", True),
        ("x.service", "xy.service", False),
        ("x@.service", "x@1.service", True),
        ("x@.service", "x@1.socket", False),
        ("x@.service", "x.service", False),
        ("x.service.d/a.conf", "x.service", True),
        ("x@.service.d/a.conf", "x@a@b.service", True),
        ("x-.service.d/a.conf", "x-y-z.service", True),
        ("x-.service.d/a.conf", "x.service", False),
        ("service.d/a.conf", "any.service", True),
        ("service.d/a.conf", "any.socket", False),
        ("box.nspawn", "box.service", False),
    ],
)
def test_whose_a_file_is(file: str, name: str, fits: bool) -> None:
    """Units, their drop-ins, templates and prefixes, as systemd.unit(5) has them."""
    [stem] = units._names(f"/etc/systemd/system/{file}")
    assert units._fits(stem, name) is fits


def test_a_drop_in_of_another_name_is_of_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes are where the unit that the link leads to has them."""
    monkeypatch.setattr(units, "FOLDERS", (str(tmp_path),))
    (tmp_path / f"{NAME}.service").write_bytes(LIST)
    (tmp_path / "shimtest-alias.service").symlink_to(f"{NAME}.service")
    path = str(tmp_path / "shimtest-alias.service.d/a.conf")
    with unit(f"{NAME}.service", [REFUSING]):
        assert units.live([path])[path].state == "denies"


def test_a_unit_is_told_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state, whose processes say so and what they answer fit on a terminal."""
    from shim.cli import find, output
    from shim.discovery.find import UNIT, FoundProfile

    monkeypatch.setattr(output, "screen", lambda: 80)
    path = f"{FOLDER}/{NAME}.service"
    with unit(f"{NAME}.service", [REFUSING], [ALLOWING]):
        live = units.live([path])
    profile = FoundProfile(path, "", UNIT, "not judged", "x", (("systemd", f"{path}:2"),), (), "x")
    row = find.row(find._judged(profile, live[path], ""))
    text = output.table(("PROFILE", "FORMAT", "STATE", "USED BY", "WHY"), [row])
    assert max(map(len, text.splitlines())) <= 80
    assert "in 1 of them" in text


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """Run a verb; return its status and its document."""
    code = cli.main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_gaps_explain_and_scan_take_a_unit(capsys: pytest.CaptureFixture[str]) -> None:
    """By its name with or without .service; what differs inside of it is told."""
    with unit(f"{NAME}.service", as_systemd("mseal"), [ALLOWING]) as pids:
        code, gaps = run(capsys, "gaps", "--unit", NAME)
        assert code == 0
        assert gaps["filter"].startswith(f"systemd {NAME}.service (")
        assert gaps["notes"] == [f"1 process of it with other filters (--pid {pids[1]})"]
        answers = {each["name"]: each["answers"] for each in gaps["calls"]}
        assert answers.get("mseal", ["EPERM"]) == ["EPERM"]
        assert answers["read"] == ["allowed"]
        code, told = run(capsys, "explain", "read", "--unit", f"{NAME}.service")
        assert (code, told["call"]["answers"]) == (0, ["allowed"])
        code, seen = run(capsys, "scan", "--unit", NAME, "--syscall", "test-syscall-400")
        assert code == 1
        [group] = seen["groups"]
        assert {each["pid"] for each in group["processes"]} == set(pids)
        assert cli.main(["guard", "--unit", NAME, "--syscall", "test-syscall-400", "true"]) == 3
    with unit(f"{NAME}.service", [ALLOWING], [], [ALLOWING]) as pids:
        libc.ptrace(abi.PTRACE_SEIZE, pids[2])
        assert run(capsys, "gaps", "--unit", NAME)[1]["notes"] == [
            f"1 process of it without any (--pid {pids[1]})",
            f"1 process of it not read (--pid {pids[2]})",
        ]
    for verb in ("gaps", "scan"):
        assert cli.main([verb, "--unit", NAME]) == 2
        assert f"{NAME}: no such unit runs here" in capsys.readouterr().err


def test_strict_mode_is_not_shown_as_no_filter(capsys: pytest.CaptureFixture[str]) -> None:
    """It has none, and is allowed four calls."""
    reader, writer = os.pipe()

    def strict() -> None:
        libc.prctl(_PR_SET_SECCOMP, 1)
        os.read(reader, 1)

    with unit(f"{NAME}.service", [], then=strict) as [pid]:
        deadline = time.monotonic() + 10
        while processes.status_of(pid, ("Seccomp",))["Seccomp"] != ["1"]:
            assert time.monotonic() < deadline
        assert cli.main(["gaps", "--unit", NAME]) == 2
        assert "is in strict mode" in capsys.readouterr().err
    os.close(reader)
    os.close(writer)


def test_denials_of_a_unit_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """What another unit is refused at the same time is not told, nor what nobody's process is."""
    need.kernel(os.path.exists("/sys/kernel/btf/vmlinux"), "this kernel has no BTF")

    def refused() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pause()
        while True:
            for nr in (417, 418):
                with suppress(OSError):
                    libc.syscall(nr)
            time.sleep(0.02)

    mine = denying(*(nr for nr in range(500) if nr != 417))
    others = denying(*(nr for nr in range(500) if nr != 418))
    with (
        unit(f"{NAME}.service", [mine], then=refused) as one,
        unit(f"{NAME}-other.service", [others], then=refused) as other,
    ):
        time.sleep(0.1)
        for pid in (*one, *other):
            os.kill(pid, signal.SIGUSR1)
        code, told = run(capsys, "denials", "--unit", NAME, "--for", "0.5s")
    assert code == 1
    assert {(each["call"], each["group"]) for each in told["denials"]} == {
        ("417", f"systemd {NAME}.service")
    }


def test_a_unit_that_is_yet_to_start_can_be_watched() -> None:
    """Its cgroup is known by its name; the watch does not ask for a process."""
    need.root()
    assert units.unit("x@1") == Place("unit", "systemd", "x@1.service")
    assert units.unit("dbus-:1.2.service").ident == "dbus-:1.2.service"
    assert Watched(unit=units.unit("x")).places == []
