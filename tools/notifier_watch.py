"""Watches one mm operation of a host without a NIC: in which order notifiers, page-table lock, entries, CPU TLB flush
and free come, and where a subscriber that sleeps is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nicemu.mm import AddressSpace, IntervalNotifier, NotifierRange, NotifierSubscriber, Process
from nicemu.mm.bare_host import BareHost
from nicemu.mm.lock_report import Kind
from nicemu.timeline.host import HostThread, Sleep, Steps

PAGE, HUGE_SIZE, PAGES = 4096, 1 << 21, 512
EVERYTHING = 1 << 47
OPERATION = "operation"
WORDS = {
    "notifier_release": "release", "notifier_start": "start", "notifier_end": "end", "change_pte": "change_pte",
    "pte_clear": "clear", "pte_protect": "protect", "pte_move": "move", "pmd_splitting": "mark", "pte_set": "set",
    "cow": "set", "migrated": "set", "tlb_flush": "flush", "free": "free",
}  # fmt: skip
"""What the document calls the events of the mm. What a subscriber hears page by page is noted by itself."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened: a word of :data:`WORDS`, a callback's name, ``told`` when a callback has returned."""

    word: str
    locked: bool
    """The page-table lock was held."""


@dataclass(slots=True)
class Observed:
    """What one operation did."""

    steps: list[Step] = field(default_factory=list)
    sleeps: list[tuple[str, str]] = field(default_factory=list)
    """(subscriber, lock) of the sleeps that were reported, each once."""
    warnings: list[str] = field(default_factory=list)
    """Everything else that was reported."""
    heard: list[tuple[str, int]] = field(default_factory=list)
    """(event, pages) of the ranges that the interval notifier got; 0 pages: all of the address space."""
    sites: list[str] = field(default_factory=list)
    """Call sites, in the order of their first use."""

    def order(self) -> str:
        """Compact: ``start · [ clear flush ] · end · free``, brackets for the page-table lock."""
        parts: list[str] = []
        inside: list[str] = []
        for step in (*self.steps, Step("unlock", False)):
            if step.word == "unlock" and inside:
                parts.append(f"[ {' '.join(inside)} ]")
                inside = []
            if step.word in ("lock", "unlock", "told"):
                continue
            where = inside if step.locked else parts
            if step.word != "free" or where[-1:] != ["free"]:
                where.append(step.word)
        return " · ".join(parts)

    def under_lock(self) -> list[str]:
        """Words of the steps with the page-table lock held."""
        return [step.word for step in self.steps if step.locked]


class Sleeper(NotifierSubscriber):
    """A driver that waits for its device, as RDMA's of 2014 does; it has no ``change_pte``."""

    name = "sleeper"

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def invalidate_range_start(self, mm: AddressSpace, start: int, end: int, blockable: bool) -> Steps[bool]:
        if blockable:
            yield from self._waits()
        return blockable

    def invalidate_page(self, mm: AddressSpace, address: int) -> Steps[None]:
        self.watch.note("page")
        yield from self._waits()

    def release(self, mm: AddressSpace) -> Steps[None]:
        yield from self._waits()

    def _waits(self) -> Steps[None]:
        yield Sleep(1000)
        self.watch.note("told")


class WithChangePte(Sleeper):
    """The same with ``change_pte``, as KVM."""

    def change_pte(self, mm: AddressSpace, address: int, pte: int) -> None:
        self.watch.note("told")


class Young(Sleeper):
    """The same, asked whether its device used a page."""

    def clear_flush_young(self, mm: AddressSpace, address: int) -> bool:
        self.watch.note("clear_flush_young")
        return False

    def clear_young(self, mm: AddressSpace, address: int) -> bool:
        self.watch.note("clear_young")
        return False

    def test_young(self, mm: AddressSpace, address: int) -> bool:
        self.watch.note("test_young")
        return False


class SleepingInterval(IntervalNotifier):
    """A driver of 6.12 that waits for its device, and therefore refuses what may not block. ``waits`` False: its device
    needs no wait."""

    name = "sleeper"

    def __init__(self, watch: Watch, waits: bool) -> None:
        self.watch, self.waits = watch, waits

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        self.watch.hear(range)
        if self.waits and not range.blockable:
            return False
        if self.waits:
            yield Sleep(1000)
        self.set_seq(cur_seq)
        self.watch.note("told")
        return True


class Marks(set[tuple[str, str]]):
    """``Host.notified``, heard of each time."""

    def __init__(self, uses: Callable[[str], None]) -> None:
        super().__init__()
        self.uses = uses

    def add(self, used: tuple[str, str]) -> None:
        """An operation is about to use a call site."""
        super().add(used)
        self.uses(used[1])


