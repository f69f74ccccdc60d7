"""How long and how far back: one notation for all verbs."""

from datetime import UTC, datetime, timedelta

import pytest

from shim.cli import denials, duration, log


@pytest.mark.parametrize(
    ("text", "meant"),
    [("90s", 90), ("0.5s", 0.5), ("30m", 1800), ("1h", 3600), ("1.5h", 5400), ("2d", 172800),
     ("1w", 604800)],
)  # fmt: skip
def test_both_verbs_take_the_same(text: str, meant: float) -> None:
    """What denials watches for, log looks back for."""
    assert duration.seconds(text) == meant
    assert denials._seconds(text) == meant
    then = datetime.fromisoformat(log._since(text)).replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(seconds=meant) - then) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1 h", "1y", "0s", "1e3s", "٣s", "99999w"])
def test_what_is_no_time(text: str) -> None:
    """Neither without a unit, nor nothing, nor for ever."""
    assert duration.seconds(text) is None
