"""Where the data files are, in an installed package and in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def directory(name: str) -> Path:
    """Return directory ``name`` (``profiles``, ``hooks``) of the installed package or checkout."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
