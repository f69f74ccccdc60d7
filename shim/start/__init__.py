"""The container start path: standard library only, nothing heavy at import."""
