"""A container's config.json: read once, as every runtime reads it or not at all, asked, and edited.

runc decodes it with Go's encoding/json, which takes keys in any case and merges what a key says
twice; crun's C library takes keys to the letter, up to a NUL, and of two the first. Where these
could read something else than we do, what we would conclude is worth nothing: that is a doubt.

One start reads the file once and parses its text once. Edits are made in the text and in what it
says at the same time; where there were any, one parse of the new text shows that the two agree.
"""

from shim import files
from shim import lightos as os
from shim.errors import ShimError
from shim.profile.evaluate import evaluate
from shim.startjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shim.host.runtimes import Runtime

# crun takes a raw program from this annotation instead of linux.seccomp (crun.1, 0.18). Engines
# pass users' annotations on: then only the program itself can tell what it denies.
RAW_BPF = "run.oci.seccomp_bpf_data"

LIMIT = 16 << 20
# The keys that we go by, where they are: each of them could be meant by one in another case.
_TOP = ("annotations", "hooks", "linux", "root")
_LINUX = ("namespaces", "seccomp")
_SECCOMP = (
    "architectures", "defaultAction", "defaultErrnoRet", "flags", "listenerMetadata",
    "listenerPath", "syscalls",
)  # fmt: skip
_RULE = ("action", "args", "errnoRet", "names")
_ARGUMENT = ("index", "op", "value", "valueTwo")
_HOOKS = (
    "createContainer", "createRuntime", "poststart", "poststop", "prestart", "startContainer",
)  # fmt: skip
_HOOK = ("args", "env", "path", "timeout")
_FOLDED: "dict[tuple[str, ...], set[str]]" = {
    known: {key.casefold() for key in known}
    for known in (_TOP, _LINUX, _SECCOMP, _RULE, _ARGUMENT, _HOOKS, _HOOK, ("path",))
}
# What a profile's author said of the very call. To allow it for some arguments denies the others.
_MEANT = ("explicit-deny", "supervised", "conditional")

# What dash needs to begin at all (measured with 0.5.12), with something to spare; and to read our
# files, which is more of its stack than 16 KiB hold at times, if it may not raise that limit.
_LEAST = {
    "RLIMIT_STACK": 16 << 10,
    "RLIMIT_AS": 4 << 20,
    "RLIMIT_DATA": 512 << 10,
    "RLIMIT_NOFILE": 5,
}
_LEAST_STACK = 64 << 10
_CAP_SYS_RESOURCE = 1 << 24
_NAME = "config.json"


def read(path: str) -> "Spec":
    """Read a config.json; ShimError says why it cannot be believed."""
    return parse(read_text(path), path)


def read_text(path: str) -> str:
    """Read the text of a config.json; ShimError says why that is none. FileNotFoundError is one."""
    try:
        return files.read_regular(path, LIMIT).decode()
    except UnicodeDecodeError:
        raise ShimError("is not UTF-8", subject=path) from None
    except OSError as error:
        raise ShimError(f"cannot read: {error.strerror}", subject=path) from None


def parse(text: str, path: str = _NAME) -> "Spec":
    """Parse the text of a config.json; ShimError says why it cannot be believed."""
    return Spec(_parsed(text, path), text)


