"""A defect of ours is an error, whichever verb it is in."""

import argparse
import importlib

import pytest

from shim import cli


@pytest.mark.parametrize("verb", ["scan", "probe", "doctor"])
def test_a_defect_is_not_taken_for_findings(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1 means them, and is Python's own for what nobody has caught."""

    def run(_: argparse.Namespace) -> int:
        raise LookupError("of ours")

    monkeypatch.setattr(importlib.import_module(f"shim.cli.{verb}"), "run", run)
    assert cli.main([verb]) == 2
    assert capsys.readouterr().err.endswith("LookupError: of ours\n")
