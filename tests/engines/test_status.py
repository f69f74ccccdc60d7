"""What status says is true: of the log, of who is covered, and of what cannot be seen."""

import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import registration
from engines.registration import install, uninstall
from engines.verbs import FILE, LOG, TEST_SYSCALL, prepare, shim, write
from shim import logread as journal
from shim.engines.docker import install_advice
from shim.engines.registration import executable
from shim.errors import ShimError
from support.host import Host, throwaway

DAY = 24 * 60 * 60
SETTINGS = "/etc/seccomp-shim/config.yaml"


def line(age: float, **fields: object) -> str:
    """Return a line of the log that is ``age`` seconds old."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - age))
    return json.dumps({"time": at, "level": "info", "event": "verified", **fields}) + "\n"


def test_all_of_the_last_day_is_read(tmp_path: Path) -> None:
    """One bad line before many good ones is found, however long the day was."""
    log = tmp_path / "audit.jsonl"
    bad, good = line(DAY - 60, verified=False), line(60, verified=True, reason="x" * 1000)
    log.write_text(line(DAY + 60, level="error") + bad + good * 6000)
    assert log.stat().st_size > 6 << 20
    found = journal.recent(str(log), DAY)
    assert ([each["verified"] for each in found.events], found.whole) == ([False], True)


def test_what_was_rotated_away_is_read_as_well(tmp_path: Path) -> None:
    """A log that was begun anew an hour ago is not all of a day."""
    log = tmp_path / "audit.jsonl"
    log.write_text(line(60, verified=True))
    (tmp_path / "audit.jsonl.1").write_text(line(7200, level="error") + line(3600, verified=True))
    assert [each["level"] for each in journal.recent(str(log), DAY).events] == ["error"]


def test_where_it_is_too_long_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound holds, and the time from which on all was read is told."""
    monkeypatch.setattr(journal, "_LIMIT", 1 << 20)
    log = tmp_path / "audit.jsonl"
    lines = line(7200, level="error") + line(3600, verified=True) * 20000
    log.write_text(lines)
    found = journal.recent(str(log), DAY)
    assert (found.events, found.whole) == ([], False)
    assert found.since == json.loads(lines.splitlines()[-1])["time"]


def test_a_line_across_two_reads_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a read begins, every line is seen once, the oldest first."""
    monkeypatch.setattr(journal, "_CHUNK", 7)
    log = tmp_path / "audit.jsonl"
    log.write_text("".join(line(100 - n, verified=False, n=n) for n in range(5)) + "half a l")
    assert [each["n"] for each in journal.recent(str(log), DAY).events] == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Yield a view of this host with us installed, a test syscall on, and no dockerd."""
    with throwaway(tmp_path_factory.mktemp("view")) as host:
        prepare(host, f"test_syscall: {TEST_SYSCALL}")
        yield host


def test_the_test_syscall_is_told(host: Host) -> None:
    """A forgotten line in the settings shows in status and at an installation."""
    told = f"the test syscall {TEST_SYSCALL} is on (/etc/seccomp-shim/config.yaml, test_syscall)"
    assert told in shim(host, "status docker").stdout
    said = shim(host, "install docker --dry-run").stderr
    assert told in said
    assert "nothing needs to be adjusted" not in said


@pytest.mark.parametrize(
    ("number", "today"),
    [
        (0, "nothing needs to be adjusted today; the wrapper then hands everything on as it is"),
        (400, "what is adjusted today is for the test syscall 400 alone"),
    ],
)
def test_what_a_kernel_that_kills_nothing_needs(number: int, today: str) -> None:
    """The calls are named, and a test syscall that is on is no "nothing"."""
    states = {"uretprobe": "exempt", "uprobe": "absent"}
    told = install_advice.advice(
        install_advice.HostFacts(states, "", "/usr/bin/runc", None, number)
    )
    calls = "uretprobe (exempt) or uprobe (absent)"
    assert told == ("none", f"this kernel kills no container over {calls}: {today}")


def test_a_log_without_a_directory_needs_attention(host: Host) -> None:
    """Before any container was started and refused; unregistered, no container waits for it."""
    write(host, FILE, b"{}")
    write(host, SETTINGS, b"on_error: deny\nlog: /nowhere/audit.jsonl\n")
    shim(host, "status docker")
    write(host, SETTINGS, b"")
    shim(host, "install docker --default --no-reload")
    shim(host, "status docker")
    write(host, SETTINGS, b"on_error: deny\nlog: /nowhere/audit.jsonl\n")
    told = shim(host, "status docker", code=1).stdout
    assert "ATTENTION  the log /nowhere/audit.jsonl cannot be written: the directory" in told
    assert "every container start is refused (on_error: deny)" in told
    write(host, SETTINGS, b"")
    shim(host, "uninstall docker")


def test_settings_in_error_need_attention(host: Host) -> None:
    """Before any container was started under them."""
    write(host, SETTINGS, b"on_error: dney\n")
    told = shim(host, "status docker", code=1).stdout
    assert f"ATTENTION  the settings: {SETTINGS}: on_error: 'dney' (allow or deny)" in told
    write(host, SETTINGS, b"")
    shim(host, "status docker")


