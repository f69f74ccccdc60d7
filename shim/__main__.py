"""``python -m shim``: the console script without an installation."""

import sys

from shim.cli import main

sys.exit(main())
