"""What several verbs print: tables, rows, diffs, and how far a long job is."""

import sys
import textwrap
import time
from collections.abc import Callable, Sequence

from shim.errors import ShimError, counted, printable

_TIMES = 3

# The least that a column at the end is wrapped to; with less room it has lines of its own.
_NARROW = 24


def screen() -> int:
    """Return how wide the terminal is that standard output goes to; 0: it goes to no terminal."""
    if not sys.stdout.isatty():
        return 0
    import shutil

    return shutil.get_terminal_size().columns


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows laid out in columns; on a terminal those that do not fit are wrapped.

    What has no room beside the others is below them, indented. To a program a row is a line.
    """
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    total = screen()
    beside, used = len(head), sum(widths) + 2 * (len(widths) - 1)
    if total and used > total and used - widths[-1] > total - _NARROW:
        while beside > 1 and used > total:
            beside -= 1
            used -= widths[beside] + 2
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:beside], widths, strict=False)]
        line = "  ".join(padded).rstrip()
        if total and beside == len(head):
            line = _filled(line, total, used - widths[-1], first="")
        below = (
            _filled(cell, total, 4, first="    ") for cell in row[beside:] if cell not in ("", "-")
        )
        lines += [line, *below]
    return "".join(f"{line}\n" for line in lines)


def _filled(text: str, width: int, indent: int, *, first: str) -> str:
    """Wrap a text between words: whole paths can still be copied."""
    if len(first + text) <= width:
        return first + text
    if not first:  # not all through textwrap: it would break between columns, too
        first, text = text[:indent], text[indent:]
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def row(label: str, text: str, width: int = 10, *, columns: int = 0) -> None:
    """Print a line of what is known of one thing: what is told, and what there is to tell.

    With ``columns`` it is wrapped there; a path that is longer stays in one piece.
    """
    line = printable(f"{label:{width}} {text}")
    if columns:
        below = " " * (width + 1)
        line = textwrap.fill(
            line, columns, subsequent_indent=below, break_on_hyphens=False, break_long_words=False
        )
    print(line)


def write_diff(diff: str, *, escaped: bool = False) -> None:
    """Print a diff: byte for byte to a program that takes it, without escapes on a terminal."""
    if escaped or sys.stdout.isatty():
        # What is shown may be another user's file.
        diff = "".join(char if char in "\n\t" else printable(char) for char in diff)
    sys.stdout.flush()
    sys.stdout.buffer.write(diff.encode())
    sys.stdout.buffer.flush()


def bar(total: int, noun: str = "file", nouns: str = "") -> Callable[[int], None]:
    """Return what shows on a terminal's standard error how many of ``total`` are done."""
    if not sys.stderr.isatty() or not total:
        return lambda _: None
    import shutil

    began = time.monotonic()
    width = min(40, max(10, shutil.get_terminal_size().columns - 40))

    def show(count: int) -> None:
        full = width * count // total
        seconds = time.monotonic() - began
        done = f"{count} of {counted(total, noun, nouns)}"
        line = f"\r[{'#' * full}{'.' * (width - full)}] {done}, {seconds:.1f} s"
        sys.stderr.write(line + ("\n" if count >= total else ""))
        sys.stderr.flush()

    show(0)
    return show


def agreed(question: str, *, yes: bool) -> bool:
    """Ask on the terminal unless ``yes`` was said already; only a yes is one.

    ShimError: there is no terminal.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ShimError("nobody can be asked here", hint="--yes changes without asking")
    return answer(question, usual=False) is True


def answer(question: str, *, usual: bool) -> bool | None:
    """Ask on the terminal; ``usual`` is what no word means. None: no clear answer was given."""
    words = {"y": True, "yes": True, "n": False, "no": False, "": usual}
    for _ in range(_TIMES):
        sys.stderr.write(f"{question} [{'Y/n' if usual else 'y/N'}] ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:  # end of file: the cursor is still behind the question
            sys.stderr.write("\n")
            return None
        if (word := line.strip().lower()) in words:
            return words[word]
        sys.stderr.write("please answer y or n\n")
    return None
