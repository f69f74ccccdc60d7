"""The one kind of error that a user is meant to read."""


class ShimError(Exception):
    """What failed, on what, and what to do next: one line, exit code 2, never a traceback.

    ``subject`` is the file, process or name it failed on; ``hint`` is the next thing to do.
    """

    def __init__(self, message: str, *, subject: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.hint = hint

    def __str__(self) -> str:
        line = f"{self.subject}: {self.message}" if self.subject else self.message
        return printable(f"{line} ({self.hint})" if self.hint else line)


def printable(text: str) -> str:
    """Show ``text`` on one line, control characters (a terminal escape) as backslash escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
