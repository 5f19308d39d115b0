"""Host threads as generators on a small scheduler whose choices can be steered and recorded.

A host thread (a verbs call, an interrupt handler, a page-fault worker, kswapd) yields what it waits for:

- an ``int``: CPU time in ns that passes while it works; never a sleep;
- :class:`Sleep`: it sleeps for so many ns;
- anything with ``subscribe(thread) -> bool`` (a :class:`Completion`, a lock): it sleeps until woken, unless the
  call says True (nothing to wait for). ``spins`` set on such an object says the thread burns CPU instead of sleeping.

A sleep while ``thread.atomic`` is not empty (a spinlock or an RCU read section is held) is what Linux reports as
"sleeping function called from invalid context"; the scheduler calls ``on_atomic_sleep`` and goes on, as Linux does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, TypeVar

from nicemu.tables.records import INFINITY

T = TypeVar("T")
Steps = Generator[Any, Any, T]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Sleep for ``ns`` nanoseconds. ``idle``: a daemon's pause; it alone keeps nothing running."""

    ns: int
    idle: bool = False


class Chooser:
    """Who runs next, and how much longer things take. The default is FIFO and no delay; subclasses explore.

    ``steers``: it wants to be asked. A schedule is the list of its answers.
    """

    steers = False

    def pick(self, ready: list[HostThread]) -> int:
        """Index of the thread to run."""
        return 0

    def stretch(self, kind: str) -> int:
        """Extra ns for a wait of this kind."""
        return 0


class SeededChooser(Chooser):
    """Random schedules from a seed; ``answers`` records them for :class:`ReplayChooser`."""

    steers = True

    def __init__(self, seed: int, longest_ns: int = 0) -> None:
        self.draw, self.longest_ns = random.Random(seed), longest_ns
        self.answers: list[int] = []

    def pick(self, ready: list[HostThread]) -> int:
        self.answers.append(self.draw.randrange(len(ready)))
        return self.answers[-1]

    def stretch(self, kind: str) -> int:
        if not self.longest_ns:
            return 0
        self.answers.append(self.draw.randrange(self.longest_ns))
        return self.answers[-1]


class ReplayChooser(Chooser):
    """The schedule that another chooser recorded.

    :raises ValueError: the run asks something that the recorded one did not: it is another program or version.
    """

    steers = True

    def __init__(self, answers: list[int], stretches: bool = False) -> None:
        self.answers, self.stretches, self.at = answers, stretches, 0

    def pick(self, ready: list[HostThread]) -> int:
        answer = self._next()
        if answer >= len(ready):
            raise ValueError(f"schedule: answer {self.at} picks thread {answer} of {len(ready)}")
        return answer

    def stretch(self, kind: str) -> int:
        return self._next() if self.stretches else 0

    def _next(self) -> int:
        if self.at == len(self.answers):
            raise ValueError(f"schedule: the run goes on after its {self.at} recorded choices")
        self.at += 1
        return self.answers[self.at - 1]


class Completion:
    """Something that happens once; ``yield completion`` waits for it and gives its value."""

    spins = False
    __slots__ = ("done", "holders", "scheduler", "value", "waiters", "what")

    def __init__(self, scheduler: Scheduler, what: str = "completion",
                 holders: Callable[[], Iterable[HostThread]] = tuple) -> None:  # fmt: skip
        self.scheduler, self.what = scheduler, what
        self.holders = holders
        """Host threads that it depends on, as far as known (:mod:`nicemu.timeline.hung_task`)."""
        self.done, self.value = False, None
        self.waiters: list[HostThread] = []

    def subscribe(self, thread: HostThread) -> bool:
        """Register a waiter; True if there is nothing to wait for."""
        if self.done:
            thread.send = self.value
            return True
        self.waiters.append(thread)
        return False

    def complete(self, value: Any = None) -> None:
        """It happened: wake all waiters at the present time."""
        self.done, self.value = True, value
        waiters, self.waiters = self.waiters, []
        for thread in waiters:
            self.scheduler.wake(thread, value)

    def __str__(self) -> str:
        return self.what


class HostThread:
    """One thread of the host: its generator and what the scheduler knows about it."""

    __slots__ = (
        "atomic", "context", "daemon", "error", "finished", "held", "idle", "joined", "name", "number", "result",
        "send", "since", "steps", "waits_for",
    )  # fmt: skip

    def __init__(self, name: str, steps: Steps[Any], daemon: bool = False, number: int = 0) -> None:
        self.name, self.steps, self.daemon, self.number = name, steps, daemon, number
        self.finished = self.joined = self.idle = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.send: Any = None
        self.waits_for: Any = None
        self.since = 0
        """When it began to wait for that, ns."""
        self.atomic: list[Any] = []
        """What forbids it to sleep, outermost first: spinlocks, RCU sections, a hardware interrupt."""
        self.held: list[Any] = []
        """All locks held, outermost first (for lockdep)."""
        self.context: list[str] = []
        """What it is doing, outermost first: operation, subscriber (for reports)."""


