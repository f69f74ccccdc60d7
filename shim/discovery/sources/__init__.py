"""Where profiles are looked for: one file a kind of place."""
