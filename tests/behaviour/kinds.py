"""The kinds of bundle that are started, as data: processes, namespaces, hooks and how to call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from behaviour.bundle import STAGES, Bundle
from behaviour.lab import IDENT, SETTINGS
from behaviour.starts import (
    Change,
    Kind,
    at_a_terminal,
    at_once,
    by_console_socket,
    detached,
    ran,
    to_a_running_one,
)

_ALL = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETPCAP", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")
USER = 1000
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_MANY = 1 << 20
# Small ones among them: a runtime may hand them on to its hooks.
RLIMITS = {
    "AS": 50_000_000, "CORE": 0, "CPU": 7, "DATA": 4_000_000, "FSIZE": 16384, "LOCKS": 5,
    "MEMLOCK": 65536, "MSGQUEUE": 1000, "NICE": 3, "NOFILE": 16, "NPROC": 50, "RSS": _MANY,
    "RTPRIO": 2, "RTTIME": 1_000_000, "SIGPENDING": 9, "STACK": 16384,
}  # fmt: skip


def at(config: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    """Return the object that holds a member, and the member's name."""
    *way, last = dotted.split(".")
    for name in way:
        config = config.setdefault(name, {})
    return config, last


def put(dotted: str, value: object) -> Change:
    """Return the change that gives a member of config.json another value."""

    def change(bundle: Bundle) -> None:
        where, last = at(bundle.config, dotted)
        where[last] = value

    return change


def drop(dotted: str) -> Change:
    """Return the change that takes a member out."""

    def change(bundle: Bundle) -> None:
        where, last = at(bundle.config, dotted)
        del where[last]

    return change


def both(*changes: Change) -> Change:
    """Return several changes as one."""

    def change(bundle: Bundle) -> None:
        for each in changes:
            each(bundle)

    return change


def script(text: str) -> Change:
    """Return the change that has the container run shell text."""
    return put("process.args", ["/bin/sh", "-c", text])


def without_namespace(*kinds: str) -> Change:
    """Return the change that leaves namespaces out, with what cannot be had without them."""

    def change(bundle: Bundle) -> None:
        linux = bundle.config["linux"]
        linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] not in kinds]
        if "uts" in kinds:
            del bundle.config["hostname"]
        if "mount" in kinds:
            bundle.config["mounts"] = []
            bundle.config["root"]["readonly"] = False
            del linux["maskedPaths"], linux["readonlyPaths"]
            del bundle.config["hooks"]["startContainer"]

    return change


def with_users(bundle: Bundle) -> None:
    """Give the container ids of its own."""
    for path in (bundle.folder, *bundle.folder.parents):
        if path != Path("/") and path.stat().st_uid == 0:
            path.chmod(path.stat().st_mode | 0o055)
    linux = bundle.config["linux"]
    linux["namespaces"].append({"type": "user"})
    for side in ("uidMappings", "gidMappings"):
        linux[side] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.record.chmod(0o777)


def for_a_user(bundle: Bundle) -> None:
    """Have root in the container be the user who starts it."""
    with_users(bundle)
    linux = bundle.config["linux"]
    for side in ("uidMappings", "gidMappings"):
        linux[side] = [{"containerID": 0, "hostID": USER, "size": 1}]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"]


def hook(stage: str, **entry: Any) -> Change:
    """Return the change that adds one more hook behind those that are there."""

    def change(bundle: Bundle) -> None:
        bundle.config["hooks"][stage].append({"path": "/bin/sh"} | entry)

    return change


def failing(stage: str) -> Kind:
    """Return the kind whose last hook of a stage fails, and says so."""
    said = ["sh", "-c", "echo hook to out; echo hook to err >&2; exit 5"]
    return Kind(f"hook-fails-{stage}", hook(stage, args=said))


def elsewhere(name: str) -> Change:
    """Return the change that has the bundle in a directory of another name."""

    def change(bundle: Bundle) -> None:
        bundle.folder = bundle.folder.rename(bundle.folder.parent / name)

    return change


def inside(name: str) -> Callable[[Bundle], str]:
    """Return how to name the bundle by a path of which ``name`` is the last part."""
    return lambda bundle: f"{bundle.folder}/{name}"


