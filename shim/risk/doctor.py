"""What a host needs, from all that is known of it: the state of each part, and one next step."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from shim import config, logread
from shim.agent import facts
from shim.catalog import kernel_injected
from shim.configfile import shown_limit
from shim.engines import service
from shim.engines.registration import Host, test_is_on, this_host
from shim.errors import ShimError, counted
from shim.fleet.verdict import verdict
from shim.host.runtimes import knows
from shim.risk import scan

_DAY = 24 * 60 * 60
_TIMED = 200  # of the last adjustments
_LINES = 5_000  # of the log that are looked through for them
_NAMES = 3
_DEFAULT = {"podman": ""}  # it has no other way than the default
# From which release on the profile that an engine has built in allows uretprobe; uprobe: none.
_ALLOWS_SINCE = {"docker": "28.2", "containerd": "2.2"}
_DENYING = ("denied-by-default", "explicit-deny", "conditional", "no-x86-64", "supervised")


@dataclass(frozen=True, kw_only=True)
class Log:
    """The audit log: its bytes, those rotated away beside it, and what went wrong in a day.

    ``milliseconds`` is the median of the last ``timed`` adjustments; ``trouble`` says why it cannot
    be read or written.
    """

    path: str
    size: int = 0
    rotated: int = 0
    limit: str = ""
    wrong: int = 0
    milliseconds: float = 0
    timed: int = 0
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """All that was looked at. ``facts`` are those of ``shim.agent.facts.gather``.

    ``endangered`` are containers and units with how many processes would die here, ``elsewhere``
    those that would on a kernel that leaves the calls to filters; None: nobody looked, and
    ``unscanned`` says why. ``left_out`` says of engines what an install would not cover.
    """

    facts: Mapping[str, Any]
    verdict: str
    why: str
    log: Log
    settings: str = ""
    test: Sequence[str] = ()
    endangered: Mapping[str, int] | None = None
    elsewhere: Mapping[str, int] | None = None
    unscanned: str = ""
    left_out: Mapping[str, str]
    root: bool = True

    @property
    def states(self) -> dict[str, str]:
        """Return the kernel's state of each call that it injects."""
        return {name: str(each["state"]) for name, each in self.facts["syscalls"].items()}

    @property
    def engines(self) -> list[Mapping[str, Any]]:
        """Return the engines that are installed, as ``status --json`` has them."""
        return [each for each in self.facts["engines"] if each["present"]]


@dataclass(frozen=True)
class Step:
    """The one thing to do next: a command, why, what it costs, and what it will not cover."""

    command: str
    why: str
    cost: str = "nothing"
    left_out: str = ""


def check() -> Checked:
    """Look at this host. OSError, ShimError: it cannot be told."""
    host = this_host()
    told = facts.gather()
    settings, doubt = config.load()
    judged, why = verdict(told, kernel_injected(), {})
    registered = any(each["registered"] for each in told["engines"])
    found = Checked(
        facts=told,
        verdict=judged,
        why=why,
        log=_log(host, settings, registered=registered),
        settings=doubt,
        test=test_is_on(),
        left_out=_left_out(told["engines"], host),
        root=os.geteuid() == 0,
    )
    try:
        scan.refuse_without_root()
        seen = scan.scan(scan.calls())
    except ShimError as error:
        return replace(found, unscanned=str(error))
    return replace(
        found,
        endangered=_by_group(seen, here=True),
        elsewhere=_by_group(seen, here=False),
    )


def _by_group(seen: scan.Scan, *, here: bool) -> dict[str, int]:
    dying = {each.process.pid for each in seen.endangered(here=here)}
    found = {}
    for group in seen.groups:
        count = sum(each.process.pid in dying for each in group.seen)
        if count:
            name = group.known.name or group.seen[0].process.name
            found[f"{group.known.engine} {name}".strip()] = count
    return found


