"""The command line of runc and crun: the verb, and the options that say what is started. Pure.

runc parses with urfave/cli (Go's flag package: ``-root X`` is ``--root X``), crun with glibc's argp
(a long option may be cut short, ``-bDIR`` is ``-b DIR``).
"""

STARTING = ("create", "run", "exec", "restore")
_VERBS = (
    "checkpoint", "create", "delete", "events", "exec", "features", "init", "kill", "list",
    "mounts", "pause", "ps", "restore", "resume", "run", "spec", "start", "state", "update",
)  # fmt: skip
# Options with a value: runc 1.0 to 1.5, crun 0.18 to 1.26.
_GLOBAL = ("cgroup-manager", "criu", "log", "log-format", "log-level", "root", "rootless")
_OF_VERB = (
    *_GLOBAL,
    "bundle", "config", "console-socket", "empty-ns", "image-path", "lsm-mount-context",
    "lsm-profile", "manage-cgroups-mode", "pid-file", "pidfd-socket", "preserve-fds", "work-path",
)  # fmt: skip
_FLAGS = (
    "auto-dedup", "debug", "detach", "ext-unix-sk", "file-locks", "help", "ignore-paused", "keep",
    "lazy-pages", "no-new-keyring", "no-new-privs", "no-pivot", "no-subreaper", "shell-job",
    "systemd-cgroup", "tcp-close", "tcp-established", "tty", "usage", "version",
)  # fmt: skip
_OF_EXEC = (
    *_GLOBAL,
    "additional-gids", "apparmor", "cap", "cgroup", "console-socket", "cwd", "env", "pid-file",
    "pidfd-socket", "preserve-fds", "process", "process-label", "user",
)  # fmt: skip
_SHORT = {
    "b": "bundle", "c": "cap", "e": "env", "f": "config", "g": "additional-gids", "p": "process",
    "u": "user",
}  # fmt: skip
_SHORT_FLAGS = "dhtvV?"


class CommandLine:
    """``verb`` is empty where none can be made out; ``options`` are by their long names.

    ``sure`` is False where an option is met that we do not know: the verb is then the likelier
    reading. ``rest`` is what follows the verb's options: the container's id first.
    """

    __slots__ = ("options", "rest", "sure", "verb")

    def __init__(self, words: "list[str]") -> None:
        self.options: dict[str, str] = {}
        self.sure = True
        self.verb = ""
        self.rest: list[str] = []
        behind = self._global(words)
        if self.verb in STARTING and self.verb != "exec":
            self._of_verb(behind)
        else:
            self.rest = behind

    def container(self) -> str:
        """Return the container's id, empty if there is none: what follows the verb's options."""
        at = 0
        while at < len(self.rest):
            word = self.rest[at]
            at += 1
            if word == "--":
                return self.rest[at] if at < len(self.rest) else ""
            if not word.startswith("-") or word == "-":
                return word
            name, value = _split(word, _OF_EXEC)
            if name in _OF_EXEC and value is None:
                at += 1
            elif value is None and name not in _FLAGS:
                self.sure = False
        return ""

    def _global(self, words: "list[str]") -> "list[str]":
        """Read up to the verb; give what follows it."""
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            if word == "--" and at < len(words):
                word = words[at]
                at += 1
            elif word.startswith("-") and word != "-":
                name, value = _split(word, _GLOBAL)
                if name in _GLOBAL:
                    if value is None:
                        value, at = (words[at] if at < len(words) else ""), at + 1
                    self.options[name] = value
                elif value is None and name not in _FLAGS:
                    self.sure = False
                continue
            if self.sure or word in _VERBS:
                # An unknown option's value may be named like a verb that starts nothing.
                if (
                    not self.sure
                    and word not in STARTING
                    and words[at : at + 1]
                    and (words[at] in STARTING)
                ):
                    continue
                self.verb = word
                return words[at:]
        return []

    def _of_verb(self, words: "list[str]") -> None:
        """Read options wherever they stand: create, run and restore take an id and no more."""
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            if word == "--":
                self.rest += words[at:]
                return
            if not word.startswith("-") or word == "-":
                self.rest.append(word)
                continue
            name, value = _split(word, _OF_VERB)
            if name in _OF_VERB:
                if value is None:
                    value, at = (words[at] if at < len(words) else ""), at + 1
                self.options[name] = value


def _split(word: str, valued: "tuple[str, ...]") -> "tuple[str, str | None]":
    """Return an option's long name and the value that it brings along, None if it brings none."""
    name, equals, value = word.lstrip("-").partition("=")
    brought = value if equals else None
    if not word.startswith("--") and name not in valued + _FLAGS:
        letters = word[1:].lstrip(_SHORT_FLAGS)
        if not letters:
            return "help", None  # or any other flag
        long = _SHORT.get(letters[0], "")
        if long in valued:
            return long, letters[1:].removeprefix("=") or None
        return name, brought
    if name not in valued + _FLAGS:
        # The runtime at hand may have but one of those that we know of; of two it would take none.
        begun = [each for each in valued + _FLAGS if each.startswith(name)]
        if begun:
            return min(begun, key=len), brought
    return name, brought
