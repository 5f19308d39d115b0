"""Modelled locks, as objects that host threads use with ``yield from lock.acquire(thread)``.

``thread.atomic`` lists the spinlocks and RCU sections a thread is in, ``thread.held`` all its locks. Sleeping while
``atomic`` is not empty is recorded as Linux's ``__might_sleep`` does ("BUG: sleeping function called from invalid
context"), one :class:`Report` per (operation, lock, subscriber). Ownership is handed over first come first served, so
schedules are deterministic.

Left out: priorities, lock inversions (lockdep), trylock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from nicemu.timeline.host import Completion, HostThread, Scheduler, Sleep, Steps

SUBSCRIBER = "notifier:"
"""Prefix of the ``thread.context`` entry of a notifier callback."""


@dataclass(slots=True)
class Report:
    """A sleep in atomic context: which mm operation, under which lock, in whose callback."""

    operation: str
    lock: str
    subscriber: str
    context: tuple[str, ...]
    sleeps_in: str
    count: int = 1

    def __str__(self) -> str:
        return (
            f"BUG: sleeping function called from invalid context: {self.subscriber or 'mm'} sleeps in {self.sleeps_in}"
            f" during {self.operation}, {self.lock} held ({' > '.join(self.context)}; {self.count} times)"
        )


@dataclass(slots=True)
class Reports:
    """The reports of one host, in order of first occurrence."""

    found: dict[tuple[str, str, str], Report] = field(default_factory=dict)

    def record(self, thread: HostThread, lock: str, wait: Any) -> None:
        """Count a sleep of ``thread`` under ``lock``."""
        operation = subscriber = ""
        for entry in thread.context:
            if entry.startswith(SUBSCRIBER):
                subscriber = entry.removeprefix(SUBSCRIBER)
            else:
                operation, subscriber = entry, ""
        key = operation, lock, subscriber
        if key in self.found:
            self.found[key].count += 1
        else:
            self.found[key] = Report(*key, tuple(thread.context), "sleep" if isinstance(wait, Sleep) else str(wait))


def report_atomic_sleep(thread: HostThread, wait: Any) -> None:
    """``Scheduler.on_atomic_sleep``. Of several reasons the most specific is named: the last spinlock, else RCU."""
    lock = next((lock for lock in reversed(thread.atomic) if isinstance(lock, SpinLock)), thread.atomic[-1])
    lock.reports.record(thread, lock.name, wait)


def might_sleep(thread: HostThread, what: Any) -> None:
    """``might_sleep()``: report if a sleep here would be wrong, whether or not it happens."""
    if thread.atomic:
        report_atomic_sleep(thread, what)


@dataclass(slots=True)
class _Wait:
    """What a thread yields to wait for a lock; woken when it owns it."""

    lock: Any
    spins: bool = False
    write: bool = True
    thread: HostThread | None = None

    def subscribe(self, thread: HostThread) -> bool:
        """Queue up."""
        self.thread = thread
        self.lock.waiters.append(self)
        return False

    def __str__(self) -> str:
        return str(self.lock.name)


def _drop(entries: list[Any], lock: Any) -> None:
    """Remove the last occurrence."""
    for i in range(len(entries) - 1, -1, -1):
        if entries[i] is lock:
            del entries[i]
            return
    raise AssertionError(f"{lock.name} released by a thread that does not hold it")


class Mutex:
    """``struct mutex``: a sleeping lock."""

    spins = False

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler, self.name = scheduler, name
        self.owner: HostThread | None = None
        self.waiters: deque[_Wait] = deque()

    def acquire(self, thread: HostThread) -> Steps[None]:
        """``mutex_lock`` (``spin_lock`` of a :class:`SpinLock`)."""
        assert self.owner is not thread, f"{self.name} is taken twice by {thread.name}"
        if self.owner is not None:
            yield _Wait(self, self.spins)
        else:
            if not self.spins and thread.atomic:
                report_atomic_sleep(thread, self.name)
            self.owner = thread
        thread.held.append(self)
        if self.spins:
            thread.atomic.append(self)

    def release(self, thread: HostThread) -> None:
        """``mutex_unlock``: the first waiter owns it now."""
        assert self.owner is thread, f"{self.name} released by {thread.name}, which does not hold it"
        _drop(thread.held, self)
        if self.spins:
            _drop(thread.atomic, self)
        self.owner = None
        if self.waiters:
            self.owner = self.waiters.popleft().thread
            assert self.owner is not None
            self.scheduler.wake(self.owner)

    def __str__(self) -> str:
        return self.name


class SpinLock(Mutex):
    """``spinlock_t``: waiters burn CPU, holders must not sleep."""

    spins = True

    def __init__(self, scheduler: Scheduler, name: str, reports: Reports) -> None:
        super().__init__(scheduler, name)
        self.reports = reports


class RwSemaphore:
    """``struct rw_semaphore`` (``mmap_lock``): readers together, a waiting writer holds back later readers."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler, self.name = scheduler, name
        self.writer: HostThread | None = None
        self.readers = 0
        self.waiters: deque[_Wait] = deque()

    def acquire_read(self, thread: HostThread) -> Steps[None]:
        """``down_read``."""
        if self.writer is not None or self.waiters:
            yield _Wait(self, write=False)
        else:
            might_sleep(thread, self.name)
            self.readers += 1
        thread.held.append(self)

    def try_acquire_read(self, thread: HostThread) -> bool:
        """``down_read_trylock``: False if a writer has it or waits for it."""
        if self.writer is not None or self.waiters:
            return False
        self.readers += 1
        thread.held.append(self)
        return True

    def acquire_write(self, thread: HostThread) -> Steps[None]:
        """``down_write``."""
        if self.writer is not None or self.readers:
            yield _Wait(self)
        else:
            might_sleep(thread, self.name)
            self.writer = thread
        thread.held.append(self)

    def release(self, thread: HostThread) -> None:
        """``up_read`` or ``up_write``; whoever is first goes on, and readers queued behind a reader with it."""
        _drop(thread.held, self)
        if self.writer is thread:
            self.writer = None
        else:
            self.readers -= 1
        while self.waiters and self.writer is None:
            wait = self.waiters[0]
            assert wait.thread is not None
            if wait.write:
                if self.readers:
                    return
                self.writer = wait.thread
            else:
                self.readers += 1
            self.waiters.popleft()
            self.scheduler.wake(wait.thread)

    def __str__(self) -> str:
        return self.name


