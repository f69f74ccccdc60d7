"""The verb metrics: what is counted, for Prometheus, and what reads it."""

import fcntl
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from risk.processes import filtered
from shim import cli, config, log, logmetrics
from shim.cli import metrics
from shim.host import processes
from shim.host.ptrace import Tracee
from support import need
from support.checkout import CHECKOUT
from support.containers import real
from support.filters import denying
from support.wrapped import WrappedLab

DEPLOY = CHECKOUT / "deploy/metrics"
NOBODY = 65534
DOCKERS = "/run/containerd/io.containerd.runtime.v2.task/moby/"


def line(ago: float, event: str, level: str = "info", **fields: Any) -> bytes:
    """Return one line of the log, written so many seconds ago."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - ago))
    document = {"time": at, "level": level, "event": event, **fields}
    return json.dumps(document).encode() + b"\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the log is, with what was counted beside it."""
    use(tmp_path / "audit.jsonl", monkeypatch)
    return tmp_path / "audit.jsonl"


def use(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the verb count this log."""
    settings = {**config.DEFAULTS, "log": str(where)}
    monkeypatch.setattr(config, "load", lambda *_: (settings, ""))
    monkeypatch.setattr(log, "path", lambda **_: str(where))
    monkeypatch.setattr(logmetrics, "STATE", str(where.parent / "metrics.json"))


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[tuple[str, ...], float]:
    """Run the verb; return the samples by name and the values of their sorted labels."""
    assert cli.main(["metrics", *words]) == 0
    text = capsys.readouterr().out
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_it_counts_what_the_log_tells(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By mechanism, engine and process, with the durations of injections."""
    injected: dict[str, Any] = {"mechanism": "filter-injection", "verified": True}
    path.write_bytes(
        line(90, "adjusted", **injected, engine="docker", container="a", duration_ms=30.0)
        + line(80, "adjusted", **injected, bundle=f"{DOCKERS}b", container="b", duration_ms=300)
        + line(70, "adjusted", **injected, process="exec", container="b")
        + line(60, "repeated", mechanism="filter-injection", process="exec", repeats=1000)
        + line(50, "adjusted", mechanism="name", container="c", bundle="/x")
        + line(40, "verified", mechanism="name", container="c", verified=None, reason="ended")
        + line(30, "left-alone", container="d", reason="uretprobe: explicit-deny: by a rule")
        + line(20, "failed", "error", container="e")
        + line(10, "verified", "error", mechanism="name", container="f", verified=False)
        + b"no line of ours\n"
        + line(0, "adjusted", mechanism="name", container="too new")
    )
    found = told(capsys, "--no-scan")
    name = "seccomp_shim_adjustments_total"
    assert {key[1:]: value for key, value in found.items() if key[0] == name} == {
        ("docker", "filter-injection", "start"): 2,
        ("", "filter-injection", "exec"): 1001,
        ("", "name", "start"): 1,
    }
    assert found[("seccomp_shim_left_alone_total", "explicit deny")] == 1
    assert found[("seccomp_shim_errors_total", "failed")] == 1
    assert found[("seccomp_shim_errors_total", "verified")] == 1
    assert found[("seccomp_shim_unverified_total", "name")] == 1
    assert found[("seccomp_shim_unacknowledged_errors",)] == 2
    histogram = "seccomp_shim_adjustment_duration_seconds"
    assert found[(f"{histogram}_count",)] == 2
    assert found[(f"{histogram}_sum",)] == pytest.approx(0.33)
    assert [found[(f"{histogram}_bucket", each)] for each in ("0.025", "0.05", "0.25", "0.5")] == [
        0, 1, 1, 2
    ]  # fmt: skip


def test_a_counter_never_goes_down(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line is counted once, also of a log that was rotated, compressed, or is gone by now."""
    key = ("seccomp_shim_adjustments_total", "", "name", "start")
    path.with_name("audit.jsonl.1.gz").write_bytes(
        gzip.compress(line(5000, "adjusted", mechanism="name"))
    )
    path.write_bytes(line(100, "adjusted", mechanism="name"))
    assert told(capsys, "--no-scan")[key] == 2
    assert told(capsys, "--no-scan")[key] == 2
    state = json.loads(Path(logmetrics.STATE).read_text())
    path.rename(path.with_name("audit.jsonl.1"))
    path.write_bytes(b"")
    then = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 60))
    Path(logmetrics.STATE).write_text(json.dumps({**state, "until": then}))
    with path.with_name("audit.jsonl.1").open("ab") as file:
        file.write(line(30, "adjusted", mechanism="name"))
    path.write_bytes(line(20, "adjusted", mechanism="name"))
    assert told(capsys, "--no-scan")[key] == 4
    for each in path.parent.glob("audit.jsonl*"):
        each.unlink()
    assert told(capsys, "--no-scan")[key] == 4


def test_what_was_counted_is_not_guessed_at(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in its place that we have not written is told, and stays."""
    path.write_bytes(b"")
    state = Path(logmetrics.STATE)
    for text in ("{}", "[]", "x", '{"until": "", "last": "", "buckets": [1], "seconds": 0}'):
        state.write_text(text)
        assert cli.main(["metrics", "--no-scan"]) == 2
        error = capsys.readouterr().err
        assert f"{state}: is not what was counted" in error
        assert error.count("\n") == 1
        assert state.read_text() == text


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_real_starts_are_counted(
    tmp_path: Path,
    runtime: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the wrapper writes is what is counted, with the time that runc's took."""
    lab = WrappedLab(tmp_path, real(runtime))
    use(lab.log_path, monkeypatch)
    monkeypatch.setattr(logmetrics, "_GRACE_SECONDS", -5)
    with lab.container() as container:
        container.ready()
        found = told(capsys, "--no-scan")
    mechanism = "filter-injection" if runtime == "runc" else "raw-bpf"
    assert found[("seccomp_shim_adjustments_total", "", mechanism, "start")] == 1
    assert found[("seccomp_shim_adjustment_duration_seconds_count",)] == (runtime == "runc")
    assert found[("seccomp_shim_log_bytes",)] > 300


def test_the_host_is_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel's state is one of several; a scan tells whom it puts at risk."""
    path.write_bytes(b"")
    found = told(capsys)
    states = {key[1:]: value for key, value in found.items() if key[0].endswith("kernel_state")}
    for call in ("uretprobe", "uprobe"):
        assert sum(value for labels, value in states.items() if call in labels) == 1
    assert ("seccomp_shim_containers_at_risk",) in found
    assert ("seccomp_shim_processes_unread",) in found
    assert ("seccomp_shim_containers_at_risk",) not in told(capsys, "--no-scan")


def test_who_cannot_be_read_is_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No container at risk among those that were read is not the same as none at all."""
    path.write_bytes(b"")
    with filtered(denying(*range(337))) as pid:
        monkeypatch.setattr(processes, "pids", lambda: [pid])
        tracee = Tracee(pid)
        assert told(capsys)[("seccomp_shim_processes_unread",)] == 1
        tracee.detach()
        assert told(capsys)[("seccomp_shim_processes_unread",)] == 0


def test_a_scan_that_fails_takes_nothing_else_along(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the log tells is told without it, and why there is no scan is one line."""
    need.root()
    path.write_bytes(line(20, "failed", "error"))

    def fails(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("shim.risk.scan.read", fails)
    assert cli.main(["metrics"]) == 0
    printed = capsys.readouterr()
    assert 'seccomp_shim_errors_total{event="failed"} 1.0' in printed.out
    assert "containers_at_risk" not in printed.out
    assert printed.err.startswith("seccomp-shim metrics: nobody could be scanned: ")
    assert printed.err.count("\n") == 1


def test_a_textfile_is_written_whole(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For node_exporter, which may read it at any moment and is not root."""
    path.write_bytes(line(10, "adjusted", mechanism="name"))
    target = path.with_name("seccomp-shim.prom")
    os.umask(0o077)
    try:
        assert cli.main(["metrics", "--no-scan", "--textfile", str(target)]) == 0
    finally:
        os.umask(0o022)
    assert capsys.readouterr().out == ""
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(text_string_to_metric_families(target.read_text()))


def test_who_keeps_the_counters_locked_is_told_of(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for him without a limit, and nothing is counted meanwhile."""
    need.root()
    monkeypatch.setattr(metrics, "_LOCK_SECONDS", 0)
    lock = Path(f"{logmetrics.STATE}.lock")
    lock.touch()
    with lock.open() as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        assert cli.main(["metrics", "--no-scan"]) == 2
    assert "another process keeps it locked" in capsys.readouterr().err
    assert not (path.parent / "metrics.json").exists()


@pytest.fixture
def his(path: Path) -> Path:
    """Return a directory of a user's, as Debian gives him /var/lib/prometheus."""
    need.root()
    place = path.parent / "prometheus"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    return place


@pytest.mark.parametrize("owner", [0, NOBODY])
def test_a_textfile_is_of_who_owns_its_directory(his: Path, owner: int) -> None:
    """Root's below a user's, as Debian has it, or the user's: written with his rights alone."""
    place = his / "node-exporter"
    place.mkdir()
    os.chown(place, owner, owner)
    target = place / "seccomp-shim.prom"
    assert cli.main(["metrics", "--no-scan", "--textfile", str(target)]) == 0
    assert target.read_text().startswith("# HELP")
    assert target.stat().st_uid == owner
    assert os.listdir(place) == [target.name]


def test_no_link_of_a_users_leads_a_textfile_elsewhere(
    his: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link in the place of node_exporter's directory is told in one line, and not followed."""
    precious = his.parent / "precious"
    precious.mkdir()
    (his / "node-exporter").symlink_to(precious)
    target = his / "node-exporter/seccomp-shim.prom"
    assert cli.main(["metrics", "--no-scan", "--textfile", str(target)]) == 2
    assert "a link that others can change" in capsys.readouterr().err
    assert not list(precious.iterdir())


def test_without_the_library_it_is_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what brings it."""
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert cli.main(["metrics"]) == 2
    error = capsys.readouterr().err
    assert "prometheus_client is not there (install.sh --with metrics, or the package" in error
    assert error.count("\n") == 1


def _named(text: str) -> set[str]:
    return set(re.findall(r"\bseccomp_shim_\w+", text))


def test_dashboard_and_rules_name_what_there_is(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each metric in them is one that the verb prints, and each that it prints is documented."""
    path.write_bytes(
        line(9, "adjusted", mechanism="name", verified=None)
        + line(8, "left-alone", reason="x")
        + line(7, "failed", "error")
    )
    # A scan takes long on a busy machine; that it counts them another test shows.
    printed = {key[0] for key in told(capsys, "--no-scan")} | {
        "seccomp_shim_containers_at_risk",
        "seccomp_shim_processes_unread",
    }
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 5
    for query in [*queries, *alerts, dashboard["templating"]["list"][1]["query"]]:
        assert _named(query) <= printed, query
    assert sum(bool(_named(query)) for query in queries) == len(queries)
    documented = _named((CHECKOUT / "docs/metrics.md").read_text())
    base = {re.sub(r"_(bucket|count|sum)$", "", name) for name in printed}
    assert documented == base


def test_promtool_takes_them(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prometheus's own checker, where it is there: the metrics, the rules, the queries in both."""
    path.write_bytes(line(9, "adjusted", mechanism="name", duration_ms=3))
    assert cli.main(["metrics", "--no-scan"]) == 0
    text = capsys.readouterr().out
    assert text.endswith("\n")
    if promtool := shutil.which("promtool"):
        for arguments, given in (
            (["check", "metrics"], text),
            (["check", "rules", str(DEPLOY / "alerts.yml")], ""),
        ):
            done = subprocess.run(
                [promtool, *arguments], input=given, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
