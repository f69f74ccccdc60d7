"""The one error that a user of the lab sees."""


class LabError(Exception):
    """Something that the lab needs is missing or did not work."""