class RcuRead:
    """``rcu_read_lock()`` sections; nothing waits for them in the model."""

    def __init__(self, reports: Reports) -> None:
        self.name, self.reports = "rcu_read_lock", reports

    def enter(self, thread: HostThread) -> None:
        """``rcu_read_lock``."""
        thread.atomic.append(self)

    def exit(self, thread: HostThread) -> None:
        """``rcu_read_unlock``."""
        _drop(thread.atomic, self)

    def __str__(self) -> str:
        return self.name


class Srcu:
    """One SRCU domain: readers may sleep; :meth:`synchronize` waits for those that run."""

    def __init__(self, scheduler: Scheduler, name: str = "srcu") -> None:
        self.scheduler, self.name = scheduler, name
        self.readers: dict[int, Completion] = {}
        self._next = 0

    def enter(self, thread: HostThread) -> int:
        """``srcu_read_lock``: gives the index that :meth:`exit` takes."""
        self._next += 1
        self.readers[self._next] = Completion(self.scheduler, self.name)
        return self._next

    def exit(self, index: int) -> None:
        """``srcu_read_unlock``."""
        self.readers.pop(index).complete()

    def synchronize(self) -> Steps[None]:
        """``synchronize_srcu``: until every section that runs now has ended."""
        yield from list(self.readers.values())
