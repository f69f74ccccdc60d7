"""Ansible, which reaches the hosts: who they are, and one task on each of them.

ansible-core and ansible-runner are the extra ``fleet``; whoever imports this module need not have
them.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from shim import data
from shim.errors import ShimError

COLLECTION = "seccomp_shim.host"
_EXTRA = "install.sh --with fleet, from the project's checkout"
# What each host is told of its own; the file is read by the process that serves the host.
_GIVEN = "{{ lookup('file', '%s/' ~ (inventory_hostname | hash('sha256')) ~ '.json') | from_json }}"
_PROMPTS = {
    "--ask-pass": r"SSH password:\s*$",
    "--ask-become-pass": r"BECOME password.*:\s*$",
}
# Some ten thousand profiles with their diffs.
_ANSWER_BYTES = 64 << 20
_WHAT = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}


class AnsibleOptions(NamedTuple):
    """How hosts are reached: inventories, forks, sudo or not, how long a host may take.

    ``options`` are words for ansible-playbook, ``passwords`` the answers to those options by which
    it asks for them.
    """

    inventory: Sequence[str]
    limit: str = ""
    forks: int = 25
    become: bool = True
    seconds: int = 600
    options: Sequence[str] = ()
    passwords: Mapping[str, str] = {}


class HostAnswer(NamedTuple):
    """What came of a host: ok, failed or unreachable; why, in one line; the module's result."""

    host: str
    what: str
    reason: str
    result: dict[str, Any]


class TaskListener(NamedTuple):
    """Whom to tell while hosts are at work: of each that begins, of each answer.

    ``cancelled`` is asked about once a second whether to end it all.
    """

    begun: Callable[[str], None]
    answered: Callable[[HostAnswer], None]
    cancelled: Callable[[], bool]


