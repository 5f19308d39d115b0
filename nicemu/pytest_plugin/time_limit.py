"""A time limit for one test: it fails with who waits for whom, and the tests after it go on."""

import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import pytest

AGAIN = 1.0  # seconds until it is said once more to a test that caught it


class TimeLimit:
    """Fails what runs inside `with` when it has taken longer than `seconds` altogether (0: no limit).

    Uses SIGALRM, so it works in the main thread only; elsewhere there is no limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._left = seconds
        self._began = 0.0
        self._before: Any = None

    def __enter__(self) -> "TimeLimit":
        if self.seconds and threading.current_thread() is threading.main_thread():
            self._began = time.monotonic()
            self._before = signal.signal(signal.SIGALRM, self._expire)
            signal.setitimer(signal.ITIMER_REAL, max(self._left, 0.001), AGAIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
            self._before = None
            self._left -= time.monotonic() - self._began

    def _expire(self, _signal: int, _frame: FrameType | None) -> None:
        self.expired = True
        pytest.fail(f"nicemu: the test took longer than {self.seconds:g} s: {who_waits()}")


def who_waits() -> str:
    """Who waits for whom in the lab of this process."""
    session = sys.modules.get("nicemu.uverbs.session")
    lab = session.current() if session is not None else None
    if lab is None:
        return "no lab is open"
    try:
        text: str = lab.watchdog.interrupted()
    except Exception as error:  # the signal came while something was being changed
        return f"who waits for whom cannot be told ({type(error).__name__}: {error})"
    return text
