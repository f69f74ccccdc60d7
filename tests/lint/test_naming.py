"""One name, one thing: classes, and the words that say too little."""

import ast
import functools
from collections import defaultdict
from pathlib import Path

from support.checkout import CHECKOUT

# Names of the field say it better: evaluate, read, installed, flattened, lines, log files.
VAGUE = {"judge", "look", "says", "told", "wanted", "kept", "become", "words", "front", "flat"}
VAGUE_CLASSES = {"Book", "Look", "Tell", "Told", "Way", "Judged"}
# The sixteen words of struct seccomp_data are words.
MEANT = {("shim/bpf/emulator.py", "_words")}


@functools.cache
def _definitions() -> list[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    return [
        (str(path.relative_to(CHECKOUT)), node)
        for path in sorted(Path(CHECKOUT, "shim").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]


def test_no_class_has_the_name_of_another() -> None:
    """A class that an error or a reader names is one class of the whole package."""
    where = defaultdict(list)
    for file, node in _definitions():
        if isinstance(node, ast.ClassDef):
            where[node.name].append(file)
    assert {name: files for name, files in where.items() if len(files) > 1} == {}


def test_names_say_what_is_meant() -> None:
    """No function or class has a name that could as well be any other's."""
    vague = {
        (file, node.name)
        for file, node in _definitions()
        if node.name.lstrip("_") in (VAGUE if isinstance(node, ast.FunctionDef) else VAGUE_CLASSES)
    }
    assert vague - MEANT == set()
