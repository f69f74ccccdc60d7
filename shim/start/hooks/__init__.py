"""The OCI hooks: prestart, precreate, poststart. Standard library only."""
