"""Waiting outside our calls: where a program blocks in Python, the timeline runs at that program point.

``install`` wraps ``time.sleep``, ``Thread.join``, ``Condition.wait`` (and so events and queues), ``select`` and the
selectors, ``os.read`` and ``os.waitpid``. A sleep passes virtual time and costs no real time while the program has one
thread. What blocks in C is left to the wall-clock pump, which acts only when every program thread has been asleep in
the kernel for 50 ms with device work pending; each firing is counted, since it makes the history depend on real time.

Left out: raw ``_thread`` locks (the pump covers them), signals.
"""

from __future__ import annotations

import functools
import os
import select
import selectors
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nicemu.uverbs import session

SECOND_NS = 1_000_000_000
LIMIT_NS = 10 * SECOND_NS
"""Virtual time a wait without time limit may pass before the real wait begins."""
PUMP_AFTER_S = 0.05
PUMP_NS = 10_000_000
_real_sleep = time.sleep


def _timeline() -> Any:
    """The timeline if there is a lab that this process owns and the caller is outside our calls."""
    lab = session.current()
    if lab is None or lab.endpoint.forked or lab.scheduler.current is not None:
        return None
    return lab.timeline


def settle(done: Callable[[], bool] = lambda: False, limit_ns: int = LIMIT_NS) -> None:
    """Run the timeline until ``done()``, nothing is left to run, or ``limit_ns`` passed."""
    if _timeline() is not None:
        session.current().endpoint.settle(done, limit_ns)


def _sleep(seconds: Any) -> None:
    """Virtual time passes; real time only if another thread of the program may need it."""
    timeline = _timeline()
    if timeline is None or seconds < 0:
        _real_sleep(seconds)
        return
    session.current().endpoint.enter(lambda: timeline.pass_time(round(seconds * SECOND_NS)))
    others = [thread for thread in threading.enumerate() if not thread.daemon]
    _real_sleep(seconds if len(others) > 1 else 0)


def _before(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, after the timeline has settled."""

    @functools.wraps(function)
    def wait(*args: Any, **kwargs: Any) -> Any:
        settle()
        return function(*args, **kwargs)

    return wait


def _ready(fds: list[int]) -> bool:
    return bool(fds) and bool(_real_select(fds, [], [], 0)[0])


_real_select = select.select
_real_read = os.read


def _select(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None) -> Any:
    """``select.select``: the time limit is virtual while device work is pending."""
    limit = LIMIT_NS if timeout is None else round(timeout * SECOND_NS)
    settle(lambda: any(_real_select(rlist, wlist, xlist, 0)), limit)
    found = _real_select(rlist, wlist, xlist, 0)
    if any(found) or timeout == 0:
        return found
    return _real_select(rlist, wlist, xlist, timeout)


def _selector(real: Callable[..., Any]) -> Callable[..., Any]:
    """``Selector.select`` likewise."""

    @functools.wraps(real)
    def select_events(self: Any, timeout: float | None = None) -> Any:
        limit = LIMIT_NS if timeout is None else max(0, round(timeout * SECOND_NS))
        settle(lambda: bool(real(self, 0)), limit)
        return real(self, 0) or real(self, timeout)

    return select_events


def _read(fd: int, length: int) -> bytes:
    """``os.read``: of one of our event files, run the timeline until it is readable."""
    lab = session.current()
    if lab is not None and fd in lab.endpoint.event_fds():
        settle(lambda: _ready([fd]))
    return _real_read(fd, length)


def install() -> None:
    """Wrap the points where Python blocks, and start the pump."""
    time.sleep = _sleep
    threading.Thread.join = _before(threading.Thread.join)  # type: ignore[method-assign]
    threading.Condition.wait = _outside_only(threading.Condition.wait)  # type: ignore[method-assign]
    os.waitpid = _before(os.waitpid)
    select.select = _select
    for kind in ("SelectSelector", "PollSelector", "EpollSelector"):
        cls = getattr(selectors, kind, None)
        if cls is not None:
            cls.select = _selector(cls.select)
    os.read = _read
    threading.Thread(target=_pump, name="nicemu-pump", daemon=True).start()


def _outside_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """``Condition.wait`` settles first, except on the timeline's own condition."""

    @functools.wraps(function)
    def wait(self: Any, timeout: float | None = None) -> Any:
        timeline = _timeline()
        if timeline is not None and self is not timeline.changed:
            settle()
        return function(self, timeout)

    return wait


# The pump -------------------------------------------------------------------------------------------------------------


def _asleep(thread: int | None) -> bool:
    """A thread sleeps in the kernel (state S in /proc)."""
    try:
        stat = Path(f"/proc/self/task/{thread}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "S"


def _pump() -> None:
    """Fallback for blocking in C: see the module's text."""
    quiet = 0
    while True:
        _real_sleep(PUMP_AFTER_S / 5)
        lab = session.current()
        if lab is None or lab.endpoint.forked or not lab.pending:
            quiet = 0
            continue
        me = threading.get_native_id()
        threads = [t.native_id for t in threading.enumerate() if t.native_id != me and not t.daemon]
        quiet = quiet + 1 if all(_asleep(thread) for thread in threads) else 0
        if quiet >= 5:
            quiet = 0
            lab.pumped += 1
            lab.endpoint.settle(lambda: False, PUMP_NS)