class Watch(BareHost):
    """A host whose one operation is watched. ``only``: the part of it that belongs to this call site."""

    def __init__(self, era: str, only: str = "") -> None:
        self.only, self.site = only, ""
        self.seen, self.running = Observed(), False
        super().__init__(era, ram=8192)
        self.watched = self.mm
        """The address space that the subscriber mirrors."""
        self.subscriber: NotifierSubscriber = Sleeper(self)
        self.interval = SleepingInterval(self, waits=True)
        self.host.notified = Marks(self._uses)
        self.host.lockdep.observer = self._lock
        self.scheduler.on_atomic_sleep = self._sleeps

    def observe(self, steps: Steps[Any]) -> Observed:
        """Run the operation, mirrored by the subscriber of the era."""
        if self.host.discipline.interval:
            self.watched.intervals.insert(self.interval, 0, EVERYTHING)
        if not self.host.discipline.interval or isinstance(self.subscriber, Young):
            self.run(self.watched.notifiers.register(self.subscriber))
        self.running = True
        self.run(steps, OPERATION)
        self.running = False
        self.seen.warnings = [str(report) for report in self.host.reports if report.kind != Kind.ATOMIC_SLEEP]
        return self.seen

    # What it sees -----------------------------------------------------------------------------------------------------

    def log(self, kind: str, **fields: Any) -> None:
        """An event of the host."""
        super().log(kind, **fields)
        if kind in WORDS and fields.get("mm", self.watched.number) == self.watched.number:
            self.note(WORDS[kind])

    @property
    def _watching(self) -> bool:
        return self.running and self.only in ("", self.site)

    def note(self, word: str) -> None:
        """Note what the operation does now, unless it is at another call site."""
        thread = self.scheduler.current
        if self._watching and thread is not None and thread.name == OPERATION:
            self.seen.steps.append(Step(word, self.watched.page_table_lock.owner is thread))

    def hear(self, range: NotifierRange) -> None:
        """A range that the interval notifier gets."""
        if self._watching:
            pages = range.end - range.start >> 12
            self.seen.heard.append((range.event.name, pages if range.end < EVERYTHING else 0))

    def _uses(self, site: str) -> None:
        self.site = site
        if self.running and site not in self.seen.sites:
            self.seen.sites.append(site)

    def _lock(self, kind: str, lock: Any, thread: HostThread) -> None:
        if lock is self.watched.page_table_lock and thread.name == OPERATION:
            self.note(kind)

    def _sleeps(self, thread: HostThread, wait: Any) -> None:
        """Which report does this sleep make, or count in?"""
        before = [(report, report.count) for report in self.host.reports]
        self.host.lockdep.atomic_sleep(thread, wait)
        made = self.host.reports[len(before) :] + [report for report, count in before if report.count > count]
        if self._watching and thread.name == OPERATION:
            self.seen.sleeps += [found for report in made
                                 if (found := (report.subscriber, report.lock)) not in self.seen.sleeps]  # fmt: skip

    # States -----------------------------------------------------------------------------------------------------------

    def written(self, pages: int = 1) -> int:
        """Address of memory that was written."""
        at = int(self.run(self.process.mmap(pages * PAGE)))
        for page in range(pages):
            self.run(self.process.write(at + page * PAGE, b"x"))
        return at

    def aligned(self) -> int:
        """Address of 2 MiB that was written, and could be a huge page."""
        at = int(self.run(self.process.posix_memalign(HUGE_SIZE, HUGE_SIZE)))
        for page in range(PAGES):
            self.run(self.process.write(at + page * PAGE, b"x"))
        return at

    def thp(self) -> int:
        """Address of a transparent huge page."""
        self.host.transparent_hugepage = "always"
        return self.aligned()

    def hugetlb(self, pool: int = 4) -> int:
        """Address of a hugetlb page of 2 MiB, of a pool of ``pool``."""
        self.host.hugetlb.set_nr_hugepages(PAGES, pool)
        at = int(self.run(self.process.mmap(HUGE_SIZE, flags=0x40022)))
        self.run(self.process.write(at, b"x"))
        return at

    def shared(self, at: int, length: int = PAGE) -> Process:
        """A child that shares the memory, and lets it go as soon as a fault of the parent holds the page: the fault
        frees it then."""
        child: Process = self.run(self.process.fork())
        frame = self.mm.page_table.get(at // PAGE) >> 12

        def lets_go() -> Steps[None]:
            while self.host.pages.refcount[frame] == 2:
                yield 10
            yield from child.munmap(at, length)

        self.scheduler.spawn(lets_go(), "child")
        return child
