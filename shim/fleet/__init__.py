"""Many profiles: found, planned, changed in groups, taken back, and a journal of all that."""
