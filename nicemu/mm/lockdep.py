"""The lock validator (``kernel/locking/lockdep.c``, ``might_sleep``, ``lib/Kconfig.debug``'s sleep checks).

Locks of one name are one class. Taking a lock while another is held makes an edge from the latter's class to the
former's, and an edge that closes a circle is reported at once: no deadlock has to happen. An edge is made from the lock
taken last only (and from those before it if that one was a trylock): the rest follows from it. Readers of an
``rw_semaphore`` count like writers, as in Linux, for a waiting writer holds back later readers; trylocks and SRCU
readers never wait, so no edge leads to them. The order that is meant:

    mmap_lock > i_mmap/anon_vma rwsem > [notifier] > umem_mutex > command slot;  page_table_lock innermost
    dma_resv > fs_reclaim, command slot

Two classes are no locks: ``fs_reclaim``, around every allocation that may reclaim, and
``mmu_notifier_invalidate_range_start``, around callbacks and wherever one waits for them (odp.md section 2). Reclaim
calls notifiers, so the second follows the first; a callback that allocates, or whose lock is held across an allocation,
closes the circle without any reclaim.

Left out: interrupt-safe and -unsafe states of a class, ``lock_is_held`` assertions, cross-release (a completion is no
lock).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nicemu.mm.lock_report import Kind, Report, Reports, Stack
from nicemu.timeline.host import HostThread, Scheduler, Sleep
from nicemu.timeline.hung_task import call_trace

QUIET = frozenset({__name__, "nicemu.mm.locks"})
"""Modules whose functions are not shown in a stack; the name of the lock operation stands for them."""


@dataclass(frozen=True, slots=True)
class Edge:
    """``to`` was taken while ``held`` was: how and where for the first time."""

    held: LockClass
    to: LockClass
    how: str
    thread: str
    trace: tuple[str, ...]

    def stack(self, number: int) -> Stack:
        """As a report shows it."""
        return Stack(f"-> #{number} {self.held.name}, then {self.to.name}, first by {self.thread}", self.trace)


@dataclass(eq=False, slots=True)
class LockClass:
    """``struct lock_class``: all locks of one name."""

    name: str
    before: set[LockClass | None] = field(default_factory=set)
    """Classes under which it was taken, None for none: nothing is left to check about them."""
    after: dict[LockClass, Edge] = field(default_factory=dict)
    """Classes taken under it."""
    first: tuple[str, ...] = ()
    """Where it was taken with nothing else held, for the first time."""


TRIED = LockClass("trylock")


@dataclass(frozen=True, slots=True)
class Tried:
    """An entry of ``thread.held`` for a lock that was had without waiting. Its class is before nobody, so what is
    taken next is always looked at."""

    lock: Any
    lock_class = TRIED


class LockMap:
    """``struct lockdep_map``: what would be waited for, without a lock."""

    def __init__(self, lockdep: Lockdep, name: str) -> None:
        self.lockdep, self.name = lockdep, name
        self.lock_class = lockdep.lock_class(name)

    def enter(self, thread: HostThread) -> None:
        """``lock_map_acquire``."""
        self.lockdep.depends(thread, self, "lock_map_acquire")
        thread.held.append(self)

    def enter_read(self, thread: HostThread) -> None:
        """``lock_map_acquire_read``: it never waits."""
        thread.held.append(Tried(self))

    def exit(self, thread: HostThread) -> None:
        """``lock_map_release``."""
        drop(thread.held, self)

    def __str__(self) -> str:
        return self.name


def drop(entries: list[Any], lock: Any) -> None:
    """Remove the last occurrence."""
    if entries and entries[-1] is lock:
        entries.pop()
        return
    for i in range(len(entries) - 1, -1, -1):
        if entries[i] is lock or (type(entries[i]) is Tried and entries[i].lock is lock):
            del entries[i]
            return
    raise AssertionError(f"{lock} released by a thread that does not hold it")


class Lockdep:
    """The lock state of one host. ``observer(kind, lock, thread)`` hears of every "lock" and "unlock"."""

    def __init__(self) -> None:
        self.classes: dict[str, LockClass] = {}
        self.reports = Reports()
        self.observer: Callable[[str, Any, HostThread], None] | None = None
        self.preempts = False
        """Whoever takes a lock may be preempted before: for explorers of schedules, and no cost in time."""
        self.fs_reclaim = LockMap(self, "fs_reclaim")
        self.invalidate_range_start = LockMap(self, "mmu_notifier_invalidate_range_start")

    def lock_class(self, name: str) -> LockClass:
        """The class called ``name``."""
        return self.classes.setdefault(name, LockClass(name))

    # Order ------------------------------------------------------------------------------------------------------------

    def depends(self, thread: HostThread, lock: Any, how: str) -> None:
        """``lock_acquire`` before the wait: ``thread`` takes ``lock`` by the operation ``how``."""
        wanted: LockClass = lock.lock_class
        if not thread.held:
            if None not in wanted.before:
                wanted.before.add(None)
                wanted.first = _trace(thread, how)
            return
        for entry in reversed(thread.held):
            held = (entry.lock if type(entry) is Tried else entry).lock_class
            if held not in wanted.before:
                self._new_edge(thread, held, lock, how)
            if type(entry) is not Tried:
                return

    def might_lock(self, thread: HostThread, lock: Any, how: str) -> None:
        """``might_lock``: the order is checked as if it were taken."""
        last = thread.held[-1].lock_class if thread.held else None
        if last not in lock.lock_class.before:
            self.depends(thread, lock, how)

    def _new_edge(self, thread: HostThread, held: LockClass, lock: Any, how: str) -> None:
        wanted: LockClass = lock.lock_class
        wanted.before.add(held)
        if any((entry.lock if type(entry) is Tried else entry).lock_class is wanted for entry in thread.held):
            self._recursive(thread, lock, how)
            return
        edge = Edge(held, wanted, how, thread.name, _trace(thread, how))
        path = _path(wanted, held)
        held.after[wanted] = edge
        if path is not None:
            self._circular(thread, edge, path)

    def _recursive(self, thread: HostThread, lock: Any, how: str) -> None:
        key = self.reports.again(Kind.RECURSIVE, thread, lock.name)
        if key is not None:
            now = Stack("call trace", _trace(thread, how))
            text = f"{how} of {lock.name}, which it holds already"
            self.reports.add(key, thread, text, (now, *_taken(thread, lock.lock_class))).held = _held(thread)

    def _circular(self, thread: HostThread, edge: Edge, path: list[Edge]) -> None:
        cycle = (edge.held.name, *(other.held.name for other in path))
        key = self.reports.again(Kind.CIRCULAR, thread, edge.to.name, edge.held.name)
        if key is None:
            return
        text = f"{edge.how} of {edge.to.name} while {edge.held.name} is held ({' > '.join((*cycle, cycle[0]))})"
        stacks = (edge.stack(0), *(other.stack(number) for number, other in enumerate(path, 1)))
        report = self.reports.add(key, thread, text, stacks)
        report.cycle, report.held = cycle, _held(thread)

    # Sleep ------------------------------------------------------------------------------------------------------------

    def might_sleep(self, thread: HostThread, what: str) -> None:
        """``might_sleep()``: report if a sleep here would be wrong, whether or not it happens."""
        if thread.atomic:
            self.atomic_sleep(thread, what)

    def atomic_sleep(self, thread: HostThread, wait: Any) -> None:
        """``__might_sleep``, also ``Scheduler.on_atomic_sleep``. Of several reasons the most specific is named: the
        last spinlock, else the last section."""
        reason = next((reason for reason in reversed(thread.atomic) if reason.spins), thread.atomic[-1])
        key = self.reports.again(Kind.ATOMIC_SLEEP, thread, reason.name)
        if key is None:
            return
        sleeps_in = "sleep" if isinstance(wait, Sleep) else str(wait)
        text = f"{key[3] or 'mm'} sleeps in {sleeps_in} during {key[1]}, {reason.name} held"
        report = self.reports.add(key, thread, text, (Stack("call trace", _trace(thread, f"wait for {sleeps_in}")),))
        report.sleeps_in, report.held = sleeps_in, _held(thread)
        if reason.spins:
            report.stacks += _taken(thread, reason.lock_class)

    def might_alloc(self, thread: HostThread) -> None:
        """``might_alloc(GFP_KERNEL)``: this may sleep and enter reclaim, which calls notifiers. Reclaim itself does not
        enter it again (``PF_MEMALLOC``)."""
        held, reclaim, notifiers = thread.held, self.fs_reclaim, self.invalidate_range_start
        if reclaim in held:
            return
        if thread.atomic:
            self.atomic_sleep(thread, "alloc_pages")
        last = held[-1].lock_class if held else None
        if last in reclaim.lock_class.before and reclaim.lock_class in notifiers.lock_class.before:
            return  # all has been checked
        reclaim.enter(thread)
        notifiers.enter(thread)
        notifiers.exit(thread)
        reclaim.exit(thread)

    # Rules of the notifier API ----------------------------------------------------------------------------------------

    def warn(self, thread: HostThread, lock: str, text: str) -> Report | None:
        """``WARN_ON``; None: reported before. ``lock``: what is held and should not be, or the function that warns."""
        key = self.reports.again(Kind.WARNING, thread, lock)
        if key is None:
            return None
        report = self.reports.add(key, thread, text, (Stack("call trace", call_trace(thread, QUIET)),))
        report.held = _held(thread)
        return report


def lockdep_of(scheduler: Scheduler) -> Lockdep:
    """The validator of the host whose threads the scheduler runs."""
    if scheduler.lockdep is None:
        scheduler.lockdep = Lockdep()
        scheduler.on_atomic_sleep = scheduler.lockdep.atomic_sleep
    found: Lockdep = scheduler.lockdep
    return found


def _path(start: LockClass, end: LockClass) -> list[Edge] | None:
    """The shortest way from ``start`` to ``end`` along edges (``check_path``)."""
    came: dict[LockClass, Edge] = {}
    left = deque([start])
    while left:
        at = left.popleft()
        if at is end:
            path: list[Edge] = []
            while at is not start:
                path.append(came[at])
                at = came[at].held
            return path[::-1]
        for to, edge in at.after.items():
            if to is not start and to not in came:
                came[to] = edge
                left.append(to)
    return None


def _trace(thread: HostThread, how: str) -> tuple[str, ...]:
    return (how, *call_trace(thread, QUIET))


def _held(thread: HostThread) -> tuple[str, ...]:
    return tuple(_describe(entry, thread) for entry in thread.held)


def _describe(entry: Any, thread: HostThread) -> str:
    lock = entry.lock if type(entry) is Tried else entry
    mode = getattr(lock, "mode", None)
    return f"{lock}{f' ({mode(thread)})' if mode else ''}{' (no wait)' if type(entry) is Tried else ''}"


def _taken(thread: HostThread, lock_class: LockClass) -> tuple[Stack, ...]:
    """Where a lock of the class was first taken under what this thread holds before it."""
    before: LockClass | None = None
    for entry in thread.held:
        held = (entry.lock if type(entry) is Tried else entry).lock_class
        if held is lock_class:
            break
        before = held
    edge = before.after.get(lock_class) if before is not None else None
    trace = edge.trace if edge is not None else lock_class.first
    under = f" under {before.name}" if before is not None else ""
    return (Stack(f"{lock_class.name} was first taken{under} at", trace),) if trace else ()