def _log(host: Host, settings: Mapping[str, Any], *, registered: bool) -> Log:
    path = host.log
    sizes = [os.path.getsize(each) for each in logread.log_files(path) if os.path.exists(each)]
    found = Log(
        path=path,
        size=sizes[0] if sizes else 0,
        rotated=sum(sizes[1:]),
        limit=shown_limit(settings["log_max"]),
        trouble=logread.trouble(dict(settings)) if registered and os.geteuid() == 0 else "",
    )
    try:
        wrong = len(logread.recent(path, _DAY).events)
        taken = _durations(path)
    except OSError as error:
        return replace(found, trouble=found.trouble or f"{path}: {error.strerror}")
    median = statistics.median(taken) if taken else 0
    return replace(found, wrong=wrong, milliseconds=median, timed=len(taken))


def _durations(path: str) -> list[float]:
    """Return how many milliseconds the last adjustments of starts took, as they were logged."""
    found: list[float] = []
    try:
        with open(path, "rb") as file:
            for line in islice(logread.backwards(file, 1 << 22), _LINES):
                if b'"adjusted"' not in line or b"duration_ms" not in line:
                    continue
                try:
                    found.append(float(json.loads(line)["duration_ms"]))
                except (ValueError, KeyError, TypeError):
                    continue
                if len(found) == _TIMED:
                    break
    except FileNotFoundError:
        pass
    return found


def _left_out(engines: Sequence[Mapping[str, Any]], host: Host) -> dict[str, str]:
    """Return what an install of each engine would not cover; only root's plan is the real one."""
    found = {}
    for each in engines:
        name = each["engine"]
        if not each["present"] or each["registered"] is None or _covers(each):
            continue
        words = [] if name in _DEFAULT else ["--default"]
        try:
            planned = service.plan_install(name, service.options(name, "install", words), host)
            found[name] = planned.coverage.left_out
        except (ShimError, OSError) as error:
            found[name] = f"it cannot be installed as things are: {error}"
    return found


def _covers(engine: Mapping[str, Any]) -> bool:
    return bool(engine.get("registered") and engine.get("covers_all"))


def step(found: Checked) -> Step | None:
    """Return the one next step; None: there is nothing to do. Pure."""
    states = found.states
    filtered = [name for name, state in states.items() if state == "filtered"]
    broken = [each for each in found.engines if each.get("problems")]
    uncovered = [each["engine"] for each in found.engines if not _covers(each)]
    if found.settings:
        return Step("seccomp-shim config", f"the settings are not understood: {found.settings}")
    if found.log.trouble:
        return Step("seccomp-shim config", found.log.trouble)
    if broken:
        name = broken[0]["engine"]
        return Step(f"sudo seccomp-shim status {name}", f"{name}: {broken[0]['problems'][0]}")
    if "unknown" in states.values() and not filtered:
        return Step(
            "sudo seccomp-shim probe --fresh",
            "the kernel could not be asked from here what it does: ask on the host itself",
        )
    if filtered and found.verdict == "exposed" and uncovered:
        name = uncovered[0]
        default = _DEFAULT.get(name, " --default")
        more = f"; then {', '.join(uncovered[1:])}" if uncovered[1:] else ""
        return Step(
            f"sudo seccomp-shim install {name}{default}",
            f"this kernel kills containers over {', '.join(filtered)}: {found.why}{more}",
            _cost(found.log),
            found.left_out.get(name, ""),
        )
    if found.endangered:
        return Step(
            "sudo seccomp-shim scan",
            f"{_counted(found.endangered)} would die of a probe now; those of containers that are "
            "older than the installation are looked after once they are made anew",
        )
    if found.log.wrong:
        return Step(
            "seccomp-shim log --errors",
            f"{counted(found.log.wrong, 'line')} of the last 24 hours tell of what went wrong; "
            "seccomp-shim log --ack when it is dealt with",
        )
    if not found.root and filtered:
        return Step("sudo seccomp-shim doctor", "only root sees which processes would die")
    if found.test:
        return Step("seccomp-shim config", f"{found.test[0]} (test_syscall in the settings)")
    return None


def _cost(told: Log) -> str:
    if told.timed:
        return (
            f"{told.milliseconds:.0f} ms a container start (median of the last {told.timed} "
            "adjustments here), nothing per call"
        )
    return "milliseconds a container start (seccomp-shim demo measures it here), nothing per call"


def _counted(groups: Mapping[str, int]) -> str:
    names = list(groups)
    shown = ", ".join(names[:_NAMES])
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"{counted(sum(groups.values()), 'process', 'processes')} of {shown}{more}"


