"""The program of the node's pod, as the image starts it: ``python3 -IS node.py JOB ...``.

``ready`` is the readiness probe: it says what keeps the pod from being ready, and imports nothing
of ours, since every node pays for it time and again.
"""

import sys
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]
_STATE = Path("/tmp/state")  # noqa: S108 - shim.node.STATE


def _ready() -> int:
    try:
        missing = _STATE.read_text(encoding="utf-8")
    except FileNotFoundError:
        missing = "it has only just begun\n"
    sys.stdout.write(missing)
    return bool(missing)


def main() -> int:
    """Do what the command line says."""
    if sys.argv[1:] == ["ready"]:
        return _ready()
    # Both work out of the wheel, whatever Python it was made for.
    wheels = (min(_HOME.glob(f"wheels/{name}-*.whl")) for name in ("structlog", "pyyaml"))
    sys.path[:0] = map(str, (_HOME, *wheels))
    from shim.node import main

    return main.main(sys.argv[1:], str(_HOME))


sys.exit(main())
