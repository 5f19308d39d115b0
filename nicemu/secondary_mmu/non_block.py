"""Waiting in a callback that may be one that must not block.

The end of a range is not told whether it may (in 6.12 it is in the range's flags), so the thread is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nicemu.mm.locks import NON_BLOCK, Mutex
from nicemu.timeline.host import HostThread, Sleep


def may_block(thread: HostThread) -> bool:
    """Not inside ``non_block_start()``."""
    return NON_BLOCK not in thread.atomic


def lock(mutex: Mutex, thread: HostThread) -> Iterable[Any]:
    """``mutex_lock``, or ``mutex_trylock`` until it succeeds where nobody may block."""
    return mutex.acquire(thread) if mutex.spins or may_block(thread) else mutex.spin_acquire(thread)


def pause(thread: HostThread, ns: int) -> Any:
    """What to yield for ``ns``: a sleep, or CPU time where nobody may block."""
    return Sleep(ns) if may_block(thread) else ns
