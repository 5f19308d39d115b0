"""What the lock validator and the notifiers have to complain about, as data and as text in the kernel's style.

A :class:`Report` stands for everything of the same kind, operation, lock and subscriber; the first occurrence gives
the stacks, the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from nicemu.timeline.host import HostThread

SUBSCRIBER = "notifier:"
"""Prefix of the ``thread.context`` entry of a notifier callback."""


class Kind(StrEnum):
    """What a report is about."""

    ATOMIC_SLEEP = "atomic_sleep"
    """A sleep under a spinlock, in an RCU or non-blocking section, or in a hardware interrupt."""
    CIRCULAR = "circular_locking"
    """Locks are taken in an order that can deadlock."""
    RECURSIVE = "recursive_locking"
    """A lock, or another one of its class, is held already."""
    WARNING = "warning"
    """A rule of the notifier API is broken (``WARN_ON``)."""


HEADLINE = {
    Kind.ATOMIC_SLEEP: "BUG: sleeping function called from invalid context",
    Kind.CIRCULAR: "WARNING: possible circular locking dependency detected",
    Kind.RECURSIVE: "WARNING: possible recursive locking detected",
    Kind.WARNING: "WARNING",
}


@dataclass(frozen=True, slots=True)
class Stack:
    """A call trace, innermost first, and what it shows."""

    title: str
    names: tuple[str, ...]

    def lines(self) -> list[str]:
        """Indented below its title."""
        return [f"{self.title}:", *(f"  {name}" for name in self.names)]


@dataclass(slots=True)
class Report:
    """``operation``, ``subscriber``: the mm operation and the notifier callback in which it happened ("" if none);
    ``lock``: the lock that forbids the sleep, or that is taken in the wrong order; ``text``: the rest in words."""

    kind: Kind
    operation: str
    lock: str
    subscriber: str
    text: str
    context: tuple[str, ...] = ()
    thread: str = ""
    sleeps_in: str = ""
    """Of a sleep: what is waited for."""
    cycle: tuple[str, ...] = ()
    """Of an inversion: the lock classes, each taken while the one before is held; the first follows the last."""
    held: tuple[str, ...] = ()
    """Locks held, outermost first."""
    stacks: tuple[Stack, ...] = ()
    """Where it happened, then where the other half was seen first."""
    count: int = 1

    def __str__(self) -> str:
        return f"{HEADLINE[self.kind]}: {self.text} ({' > '.join(self.context)}; {self.count} times)"

    def full(self) -> str:
        """Several lines, with the locks held and all stacks."""
        lines = [HEADLINE[self.kind], f"{self.thread}: {self.text}", f"during: {' > '.join(self.context)}"]
        lines += [f"{len(self.held)} locks held by {self.thread}:"] if self.held else ["no locks held"]
        lines += [f" #{number}: {lock}" for number, lock in enumerate(self.held)]
        for stack in self.stacks:
            lines += stack.lines()
        return "\n".join(lines)


Key = tuple[Kind, str, str, str, str]
"""Kind, operation, lock, subscriber; of an inversion also the lock held."""


def where(thread: HostThread) -> tuple[str, str]:
    """(operation, subscriber) of what the thread does now: its innermost ones."""
    operation = subscriber = ""
    for entry in thread.context:
        if entry.startswith(SUBSCRIBER):
            subscriber = entry.removeprefix(SUBSCRIBER)
        else:
            operation, subscriber = entry, ""
    return operation, subscriber


@dataclass(slots=True)
class Reports:
    """The reports of one host, in order of first occurrence."""

    found: dict[Key, Report] = field(default_factory=dict)

    def again(self, kind: Kind, thread: HostThread, lock: str, other: str = "") -> Key | None:
        """Count one that was reported already; otherwise its key."""
        operation, subscriber = where(thread)
        key = kind, operation, lock, subscriber, other
        if key not in self.found:
            return key
        self.found[key].count += 1
        return None

    def add(self, key: Key, thread: HostThread, text: str, stacks: Iterable[Stack] = ()) -> Report:
        """A new one."""
        report = Report(*key[:4], text, tuple(thread.context), thread.name, stacks=tuple(stacks))
        self.found[key] = report
        return report
