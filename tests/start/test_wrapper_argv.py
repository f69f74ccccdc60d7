"""The command line of runc and crun as the wrapper's Python part reads it."""

import pytest

from shim.start.wrapper.argv import CommandLine


@pytest.mark.parametrize(
    ("words", "verb", "options", "rest"),
    [
        ("create --bundle /b c1", "create", {"bundle": "/b"}, ["c1"]),
        ("create c1", "create", {}, ["c1"]),
        ("create --bundle create state", "create", {"bundle": "create"}, ["state"]),
        ("create --bundle=/a --bundle /b c1", "create", {"bundle": "/b"}, ["c1"]),
        ("create -b /b c1", "create", {"bundle": "/b"}, ["c1"]),
        ("create -b/b c1", "create", {"bundle": "/b"}, ["c1"]),
        ("run -db /b c1", "run", {"bundle": "/b"}, ["c1"]),
        ("run -bundle /b c1", "run", {"bundle": "/b"}, ["c1"]),
        ("run --bun /b c1", "run", {"bundle": "/b"}, ["c1"]),
        ("run c1 --bundle /b", "run", {"bundle": "/b"}, ["c1"]),
        ("run -- --bundle", "run", {}, ["--bundle"]),
        ("run -f other.json c1", "run", {"config": "other.json"}, ["c1"]),
        ("run --pid-file --bundle -d c1", "run", {"pid-file": "--bundle"}, ["c1"]),
        ("--root /r run --no-pivot c1", "run", {"root": "/r"}, ["c1"]),
        ("--root create run c1", "run", {"root": "create"}, ["c1"]),
        ("--log=/l --log-format=json run c1", "run", {"log": "/l", "log-format": "json"}, ["c1"]),
        ("-root /r --debug run c1", "run", {"root": "/r"}, ["c1"]),
        ("--debug --systemd-cgroup --rootless auto run c1", "run", {"rootless": "auto"}, ["c1"]),
        ("-- create c1", "create", {}, ["c1"]),
        ("restore --image-path run --bundle /b c1", "restore",
         {"image-path": "run", "bundle": "/b"}, ["c1"]),
        ("state c1", "state", {}, ["c1"]),
        ("", "", {}, []),
        ("--root", "", {"root": ""}, []),
        ("run --bundle", "run", {"bundle": ""}, []),
    ],
)  # fmt: skip
def test_a_start_is_read(words: str, verb: str, options: dict[str, str], rest: list[str]) -> None:
    """Verb, options by their long names, and what remains; values that look like verbs are none."""
    line = CommandLine(words.split())
    assert (line.verb, line.options, line.rest, line.sure) == (verb, options, rest, True)


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ("--new-flag create c1", "create"),
        ("--new-option value create c1", "create"),
        ("--new-option state create c1", "create"),
        ("--new-flag state c1", "state"),
        ("--new-flag exec create sh", "exec"),
        ("-x run c1", "run"),
    ],
)
def test_an_unknown_option_leaves_the_likelier_reading(words: str, verb: str) -> None:
    """What stands behind it is its value or the verb: a verb that starts something is preferred."""
    line = CommandLine(words.split())
    assert (line.verb, line.sure) == (verb, False)


@pytest.mark.parametrize(
    ("words", "container"),
    [
        ("exec c1 sh", "c1"),
        ("exec -t c1 sh", "c1"),
        ("exec --tty --cwd /x -e A=B -u 0:0 c1 sh -c create", "c1"),
        ("exec --process /p.json --detach --pid-file /pid c1", "c1"),
        ("exec --process=/p.json -d c1", "c1"),
        ("exec --env c2 c1", "c1"),
        ("exec -e A=B -eC=D --cap CAP_KILL --preserve-fds 2 c1", "c1"),
        ("exec -- c1 --", "c1"),
        ("exec --apparmor=x --no-new-privs --ignore-paused --cgroup /a c1", "c1"),
        ("exec -g 5 c1", "c1"),
        ("exec", ""),
        ("create --bundle /b c1", "c1"),
    ],
)
def test_the_container_of_an_exec(words: str, container: str) -> None:
    """The first word that is neither an option nor an option's value."""
    assert CommandLine(words.split()).container() == container
