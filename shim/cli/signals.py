"""What a verb does when it is to end while it has something of its own running."""

import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


@contextmanager
def answered(numbers: Collection[int], answer: Callable[[int], object]) -> Iterator[None]:
    """Have ``answer`` called with the number of a signal that comes meanwhile.

    Who started us may have had some ignored, as nohup does: those stay so.
    """
    before = {
        number: signal.signal(number, lambda number, _: answer(number))
        for number in numbers
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
