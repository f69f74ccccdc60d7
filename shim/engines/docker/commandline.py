"""Read docker's command lines as docker's own parser does (github.com/spf13/pflag). Pure.

The options are those of docker/cli 20.10 to 29 (cli/flags/options.go, cli/command/container/
opts.go, run.go, create.go), hidden ones included. A client that lacks one of them refuses it
itself; one that has others is asked for its help. Every ``docker ps`` that passes through pays for
the imports of this module: there are none.
"""

from shim.errors import ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Option = tuple[str, str | None]  # its long name and value; a switch may have none

_TRUE = ("1", "t", "T", "TRUE", "true", "True")  # Go's strconv.ParseBool
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class OptionNames:
    """The options of one command: long names that take a value or not, and their short letters."""

    __slots__ = ("short", "switches", "valued")

    def __init__(self, valued: str, switches: str, short: str) -> None:
        self.valued = frozenset(valued.split())
        self.switches = frozenset(switches.split())
        self.short = {pair[0]: pair[2:] for pair in short.split()}


GLOBAL = OptionNames(
    valued="config context host log-level tlscacert tlscert tlskey",
    switches="debug tls tlsverify version help",
    short="c=context D=debug H=host l=log-level v=version h=help",
)
RUN = OptionNames(
    valued="""
    add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent
    cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime
    cpu-shares cpus cpuset-cpus cpuset-mems detach-keys device device-cgroup-rule device-read-bps
    device-read-iops device-write-bps device-write-iops dns dns-opt dns-option dns-search
    domainname entrypoint env env-file expose gpus group-add health-cmd health-interval
    health-retries health-start-interval health-start-period health-timeout hostname
    io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link
    link-local-ip log-driver log-opt mac-address memory memory-reservation memory-swap
    memory-swappiness mount name net net-alias network network-alias oom-score-adj pid pids-limit
    platform publish pull restart runtime security-opt shm-size stop-signal stop-timeout
    storage-opt sysctl tmpfs ulimit user userns uts volume volume-driver volumes-from workdir
    """,
    switches="detach disable-content-trust help init interactive no-healthcheck oom-kill-disable "
    "privileged publish-all quiet read-only rm sig-proxy tty use-api-socket",
    short="a=attach c=cpu-shares d=detach e=env h=hostname i=interactive l=label m=memory "
    "p=publish P=publish-all q=quiet t=tty u=user v=volume w=workdir",
)
# docker/compose cmd/compose/compose.go, 2.0 to 5
COMPOSE = OptionNames(
    valued="ansi env-file file insecure-registry parallel profile progress project-directory "
    "project-name workdir",
    switches="all-resources compatibility dry-run help no-ansi verbose version",
    short="f=file p=project-name v=version h=help",
)
# The commands of compose that make containers.
COMPOSE_STARTS = ("up", "run", "create", "scale", "watch")

# docker/buildx commands/root.go
BUILDX = OptionNames(valued="builder", switches="debug help", short="D=debug h=help")
# The commands that have containers started by no runtime that they could name: a builder's steps
# and a swarm's tasks.
_BUILDS = (("build",), ("image", "build"), ("builder", "build"))
_BUILDX = ("build", "b", "bake", "f")
_SERVICES = (
    *(("service", each) for each in ("create", "update", "scale", "rollback")),
    *(("stack", each) for each in ("deploy", "up")),
)


class StartingCommand:
    """A docker command that starts containers.

    ``command`` is ``run``, ``create``, ``compose``, or, of those that cannot name a runtime,
    ``build``, ``buildx``, ``compose build`` or ``service``; docker's global options are
    ``words[:verb]``, the command's own begin at ``words[begin]``. Of compose, ``options`` are its
    own, and ``words[start]`` is the one of ``COMPOSE_STARTS``.
    """

    __slots__ = ("begin", "command", "options", "start", "verb")

    def __init__(self, command: str, verb: int, begin: int) -> None:
        self.command = command
        self.verb = verb
        self.begin = begin
        self.options: list[Option] = []
        self.start = begin


class Asked:
    """What the options of a ``run`` or ``create`` ask for; ``end`` is the index behind the last."""

    __slots__ = ("end", "privileged", "runtime", "security_opt")

    def __init__(self, end: int) -> None:
        self.end = end
        self.privileged = False
        self.runtime = ""
        self.security_opt: list[str] = []


class UnknownOptionError(ShimError):
    """An option that is in no table: whether it takes a value cannot be told."""


def find(words: "Sequence[str]") -> StartingCommand | None:
    """Find what starts containers in docker's arguments; None: nothing does. ShimError: unclear."""
    options, verb = scan(words, 0, GLOBAL)
    if any(name in ("help", "version") for name, _ in options):
        return None
    match list(words[verb : verb + 2]):
        case [("run" | "create") as command, *_]:
            return StartingCommand(command, verb, verb + 1)
        case ["compose", *_]:
            return _find_compose(words, verb)
        case ["container", ("run" | "create") as command]:
            return StartingCommand(command, verb, verb + 2)
    return _find_indirect(words, verb)


