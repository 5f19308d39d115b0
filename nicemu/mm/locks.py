"""Modelled locks, as objects that host threads use with ``yield from lock.acquire(thread)``.

``thread.atomic`` lists what forbids a thread to sleep (spinlocks, :class:`AtomicSection`), ``thread.held`` all its
locks. Sleeping while ``atomic`` is not empty is reported as Linux's ``__might_sleep`` does, and each lock tells the
validator (``lockdep.py``, which also has the order that is meant) before it waits. Ownership is handed over first come
first served, so schedules are deterministic. A lock taken twice by its owner is reported, and then waited for for ever,
as on a real machine.

Left out: priorities.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nicemu.mm.lockdep import LockMap, Tried, drop, lockdep_of
from nicemu.timeline.host import Completion, HostThread, Scheduler, Steps


@dataclass(frozen=True, slots=True)
class AtomicSection:
    """A section without sleep that is no lock; nothing waits for it."""

    name: str
    spins = False

    def enter(self, thread: HostThread) -> None:
        """From here on no sleep."""
        thread.atomic.append(self)

    def exit(self, thread: HostThread) -> None:
        """The innermost section of this kind ends."""
        drop(thread.atomic, self)

    def __str__(self) -> str:
        return self.name


RCU_READ = AtomicSection("rcu_read_lock")
"""``rcu_read_lock()``."""
NON_BLOCK = AtomicSection("non_block_start")
"""``non_block_start()``: callbacks of an invalidation that must not block."""
HARDIRQ = AtomicSection("hardirq")
"""``irq_enter()``: the host thread is the handler of a hardware interrupt."""


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

    def holders(self) -> Iterable[HostThread]:
        """Who has to release it."""
        held: Iterable[HostThread] = self.lock.holders()
        return held

    def __str__(self) -> str:
        return str(self.lock.name)


class Mutex:
    """``struct mutex``: a sleeping lock."""

    how = "mutex_lock"

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler, self.name, self.spins = scheduler, name, False
        self.lockdep = lockdep_of(scheduler)
        self.lock_class = self.lockdep.lock_class(name)
        self._before = self.lock_class.before
        self.owner: HostThread | None = None
        self.waiters: deque[_Wait] = deque()

    def acquire(self, thread: HostThread) -> Iterable[Any]:
        """``mutex_lock`` (``spin_lock`` of a :class:`SpinLock`): what is left to ``yield from``, nothing if it was
        free."""
        held, lockdep = thread.held, self.lockdep
        if (held[-1].lock_class if held else None) not in self._before:
            lockdep.depends(thread, self, self.how)
        if self.owner is not None or lockdep.preempts:
            return self.lock_slowpath(thread)
        if self.spins:
            thread.atomic.append(self)
        elif thread.atomic:
            lockdep.atomic_sleep(thread, self.name)
        self.owner = thread
        held.append(self)
        if lockdep.observer is not None:
            lockdep.observer("lock", self, thread)
        return ()

    def passes(self, thread: HostThread) -> bool:
        """Of a section that neither waits nor takes another lock: True if it need not take this one. Nobody has it or
        wants to hear of it, nobody can come in between, and the validator has seen it taken here."""
        held, lockdep = thread.held, self.lockdep
        if self.owner is not None or lockdep.preempts or lockdep.observer is not None:
            return False
        return (held[-1].lock_class if held else None) in self._before

    def lock_slowpath(self, thread: HostThread) -> Steps[None]:
        """:meth:`acquire` of a lock that somebody has, or where others may come first."""
        if self.lockdep.preempts:
            yield 0
        if self.owner is not None:
            yield _Wait(self, self.spins)
        elif thread.atomic and not self.spins:
            self.lockdep.atomic_sleep(thread, self.name)
        self._own(thread, self)

    def spin_acquire(self, thread: HostThread) -> Steps[None]:
        """``mutex_trylock`` over and over: burns CPU until the lock is free, and never sleeps."""
        self.lockdep.might_lock(thread, self, "mutex_trylock")
        if self.owner is not None:
            yield _Wait(self, spins=True)
        self._own(thread, self)

    def try_acquire(self, thread: HostThread) -> bool:
        """``mutex_trylock``, ``spin_trylock``: False if somebody has it."""
        if self.owner is not None:
            return False
        self._own(thread, Tried(self))
        return True

    def _own(self, thread: HostThread, entry: Any) -> None:
        """The thread has it; ``entry``: how its list of locks says so."""
        self.owner = thread
        thread.held.append(entry)
        if self.spins:
            thread.atomic.append(self)
        if self.lockdep.observer is not None:
            self.lockdep.observer("lock", self, thread)

    def release(self, thread: HostThread) -> None:
        """``mutex_unlock``: the first waiter owns it now."""
        assert self.owner is thread, f"{self.name} released by {thread.name}, which does not hold it"
        held = thread.held
        if held[-1] is self:
            held.pop()
        else:
            drop(held, self)
        if self.spins:
            if thread.atomic[-1] is self:
                thread.atomic.pop()
            else:
                drop(thread.atomic, self)
        self.owner = None
        if self.lockdep.observer is not None:
            self.lockdep.observer("unlock", self, thread)
        if self.waiters:
            self.owner = self.waiters.popleft().thread
            assert self.owner is not None
            self.scheduler.wake(self.owner)

    def holders(self) -> list[HostThread]:
        """Its owner."""
        return [self.owner] if self.owner is not None else []

    def __str__(self) -> str:
        return self.name


class SpinLock(Mutex):
    """``spinlock_t``: waiters burn CPU, holders must not sleep."""

    how = "spin_lock"

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        super().__init__(scheduler, name)
        self.spins = True


class RwSemaphore:
    """``struct rw_semaphore`` (``mmap_lock``): readers together, a waiting writer holds back later readers."""

    spins = False

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler, self.name = scheduler, name
        self.lockdep = lockdep_of(scheduler)
        self.lock_class = self.lockdep.lock_class(name)
        self.writer: HostThread | None = None
        self.readers = 0
        self.waiters: deque[_Wait] = deque()

    def acquire_read(self, thread: HostThread) -> Iterable[Any]:
        """``down_read``: as :meth:`Mutex.acquire`."""
        held = thread.held
        if (held[-1].lock_class if held else None) not in self.lock_class.before:
            self.lockdep.depends(thread, self, "down_read")
        if self.writer is not None or self.waiters or self.lockdep.preempts:
            return self.down_read_slowpath(thread)
        if thread.atomic:
            self.lockdep.atomic_sleep(thread, self.name)
        self.readers += 1
        held.append(self)
        if self.lockdep.observer is not None:
            self.lockdep.observer("lock", self, thread)
        return ()

    def down_read_slowpath(self, thread: HostThread) -> Steps[None]:
        """:meth:`acquire_read` where a writer may come first."""
        if self.lockdep.preempts:
            yield 0
        if self.writer is not None or self.waiters:
            yield _Wait(self, write=False)
        else:
            if thread.atomic:
                self.lockdep.atomic_sleep(thread, self.name)
            self.readers += 1
        self._own(thread, self)

    def acquire_write(self, thread: HostThread) -> Steps[None]:
        """``down_write``."""
        held = thread.held
        if (held[-1].lock_class if held else None) not in self.lock_class.before:
            self.lockdep.depends(thread, self, "down_write")
        if self.lockdep.preempts:
            yield 0
        if self.writer is not None or self.readers:
            yield _Wait(self)
        else:
            if thread.atomic:
                self.lockdep.atomic_sleep(thread, self.name)
            self.writer = thread
        self._own(thread, self)

    def try_acquire_read(self, thread: HostThread) -> bool:
        """``down_read_trylock``: False if a writer has it or waits for it."""
        if self.writer is not None or self.waiters:
            return False
        self.readers += 1
        self._own(thread, Tried(self))
        return True

    def _own(self, thread: HostThread, entry: Any) -> None:
        thread.held.append(entry)
        if self.lockdep.observer is not None:
            self.lockdep.observer("lock", self, thread)

    def release(self, thread: HostThread) -> None:
        """``up_read`` or ``up_write``; whoever is first goes on, and readers queued behind a reader with it."""
        held = thread.held
        if held[-1] is self:
            held.pop()
        else:
            drop(held, self)
        if self.writer is thread:
            self.writer = None
        else:
            self.readers -= 1
        if self.lockdep.observer is not None:
            self.lockdep.observer("unlock", self, thread)
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

    def mode(self, thread: HostThread) -> str:
        """How ``thread`` holds it."""
        return "write" if self.writer is thread else "read"

    def holders(self) -> list[HostThread]:
        """The writer, or the readers."""
        if self.writer is not None:
            return [self.writer]
        return [thread for thread in self.scheduler.threads() if _holds(thread, self)]

    def __str__(self) -> str:
        return self.name


def _holds(thread: HostThread, lock: Any) -> bool:
    return any(entry is lock or (type(entry) is Tried and entry.lock is lock) for entry in thread.held)


class Srcu:
    """One SRCU domain: readers may sleep; :meth:`synchronize` waits for those that run."""

    def __init__(self, scheduler: Scheduler, name: str = "srcu") -> None:
        self.scheduler, self.name = scheduler, name
        self.map = LockMap(lockdep_of(scheduler), name)
        self.readers: dict[int, tuple[Completion, HostThread]] = {}
        self._next = 0

    def enter(self, thread: HostThread) -> int:
        """``srcu_read_lock``: gives the index that :meth:`exit` takes."""
        self._next += 1
        self.readers[self._next] = Completion(self.scheduler, self.name, lambda: (thread,)), thread
        self.map.enter_read(thread)
        return self._next

    def exit(self, index: int) -> None:
        """``srcu_read_unlock``."""
        completion, thread = self.readers.pop(index)
        self.map.exit(thread)
        completion.complete()

    def synchronize(self, thread: HostThread) -> Steps[None]:
        """``synchronize_srcu``: until every section that runs now has ended."""
        self.map.lockdep.might_sleep(thread, "synchronize_srcu")
        self.map.lockdep.might_lock(thread, self.map, "synchronize_srcu")
        yield from [completion for completion, _ in self.readers.values()]
