"""The verb log: what was written is told, by container and in all, whatever was rotated."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shim import cli, config, log, logread
from shim.risk import container_names
from support import auditlog, need
from support.checkout import CHECKOUT
from support.containers import real
from support.wrapped import WrappedLab

GOLDEN = Path(__file__).parent / "golden"
WEB, DB, JOB = ("a" * 64, "b" * 64, "c" * 64)


def at(seconds: float) -> str:
    """Return a time so many seconds ago."""
    then = time.gmtime(time.time() - seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", then)


def line(ago: float, event: str, level: str = "info", **fields: Any) -> str:
    """Return one line of the log."""
    return json.dumps({"time": at(ago), "level": level, "event": event, **fields}) + "\n"


def injected(ago: float, container: str, **more: Any) -> str:
    """Return the line of an adjustment by injection."""
    more |= {"mechanism": "filter-injection", "container": container, "verified": True}
    return line(ago, "adjusted", **more)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the log is that the verb reads."""
    where = tmp_path / "audit.jsonl"
    settings = {**config.DEFAULTS, "log": str(where)}
    monkeypatch.setattr(config, "load", lambda *_: (settings, ""))
    monkeypatch.setattr(log, "path", lambda **_: str(where))
    return where


@pytest.fixture(params=["runc", "crun"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> WrappedLab:
    """Return a directory with the wrapper for each real runtime."""
    return WrappedLab(tmp_path, real(request.param))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run the verb; return its exit status and what it printed."""
    code = cli.main(["log", *words])
    return code, capsys.readouterr().out


def test_a_line_a_container_and_what_it_comes_to(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The screen as an operator sees it, within 80 columns."""
    path.write_text(
        line(90, "left-alone", container=DB, reason="uretprobe: explicit-deny: by a rule")
        + injected(80, WEB)
        + injected(70, WEB, process="exec")
        + line(60, "repeated", mechanism="filter-injection", container=WEB, repeats=85)
        + line(50, "adjusted", mechanism="name", container=JOB)
        + line(40, "verified", container=JOB, verified=None, reason="it has ended")
        + line(30, "adjusting", container="shim-4")
        + line(29, "failed", "error", container="shim-4", reason="no room")
    )
    code, text = said(capsys)
    shown = "\n".join(each.partition("  ")[2].strip() for each in text.splitlines()[:-1])
    assert shown == (GOLDEN / "log.txt").read_text().rstrip("\n")
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert text.splitlines()[-1].partition(": ")[2] == (
        "2 adjusted: 1 by injection, 1 by name; 86 execs: 86 by injection; 1 left alone: explicit "
        "deny; 1 could not be verified; 1 wrong"
    )
    assert code == 1


def test_what_was_rotated_and_compressed_counts(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its order, once where a kill left it twice, and not what is older than was asked for."""
    texts = [injected(86400 * 9, "old"), injected(7000, "one"), injected(5000, "two")]
    for number, text in zip((3, 2), texts[:2], strict=True):
        each = path.with_name(f"audit.jsonl.{number}.gz")
        each.write_bytes(gzip.compress(text.encode()))
        os.utime(each, (0, time.time() - 90000 * number))
    path.with_name("audit.jsonl.1").write_text(texts[2])
    path.with_name("audit.jsonl.1.gz").write_bytes(gzip.compress(texts[2].encode())[:-9])
    path.write_text(injected(10, "three"))
    _, text = said(capsys, "--event", "--json")
    assert [json.loads(each)["container"] for each in text.splitlines()] == ["one", "two", "three"]
    _, text = said(capsys, "--event", "--json", "--since", "30d")
    assert json.loads(text.partition("\n")[0])["container"] == "old"
    assert "2 adjusted" in said(capsys, "--summary", "--since", "6000s")[1]


def test_an_acknowledged_error_is_believed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the verb itself and by status, of one container or of all; what comes later is not."""
    path.write_text("".join(line(90 - n, "failed", "error", container=f"c{n}") for n in range(3)))
    assert said(capsys, "--summary")[0] == 1
    assert len(logread.recent(str(path), 3600).events) == 3
    code, text = said(capsys, "--ack", "--container", "c1")
    assert (code, "1 error acknowledged" in text) == (0, True)
    assert [each["container"] for each in logread.recent(str(path), 3600).events] == ["c0", "c2"]
    assert said(capsys, "--ack")[0] == 0
    assert logread.recent(str(path), 3600).events == []
    code, text = said(capsys, "--summary")
    assert (code, "0 wrong, 3 acknowledged" in text) == (0, True)
    with path.open("a") as file:
        file.write(line(0, "failed", "error", container="c1"))
    assert len(logread.recent(str(path), 3600).events) == 1
    assert said(capsys, "--errors")[0] == 1
    assert "nothing went wrong" not in said(capsys, "--ack")[1]
    assert "nothing went wrong" in said(capsys, "--ack")[1]
    auditlog.lines(path)  # all of it keeps to the schema


def test_of_one_container(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its id, or the beginning of it."""
    path.write_text(injected(20, WEB) + injected(10, DB))
    for wanted in (WEB, WEB[:12]):
        _, text = said(capsys, "--container", wanted, "--event")
        assert text.count("\n") == 1
        assert "aaaaaaaaaaaa adjusted: filter-injection, verified" in text


def test_a_name_of_several_means_none(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else who gives his container another's name has its errors acknowledged with his."""
    need.root()
    monkeypatch.setattr(container_names, "_CONTAINERD", (str(tmp_path / "tasks"),))
    for ident, name in ((WEB, "web"), (DB, "web"), (JOB, WEB[:12])):
        bundle = tmp_path / "tasks" / "k8s.io" / ident
        bundle.mkdir(parents=True)
        config_ = {"annotations": {"io.kubernetes.cri.container-name": name}}
        (bundle / "config.json").write_text(json.dumps(config_))
    errors = [line(10, "failed", "error", container=ident) for ident in (WEB, DB, JOB)]
    path.write_text("".join(errors))
    assert cli.main(["log", "--ack", "--container", "web"]) == 2
    assert f"web: several containers are meant: {WEB}, {DB}" in capsys.readouterr().err
    code, text = said(capsys, "--container", WEB[:12], "--event")
    assert (code, text.count("\n")) == (1, 1)
    said(capsys, "--ack", "--container", WEB)
    assert [each["container"] for each in logread.recent(str(path), 3600).events] == [DB, JOB]


def test_the_summary_keeps_to_its_schema(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs."""
    path.write_text(injected(20, WEB) + line(5, "left-alone", reason="x"))
    schema = json.loads((CHECKOUT / "docs/log-summary.schema.json").read_text())
    document = json.loads(said(capsys, "--summary", "--json")[1])
    jsonschema.validate(document, schema)
    assert (document["adjusted"], document["wrong"]) == ({"filter-injection": 1}, 0)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--since", "soon"], "--since soon: no time (such as"),
        (["--since", "2026-13-01"], "no time"),
        (["--follow", "--ack"], "--follow goes with neither"),
        (["--summary"], "there is no log yet"),
    ],
)
def test_a_mistake_is_one_line(
    path: Path, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the command line, and of a host that has no log."""
    if words != ["--summary"]:
        path.write_text("")
    assert cli.main(["log", *words]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_no_name_moves_the_cursor(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a container's author chose reaches a terminal without control characters."""
    evil = "\x1b[2J\x07evil\n"
    path.write_text(injected(5, evil) + line(4, "failed", "error", container=evil, reason=evil))
    for words in ([], ["--event"], ["--errors"]):
        text = said(capsys, *words)[1]
        assert all(char == "\n" or char.isprintable() for char in text)


def test_it_follows_through_a_rotation(tmp_path: Path) -> None:
    """Lines that come are shown as they come, also after the log was given a number."""
    tmp_path.chmod(0o755)
    path = tmp_path / "audit.jsonl"
    path.write_text(injected(5, "before"))
    code = (
        "import sys; from shim import cli, log, config\n"
        f"log.path = lambda **_: {str(path)!r}\n"
        "settings = {**config.DEFAULTS, 'log': log.path()}\n"
        "config.load = lambda *_: (settings, '')\n"
        "sys.exit(cli.main(['log', '--follow', '--json']))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as follower:
        assert follower.stdout is not None
        seen = [json.loads(follower.stdout.readline())["container"]]
        for number in range(3):
            log.append(injected(0, f"c{number}").encode(), str(path), (20_000, 3))
            seen.append(json.loads(follower.stdout.readline())["container"])
            path.rename(path.with_name(f"audit.jsonl.{3 - number}"))
        follower.kill()
    assert seen == ["before", "c0", "c1", "c2"]


def test_a_real_start_is_told(
    lab: WrappedLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the wrapper wrote of a container of runc's and of crun's."""
    settings = {**config.DEFAULTS, "log": str(lab.log_path)}
    monkeypatch.setattr(config, "load", lambda *_: (settings, ""))
    monkeypatch.setattr(log, "path", lambda **_: str(lab.log_path))
    with lab.container() as container:
        container.ready()
        code, text = said(capsys)
    how = "injection, verified" if lab.real.endswith("runc") else "program"
    assert f"adjusted by {how}" in text
    assert container.name in text
    assert code == 0