class Scheduler:
    """Runs host threads, one yield at a time, in (time, order) order unless the chooser says otherwise."""

    def __init__(self, clock: Callable[[], int], chooser: Chooser | None = None) -> None:
        self.clock = clock
        self.chooser = chooser or Chooser()
        self.now = 0
        """When the last step began: what ``clock()`` says while it lasts, since nothing in it takes time."""
        self.current: HostThread | None = None
        self.on_atomic_sleep: Callable[[HostThread, Any], None] = lambda thread, wait: None
        self.log: Callable[..., None] | None = None
        """Hears when threads that are no daemons begin, wait for something other than time, go on, and end."""
        self.lockdep: Any = None
        """The lock validator of what runs here (``mm.lockdep``), made by the first lock."""
        self.blocked: dict[int, HostThread] = {}
        """Threads that wait for something other than time, by number."""
        self.ready: list[tuple[int, int, HostThread]] = []
        """Threads that are ready or sleep for time, a heap by (time, order)."""
        self.pauses = 0
        """How many of them are in an idle pause."""
        self._order = count(1)
        self._threads = 0

    @property
    def chooser(self) -> Chooser:
        """Who decides what is left open."""
        return self._chooser

    @chooser.setter
    def chooser(self, chooser: Chooser) -> None:
        self._chooser, self._steered = chooser, chooser.steers

    def spawn(self, steps: Steps[Any], name: str, daemon: bool = False, delay: int = 0) -> HostThread:
        """Start a host thread ``delay`` ns from now. The delay is CPU time of its own: the same as a first step that
        yields it, for one step less, so a chooser may stretch it as well."""
        self._threads += 1
        thread = HostThread(name, steps, daemon, self._threads)
        if self.log is not None and not daemon:
            self.log("thread_start", thread=thread.number, name=name, delay=delay)
        if delay and self._steered:
            delay += self._chooser.stretch("cpu")
        now = self.clock() if self.current is None else self.now
        heappush(self.ready, (now + delay, next(self._order), thread))
        return thread

    def event(self, kind: str, **fields: int | str) -> None:
        """Log an event of the thread that runs; 0: the program itself."""
        if self.log is not None:
            self.log(kind, thread=self.current.number if self.current is not None else 0, **fields)

    def next_time(self) -> int:
        """When the next thread can run, ns; INFINITY if none is ready or sleeping."""
        return self.ready[0][0] if self.ready else INFINITY

    def threads(self) -> Iterator[HostThread]:
        """All that are not finished, in order of their numbers."""
        found = {thread.number: thread for _, _, thread in self.ready} | self.blocked
        if self.current is not None:
            found[self.current.number] = self.current
        return (found[number] for number in sorted(found))

    @property
    def active(self) -> bool:
        """Some thread is ready or sleeps for time, idle pauses of daemons aside."""
        return len(self.ready) > self.pauses

    def abandon(self, thread: HostThread) -> None:
        """Nobody waits for this thread any more: close it where it stands."""
        self.blocked.pop(thread.number, None)
        thread.steps.close()
        thread.finished = True
        self._ended(thread)

    def wake(self, thread: HostThread, value: Any = None) -> None:
        """Make a blocked thread ready now; its ``yield`` gives ``value``."""
        if self.blocked.pop(thread.number, None) and self.log is not None and not thread.daemon:
            self.log("thread_wake", thread=thread.number)
        thread.send, thread.waits_for = value, None
        now = self.clock() if self.current is None else self.now
        heappush(self.ready, (now, next(self._order), thread))

    @property
    def runnable(self) -> list[HostThread]:
        """Threads that are ready or sleep for time, idle pauses of daemons aside, in the order they are due."""
        return [item[2] for item in sorted(self.ready) if not item[2].idle]

    def run(self, thread: HostThread) -> None:
        """Run one yield of a runnable thread now, whenever it is due: an explorer lets waits be over at once."""
        self.ready[:] = [item for item in self.ready if item[2] is not thread]
        heapify(self.ready)
        self.step(self.clock(), thread)

    def step(self, now: int, thread: HostThread | None = None) -> None:
        """One yield of a thread that is ready at ``now``, the present time, or of ``thread``, which is not in the heap.
        A call trace ends here."""
        if thread is None:
            thread = self._choose(now) if self._steered else heappop(self.ready)[2]
            if thread.idle:
                thread.idle = False
                self.pauses -= 1
        self.current, self.now = thread, now
        value = thread.send
        if value is not None:
            thread.send = None
        try:
            wait = thread.steps.send(value)
        except StopIteration as stop:
            thread.finished, thread.result = True, stop.value
            if self.log is not None:
                self._ended(thread)
        except BaseException as error:
            thread.finished, thread.error = True, error
            self._ended(thread)
            if not thread.joined:
                raise
        else:
            if type(wait) is int:
                if self._steered:
                    wait += self._chooser.stretch("cpu")
                heappush(self.ready, (now + wait, next(self._order), thread))
            else:
                self._wait(thread, wait, now)
        finally:
            self.current = None

    def _wait(self, thread: HostThread, wait: Any, now: int) -> None:
        if thread.atomic and not getattr(wait, "spins", False):
            self.on_atomic_sleep(thread, wait)
        if type(wait) is Sleep:
            thread.idle = wait.idle
            self.pauses += wait.idle
            time = now + wait.ns + self._chooser.stretch("sleep")
            heappush(self.ready, (time, next(self._order), thread))
        elif wait.subscribe(thread):
            heappush(self.ready, (now, next(self._order), thread))
        else:
            thread.waits_for, thread.since = wait, now
            self.blocked[thread.number] = thread
            if self.log is not None and not thread.daemon:
                self.log("thread_wait", thread=thread.number, what=str(wait))

    def _ended(self, thread: HostThread) -> None:
        if self.log is not None and not thread.daemon:
            self.log("thread_end", thread=thread.number, failed=int(thread.error is not None))

    def _choose(self, until: int) -> HostThread:
        """The chooser's pick of the threads that are ready."""
        ready = [heappop(self.ready)]
        while self.ready and self.ready[0][0] <= until:
            ready.append(heappop(self.ready))
        index = self._chooser.pick([item[2] for item in ready]) if len(ready) > 1 else 0
        first = ready.pop(index)
        for item in ready:
            heappush(self.ready, item)
        return first[2]
