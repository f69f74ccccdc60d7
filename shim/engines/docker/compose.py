"""``docker compose up`` and its like: what services need, in one more file for compose to read.

Which files compose would read by itself is found as it finds them (compose-go cli/options.go), for
naming one means naming all. Compose itself then tells what the project is without our file and with
it: where anything differs but what was to be added, the command is left as it was.
"""

import itertools
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from shim.engines.docker import client_files, commandline
from shim.engines.docker.api import ask
from shim.engines.docker.choose import Choice, Daemon, Request, choose
from shim.engines.docker.indirect import of_build
from shim.engines.docker.rewrite import Addition, CommandPlan, addition, requested
from shim.errors import ShimError
from shim.profile.diff import unified
from shim.profile.edit import When

FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_CONFIG_SECONDS = 120  # files may be fetched from afar
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(COMPOSE_FILE|COMPOSE_PATH_SEPARATOR)\s*[=:](.*)")
_PLAIN = re.compile(r"""\s*(?:'([^'\\]*)'|"([^"\\$]*)"|([^'"\\$#]*?))\s*(?:\s#.*)?""")
# Where these need nothing no service does, and compose need not be asked: one by the default
# runtime, and one by a runtime of its own.
_DENYING_ALL = ('seccomp={"defaultAction": "SCMP_ACT_ERRNO"}',)
_MOST = (Request(_DENYING_ALL), Request(_DENYING_ALL, runtime="another"))
_EVERY = ("--profile", "*")  # a service that is named is started, whatever its profile


def plan(
    real: str, words: list[str], found: commandline.StartingCommand, when: When
) -> CommandPlan:
    """Plan the command. ShimError: it cannot be told what it would start."""
    daemon = ask(real, words[: found.verb])
    most = [choose(daemon, request, when) for request in _MOST]
    if all(each.action == "nothing" and not each.uncovered for each in most):
        return CommandPlan(words)
    named = files(found.options, os.environ, os.getcwd())
    base = [real, *words[: found.start]]
    every: Sequence[str] = _EVERY
    try:
        project = _config([*base, *every])
    except ShimError:  # what only a service that is not wanted lacks
        every = ()
        project = _config(base)
    directory = _project_folder(found.options, named)
    choices, additions = _choose(real, daemon, project, directory, when)
    command = f"docker compose {words[found.start]}"
    left = [f"{name} goes as it is: {c.reason}" for name, c in choices.items() if c.uncovered]
    built = _builds([real, *words[: found.verb]], words[found.start :], project)
    if built and (reason := of_build(real, words[: found.verb], when)):
        left.append(f"{', '.join(built)} built as it is: {reason}")
    if not additions:
        line = f"{command}: {'; '.join(left)}" if left else ""
        return CommandPlan(words, line, uncovered=bool(left))
    services = {name: _entry(add) for name, add in additions.items()}
    text = json.dumps({"services": services}, indent=2) + "\n"
    options = [word for name in named for word in ("-f", name)]
    _prove(_config([*base, *options, "-f", "-", *every], text), project, services)
    path = client_files.name(text, "compose")
    changed = {name: choices[name] for name in additions}
    reasons = "; ".join(dict.fromkeys(choice.reason for choice in changed.values()))
    diffs = dict.fromkeys(add.diff for add in additions.values())
    return CommandPlan(
        [*words[: found.start], *options, "-f", path, *words[found.start :]],
        "; ".join([f"{command} -f {path}: {', '.join(changed)}: {reasons}", *left]),
        {path: text, **{name: t for add in additions.values() for name, t in add.files.items()}},
        "".join([unified("", text, path), *diffs]),
        changed,
        bool(left),
    )


def _builds(docker: Sequence[str], words: Sequence[str], project: dict[str, Any]) -> list[str]:
    """Return the services whose images ``words`` (from up, run, ... on) will have built."""
    services = {name: each for name, each in project["services"].items() if each.get("build")}
    options = list(words[1:])
    if words[0] == "run":  # what follows the service is the container's
        options = list(itertools.takewhile(lambda word: word.startswith("-"), options))
    if "--no-build" in options:
        return []
    if "--build" in options or words[0] == "watch":
        return list(services)
    names = {
        name: each.get("image") or f"{project['name']}-{name}" for name, each in services.items()
    }
    return [
        name
        for name, image in names.items()
        if services[name].get("pull_policy") == "build" or not _has_image(docker, image)
    ]


def _has_image(docker: Sequence[str], image: str) -> bool:
    command = [*docker, "image", "inspect", "--format", "{{.Id}}", image]
    return not subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=_CONFIG_SECONDS,
    ).returncode


def files(
    options: Sequence["commandline.Option"], environment: Mapping[str, str], directory: str
) -> list[str]:
    """Return the files that compose itself reads in ``directory``; none if ``-f`` names them.

    ShimError: they are not to be told, or not to be read twice.
    """
    given = [value or "" for name, value in options if name == "file"]
    where = os.path.join(directory, _option(options, "project-directory", "workdir"))
    if not given:
        variables = {**_dotenv(options, environment, where), **environment}
        separator = variables.get("COMPOSE_PATH_SEPARATOR") or ":"
        listed = variables.get("COMPOSE_FILE")
        found = listed.split(separator) if listed is not None else _default_files(where)
        found = [name if name == "-" else os.path.join(directory, name) for name in found]
    if "-" in (given or found):
        raise ShimError("a compose file from standard input can be read once only")
    return [] if given else found


