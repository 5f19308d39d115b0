"""How processes of the command line end: with what started them, and so that what they started ends too."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # not loaded in a child that was forked


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def raise_on_sigterm() -> None:
    """SIGTERM becomes an exception, with the status that shells give it: guests end, the terminal is restored."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(_number: int, _frame: object) -> None:
    sys.exit(128 + signal.SIGTERM)
