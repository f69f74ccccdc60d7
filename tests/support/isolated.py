"""Code run in a fresh interpreter as the start path has it: no site, no environment of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BARE = [os.path.realpath(sys.executable), "-I", "-S"]
_CHECKOUT = str(Path(__file__).parents[2])


def isolated(code: str, **options: Any) -> Any:
    """Run ``code`` in a fresh interpreter; give what it prints as JSON. It must print no error."""
    code = f"import sys; sys.path.insert(0, {_CHECKOUT!r})\n{code}"
    done = subprocess.run(
        [*BARE, "-c", code], check=True, capture_output=True, text=True, cwd="/", **options
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def gained(code: str) -> set[str]:
    """Return the modules that ``code`` imports in a fresh interpreter."""
    return set(
        isolated(
            f"before = set(sys.modules)\n{code}\nafter = set(sys.modules)\n"
            "import json\nprint(json.dumps(sorted(after - before)))"
        )
    )