def rows(found: Checked) -> list[tuple[str, str]]:
    """Put it in words: a label and a line each; ``!`` marks what needs attention. Pure."""
    kernel = found.facts["kernel"]
    states = ", ".join(f"{name} {state}" for name, state in found.states.items())
    told = [("kernel", f"{kernel['release']}: {states}: {found.verdict}")]
    calls = list(kernel_injected().values())
    for each in found.engines:
        told.append((each["engine"], _engine(each, found)))
        told += [("", f"{entry['name']}: {entry['path']}") for entry in each.get("entries", ())]
        told += [("", note) for note in each.get("notes", ())]
        told += [("!", problem) for problem in each.get("problems", ())]
    for each in found.facts["runtimes"]:
        lacking = [call.name for call in calls if not knows(each["libseccomp"], call.libseccomp)]
        names = f"drops the names {', '.join(lacking)}" if lacking else "knows every name"
        version = each["libseccomp"] or "of unknown version"
        told.append(("runtime", f"{each['path']}: libseccomp {version} {names}"))
    told += [("!", line) for line in found.test]
    if found.settings:
        told.append(("!", f"the settings: {found.settings}"))
    told.append(("at risk", _risk(found)))
    told.append(("log", _log_line(found.log)))
    return told


def _engine(engine: Mapping[str, Any], found: Checked) -> str:
    version = engine.get("version") or ""
    if engine["registered"] is None:
        words = "could not be told"
    elif not engine["registered"]:
        words = "we are not registered"
    else:
        words = "all its containers are covered" if _covers(engine) else "some are covered"
        if engine.get("known") is False:
            words += ", but the running one has not read it"
    return ", ".join(part for part in (version, words, _profile(engine["engine"], found)) if part)


def _profile(engine: str, found: Checked) -> str:
    """Say what the profile that an engine gives its containers by itself does with the calls."""
    for each in found.facts["profiles"] or ():
        if any(use["who"].startswith(engine) for use in each.get("used_by", ())):
            verdicts = [told["verdict"] for told in each["calls"].values()]
            does = "denies" if any(one in _DENYING for one in verdicts) else "allows"
            return f"its profile {each['file']} {does} the calls"
    since = _ALLOWS_SINCE.get(engine, "")
    version = next((each.get("version") for each in found.engines if each["engine"] == engine), "")
    if not since or not version:
        return "its profile is built in"
    does = "allows uretprobe" if knows(version, since) else "denies the calls"
    return f"its built-in profile {does}"


def _risk(found: Checked) -> str:
    if found.endangered is None:
        return f"not looked: {found.unscanned}"
    if found.endangered:
        return _counted(found.endangered)
    if found.elsewhere and not any(state == "filtered" for state in found.states.values()):
        return f"nobody here; {_counted(found.elsewhere)} on a kernel that lets filters decide"
    return "nobody"


def _log_line(told: Log) -> str:
    if told.trouble:
        return told.trouble
    wrong = f"{told.wrong} wrong in 24 hours" if told.wrong else "nothing went wrong in 24 hours"
    size = f"{_size(told.size)}, rotated {_size(told.rotated)} (log_max {told.limit})"
    return f"{told.path}: {size}; {wrong}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"


def document(found: Checked) -> dict[str, Any]:
    """Return it for a program: docs/doctor.schema.json."""
    next_step = step(found)
    return {
        "kernel": found.facts["kernel"]["release"],
        "calls": found.states,
        "verdict": found.verdict,
        "why": found.why,
        "engines": found.facts["engines"],
        "runtimes": found.facts["runtimes"],
        "settings": found.settings,
        "test": list(found.test),
        "endangered": found.endangered,
        "endangered_elsewhere": found.elsewhere,
        "unscanned": found.unscanned,
        "log": {
            "path": found.log.path,
            "bytes": found.log.size,
            "rotated_bytes": found.log.rotated,
            "wrong": found.log.wrong,
            "trouble": found.log.trouble,
        },
        "step": next_step
        and {
            "command": next_step.command,
            "why": next_step.why,
            "cost": next_step.cost,
            "left_out": next_step.left_out,
        },
    }