def builder_of(environment: "Mapping[str, str]") -> bool | None:
    """Tell whether DOCKER_BUILDKIT asks for BuildKit; None: it says nothing.

    ShimError: docker would refuse it.
    """
    value = environment.get("DOCKER_BUILDKIT")
    return truth("DOCKER_BUILDKIT", value) if value else None


def read(words: "Sequence[str]", begin: int, options: OptionNames = RUN) -> Asked | None:
    """Read the options of a run or create from ``begin``; None: it only asks for help.

    ShimError: it cannot be told what docker would make of them.
    """
    found, end = scan(words, begin, options)
    asked = Asked(end)
    for name, value in found:
        if name == "help":
            return None
        if name == "privileged":
            asked.privileged = truth(name, value)
        elif name == "runtime":
            asked.runtime = value or ""
        elif name == "security-opt":
            asked.security_opt.append(value or "")
    return asked


def scan(words: "Sequence[str]", at: int, options: OptionNames) -> "tuple[list[Option], int]":
    """Return the options (long name, value) from ``words[at]`` on, and the index behind the last.

    That is the first word that is no option, or ``--``. ShimError: docker's parser would refuse
    them; UnknownOptionError: it might not.
    """
    found: list[Option] = []
    while at < len(words):
        word = words[at]
        if not word.startswith("-") or word in ("-", "--"):
            break
        given = _long(word, options) if word.startswith("--") else _short(word, options)
        at += 1
        name, value = given[-1]
        if value is None and name in options.valued:
            if at == len(words):
                raise ShimError("needs a value", subject=f"--{name}")
            given[-1] = name, words[at]
            at += 1
        found += given
    return found, at


def truth(name: str, value: str | None) -> bool:
    """Return what a switch was set to. ShimError: docker would refuse it."""
    if value is None or value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ShimError(f"neither true nor false: {value}", subject=f"--{name}")


def with_help(options: OptionNames, text: str) -> OptionNames:
    """Return ``options`` and those that the client's own help ``text`` names beside them."""
    import re

    more = OptionNames("", "", "")
    more.short = dict(options.short)
    valued, switches = set(options.valued), set(options.switches)
    # pflag's FlagUsages(): the type is left out for switches, the description is set off by three.
    line = re.compile(r" +(?:-(\w), )?--([\w-]+)(?: (\S+))?(?: {2,}|$)")
    for match in filter(None, map(line.match, text.splitlines())):
        letter, name, kind = match.groups()
        (valued if kind else switches).add(name)
        if letter:
            more.short[letter] = name
    more.valued, more.switches = frozenset(valued), frozenset(switches)
    return more


def _find_compose(words: "Sequence[str]", verb: int) -> StartingCommand | None:
    found = StartingCommand("compose", verb, verb + 1)
    if {*COMPOSE_STARTS, "build"}.isdisjoint(words[found.begin :]):
        return None
    found.options, found.start = scan(words, found.begin, COMPOSE)
    given = dict(found.options)
    start = words[found.start] if found.start < len(words) else ""
    if "help" in given or "version" in given or start not in (*COMPOSE_STARTS, "build"):
        return None
    if list(words[found.start + 1 : found.start + 2]) in (["--help"], ["-h"]):
        return None
    if start == "build":
        found.command, found.begin = "compose build", found.start + 1
    return found


def _find_indirect(words: "Sequence[str]", verb: int) -> StartingCommand | None:
    """Find what has containers started by others; None: nothing does, or only help is asked for."""
    here = tuple(words[verb : verb + 2])
    found = None
    if here[:1] == ("buildx",):
        try:
            _, at = scan(words, verb + 1, BUILDX)
        except ShimError:
            return None  # nothing would be added to it anyway
        if at < len(words) and words[at] in _BUILDX:
            found = StartingCommand("buildx", verb, at + 1)
    elif here[:1] in _BUILDS or here in _BUILDS:
        found = StartingCommand("build", verb, verb + (1 if here[:1] in _BUILDS else 2))
    elif here in _SERVICES:
        found = StartingCommand("service", verb, verb + 2)
    return None if found and {"--help", "-h"} & set(words[found.begin :]) else found


def _long(word: str, options: OptionNames) -> "list[Option]":
    name, equals, value = word[2:].partition("=")
    if name not in options.valued and name not in options.switches:
        raise UnknownOptionError("is no option known here", subject=f"--{name}")
    return [(name, value if equals else None)]


def _short(word: str, options: OptionNames) -> "list[Option]":
    found: list[Option] = []
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        name = options.short.get(letter)
        if name is None:
            raise UnknownOptionError("is no option known here", subject=f"-{letter}")
        if len(rest) > 1 and rest[0] == "=":
            return [*found, (name, rest[1:])]
        if name in options.valued:
            return [*found, (name, rest or None)]
        found.append((name, None))
    return found
