"""The cases: one small file for each way in.

A file has ``run(cell)``, or ``run(cell, variant)`` and ``VARIANTS``; the first line of its
docstring stands in docs/proof.md. It is called in the guest, once for each stack, and gives an
Outcome. Nothing else needs to know of a new file. One that takes long has ``REDUCED``: on other
kernels than the affected one these variants alone are run, each kernel with its own user land.
"""

import ast
import functools
from pathlib import Path

HERE = Path(__file__).parent


def names() -> list[str]:
    """Return every case: ``name``, or ``name/variant`` for each of its variants."""
    found = []
    for name, tree in _modules().items():
        variants = _constant(tree, "VARIANTS")
        found += [f"{name}/{v}" for v in variants] if variants else [name]
    return found


def wanted(case: str, *, affected: bool, own_land: bool) -> bool:
    """Tell whether ``case`` runs on a kernel that is ``affected``, or has ``own_land`` under it."""
    name, _, variant = case.partition("/")
    reduced = _constant(_modules()[name], "REDUCED")
    return affected or not reduced or (own_land and variant in reduced)


def described() -> dict[str, str]:
    """Return the first docstring line of each case, by name without variant."""
    return {
        name: (ast.get_docstring(tree) or "").split("\n")[0] for name, tree in _modules().items()
    }


@functools.cache
def _modules() -> dict[str, ast.Module]:
    return {
        path.stem.replace("_", "-"): ast.parse(path.read_text())
        for path in sorted(HERE.glob("*.py"))
        if path.name != "__init__.py"
    }


def _constant(tree: ast.Module, name: str) -> tuple[str, ...]:
    """Return a constant of a case's file without importing it; empty: it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return tuple(ast.literal_eval(node.value))
    return ()
