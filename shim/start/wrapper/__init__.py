"""The OCI runtime wrapper, between an engine and its runtime. Standard library only."""
