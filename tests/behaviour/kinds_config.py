"""More kinds of bundle, as data: seccomp profiles, odd types, and config.json as a file."""

import json
import os
from collections.abc import Callable

from behaviour.bundle import Bundle, seccomp
from behaviour.kinds import both, drop, put
from behaviour.lab import SETTINGS
from behaviour.starts import Change, Kind, at_once, ran
from support.containers import TEST_SYSCALL

_PROGRAM = "run.oci.seccomp_bpf_data"
_ALLOW = "BgAAAAAA/38="  # one instruction: whatever the call, let it through
_BOM = "﻿"


def profile(**changes: object) -> Change:
    """Return the change to another profile."""
    return put("linux.seccomp", seccomp(**changes))


def denying(name: str, action: str = "SCMP_ACT_ERRNO", **more: object) -> Change:
    """Return the change to a profile that has a rule for one name more."""
    rule = {"names": [name], "action": action, **more}
    return profile(syscalls=[*seccomp()["syscalls"], rule])


def text(made: Callable[[str], str | bytes]) -> Change:
    """Return the change of config.json's own text."""

    def change(bundle: Bundle) -> None:
        bundle.text = made(json.dumps(bundle.config))

    return change


def more(members: str) -> Change:
    """Return the change that adds members, as they stand, behind the last one."""
    return text(lambda plain: f"{plain[:-1]},{members}}}")


def _link(bundle: Bundle) -> None:
    other = bundle.lab / "other.json"
    other.write_text(json.dumps(bundle.config))
    bundle.path.symlink_to(other)


def _hard_link(bundle: Bundle) -> None:
    other = bundle.lab / "other.json"
    other.write_text(json.dumps(bundle.config))
    os.link(other, bundle.path)


def _read_only(bundle: Bundle) -> None:
    bundle.write()
    bundle.path.chmod(0o400)


def _of_a_user(bundle: Bundle) -> None:
    bundle.write()
    os.chown(bundle.path, 1000, 1000)


def _immutable(bundle: Bundle) -> None:
    """Have a file system that nobody can write to hold the bundle's config.json."""
    bundle.write()
    bundle.folder.chmod(0o555)


def _other(bundle: Bundle) -> None:
    bundle.write()
    bundle.path.rename(bundle.lab / "other.json")
    bundle.path.symlink_to("nowhere")


