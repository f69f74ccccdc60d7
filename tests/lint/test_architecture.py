"""docs/architecture.md sends nobody to a place that is not there, and knows every room."""

import re

from support.checkout import CHECKOUT

_TEXT = (CHECKOUT / "docs/architecture.md").read_text()
_PATH = re.compile(r"`((?:shim|tests|hooks|profiles|deploy|docs)/[\w./-]*)`")
# Rooms of tests that are no rooms of the product: what each is for is said in the table of rooms.
_OTHER = {
    "ansible",
    "behaviour",
    "bench",
    "cli",
    "fuzz",
    "install",
    "lint",
    "security",
    "support",
    "vm",
}


def test_every_path_is_there() -> None:
    """A path in the tables or the text is a file or a directory of the checkout."""
    paths = set(_PATH.findall(_TEXT))
    assert len(paths) > 50
    assert [path for path in sorted(paths) if not (CHECKOUT / path).exists()] == []


def test_every_room_is_described() -> None:
    """Whoever adds a room says in one line what happens there."""
    rooms = {each.parent.name for each in CHECKOUT.glob("shim/*/__init__.py")}
    told = set(re.findall(r"^\| `shim/(\w+)/` \|", _TEXT, re.MULTILINE))
    assert told == rooms


def test_the_tests_have_the_same_rooms() -> None:
    """Who knows a module's room knows where its tests are."""
    rooms = {each.parent.name for each in CHECKOUT.glob("shim/*/__init__.py")}
    tested = {each.parent.name for each in CHECKOUT.glob("tests/*/test_*.py")}
    assert tested - rooms <= _OTHER


def test_no_file_is_too_long_to_be_read() -> None:
    """A file of more than 400 lines has more than one subject; generated ones have none."""
    files = [*CHECKOUT.glob("shim/**/*.py"), *CHECKOUT.glob("tests/**/*.py")]
    long = {
        str(path.relative_to(CHECKOUT)): lines
        for path in files
        if (lines := path.read_text().count("\n")) > 400
    }
    assert long == {}