STARTS = (
    Kind("plain"),
    Kind("run", how=ran),
    Kind("run-detach", how=detached),
    Kind("run-twice", how=ran, times=2),
    Kind("run-at-once", script("echo out; exit 3"), how=at_once, times=4),
    Kind("id-in-use", how=to_a_running_one),
    # --- terminals
    Kind("terminal", both(put("process.terminal", True), script("echo out; cat </dev/null")),
         how=at_a_terminal),
    Kind("terminal-nobody-has", put("process.terminal", True)),
    Kind("console-socket", both(put("process.terminal", True), script("echo out; cat </dev/null")),
         how=by_console_socket),
    Kind("console-socket-gone", put("process.terminal", True),
         options=("--console-socket", "/nowhere")),
    Kind("console-socket-unasked", options=("--console-socket", "/nowhere")),
    Kind("console-size", both(put("process.terminal", True),
                              put("process.consoleSize", {"height": 20, "width": 70}),
                              script("echo out")), how=at_a_terminal),
    # --- the process
    Kind("new-privileges", put("process.noNewPrivileges", False)),
    Kind("program-missing", put("process.args", ["/nosuch"])),
    Kind("program-missing-new-privileges", both(put("process.noNewPrivileges", False),
                                                put("process.args", ["nosuch"]))),
    Kind("program-missing-run", put("process.args", ["/nosuch"]), how=ran),
    Kind("program-no-executable", put("process.args", ["/bin/data"])),
    Kind("program-directory", put("process.args", ["/bin"])),
    Kind("program-by-path", put("process.args", ["env"])),
    Kind("program-none", put("process.args", [])),
    Kind("program-empty", put("process.args", [""])),
    Kind("process-none", drop("process")),
    Kind("folder-missing", put("process.cwd", "/made/by/runtime")),
    Kind("folder-relative", put("process.cwd", "tmp")),
    Kind("user", both(put("process.user", {"uid": 1000, "gid": 1000, "additionalGids": [5, 6]}),
                      script("echo out; env; cat /proc/self/status | grep -E 'Uid|Groups'"))),
    Kind("umask", put("process.user.umask", 0o027)),
    Kind("environment-none", put("process.env", [])),
    Kind("environment-twice", put("process.env", ["PATH=/bin", "A=1", "A=2"])),
    Kind("environment-odd", put("process.env", ["PATH=/bin", "B", "=C"])),
    Kind("environment-loaders", put("process.env", ["PATH=/bin", "LD_PRELOAD=/x.so",
                                                    "PYTHONHOME=/x", "SECCOMP_SHIM_DEPTH=8"])),
    Kind("score", put("process.oomScoreAdj", 100)),
    Kind("apparmor-unknown", put("process.apparmorProfile", "nosuch")),
    Kind("label", put("process.selinuxLabel", "system_u:object_r:x")),
    Kind("capabilities-none", put("process.capabilities", {})),
    Kind("capabilities-missing", drop("process.capabilities")),
    Kind("capabilities-all", put("process.capabilities", {each: list(_ALL) for each in
        ("bounding", "effective", "permitted", "inheritable", "ambient")
    })),
    Kind("capability-unknown", put("process.capabilities.bounding", ["CAP_NOSUCH"])),
    *(Kind(f"rlimit-{name.lower()}",
           put("process.rlimits", [{"type": f"RLIMIT_{name}", "soft": value, "hard": value}]),)
      for name, value in RLIMITS.items()),
    Kind("rlimit-unknown", put("process.rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}])),
    Kind("rlimit-twice", put("process.rlimits",
                             [{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 9}] * 2)),
    Kind("exit-0", script("exit 0"), how=ran),
    Kind("exit-255", script("exit 255"), how=ran),
    Kind("ends-by-signal", script("kill -KILL $$"), how=ran),
    Kind("much-output", script("yes 0123456789 | head -c 300000"), how=ran),
    Kind("much-input", script("cat"), how=ran, data="line\n" * 40_000),
    # --- namespaces and the rest of linux
    *(Kind(f"no-{kind}-namespace", without_namespace(kind), how=ran) for kind in NAMESPACES),
    Kind("no-namespaces", without_namespace(*NAMESPACES), how=ran),
    Kind("cgroup-namespace", lambda bundle: bundle.config["linux"]["namespaces"].append(
        {"type": "cgroup"})),
    Kind("user-namespace", with_users),
    Kind("rootless", for_a_user, user=USER, untouched=SETTINGS),  # the log that is read is root's
    Kind("rootless-run", for_a_user, how=ran, user=USER, untouched=SETTINGS),
    Kind("namespace-by-path", put("linux.namespaces", [
        {"type": "network", "path": "/proc/1/ns/net"}, {"type": "mount"}, {"type": "pid"},
        {"type": "uts"}, {"type": "ipc"}])),
    Kind("namespace-of-nobody", put("linux.namespaces", [{"type": "network", "path": "/nowhere"}])),
    Kind("namespace-unknown", put("linux.namespaces", [{"type": "nosuch"}])),
    Kind("cgroup-path", put("linux.cgroupsPath", f"/{IDENT}/inner")),
    Kind("cgroup-path-relative", put("linux.cgroupsPath", f"{IDENT}/inner")),
    Kind("pids-limit", put("linux.resources", {"pids": {"limit": 20}})),
    Kind("sysctl", put("linux.sysctl", {"net.ipv4.ip_forward": "1"})),
    Kind("sysctl-of-the-host", put("linux.sysctl", {"kernel.panic": "1"})),
    Kind("masked-none", both(put("linux.maskedPaths", []), put("linux.readonlyPaths", []))),
    Kind("device", put("linux.devices", [{"path": "/dev/mine", "type": "c", "major": 1,
                                          "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}])),
    Kind("propagation", put("linux.rootfsPropagation", "private")),
    Kind("root-writable", put("root.readonly", False)),
    Kind("root-missing", put("root.path", "nowhere")),
    Kind("root-none", drop("root")),
    Kind("mount-missing", lambda bundle: bundle.config["mounts"].append(
        {"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]})),
    Kind("hostname-odd", put("hostname", "a b")),
    Kind("version-odd", put("ociVersion", "9.9")),
    Kind("version-none", drop("ociVersion")),
    # --- hooks
    Kind("hooks-none", drop("hooks")),
    Kind("hooks-empty", put("hooks", {stage: [] for stage in STAGES})),
    Kind("hooks-null", put("hooks", None)),
    *(failing(stage) for stage in STAGES),
    Kind("hook-missing", hook("createRuntime", path="/nosuch")),
    Kind("hook-relative", hook("createRuntime", path="sh")),
    Kind("hook-in-time", hook("createRuntime", args=["sh", "-c", "cat"], timeout=5)),
    Kind("hook-too-late", hook("createRuntime", args=["sh", "-c", "sleep 9"], timeout=1)),
    Kind("hook-too-late-after", hook("poststart", args=["sh", "-c", "sleep 9"], timeout=1)),
    Kind("hook-negative-time", hook("createRuntime", args=["sh", "-c", "true"], timeout=-1)),
    Kind("hook-environment", hook("poststart", args=["sh", "-c", "env >&2"],
                                  env=["LD_PRELOAD=/x.so", "PATH=/x", "PYTHONPATH=/x"])),
    # --- how it is called
    Kind("bundle-relative", where=lambda bundle: bundle.folder.name),
    Kind("bundle-by-dots", where=inside("../bundle/.")),
    Kind("bundle-missing", where=inside("nowhere")),
    Kind("bundle-a-file", where=inside("config.json")),
    Kind("bundle-with-spaces", elsewhere("a b 'c' \"d\"")),
    Kind("bundle-with-newline", elsewhere("a\nb\x1b[31m")),
    Kind("bundle-with-letters", elsewhere("ä-$(true)-`true`;%s\\n")),
    Kind("id-odd", ident=f"{IDENT}_a+b.c"),
    Kind("id-empty", ident=""),
    Kind("id-dots", ident=".."),
    Kind("id-path", ident="a/b"),
    Kind("id-space", ident="a b"),
    Kind("id-newline", ident="a\nb"),
    Kind("id-long", ident="x" * 300),
    Kind("id-option", ident="-x"),
    Kind("pid-file-nowhere", options=("--pid-file", "/nowhere/pid")),
    Kind("descriptors-kept", options=("--preserve-fds", "1")),
    Kind("no-pivot", options=("--no-pivot",)),
    Kind("no-new-keyring", options=("--no-new-keyring",)),
    Kind("option-unknown", options=("--nosuch",)),
    Kind("option-without-value", options=("--pid-file",)),
    Kind("option-help", options=("--help",)),
    Kind("option-general-unknown", general=("--nosuch",)),
    Kind("argument-too-many", options=("first",)),
    Kind("log-text", general=("--log", "log")),
    Kind("log-json", general=("--log", "log", "--log-format", "json")),
    Kind("log-json-fails", put("process.args", ["/nosuch"]),
         general=("--log", "log", "--log-format", "json")),
    Kind("log-nowhere", general=("--log", "/nowhere/log")),
    Kind("debug", general=("--debug", "--log", "/dev/null")),
    Kind("systemd", general=("--systemd-cgroup",)),
    Kind("language", lambda bundle: bundle.environment.update(LANG="xx", LC_ALL="tr_TR.UTF-8")),
    Kind("environment-hostile", lambda bundle: bundle.environment.update(
        PYTHONHOME="/nowhere", PYTHONSTARTUP="/nowhere", PYTHONPATH=str(bundle.folder),
        BASH_ENV="/nowhere", ENV="/nowhere", IFS="/", SECCOMP_SHIM_DEPTH="x")),
    Kind("environment-bare", lambda bundle: _only(bundle.environment, "PATH")),
)  # fmt: skip


def _only(environment: dict[str, str], *names: str) -> None:
    for name in set(environment) - set(names):
        del environment[name]