class Spec:
    """What a config.json says. It is not changed: each edit returns another, yet to be proved."""

    __slots__ = ("config", "edits", "text")

    def __init__(
        self, config: "dict[str, Any]", text: str = "", edits: "tuple[str, ...]" = ()
    ) -> None:
        self.config = config
        self.text = text
        self.edits = edits

    # --- questions -----------------------------------------------------------------------------

    def denied_by_default(
        self, calls: "dict[str, int]", *, raw_bpf: bool
    ) -> "tuple[dict[str, int], dict[str, int], str]":
        """Sort ``calls`` by what the profile says: denied only by the default, allowed, reasons.

        The reasons tell of those that are in neither. With ``raw_bpf`` the runtime may be one that
        takes a program from the annotation, of which nothing is known yet: what the profile denies
        by name stays denied then, too. ShimError: the profile cannot be understood.
        """
        linux = self.config.get("linux") or {}
        annotations = self.config.get("annotations") or {}
        if not isinstance(linux, dict) or not isinstance(annotations, dict):
            raise ShimError("linux or annotations is not an object", subject=_NAME)
        program = raw_bpf and RAW_BPF in annotations
        denied, named, reasons = {}, {}, []
        for name, nr in calls.items():
            verdict, reason = evaluate(linux.get("seccomp"), name)
            # Runtimes add the profile's architectures to the native one, which a filter always
            # has: a profile for others alone denies all of x86-64 by its default.
            if verdict in ("denied-by-default", "no-x86-64") or (program and verdict not in _MEANT):
                denied[name] = nr
            elif verdict == "allows":
                named[name] = nr
            else:
                reasons.append(f"{name}: {verdict}: {reason}")
        return denied, named, "; ".join(reasons)

    def needing(self, calls: "dict[str, int]", runtime: str) -> "tuple[dict[str, int], str]":
        """Return those of ``calls`` that the filter will deny by its default, and why not others.

        ``runtime`` makes the filter: a path, or a name to be looked for. ShimError: the profile
        cannot be understood.
        """
        denied, named, reason = self.denied_by_default(calls, raw_bpf=_may_take(runtime))
        for name, nr in named.items():
            if _knows(runtime, name):
                reason += f"; {name}: allowed by name, which {runtime} knows"
            else:
                denied[name] = nr
        return denied, reason.lstrip("; ")

    def takes_program(self, runtime: str) -> bool:
        """Tell whether ``runtime`` loads a program that the annotation has."""
        return RAW_BPF in (self.config.get("annotations") or {}) and _may_take(runtime)

    def hooks(self) -> "dict[str, list[dict[str, object]]]":
        """Return the hooks by stage; ShimError if they are not lists of objects."""
        hooks = self.config.get("hooks")
        if hooks is None:
            return {}
        if not isinstance(hooks, dict):
            raise ShimError("hooks is not an object", subject=_NAME)
        found = {stage: hooks[stage] for stage in _HOOKS if hooks.get(stage) is not None}
        for stage, entries in found.items():
            if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
                raise ShimError(f"hooks/{stage} is no list of hooks", subject=_NAME)
        return found

    def limit_below(self, runtime: "Runtime") -> str:
        """Return the container's limit under which no hook of ours would run; empty: there is none.

        crun sets the container's limits on its hooks (1.8.1), runc does not; a hook that dies fails
        the start. Whoever writes an image's settings has them at his choice.
        """
        if runtime.program.startswith("runc "):
            return ""
        process = self.config.get("process")
        limits = process.get("rlimits") if isinstance(process, dict) else None
        for limit in limits if isinstance(limits, list) else ():
            kind, soft = (
                (limit.get("type"), limit.get("soft")) if isinstance(limit, dict) else ("", 0)
            )
            if type(soft) is not int or kind not in _LEAST:
                continue
            if soft < _LEAST[kind] or (
                kind == "RLIMIT_STACK" and soft < _LEAST_STACK and not _may_raise()
            ):
                return f"{kind[7:]} {soft}"
        return ""

    # --- edits ---------------------------------------------------------------------------------

    def add(self, keys: "tuple[str, ...]", item: str, *, last: bool = False) -> "Spec":
        """Add ``item`` to the array or object that ``keys`` lead to; what is missing is made.

        An element of an array is given as it is to stand there, a member of an object with its key.
        ShimError: the text is not made of objects along ``keys``, or what they lead to is of
        another type.
        """
        from shim.start import splice
        from shim.startjson import value_at

        value, end = value_at(item, 0)
        member = loads(f"{{{item}}}") if end != len(item) else None

        def added(there: object) -> object:
            if member is not None and isinstance(there, dict | None):
                return {**(there or {}), **member}
            if member is None and isinstance(there, list | None):
                return [*(there or ()), value] if last else [value, *(there or ())]
            kind = "array" if member is None else "object"
            raise ShimError(f"is no {kind}", subject=_pointer(keys))

        return self._edited(keys, added, lambda: splice.add(self.text, keys, item, last=last))

    def put(self, keys: "tuple[str, ...]", value: str) -> "Spec":
        """Set what ``keys`` lead to to ``value``; what is missing is made. ShimError as of add."""
        from shim.start import splice

        return self._edited(
            keys, lambda _: loads(value), lambda: splice.put(self.text, keys, value)
        )

    def remove(self, keys: "tuple[str, ...]") -> "Spec":
        """Remove the member that ``keys`` lead to, as ``add`` enters one. ShimError as of add."""
        from shim.start import splice

        *above, key = keys

        def removed(there: object) -> object:
            if not isinstance(there, dict) or key not in there:
                raise ShimError("is not there", subject=_pointer(keys))
            return {name: value for name, value in there.items() if name != key}

        return self._edited(tuple(above), removed, lambda: splice.remove(self.text, keys))

    def _edited(
        self,
        keys: "tuple[str, ...]",
        change: "Callable[[object], object]",
        edit: "Callable[[], str]",
    ) -> "Spec":
        """Make ``edit`` in the text, and ``change`` in what it says."""
        try:
            meant = _with(self.config, keys, change, ())
            return Spec(meant, edit(), (*self.edits, _pointer(keys)))
        except (ValueError, IndexError, RecursionError) as error:
            raise ShimError(f"cannot be changed: {error!r}", subject=_NAME) from None

    def proved(self) -> str:
        """Return the text, read again if it was edited; ShimError: it does not say what is meant.

        Of another text than the file's this is the one parse, for all edits together.
        """
        if not self.edits:
            return self.text
        try:
            same = _parsed(self.text, _NAME) == self.config
        except RecursionError as error:
            raise ShimError(f"cannot be changed: {error!r}", subject=_NAME) from None
        if not same:
            raise ShimError(
                f"would not say what is meant at {', '.join(self.edits)}", subject=_NAME
            )
        return self.text


