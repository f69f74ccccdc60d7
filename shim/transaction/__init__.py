"""Files changed on one host: planned, committed in groups, journalled, rolled back."""
