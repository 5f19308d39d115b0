"""How on-demand memory hears of invalidations: the registration chain (3.x) or interval notifiers (6.12).

Both give a memory a :class:`Subscription`. Its ``zap(start, end, begin, operation)`` takes the memory's mutex, calls
``begin()``, which makes faults in progress start over, and returns when the device is off the range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.interval import IntervalNotifier
from nicemu.mm.lock_report import SUBSCRIBER
from nicemu.mm.locks import Mutex
from nicemu.mm.notifier import NotifierRange, NotifierSubscriber
from nicemu.timeline.host import Completion, HostThread, Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context

Zap = Callable[[int, int, Callable[[], None], str], Steps[None]]
NAME = "umem_odp"
WRITE_PROTECTING = ("fork",)
"""Operations that take only the write permission away; the mutant ``ignore_fork_protect`` does not care for them."""


class Subscription(Protocol):
    """What a fault needs of a notifier."""

    def insert(self) -> Steps[None]:
        """Invalidations arrive from now on."""

    def remove(self) -> Steps[None]:
        """None arrives or runs any more."""

    def read_begin(self) -> Steps[int]:
        """Wait for invalidations that run; a sequence to compare later."""

    def read_retry(self, sequence: int) -> bool:
        """Under the mutex: an invalidation came in between."""


class Interval(IntervalNotifier):
    """``mlx5_mn_ops``: one interval notifier per memory."""

    name = NAME

    def __init__(self, context: Context, span: tuple[int, int], zap: Zap) -> None:
        self._context, self._span, self._zap = context, span, zap

    def insert(self) -> Steps[None]:
        """``mmu_interval_notifier_insert``."""
        yield 0
        start, end = self._span
        self._context.mm.intervals.insert(self, start, end - start)

    def remove(self) -> Steps[None]:
        """``mmu_interval_notifier_remove``."""
        yield from self.mm.intervals.remove(self)

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        """``mlx5_ib_invalidate_range``."""
        if not range.blockable and not self._context.driver.broken("non_blockable_sleeps"):
            return False
        if self._context.driver.broken("ignore_fork_protect") and range.operation in WRITE_PROTECTING:
            return True
        yield from self._zap(range.start, range.end, lambda: self.set_seq(cur_seq), range.operation)
        return True


class IntervalNotifiers:
    """A context's interval notifiers: each memory has its own."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def subscribe(self, span: tuple[int, int], mutex: Mutex, zap: Zap) -> Interval:
        """For the memory at addresses ``span``."""
        return Interval(self._context, span, zap)

    def close(self) -> Steps[None]:
        """Nothing is left to do."""
        yield 0


class Private:
    """The 2014 umem's counters: invalidations that run and that have ended (``notifiers_count, notifiers_seq``)."""

    def __init__(self, chain: ContextNotifier, span: tuple[int, int], mutex: Mutex, zap: Zap) -> None:
        self._chain, self.mutex, self.zap = chain, mutex, zap
        self.start, self.end = span
        self.active = False
        self.count = self.sequence = 0
        self._quiet: Completion | None = None

    def insert(self) -> Steps[None]:
        """``ib_umem_odp_get``: while invalidations run its counters stay off and its faults wait."""
        yield from self._chain.add(self)

    def remove(self) -> Steps[None]:
        """``ib_umem_odp_release``."""
        yield from self._chain.discard(self)

    def read_begin(self) -> Steps[int]:
        """Wait for ``notifier_completion``."""
        while self.count or not self.active:
            if self._quiet is None:
                self._quiet = Completion(self._chain.scheduler, "invalidations of on-demand memory")
            yield self._quiet
        return self.sequence

    def read_retry(self, sequence: int) -> bool:
        """``ib_umem_mmu_notifier_retry``."""
        return not self.active or self.count > 0 or self.sequence != sequence

    def begin(self) -> None:
        """``ib_umem_notifier_start_account``, the mutex held."""
        if self.active:
            self.count += 1

    def finish(self, thread: HostThread) -> Steps[None]:
        """``ib_umem_notifier_end_account``."""
        yield from self.mutex.acquire(thread)
        if self.active:
            self.sequence += 1
            self.count = 0 if self._chain.broken("ranges_toggle") else self.count - 1
        self.mutex.release(thread)
        self.wake()

    def wake(self) -> None:
        """Let faults go on if nothing runs."""
        if self._quiet is not None and self.active and not self.count:
            quiet, self._quiet = self._quiet, None
            quiet.complete()