def _may_take(runtime: str) -> bool:
    return not os.path.basename(runtime).startswith("runc")


def _knows(runtime: str, name: str) -> bool:
    from shim.catalog import kernel_injected
    from shim.host.runtimes import knows, libseccomp_version

    call = kernel_injected().get(name)
    return call is not None and knows(libseccomp_version(runtime), call.libseccomp)


def _may_raise() -> bool:
    from shim.host.processes import effective_capabilities

    return bool(effective_capabilities() & _CAP_SYS_RESOURCE)


def _with(
    there: object,
    keys: "tuple[str, ...]",
    change: "Callable[[object], object]",
    above: "tuple[str, ...]",
) -> "Any":
    """Return ``there`` with the place that ``keys`` lead to changed, itself left as it is."""
    if not keys:
        return change(there)
    if not isinstance(there, dict | None):
        raise ShimError("is no object", subject=_pointer(above))
    members = there or {}
    new = _with(members.get(keys[0]), keys[1:], change, (*above, keys[0]))
    return {**members, keys[0]: new}


def _pointer(keys: "tuple[str, ...]") -> str:
    return "/".join(("", *keys))


def _parsed(text: str, path: str) -> "dict[str, Any]":
    """Parse the text of a config.json; ShimError says why it cannot be believed."""
    try:
        config = loads(text, once=True)
    except ValueError as error:
        raise ShimError(f"is not JSON: {error}", subject=path) from None
    if not isinstance(config, dict):
        raise ShimError("is not an OCI config", subject=path)
    if "\\u0000" in text and "\\u0000" in text.replace("\\\\", ""):  # no escaped backslash's
        raise ShimError("has a NUL in it, where some runtimes stop reading", subject=path)
    _check_spelling(config, path)
    return config


def _check_spelling(config: "dict[str, object]", path: str) -> None:
    """Raise ShimError where a key that we go by is there in another case as well, or instead."""
    _spelled(config, _TOP, path)
    linux = _spelled(config.get("linux"), _LINUX, path)
    seccomp = _spelled(linux.get("seccomp"), _SECCOMP, path)
    for rule in _listed(seccomp.get("syscalls")):
        for argument in _listed(_spelled(rule, _RULE, path).get("args")):
            _spelled(argument, _ARGUMENT, path)
    for stage in _spelled(config.get("hooks"), _HOOKS, path).values():
        for entry in _listed(stage):
            _spelled(entry, _HOOK, path)
    _spelled(config.get("root"), ("path",), path)


def _spelled(value: object, known: "tuple[str, ...]", path: str) -> "dict[str, object]":
    """Return ``value`` if it is an object, else an empty one; ShimError as of _check_spelling."""
    if not isinstance(value, dict):
        return {}
    for key in value:
        # Go folds as Unicode does: a long s and the sign for kelvin are letters, too.
        if key not in known and key.casefold() in _FOLDED[known]:
            raise ShimError(f"has {key!r}, which some runtimes take for another key", subject=path)
    return value


def _listed(value: object) -> "list[object]":
    return value if isinstance(value, list) else []
