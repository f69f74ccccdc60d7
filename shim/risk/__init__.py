"""What the calls of this kernel meet in the filters of this host's live processes."""
