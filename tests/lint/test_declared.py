"""What the package imports of others is declared where it is needed."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

from support.checkout import CHECKOUT


def imported(folder: Path) -> set[str]:
    """Return the names of other distributions' packages that are imported below a directory."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(each.name.partition(".")[0] for each in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    private = {each for each in found if each.startswith("_")}
    return found - private - {*sys.stdlib_module_names, "shim"}


def declared(*lists: list[str]) -> set[str]:
    """Return the normalised names of requirements."""
    words = (re.split(r"[^\w.-]", each, maxsplit=1)[0] for one in lists for each in one)
    return {word.lower().replace("_", "-") for word in words}


def test_every_import_is_a_declared_dependency() -> None:
    """Nothing is imported that is there only because another package happens to need it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extra = optional["fleet"] + optional["metrics"]
    known = importlib.metadata.packages_distributions()
    needed = {
        known[name][0].lower().replace("_", "-"): name for name in imported(CHECKOUT / "shim")
    }
    assert "jinja2" in needed
    assert not needed.keys() - declared(project["dependencies"], extra)
