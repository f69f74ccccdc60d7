"""The verb metrics: what the log, the kernel and a scan come to, as Prometheus reads it."""

import argparse
import calendar
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from shim import __version__, atomic, log, logmetrics, logread
from shim.errors import ShimError

DESCRIPTION = """\
Print metrics as Prometheus reads them: adjustments, errors, how long
adjustments took, what this kernel does with the calls, and how many containers
would die. What was counted is kept from one call to the next, so that counters
do not go down as the log is rotated. Takes the package prometheus_client:
install.sh --with metrics, which also has a timer write them for node_exporter."""

EPILOG = """\
examples:
  sudo seccomp-shim metrics
  sudo seccomp-shim metrics --textfile \\
      /var/lib/prometheus/node-exporter/seccomp-shim.prom

exit statuses: 0 done, 2 error."""

_LOCK_SECONDS = 10
_DAY = 24 * 60 * 60
# The timer of install.sh comes each minute.
_SCAN_SECONDS = 20
_STATES = ("absent", "exempt", "filtered", "unknown")


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "metrics",
        help="print what was adjusted and what is at risk for Prometheus",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--textfile",
        metavar="FILE",
        help="write them there, whole or not at all, and print nothing",
    )
    parser.add_argument(
        "--no-scan",
        action="store_true",
        help="do not look at running processes: no container at risk is counted",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Collect and print, or write."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        hint = "install.sh --with metrics, or the package python3-prometheus-client"
        raise ShimError("the package prometheus_client is not there", hint=hint) from None

    registry = CollectorRegistry()
    registry.register(_Collector(scanned=not args.no_scan))
    text = generate_latest(registry)
    if args.textfile:
        _write(args.textfile, text)
    else:
        sys.stdout.write(text.decode())
    return 0


def _write(path: str, text: bytes) -> None:
    """Write the file with no more rights in its directory than that directory's owner has.

    A package may give the directory above it to who runs Prometheus (Debian's node_exporter does):
    he could put a link in its place, and none of his is followed.
    """
    from shim.host.credentials import rights
    from shim.host.untrusted_files import directory, named

    parent, name = os.path.split(path)
    with directory(parent) as found:
        owner = os.fstat(found.directory).st_uid
        with rights(owner or None), named(path):
            atomic.write_atomic(name, text, 0o644, dir_fd=found.directory)


class _Collector:
    """All metrics, as they are now."""

    def __init__(self, *, scanned: bool) -> None:
        self._scanned = scanned

    def describe(self) -> list[Any]:
        """Return none: the registry would collect twice to learn their names."""
        return []

    def collect(self) -> Iterator[Any]:
        """Return each metric with its samples."""
        path = log.path(make=False)
        yield from _of_log(_counted(path))
        yield from _of_host(path)
        if self._scanned and os.geteuid() == 0:
            yield from _at_risk()


def _counted(path: str) -> logmetrics.Totals:
    """Count for good where we are root."""
    if os.geteuid() != 0:
        return logmetrics.counted(path, None)
    from shim.transaction.lock import held

    state = logmetrics.STATE
    os.makedirs(os.path.dirname(state), mode=0o755, exist_ok=True)
    busy = ShimError("another process keeps it locked", subject=f"{state}.lock", hint="try again")
    with held(f"{state}.lock", busy, _LOCK_SECONDS):
        return logmetrics.counted(path, state)


def _of_log(totals: logmetrics.Totals) -> Iterator[Any]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    for kind, about, labels in (
        (
            "adjustments",
            "Containers started and processes joined with the calls let through",
            ("mechanism", "engine", "process"),
        ),
        ("left_alone", "Starts that were left as they were, by reason", ("reason",)),
        ("errors", "What went wrong, by event of the log", ("event",)),
        (
            "unverified",
            "Adjustments of which it could not be told what came of them",
            ("mechanism",),
        ),
    ):
        family = CounterMetricFamily(f"seccomp_shim_{kind}", about, labels=labels)
        for values, number in sorted(totals.counts[kind].items()):
            family.add_metric(values, number)
        yield family
    sums, so_far = [], 0
    for bound, number in zip((*map(str, logmetrics.BUCKETS), "+Inf"), totals.buckets, strict=True):
        so_far += number
        sums.append((bound, so_far))
    yield HistogramMetricFamily(
        "seccomp_shim_adjustment_duration_seconds",
        "From the first stop of a container's init to the last",
        buckets=sums,
        sum_value=totals.seconds,
    )
    last = (
        calendar.timegm(time.strptime(totals.last[:19], "%Y-%m-%dT%H:%M:%S")) if totals.last else 0
    )
    yield GaugeMetricFamily(
        "seccomp_shim_last_adjustment_timestamp_seconds", "When, 0: never", value=last
    )


def _of_host(path: str) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    from shim.host import cache

    yield InfoMetricFamily("seccomp_shim", "The version", value={"version": __version__})
    kernel = GaugeMetricFamily(
        "seccomp_shim_kernel_state",
        "1 for what this kernel does with a call under a filter; filtered kills containers",
        labels=("syscall", "state"),
    )
    for call, state in sorted(cache.states().items()):
        for each in _STATES:
            kernel.add_metric((call, each), float(each == state))
    yield kernel
    recent = logread.recent(path, _DAY)
    yield GaugeMetricFamily(
        "seccomp_shim_unacknowledged_errors",
        "What went wrong in the last 24 hours and is not acknowledged",
        value=len(recent.events),
    )
    sizes = [os.path.getsize(each) for each in logread.log_files(path) if os.path.exists(each)]
    yield GaugeMetricFamily("seccomp_shim_log_bytes", "The log with all of it", value=sum(sizes))


def _at_risk() -> Iterator[Any]:
    """Count the containers of which a process would die if somebody attached a probe now."""
    from prometheus_client.core import GaugeMetricFamily

    from shim.risk.scan import calls, scan

    try:
        found = scan(calls(), seconds=_SCAN_SECONDS)
    except (OSError, ShimError) as error:  # what the log tells is told without it
        print(f"seccomp-shim metrics: nobody could be scanned: {error}", file=sys.stderr)
        return
    endangered = {each.process.pid for each in found.endangered()}
    number = sum(
        any(one.process.pid in endangered for one in group.seen)
        for group in found.groups
        if group.place.kind == "container"
    )
    yield GaugeMetricFamily(
        "seccomp_shim_containers_at_risk",
        "Running containers that would die if somebody attached a probe now",
        value=number,
    )
    yield GaugeMetricFamily(
        "seccomp_shim_processes_unread",
        "Processes with a filter that could not be read: whether they would die is not known",
        value=len(found.unread(here=False)),
    )
