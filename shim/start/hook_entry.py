"""How a runtime calls our hooks: the entries of a config.json, and of engines' own hooks.d."""

from shim import lightos as os
from shim.startjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.start.spec import Spec

# What follows the dot is done where our file cannot be opened. The settings' compiled lines go with
# an uninstallation: then nobody wants the start to be refused. What the runtime gives is read:
# crun does not start a container whose hook has ended before that was written (hooks/guard).
_CALL = 'ulimit -n 1024; ulimit -s 8192; command . "$0"; '
_DRAIN = "PATH=/usr/bin:/bin timeout 10 cat >/dev/null; "
_CALLS = {
    "seccomp-shim-hook": f"{_CALL}{_DRAIN}"
    'lines=/etc/seccomp-shim/config.lines; [ "$1" != --config ] || lines="${2%.yaml}.lines"; '
    'command exec <"$lines" || exit 0; '
    'while read -r key value; do [ "$key $value" != "on_error deny" ] || exit 1; done; exit 0',
    "seccomp-shim-verify": f"{_CALL}{_DRAIN}exit 0",
    "seccomp-shim-precreate": f"{_CALL}exec cat",
}


def hook(path: str, options: "list[str]") -> "dict[str, object]":
    """Return the entry by which a runtime calls our executable ``path`` with ``options``.

    It is the shell that is called: bundles are kept, and the executable may be gone when one is
    used again; and crun sets a container's limits on its hooks: dash can open no script while that
    of open files is below 11.
    """
    words = ["/bin/sh", "-c", _CALLS[os.path.basename(path)], path, *options]
    return {"path": words[0], "args": words}


def has(spec: "Spec", entry: "dict[str, object]") -> bool:
    """Tell whether this very hook is entered for a stage before the program starts."""
    hooks = spec.hooks()
    stages = [hooks.get(stage, []) for stage in ("prestart", "createRuntime")]
    return any(program(each) == program(entry) for stage in stages for each in stage)


def enter(spec: "Spec", stage: str, entry: "dict[str, object]") -> "Spec":
    """Enter a hook at ``stage``, behind the others; one of the same program gives way to it."""
    there = spec.hooks().get(stage, [])
    if entry in there:
        return spec
    name = os.path.basename(program(entry)[0])
    others = [each for each in there if os.path.basename((program(each) or [""])[0]) != name]
    if len(others) < len(there):
        return spec.put(("hooks", stage), dumps([*others, entry]))
    return spec.add(("hooks", stage), dumps(entry), last=True)


def program(entry: object) -> "list[str]":
    """Return the program and options that an entry stands for, be it called by our shell or not."""
    if not isinstance(entry, dict):
        return []
    words = entry.get("args") or [entry.get("path")]
    if not isinstance(words, list):
        return []
    called = words[3:] if words[:2] == ["/bin/sh", "-c"] else [entry.get("path"), *words[1:]]
    return [str(word) for word in called]