class ContextNotifier(NotifierSubscriber):
    """``ib_ucontext``'s notifier (2014): one subscriber of the chain per context, registered with its first memory.

    Left out: the interval tree over the memories (they are searched in order), the 1000 ms bound on a fault's wait.
    """

    name = NAME

    def __init__(self, context: Context) -> None:
        self._context = context
        self._driver = context.driver
        self.scheduler = context.driver.scheduler
        self.memories: list[Private] = []
        self.running = 0
        """Invalidations in progress (``notifier_count``)."""
        self._registered = False

    def subscribe(self, span: tuple[int, int], mutex: Mutex, zap: Zap) -> Private:
        """For the memory at addresses ``span``."""
        return Private(self, span, mutex, zap)

    def add(self, memory: Private) -> Steps[None]:
        """Include a memory; with invalidations in progress it is one of ``no_private_counters``."""
        if not self._registered:
            self._registered = True
            yield from self._context.mm.notifiers.register(self)
        memory.active = not self.running
        self.memories.append(memory)

    def discard(self, memory: Private) -> Steps[None]:
        """``ib_ucontext_notifier`` goes with the last memory only when the context closes."""
        yield 0
        self.memories.remove(memory)

    def close(self) -> Steps[None]:
        """``mmu_notifier_unregister``."""
        if self._registered:
            self._registered = False
            yield from self._context.mm.notifiers.unregister(self)

    def invalidate_range_start(self, mm: Any, start: int, end: int, blockable: bool) -> Steps[bool]:
        """``ib_umem_notifier_invalidate_range_start``."""
        if not blockable:
            return False
        self.running += 1
        if not self._ignored():
            for memory in self._overlapping(start, end):
                yield from memory.zap(start, end, memory.begin, self._operation())
        return True

    def invalidate_range_end(self, mm: Any, start: int, end: int) -> Steps[None]:
        """``ib_umem_notifier_invalidate_range_end``."""
        if not self._ignored():
            for memory in self._overlapping(start, end):
                yield from memory.finish(self._driver.thread)
        self._ended()

    def invalidate_page(self, mm: Any, address: int) -> Steps[None]:
        """``ib_umem_notifier_invalidate_page``: start, zap and end of one page."""
        self.running += 1
        start = address & -PAGE_SIZE
        for memory in self._overlapping(start, start + PAGE_SIZE):
            yield from memory.zap(start, start + PAGE_SIZE, memory.begin, self._operation())
            yield from memory.finish(self._driver.thread)
        self._ended()

    def release(self, mm: Any) -> Steps[None]:
        """``ib_umem_notifier_release``: the process ends; its memories are taken from the device for good."""
        self._registered = False
        for memory in list(self.memories):
            yield from memory.zap(memory.start, memory.end, memory.begin, self._operation())

    def broken(self, mutant: str) -> bool:
        """Is this deliberate bug planted?"""
        return self._driver.broken(mutant)

    def _overlapping(self, start: int, end: int) -> list[Private]:
        return [memory for memory in self.memories if memory.start < end and memory.end > start]

    def _ended(self) -> None:
        self.running -= 1
        if not self.running:
            for memory in self.memories:
                memory.active = True
                memory.wake()

    def _operation(self) -> str:
        """The mm operation that this callback serves: the thread's innermost context that is no subscriber."""
        return next((entry for entry in reversed(self._driver.thread.context) if not entry.startswith(SUBSCRIBER)), "")

    def _ignored(self) -> bool:
        return self._context.driver.broken("ignore_fork_protect") and self._operation() in WRITE_PROTECTING


Notifiers = IntervalNotifiers | ContextNotifier


def notifiers_of(context: Context) -> Notifiers:
    """The form that the driver's options ask for."""
    return ContextNotifier(context) if context.driver.options.subscriber == "chain" else IntervalNotifiers(context)
