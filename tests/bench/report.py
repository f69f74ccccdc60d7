"""The report as text, and the machine that it was measured on."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_TARGETS = """\
Targets: hook with nothing to do <= 1.5, run with injection <= 1.8, docker run through the wrapper
<= 1.05 (ratios of medians); a verb through the wrapper <= 2 ms more."""


def machine(runtimes: list[str]) -> dict[str, Any]:
    """Describe this machine: what a reader has to know to compare figures."""
    return {
        "processors": os.cpu_count(),
        "model": _field("/proc/cpuinfo", "model name"),
        "hypervisor": " hypervisor " in f"{Path('/proc/cpuinfo').read_text()} ",
        "kernel": os.uname().release,
        "python": platform.python_version(),
        "runtimes": [_first_line(path, "--version") for path in runtimes],
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def text(result: dict[str, Any]) -> str:
    """Lay the result out for reading."""
    lines = [
        *head(result, f"uretprobe is {result['state']}; "),
        "",
        *_table("A process of its own", result["processes"]),
    ]
    for rows in result.get("docker", []):
        lines += ["", *_table("The verb docker in front of docker", rows)]
    if "docker_wrapped" in result:
        title = "docker run by runc, and by the wrapper of it"
        lines += ["", *_table(title, result["docker_wrapped"])]
    for one in result["wrapped"]:
        title = f"{one['runtime']} run /usr/bin/true, and through the wrapper"
        state = f"A verb that passes through, {one['runtime']}"
        lines += ["", *_table(state, one["state"]), "", *_table(title, one["run"])]
    for one in result["joins"]:
        with_nnp = "with" if one["no_new_privileges"] else "without"
        title = f"{one['runtime']} exec /usr/bin/true, {with_nnp} no_new_privs"
        lines += ["", *_table(title, one["rows"])]
        if one["stops"]:
            lines.append(f"  stops of the process that is followed: {one['stops']:.0f}")
    for one in result["starts"]:
        with_nnp = "with" if one["no_new_privileges"] else "without"
        title = f"{one['runtime']} run /usr/bin/true, {with_nnp} no_new_privileges"
        lines += ["", *_table(title, one["rows"]), *_split(result, one)]
    for rows in result.get("denials", []):
        lines += ["", *_table("Watched for refused calls, with none", rows)]
    title = "Bytes in the log"
    lines += ["", f"{title:<48}{'full':>9}{'brief':>9}{'ratio':>7}"]
    for row in result["log"]:
        lines.append(f"  {row['name']:<46}{row['before']:>9}{row['after']:>9}{row['ratio']:>7}")
    lines += [
        "",
        "One stop of the traced thread, over the untraced call",
        f"  {'looking before sleeping (as the hook does)':<46}{result['stop']['looking_us']:>9} us",
        f"  {'sleeping at once':<46}{result['stop']['sleeping_us']:>9} us",
        "",
        "Milliseconds. Median and least are by the clock; work is the least processor time of the",
        "process and those it waits for (not the tracer's): a busy machine disturbs it least.",
        _TARGETS,
    ]
    return "\n".join(lines)


def head(result: dict[str, Any], more: str = "") -> list[str]:
    """Say on what machine and how often was measured."""
    host = result["machine"]
    return [
        f"{host['processors']} processors, {host['model']}"
        + (" (virtual machine)" if host["hypervisor"] else ""),
        f"Linux {host['kernel']}, Python {host['python']}, {', '.join(host['runtimes'])}",
        f"{more}{result['rounds']} rounds, each runs every row once",
        f"load average before: {' '.join(map(str, host['load']))}",
    ]


def _table(title: str, rows: list[dict[str, Any]]) -> list[str]:
    head = f"{title:<48}{'median':>9}{'ratio':>7}{'least':>9}{'work':>9}{'ratio':>7}"
    return [
        head,
        *(
            f"  {row['name']:<46}{row['median_ms']:>9.2f}{row['ratio']:>7.2f}"
            f"{row['least_ms']:>9.2f}{row['work_ms']:>9.2f}{row['work_ratio']:>7.2f}"
            for row in rows
        ),
    ]


def _split(result: dict[str, Any], one: dict[str, Any]) -> list[str]:
    """Say where the added time of an injection goes.

    The interpreter and its imports come before the tracer; the tracer's time is the runtime's own
    work as well, so the rest of what was added is told from the stops.
    """
    process = [row["median_ms"] for row in result["processes"]]
    rows = {row["name"]: row["median_ms"] for row in one["rows"]}
    tracer = one["tracer"]
    stopped = tracer["stops"] * result["stop"]["looking_us"] / 1e3
    parts = [
        ("interpreter", process[0]),
        ("imports", process[2] - process[0]),
        (f"{tracer['stops']:.0f} stops at {result['stop']['looking_us']} us", stopped),
        ("the rewrite, read back and logged", tracer["rewrite_ms"]),
        ("traced from first to last stop, its own work too", tracer["duration_ms"]),
    ]
    added = rows["hook, injection"] - rows["bare"]
    return [
        f"  injection added {added:.2f} ms; measured by themselves:",
        *(f"    {name:<50}{value:>9.2f}" for name, value in parts),
    ]


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
