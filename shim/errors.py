"""The one kind of error that a user is meant to read, its words, and the decision to do nothing."""


class ShimError(Exception):
    """What failed, on what, and what to do next: one line, exit status 2, never a traceback.

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


class LeftAlone(Exception):  # noqa: N818 - a decision, not an error
    """There is nothing to do; the message says why."""


def printable(text: str) -> str:
    """Show ``text`` on one line, control characters (a terminal escape) as backslash escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def counted(number: int, noun: str, nouns: str = "") -> str:
    """Return ``1 file``, ``2 files``; ``nouns`` where no s makes the plural."""
    return f"{number} {noun if number == 1 else nouns or f'{noun}s'}"


def one_line(error: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, ShimError):
        line = str(error)
    elif isinstance(error, OSError):
        line = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        # A defect of ours; on a thousand hosts one line of it is of more use than its traceback.
        line = f"{type(error).__name__}: {error} ({_place(error)})"
    return printable(line)


def _place(error: BaseException) -> str:
    """Name the innermost place in the source that an error comes from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown place"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
