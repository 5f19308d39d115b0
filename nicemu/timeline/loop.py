"""The only loop that moves time: compiled device events up to the next host thread, then one yield of that thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from nicemu.tables.records import INFINITY, Stop
from nicemu.timeline.clock import VirtualClock
from nicemu.timeline.host import HostThread, Scheduler, Steps
from nicemu.timeline.hung_task import chain, deadlock_lines

DEADLINE, INTERRUPT, CQE, IDLE = (int(stop) for stop in (Stop.DEADLINE, Stop.INTERRUPT, Stop.CQE, Stop.IDLE))
RAN = DEADLINE, IDLE
"""Stops of an engine that came as far as it was to."""
VAIN_POLLS = 10_000
"""Polls in vain, with nothing left to run, after which the only thread of a program hears so; it goes on."""
IDLE_POLLS = 1000
"""Polls in vain, with nothing left to run and somebody stuck, after which a program that only polls is told."""


class Quiescent(Exception):
    """A blocking call has nothing left to wait for. The message says who waits for what."""


class HungTask(Quiescent):
    """Something has waited longer than the watchdog allows while other things went on. The message says who."""


class Engine(Protocol):
    """The compiled side, as the loop sees it."""

    def enter(self) -> None:
        """The program ran since the last call: it may have changed its own memory."""

    def run(self, until: int) -> int:
        """Run device events at times <= ``until``, in (time, sequence) order: why it stops, a ``Stop``."""

    def idle(self) -> bool:
        """No device event is left to run."""

    def interrupts(self) -> Iterable[Any]:
        """MSI-X messages raised since the last call."""

    def error(self, stop: int) -> Exception:
        """What went wrong."""

    def set_time(self, time: int) -> None:
        """Move the clock forward to ``time`` ns."""


class Timeline:
    """Device and host on one clock. ``deliver`` receives interrupts and makes handlers ready."""

    def __init__(
        self,
        engine: Engine,
        host: Scheduler,
        deliver: Callable[[Iterable[Any]], None],
        clock: VirtualClock | Any = None,
    ) -> None:
        self.engine, self.host, self.deliver = engine, host, deliver
        self.clock = clock or VirtualClock()
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.program_threads: set[int] = set()
        """Threads of the program that made calls: with several, the order of their calls is not ours to choose."""
        self.waiting: set[int] = set()
        """Program threads inside a blocking call with nothing left to run."""
        self.program_waits: dict[int, tuple[str, int]] = {}
        """What they wait for and since when, ns, unless a host thread does the waiting for them."""
        self.explain: Callable[[], list[str]] = list
        """Lines about devices for the report of a stall: interrupts that did not come and the like."""
        self.stuck: Callable[[], bool] = lambda: False
        """With nothing left to run: somebody waits for what can no longer come."""
        self.untold: Callable[[], bool] = lambda: False
        """With nothing left to run: a device will never do what it was asked, or was not told of it. Seldom asked."""
        self.alarm: Callable[[str], None] = lambda text: None
        """Hears each report of a stall, before anybody catches its exception."""
        self.note: Callable[[str], None] = lambda text: None
        """Hears, once, that a program polls although nothing is left to run: that may be meant so."""
        self._idle_polls = self._stuck_polls = 0
        self._rests = False
        """The last poll found nothing left to run and nobody stuck, and nothing has run since."""

    def advance(self, done: Callable[[], bool], deadline: int = INFINITY) -> bool:
        """Run until ``done()``; False when nothing is left to run or ``deadline`` (ns) came first."""
        engine, host = self.engine, self.host
        run, set_time, ready = engine.run, engine.set_time, host.ready
        engine.enter()
        self._rests = False
        limit = min(deadline, self.clock.limit())
        while not done():
            due = ready[0][0] if ready else INFINITY
            stop = run(due if due < limit else limit)
            if stop in RAN:
                if stop == IDLE and len(ready) == host.pauses:
                    return False
                if not ready or due > limit:
                    if limit < INFINITY:
                        set_time(limit)
                    return False
                set_time(due)
                host.step(due)
            elif stop == INTERRUPT:
                self.deliver(engine.interrupts())
            elif stop != CQE:
                raise engine.error(stop)
        return True

    def pass_time(self, ns: int) -> None:
        """Let exactly ``ns`` pass, running what falls into them."""
        end = self.host.clock() + ns
        self.advance(lambda: False, end)
        if self.clock.limit() >= end:
            self.engine.set_time(end)

    def call(self, steps: Steps[Any], name: str) -> Any:
        """Run a host thread to its end and give its result; its exception is raised here."""
        with self.lock:
            self.program_threads.add(threading.get_ident())
            thread = self.host.spawn(steps, name)
            thread.joined = True
            try:
                self.wait(lambda: thread.finished, thread)
            except BaseException:
                self.host.abandon(thread)
                raise
            self.changed.notify_all()
            if thread.error is not None:
                raise thread.error
            return thread.result

    def wait(self, done: Callable[[], bool], what: Any = None) -> None:
        """Advance until ``done()``. With nothing left to run, wait for another program thread's call.

        :raises Quiescent: every live program thread is inside such a wait.
        """
        since = self.host.clock()
        with self.lock:
            while not self.advance(done):
                me = threading.get_ident()
                self.waiting.add(me)
                if not isinstance(what, HostThread):
                    self.program_waits[me] = str(what), since
                try:
                    if not self._others_may_act():
                        self.changed.notify_all()
                        raise self._stall()
                    if self.stuck():
                        self.alarm(self.who_waits())
                    self.changed.wait(0.05)
                finally:
                    self.waiting.discard(me)
                    self.program_waits.pop(me, None)
            self.changed.notify_all()

    def poll(self, done: Callable[[], bool], quantum_ns: int) -> bool:
        """Advance until ``done()``, at most ``quantum_ns``; False: not done.

        :raises Quiescent: for the last :data:`IDLE_POLLS` calls nothing was left to run, and somebody is stuck.
        """
        deadline = self.host.clock() + quantum_ns
        if self.advance(done, deadline):
            self._stuck_polls = self._idle_polls = 0
            return True
        at_rest = self.host.clock() < min(deadline, self.clock.limit())
        self._idle_polls = self._idle_polls + 1 if at_rest else 0
        self._stuck_polls = self._stuck_polls + 1 if at_rest and self.stuck() else 0
        if self._stuck_polls == 1:
            self.alarm(self.who_waits())
        is_untold = self._idle_polls and self._idle_polls % IDLE_POLLS == 0 and self.untold()
        if self._stuck_polls >= IDLE_POLLS or is_untold:
            raise self._stall()
        if self._idle_polls == VAIN_POLLS and not self._others_may_act():
            self.note(self.who_waits(f"{VAIN_POLLS:,} polls in vain and nothing left to run"))
        self._rests = at_rest and not self._stuck_polls and self.clock.limit() == INFINITY
        return False

    def polls_in_vain(self) -> bool:
        """A poll of an empty CQ is in vain, and counted: everything rests as the last one left it. Programs poll in
        loops, so this is the short way; each :data:`IDLE_POLLS` th poll is told to go the long one, which asks who
        is stuck."""
        if not self._rests or not self.engine.idle() or self.host.active or (self._idle_polls + 1) % IDLE_POLLS == 0:
            return False
        self._idle_polls += 1
        return True

    def _stall(self) -> Quiescent:
        text = self.who_waits()
        self.alarm(text)
        return Quiescent(text)

    def _others_may_act(self) -> bool:
        alive = {thread.ident for thread in threading.enumerate() if not thread.daemon}
        return bool(alive - self.waiting)

    def who_waits(self, why: str = "nothing left to run") -> str:
        """Who waits for whom since when, in one line, and below it the deadlocks and what ``explain`` knows."""
        blocked = [thread for thread in self.host.blocked.values() if not thread.daemon]
        waits = [f"{thread.name} waits for {_wait(thread)}" for thread in blocked]
        waits += [f"{what} since {since} ns" for what, since in self.program_waits.values()]
        head = f"{why} at {self.host.clock()} ns: " + ("; ".join(waits) or "nobody waits")
        return "\n  ".join([head, *deadlock_lines(self.host), *self.explain()])


def _wait(thread: HostThread) -> str:
    """``umem_mutex since 5 ns, held by b``."""
    what = str(thread.waits_for)
    return f"{what} since {thread.since} ns{chain(thread).removeprefix(what)}"
