"""Write docs/model.md from a real run: ``.venv/bin/python -P tests/profile/writemodel.py``.

Every profile of ``modelled.profiles`` on runc and crun of the three user lands, as
root, about five minutes.
"""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]

from shim.errors import ShimError  # noqa: E402  # the paths come first
from shim.profile.model import loaded  # noqa: E402
from support.modelled import BINARIES, profiles, real, unequal  # noqa: E402
from vm.stacks import STACKS, ready  # noqa: E402

TARGET = CHECKOUT / "docs" / "model.md"
TEMPLATE = Path(__file__).with_name("model.md.in")


def main() -> int:
    """Measure, write, and tell how many cells are not as they must be."""
    columns, wrong = [], 0
    cells: dict[str, list[str]] = {name: [] for name in profiles()}
    lands = []
    for stack in STACKS:
        tree = ready(stack)
        for program in BINARIES:
            with tempfile.TemporaryDirectory() as folder:
                runtime, loader = real(Path(folder), program, tree.root)
                columns.append(f"{stack.name} {program}")
                version = tree.versions["libseccomp2"]
                lands.append(f"| {stack.name} | {program} {runtime.loader.version} | {version} |")
                for name, profile in profiles().items():
                    why = unequal(runtime, loader, profile)
                    try:
                        word = "proven" if loaded(profile, loader).program else "no filter"
                    except ShimError:
                        word = "refused"
                    cells[name].append(f"**{why}**" if why else word)
                    wrong += bool(why)
            print(columns[-1], flush=True)
    header = f"| profile | {' | '.join(columns)} |"
    rule = "|" + " --- |" * (len(columns) + 1)
    rows = [f"| {name} | {' | '.join(words)} |" for name, words in cells.items()]
    total = sum(map(len, cells.values()))
    TARGET.write_text(
        TEMPLATE.read_text().format(
            date=datetime.now(UTC).date(),
            right=total - wrong,
            total=total,
            profiles=len(cells),
            lands="\n".join(lands),
            table="\n".join([header, rule, *rows]),
        )
    )
    print(f"{wrong} of {total} are not equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