def _default_files(directory: str) -> list[str]:
    """Return the first of ``FILES`` in ``directory`` or above it, and the override beside it."""
    directory = os.path.abspath(directory)
    while not (found := _first(directory, FILES)):
        if directory == os.path.dirname(directory):
            raise ShimError("compose finds no file here")
        directory = os.path.dirname(directory)
    return [*found, *_first(directory, OVERRIDES)]


def _first(directory: str, names: Sequence[str]) -> list[str]:
    there = (os.path.join(directory, name) for name in names)
    return [path for path in there if os.path.exists(path)][:1]


def _dotenv(
    options: Sequence["commandline.Option"], environment: Mapping[str, str], directory: str
) -> dict[str, str]:
    """Return what the project's .env says of ``_ASSIGNMENT``'s names. ShimError: too intricate."""
    listed = [value or "" for name, value in options if name == "env-file"]
    listed = listed or [
        name for name in environment.get("COMPOSE_ENV_FILES", "").split(",") if name
    ]
    if not listed and not _truth(environment.get("COMPOSE_DISABLE_ENV_FILE", "")):
        listed = [os.path.join(directory, ".env")]
    found: dict[str, str] = {}
    for name in listed:
        try:
            with open(os.path.expanduser(name), encoding="utf-8", errors="replace") as file:
                assignments = [match for line in file if (match := _ASSIGNMENT.match(line))]
        except FileNotFoundError:
            continue  # .env need not be there; compose itself minds the others
        for assignment in assignments:
            value = _PLAIN.fullmatch(assignment[2].strip())
            if not value:
                raise ShimError(f"{assignment[1]} is not a plain value", subject=name)
            found[assignment[1]] = value[1] or value[2] or value[3] or ""
    return found


def _truth(text: str) -> bool:
    return bool(text) and commandline.truth("COMPOSE_DISABLE_ENV_FILE", text)


def _option(options: Sequence["commandline.Option"], *names: str) -> str:
    """Return the last value of an option that goes by ``names``; empty: it is not there."""
    return next((value or "" for name, value in reversed(options) if name in names), "")


def _project_folder(options: Sequence["commandline.Option"], named: Sequence[str]) -> str:
    """Return what compose takes relative paths as relative to."""
    directory = _option(options, "project-directory", "workdir")
    if directory:
        return os.path.abspath(directory)
    first = next((value or "" for name, value in options if name == "file"), "")
    return os.path.dirname(os.path.abspath(first or named[0]))


def _config(command: Sequence[str], stdin: str = "") -> dict[str, Any]:
    """Return the project as compose resolves it. ShimError: it does not."""
    try:
        done = subprocess.run(
            [*command, "config", "--format", "json"],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CONFIG_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ShimError(f"compose config took more than {_CONFIG_SECONDS} seconds") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise ShimError(f"compose config failed: {lines[-1]}")
    try:
        project = json.loads(done.stdout)
    except ValueError:
        raise ShimError("compose config printed no JSON") from None
    if not isinstance(project, dict) or not isinstance(project.get("services"), dict):
        raise ShimError("compose config told of no services")
    return project


def _choose(
    real: str, daemon: Daemon, project: dict[str, Any], directory: str, when: When
) -> tuple[dict[str, Choice], dict[str, Addition]]:
    """Decide for each service: what was chosen, and what to add to those that need something."""
    choices: dict[str, Choice] = {}
    additions: dict[str, Addition] = {}
    for name, service in project["services"].items():
        if "provider" in service:  # made by a program of its own, no container of Docker's
            continue
        options = [str(option).replace("$$", "$") for option in service.get("security_opt") or ()]
        privileged, runtime = bool(service.get("privileged")), str(service.get("runtime") or "")
        request = requested(options, privileged, runtime, directory)
        choices[name] = choose(daemon, request, when)
        if choices[name].action != "nothing":
            additions[name] = addition(real, daemon, request, choices[name])
    return choices, additions


def _entry(add: Addition) -> dict[str, Any]:
    """Return the entry of a service that adds ``add``; compose takes $$ for a dollar sign."""
    if add.name == "runtime":
        return {"runtime": add.value}
    return {"security_opt": [add.value.replace("$", "$$")]}


def _prove(after: dict[str, Any], before: dict[str, Any], services: dict[str, Any]) -> None:
    """See that the project with our file is what it was, but for what was to be added."""
    expected = deepcopy(before)
    for name, entry in deepcopy(services).items():
        service = expected["services"][name]
        if "security_opt" in entry:  # compose appends; the daemon takes the last
            entry["security_opt"][:0] = service.get("security_opt") or ()
        service.update(entry)
    if after != expected:
        raise ShimError("with one more file compose would make another project of it")