MEANT = ("allow", "deny")  # the call that these kernels need, denied by its name
LISTENER = {"listenerPath": "/nowhere/listener"}
CONFIGS = (
    # --- profiles
    Kind("seccomp-none", drop("linux.seccomp")),
    Kind("seccomp-null", put("linux.seccomp", None)),
    Kind("seccomp-empty", put("linux.seccomp", {})),
    *(Kind(f"seccomp-{name}", profile(defaultAction=f"SCMP_ACT_{name.upper()}"), how=ran,
           untouched=SETTINGS if name in ("allow", "log", "trace", "notify") else ())
      for name in ("kill", "kill_process", "kill_thread", "trap", "errno", "trace", "log", "allow",
                   "notify", "nosuch")),
    Kind("seccomp-number", profile(defaultErrnoRet=38)),
    Kind("seccomp-number-in-vain", profile(defaultAction="SCMP_ACT_KILL", defaultErrnoRet=1)),
    *(Kind(f"seccomp-flag-{flag.lower()}", profile(flags=[f"SECCOMP_FILTER_FLAG_{flag}"]))
      for flag in ("LOG", "SPEC_ALLOW", "TSYNC", "NOSUCH")),
    Kind("seccomp-listener-in-vain", profile(**LISTENER)),
    Kind("seccomp-listener", both(
        denying("mknod", "SCMP_ACT_NOTIFY"),
        put("linux.seccomp.listenerPath", "/nowhere/listener"))),
    Kind("seccomp-no-rules", profile(defaultAction="SCMP_ACT_LOG", syscalls=[]),
         untouched=SETTINGS),
    Kind("seccomp-name-unknown", denying("nosuchcall")),
    Kind("seccomp-test-syscall-denied",
        denying(f"test-syscall-{TEST_SYSCALL}", errnoRet=1),
        untouched=("test_syscall",),
    ),
    Kind("seccomp-denied-by-name", denying("uretprobe", errnoRet=1), untouched=MEANT),
    Kind("seccomp-kills-by-name", denying("uretprobe", "SCMP_ACT_KILL_PROCESS"), untouched=MEANT),
    Kind("seccomp-allowed-by-name", denying("uretprobe", "SCMP_ACT_ALLOW")),
    Kind("seccomp-action-unknown", denying("mknod", "SCMP_ACT_NOSUCH")),
    Kind("seccomp-argument", denying("mknod", args=[
        {"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}])),
    Kind("seccomp-argument-out-of-range", denying("mknod", args=[
        {"index": 9, "value": 2, "op": "SCMP_CMP_EQ"}])),
    Kind("seccomp-native", profile(architectures=[])),
    Kind("seccomp-no-architectures", lambda bundle: bundle.config["linux"]["seccomp"].pop(
        "architectures")),
    Kind("seccomp-other-architecture", profile(architectures=["SCMP_ARCH_AARCH64"])),
    Kind("seccomp-architecture-unknown", profile(architectures=["SCMP_ARCH_NOSUCH"])),
    # --- odd types: the runtime says what it makes of them, and the file stays as it was
    *(Kind(f"odd-{dotted}={json.dumps(value).replace(' ', '')}", put(dotted, value))
      for dotted, value in (
          ("hooks", []), ("hooks", "x"), ("hooks.poststart", {}), ("hooks.createRuntime", {}),
          ("hooks.createRuntime", "x"), ("hooks.createRuntime", [1]), ("hooks.poststart", [[]]),
          ("hooks.createRuntime", [None]), ("hooks.createRuntime", [{"path": 5}]),
          ("hooks.poststart", None), ("hooks.nosuch", [{}]),
          ("linux", []), ("linux", None), ("linux.seccomp", "x"), ("linux.seccomp", []),
          ("linux.seccomp.syscalls", {}), ("linux.seccomp.syscalls", [1]),
          ("linux.seccomp.defaultAction", 5), ("linux.seccomp.architectures", "x"),
          ("linux.namespaces", {}), ("process", []), ("process.args", "x"), ("process.env", {}),
          ("process.capabilities", []), ("process.rlimits", {}), ("process.terminal", "yes"),
          ("root", "x"), ("mounts", {}), ("annotations", []), ("annotations", {"a": 1}),
          ("annotations", "x"), ("ociVersion", 1))),
    # --- the same twice, and keys of another case
    Kind("twice-linux", more('"linux":{}')),
    Kind("twice-hooks", more('"hooks":{}')),
    Kind("twice-process", more('"process":{"args":["/bin/true"],"cwd":"/"}')),
    Kind("twice-annotations", both(put("annotations", {}), more('"annotations":{}'))),
    Kind("other-case-hooks", more('"Hooks":{}')),
    Kind("other-case-linux", more('"LINUX":{"seccomp":null}')),
    Kind("key-unknown", put("nosuch", {"a": [1.50, 10**30]})),
    # --- annotations
    Kind("annotations", put("annotations", {"a": "b", "run.oci.handler": "x"})),
    Kind("annotations-empty", put("annotations", {})),
    Kind("annotations-null", put("annotations", None)),
    Kind("annotations-control", put("annotations", {"a\n\x1b": "\n{\"level\":\"x\"}\x07é"})),
    Kind("annotations-large", put("annotations", {"a": "x" * 200_000})),
    Kind("annotations-program", put("annotations", {_PROGRAM: _ALLOW}), untouched=SETTINGS,
         runtimes=("crun",)),
    Kind("annotations-program-in-vain", put("annotations", {_PROGRAM: _ALLOW}), runtimes=("runc",)),
    Kind("annotations-program-broken", put("annotations", {_PROGRAM: "?"})),
    # --- the file
    Kind("file-missing", lambda bundle: setattr(bundle, "missing", True)),
    Kind("file-link-to-nothing", lambda bundle: bundle.path.symlink_to("nowhere")),
    Kind("file-empty", text(lambda _: "")),
    Kind("file-cut", text(lambda plain: plain[:-1])),
    Kind("file-garbage", text(lambda _: "\0\1\2garbage")),
    Kind("file-null", text(lambda _: "null")),
    Kind("file-list", text(lambda _: "[]")),
    Kind("file-number", text(lambda _: "1")),
    Kind("file-more-behind", text(lambda plain: plain + "x")),
    Kind("file-twice", text(lambda plain: plain * 2)),
    Kind("file-comma", text(lambda plain: f"{plain[:-1]},}}")),
    Kind("file-nan", more('"a":NaN')),
    Kind("file-surrogate", more('"a":"\\ud800"')),
    Kind("file-bytes", text(lambda plain: plain.encode()[:-1] + b',"a":"\xff"}')),
    Kind("file-mark", text(lambda plain: _BOM + plain)),
    Kind("file-16", text(lambda plain: plain.encode("utf-16"))),
    Kind("file-spaces", text(lambda plain: f"\n\n {plain}\n\t ")),
    Kind("file-deep", more(f'"a":{"[" * 20000}{"]" * 20000}')),
    Kind("file-large", more(f'"a":"{"x" * (17 << 20)}"')),
    Kind("file-directory", lambda bundle: bundle.path.mkdir()),
    Kind("file-link", _link),
    Kind("file-hard-link", _hard_link),
    Kind("file-fifo", lambda bundle: os.mkfifo(bundle.path), seconds=1),
    Kind("file-device", lambda bundle: bundle.path.symlink_to("/dev/null"),
         untouched=SETTINGS),
    Kind("file-read-only", _read_only),
    Kind("file-of-a-user", _of_a_user),
    Kind("file-in-a-closed-folder", _immutable),
    Kind("config-at-once", profile(), how=at_once, times=3),
    Kind("file-other", _other, options=("--config", "other.json"),
         how=ran),
)  # fmt: skip
