"""CRI-O: its configuration, and what it is told of us."""