def test_what_went_wrong_is_named_and_can_be_read(host: Host) -> None:
    """Settings in error are no failed adjustment; a line of the log fits a terminal."""
    reason = f"{SETTINGS}: on_error: 'dney' (allow or deny); the last good settings are used"
    known = {"level": "error", "container": "0123456789abcdef" * 4, "runtime": "/usr/sbin/runc"}
    wrong = line(60, event="config", reason=reason, **known)
    write(host, LOG, (wrong + line(50, **known) + line(40, **known)).encode())
    said = shim(host, "status docker", code=1).stdout.splitlines()
    attention = [each for each in said if each.startswith("ATTENTION")]
    assert attention == [
        f"ATTENTION  2 adjustments went wrong in the last 24 hours: {LOG}",
        "ATTENTION  1 start found an error in the settings and used the last good ones, or the "
        f"defaults, in the last 24 hours: {LOG}",
    ]
    first = next(n for n, each in enumerate(said) if each.startswith("log "))
    shown = said[first : said.index(attention[0])]
    assert all(len(each) <= 80 for each in shown)
    assert ", config, 0123456789ab, /usr/sbin/runc," in " ".join(" ".join(shown).split())
    write(host, LOG, wrong.encode())
    assert "adjustment" not in shim(host, "status docker", code=1).stdout
    write(host, LOG, b"")


def test_without_root_it_says_what_it_cannot_see(host: Host) -> None:
    """A user is not told that dockerd does not run; one without a home gets no error about it."""
    write(host, FILE, b"{}")
    shim(host, "install docker --default --no-reload")
    write(host, LOG, b"")
    user = "setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent"
    done = shim(host, "status docker", code=1, before=user)
    assert "not running" not in done.stdout
    assert "not seen   docker: whether dockerd runs and what it has read" in done.stdout
    assert "not seen   root's log" in done.stdout
    assert "/nonexistent" not in done.stdout + done.stderr.replace("HOME=/nonexistent", "")
    as_json = json.loads(shim(host, "status docker --json", code=1, before=user).stdout)
    assert as_json["engines"][0]["running"] is None
    assert as_json["unseen"]


@pytest.mark.parametrize(
    ("runtime", "words", "way", "covers", "not_covered"),
    [
        ("runc", (), "runtime", "exec into them, and podman build", "podman --runtime with a path"),
        ("runc", ("--way", "hooks"), "hooks", "from their next start on", "exec; podman build"),
        (
            "crun",
            ("--way", "hooks"),
            "hooks",
            "exec where crun runs them",
            "any other exec; podman",
        ),
    ],
)
def test_podmans_ways_are_not_called_a_default_runtime(
    tmp_path: Path, runtime: str, words: tuple[str, ...], way: str, covers: str, not_covered: str
) -> None:
    """What is covered by the wrapper in the runtimes' place, and by hooks, is told as it is."""
    registration.program(tmp_path / "bin", runtime, "exit 1")
    host = registration.host(tmp_path, str(tmp_path / "bin"))
    plan = install("podman", host, *words)
    told = registration.status("podman", host)
    assert (told["way"], told["default"], told["covers_all"]) == (way, False, True)
    assert covers in told["covers"] == plan.coverage.covered
    assert not_covered in told["not_covered"] == plan.coverage.left_out


def test_in_front_of_one_runtime_of_podmans(tmp_path: Path) -> None:
    """With --runtime the first path of a runtime's is ours, and the others stay behind it."""
    nvidia = "/usr/bin/nvidia-container-runtime"
    registration.program(tmp_path / "usr/bin", "nvidia-container-runtime", "exit 1")
    conf = tmp_path / "etc/containers/containers.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(f'[engine.runtimes]\nnvidia = ["/nowhere", "{nvidia}"]\n')
    before = registration.files(tmp_path / "etc")
    registration.program(tmp_path / "bin", "runc", "exit 1")
    host = registration.host(tmp_path, str(tmp_path / "bin"))
    install("podman", host, "--runtime", "nvidia")
    told = registration.status("podman", host)
    assert told["covers"] == "only containers and pods of --runtime nvidia"
    assert not told["covers_all"]
    install("podman", host)
    assert registration.status("podman", host)["covers_all"]
    text = (tmp_path / "etc/containers/containers.conf.d/99-seccomp-shim.conf").read_text()
    runtimes = tomllib.loads(text)["engine"]["runtimes"]
    script = f"{registration.BIN}/seccomp-shim-podman-nvidia"
    assert runtimes["nvidia"] == [script, "/nowhere", nvidia]
    assert "runc" in runtimes
    assert executable.real_of(tmp_path / script[1:]) == nvidia
    with pytest.raises(ShimError, match="no runtime none here"):
        install("podman", host, "--runtime", "none")
    uninstall("podman", host)
    assert registration.files(tmp_path / "etc") == before
    assert not (tmp_path / script[1:]).exists()