def hosts(way: AnsibleOptions) -> list[str]:
    """Return the names of the inventory's hosts, in its order. ShimError: it cannot be read."""
    words = [*(f"--inventory={each}" for each in way.inventory), "--list-hosts"]
    words += [f"--limit={way.limit}"] if way.limit else []
    words += way.options
    environment = {**os.environ, **_environment()}
    done = subprocess.run(
        [_program("ansible"), "all", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # An inventory that is not there is a warning to Ansible, and then has no hosts.
    lines = done.stdout.splitlines()
    names = [line.strip() for line in lines[1:] if line.startswith("    ")]
    if done.returncode or not names:
        reason = _error(done.stderr) or "it has no hosts" + (" within --limit" * bool(way.limit))
        raise ShimError(reason, subject=",".join(way.inventory))
    return names


def ask(
    way: AnsibleOptions,
    names: Sequence[str],
    module: str,
    arguments: Mapping[str, Any],
    watch: TaskListener,
    *,
    check: bool = False,
    each: Mapping[str, Any] | None = None,
) -> None:
    """Run a module of the collection on hosts, and tell ``watch`` what comes of it.

    ``each``, by host, is what the arguments may call ``given``. ShimError: Ansible itself could not
    go on; hosts that have been told of are not affected. A host that nothing is told of has given
    no answer.
    """
    runner = _runner()
    with tempfile.TemporaryDirectory(prefix="seccomp-shim-fleet-") as directory:
        limit = Path(directory, "limit")
        limit.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        task = {
            "name": module,
            f"{COLLECTION}.{module}": dict(arguments),
            **({"check_mode": True} if check else {}),
            "diff": True,
            "timeout": way.seconds,
            "vars": {"given": _GIVEN % _give(directory, each)} if each is not None else {},
        }
        play = {"hosts": "all", "gather_facts": False, "become": way.become, "tasks": [task]}
        with _quiet():
            done = runner.run(
                private_data_dir=directory,
                playbook=[play],
                inventory=list(way.inventory),
                limit=f"@{limit}",
                forks=way.forks,
                cmdline=shlex.join([*way.options, *way.passwords]),
                passwords={_PROMPTS[each]: said for each, said in way.passwords.items()},
                envvars=_environment(),
                # What the user named by relative paths is looked for from here.
                project_dir=os.getcwd(),
                settings={"pexpect_timeout": 1},
                quiet=True,
                suppress_env_files=True,
                event_handler=lambda event: _event(event, watch),
                cancel_callback=watch.cancelled,
            )
        # 2 and 4: hosts have failed, or could not be reached, which has been told.
        if done.rc not in {0, 2, 4} and not watch.cancelled():
            said = done.stdout.read() if done.stdout else ""
            raise ShimError(_error(said) or f"it ended with {done.rc}", subject="ansible-playbook")


def _give(directory: str, each: Mapping[str, Any]) -> str:
    """Write down what each host is told; give the directory."""
    place = Path(directory, "given")
    place.mkdir()
    for name, document in each.items():
        file = place / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
        file.write_text(json.dumps(document), encoding="utf-8")
    return str(place)


def _event(event: dict[str, Any], watch: TaskListener) -> bool:
    """Look at one event of Ansible's; gives False: it need not be kept."""
    about = event.get("event_data") or {}
    host = about.get("host")
    if event.get("event") == "runner_on_start" and host:
        watch.begun(host)
    elif event.get("event") in _WHAT and host:
        result = about.get("res") or {}
        what = _WHAT[event["event"]]
        reason = "" if what == "ok" else one_line(str(result.get("msg") or "it does not say why"))
        if what == "ok" and not result:
            what, reason = "failed", f"its answer has more than {_ANSWER_BYTES >> 20} MiB"
        watch.answered(HostAnswer(host, what, reason, result))
    return False


def one_line(text: str) -> str:
    """Put what Ansible has said into one line."""
    return " ".join(text.split()).removeprefix("Task failed: ")


def _error(said: str) -> str:
    """Find in Ansible's output what it complains of."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    marks = ("[ERROR]:", "ERROR!", "error:")
    wrong = [line for line in lines if any(mark in line for mark in marks)]
    wrong = wrong or [line for line in lines if line.startswith("[WARNING]:")]
    line = (wrong or lines[-1:] or [""])[0]
    return one_line(line.removeprefix("[ERROR]:").removeprefix("[WARNING]:"))


def _environment() -> dict[str, str]:
    """Return what Ansible is told besides the user's own settings, which hold.

    Our collection is found first. Where the user has no settings at all it is told what makes it
    quick, as in deploy/ansible/example. ansible-runner would switch the check of host keys off.
    """
    manager = _settings()
    collections = str(data.directory("deploy") / "ansible")
    paths = [collections, *manager.get_config_value("COLLECTIONS_PATHS")]
    told = {
        # A fleet of which half is missing unseen is worse than none.
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True",
        # ansible-runner puts an empty result in the place of one that is longer.
        "MAX_EVENT_RES": str(_ANSWER_BYTES),
        "ANSIBLE_COLLECTIONS_PATH": ":".join(paths),
        "ANSIBLE_HOST_KEY_CHECKING": str(manager.get_config_value("HOST_KEY_CHECKING")),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": _import_path(),
    }
    if not getattr(manager, "_config_file", None):
        for name, value in (("PIPELINING", "True"), ("PYTHON_INTERPRETER", "auto_silent")):
            told[f"ANSIBLE_{name}"] = os.environ.get(f"ANSIBLE_{name}", value)
    return told


def _import_path() -> str:
    """Return where Ansible finds the very package that runs here: it takes it to the hosts."""
    here = str(Path(data.__file__).parents[1])
    return ":".join(filter(None, (here, os.environ.get("PYTHONPATH", ""))))


def _settings() -> Any:
    """Return Ansible's settings as they are for this user in this directory."""
    try:
        from ansible.config.manager import ConfigManager
    except ImportError:
        raise ShimError("ansible is not installed beside seccomp-shim", hint=_EXTRA) from None
    return ConfigManager()


def _program(name: str) -> str:
    """Return the program of Ansible's that is installed beside us."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise ShimError(f"{name} is not installed beside seccomp-shim", hint=_EXTRA)
    return str(path)


def _runner() -> Any:
    _program("ansible-playbook")
    try:
        import ansible_runner
    except ImportError:
        raise ShimError("ansible-runner is not installed", hint=_EXTRA) from None
    return ansible_runner


@contextmanager
def _quiet() -> Iterator[None]:
    """Let umask keep what is written for Ansible, inventory secrets perhaps, to this user."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
