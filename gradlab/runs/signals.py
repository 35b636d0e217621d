"""Ctrl-C, SIGTERM and SIGHUP end a run once: while it tidies up, further ones change nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


@contextmanager
def one_interruption() -> Iterator[None]:
    """Inside, the first of these signals raises KeyboardInterrupt or Terminated, and the others are ignored.

    A second Ctrl-C, which people send, would otherwise arrive in the middle of what the first one set off. Signals
    that were ignored before stay so, as under nohup. The handlers come back afterwards.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return
    taken = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]

    ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        if not ended:
            ended = True
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    before = {number: signal.getsignal(number) for number in taken}
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
