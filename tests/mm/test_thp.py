"""THP: who gets one, writes to shared ones, and the places of the notifiers (odp.md 1.3, 1.5)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.driver.umem import best_page_shift
from nicemu.mm.page import PG_HEAD, PG_TAIL
from nicemu.mm.page_table import ACCESSED, WRITE
from tests.mm.huge_machines import (
    CLEAR,
    END,
    ERAS,
    FLUSH,
    FREE,
    HUGE_SIZE,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    OLD,
    PAGE,
    PAGES,
    PROTECT,
    SET,
    SPLIT,
    START,
    aligned,
    holds,
    is_huge,
    is_writable,
    shared_thp,
    thp,
    under_lock,
    watch,
)  # fmt: skip


@pytest.fixture
def machine(make_machine: Any) -> Any:
    return make_machine("v6.12", ram=8192)


# Who gets one


def test_first_write_maps_two_mib_of_consecutive_aligned_frames(machine: Any) -> None:
    at = thp(machine)
    head = machine.frame(at)
    assert head % PAGES == 0
    assert [machine.frame(at + page * PAGE) for page in range(PAGES)] == list(range(head, head + PAGES))
    assert machine.host.pages.flags[head] == PG_HEAD and machine.host.pages.flags[head + 511] == PG_TAIL
    assert machine.host.counters["thp_fault_alloc"] == 1 and holds(machine, machine.process, at)
    machine.check_counts()


@pytest.mark.parametrize(
    ("switch", "advice", "huge"),
    [("never", MADV_HUGEPAGE, False), ("madvise", 0, False), ("madvise", MADV_HUGEPAGE, True), ("always", 0, True),
     ("always", MADV_NOHUGEPAGE, False)],
)  # fmt: skip
def test_switch_and_advice_decide(machine: Any, switch: str, advice: int, huge: bool) -> None:
    machine.host.transparent_hugepage = switch
    at = aligned(machine)
    machine.run(machine.process.madvise(at, HUGE_SIZE, advice))
    machine.run(machine.process.write(at, b"x"))
    assert is_huge(machine.mm, at) == huge


def test_read_first_stays_small(machine: Any) -> None:
    machine.host.transparent_hugepage = "always"
    at = aligned(machine)
    assert machine.run(machine.process.read(at, 1)) == b"\0" and not is_huge(machine.mm, at)


def test_a_leaf_with_a_page_in_it_stays_small(machine: Any) -> None:
    at = aligned(machine)
    machine.run(machine.process.write(at + PAGE, b"x"))
    machine.host.transparent_hugepage = "always"
    machine.run(machine.process.write(at, b"x"))
    assert not is_huge(machine.mm, at)


def test_an_area_that_does_not_hold_two_mib_stays_small(machine: Any) -> None:
    machine.host.transparent_hugepage = "always"
    at = aligned(machine, HUGE_SIZE - PAGE)
    machine.run(machine.process.write(at, b"x"))
    assert not is_huge(machine.mm, at)


def test_without_a_huge_page_the_fault_is_small(make_machine: Any) -> None:
    machine = make_machine("v6.12", ram=400)
    machine.host.transparent_hugepage = "always"
    at = aligned(machine)
    machine.run(machine.process.write(at, b"x"))
    assert not is_huge(machine.mm, at) and machine.host.counters["thp_fault_fallback"] == 1


def test_madvise_hugepage_in_3x_refuses_hugetlb(make_machine: Any) -> None:
    machine = make_machine("v3.7", ram=8192)
    machine.host.hugetlb.set_nr_hugepages(PAGES, 1)
    at = machine.run(machine.process.mmap(HUGE_SIZE, flags=0x40022))
    with pytest.raises(OSError, match="Invalid argument"):
        machine.run(machine.process.madvise(at, HUGE_SIZE, MADV_HUGEPAGE))


def test_areas_are_aligned_since_6_7(make_machine: Any) -> None:
    for era, expected in (("v3.7", False), ("v6.12", True)):
        machine = make_machine(era, ram=8192)
        machine.host.transparent_hugepage = "always"
        machine.run(machine.process.mmap(PAGE))
        assert (machine.run(machine.process.mmap(HUGE_SIZE)) % HUGE_SIZE == 0) == expected


def test_program_and_arena_memory_is_never_huge(make_machine: Any, arena: Any) -> None:
    machine = make_machine("v6.12", ram=8192, arena=arena)
    machine.host.transparent_hugepage = "always"
    at = aligned(machine)
    machine.run(machine.process.madvise(at, HUGE_SIZE, MADV_HUGEPAGE))
    machine.run(machine.process.write(at, b"x"))
    assert not is_huge(machine.mm, at)


# Devices


def test_pinned_thp_gives_the_device_2_mib_translations(machine: Any) -> None:
    machine.host.transparent_hugepage = "always"
    at = aligned(machine, 2 * HUGE_SIZE)
    found = machine.run(machine.mm.pin(at, 2 * PAGES, True))
    assert best_page_shift(at, found) == 21
    machine.mm.unpin(found >> 1)
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_whole_munmap_is_one_pair_and_frees_all(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    machine.run(machine.process.munmap(at, HUGE_SIZE))
    assert machine.kinds() == [START, CLEAR, END, FLUSH, FREE]
    assert machine.frames.allocated == 0 and not machine.host.compound_mapcount


def test_pinned_thp_survives_munmap_page_by_page(machine: Any) -> None:
    at = thp(machine)
    found = machine.run(machine.mm.pin(at, 3, True))
    machine.run(machine.process.munmap(at, HUGE_SIZE))
    assert machine.frames.allocated == 3
    machine.mm.unpin(found >> 1)
    assert machine.frames.allocated == 0


# fork and writes to what it shares


@pytest.mark.parametrize("era", ERAS)
def test_fork_shares_the_mapping_whole_and_read_only(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    child = machine.run(machine.process.fork())
    assert machine.kinds() == ["fork", START, PROTECT, END, FLUSH]
    for mm in (machine.mm, child.mm):
        assert is_huge(mm, at) and not is_writable(mm, at) and not is_writable(mm, at + HUGE_SIZE - PAGE)
    assert machine.host.compound_mapcount == {machine.frame(at): 2} and holds(machine, child, at)
    machine.check_counts(machine.mm, child.mm)


def wp_order(era: str) -> list[str]:
    """The v3.6 macro ends the range before the new entry is set."""
    return ["wp_fault", START, CLEAR, FLUSH, *([END, SET] if era.startswith("v3.6") else [SET, END])]


@pytest.mark.parametrize("era", OLD)
def test_huge_wp_copies_to_a_huge_page(make_machine: Any, era: str) -> None:
    machine, at, child = shared_thp(make_machine, era)
    watcher = watch(machine)
    machine.run(machine.process.write(at, b"new"))
    assert machine.kinds() == wp_order(era)
    assert under_lock(watcher) == [(callback, era.startswith("v3.6")) for callback in ("start", "end")]
    assert is_huge(machine.mm, at) and is_huge(child.mm, at) and is_writable(machine.mm, at + HUGE_SIZE - PAGE)
    assert machine.run(machine.process.read(at, 3)) == b"new" and holds(machine, child, at)
    machine.check_counts(machine.mm, child.mm)


@pytest.mark.parametrize(("era", "references"), [("v3.7", 1), ("v3.6", 2)])
def test_huge_wp_puts_the_old_page_before_the_end(make_machine: Any, era: str, references: int) -> None:
    """At the end of v3.7 only the child refers to it; v3.6 ends first (its own reference is gone, the map's not)."""
    machine, at, child = shared_thp(make_machine, era)
    old = machine.frame(at)
    watcher = watch(machine, lambda: machine.host.pages.refcount[old])
    machine.run(machine.process.write(at, b"new"))
    assert [seen for seen in watcher.seen if seen[0] == "end"] == [("end", era == "v3.6", references)]
    assert machine.frame(at) != old and holds(machine, child, at)


@pytest.mark.parametrize("era", OLD)
def test_huge_wp_fallback_copies_to_small_pages(make_machine: Any, era: str) -> None:
    machine, at, child = shared_thp(make_machine, era)
    machine.host.transparent_hugepage = "never"
    watcher = watch(machine)
    machine.run(machine.process.write(at, b"new"))
    assert machine.kinds() == wp_order(era)
    assert under_lock(watcher) == [(callback, era.startswith("v3.6")) for callback in ("start", "end")]
    assert not is_huge(machine.mm, at) and is_huge(child.mm, at) and is_writable(machine.mm, at + HUGE_SIZE - PAGE)
    assert machine.run(machine.process.read(at, 3)) == b"new" and holds(machine, child, at)
    machine.check_counts(machine.mm, child.mm)


def test_huge_wp_fallback_of_3_7_puts_the_old_page_after_the_end(make_machine: Any) -> None:
    machine, at, _ = shared_thp(make_machine, "v3.7")
    machine.host.transparent_hugepage = "never"
    old = machine.frame(at)
    watcher = watch(machine, lambda: machine.host.pages.refcount[old])
    machine.run(machine.process.write(at, b"new"))
    assert [count for _, _, count in watcher.seen] == [3, 3] and machine.host.pages.refcount[old] == 1


def test_huge_wp_of_6_12_splits_and_copies_one_page(make_machine: Any) -> None:
    machine, at, child = shared_thp(make_machine, "v6.12")
    watcher = watch(machine)
    machine.run(machine.process.write(at + PAGE, b"new"))
    cow = ["wp_fault", START, CLEAR, FLUSH, "cow", END]
    assert machine.kinds() == ["wp_fault", *SPLIT["v6.12"], *cow]
    assert not any(locked for _, locked in under_lock(watcher))
    assert not is_huge(machine.mm, at) and is_huge(child.mm, at)
    assert machine.frame(at) % PAGES == 0 and machine.frame(at + PAGE) != machine.frame(at) + 1
    assert machine.run(machine.process.read(at + PAGE, 3)) == b"new" and holds(machine, child, at)
    machine.check_counts(machine.mm, child.mm)


@pytest.mark.parametrize("era", ERAS)
def test_a_huge_page_nobody_shares_is_reused_and_nobody_notified(make_machine: Any, era: str) -> None:
    machine, at, child = shared_thp(make_machine, era)
    machine.run(child.exit())
    head = machine.frame(at)
    machine.kinds()
    machine.run(machine.process.write(at, b"new"))
    assert machine.kinds() == ["wp_fault"] and machine.frame(at) == head
    assert is_writable(machine.mm, at + HUGE_SIZE - PAGE)


class Racing:
    """A subscriber whose start takes the page away."""

    def __init__(self, machine: Any, at: int) -> None:
        self.machine, self.at, self.done = machine, at, False

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            view = self.machine.mm.page_table.view(self.at // PAGE, self.at // PAGE + PAGES)
            self.saved = view.copy()
            view &= ~ACCESSED
            view |= WRITE  # as if another thread had resolved the fault


@pytest.mark.parametrize("switch", ["always", "never"])
@pytest.mark.parametrize("era", ["v3.7-seed", "v3.7"])
def test_a_raced_huge_wp_ends_what_it_started_and_changes_nothing(make_machine: Any, era: str, switch: str) -> None:
    machine, at, child = shared_thp(make_machine, era)
    machine.host.transparent_hugepage = switch
    head = machine.frame(at)
    watch(machine, Racing(machine, at))
    machine.run(machine.process.write(at, b"n"))
    assert machine.kinds() == ["wp_fault", START, END] and machine.frame(at) == head
    machine.check_counts(machine.mm, child.mm)


def test_out_of_memory_in_the_fallback_splits_and_retries_small(make_machine: Any) -> None:
    machine, at, child = shared_thp(make_machine, "v3.7", ram=PAGES + 100)
    machine.host.swap._next = machine.host.swap.pages + 1  # swap is full
    machine.run(machine.process.write(at, b"new"))
    assert not is_huge(machine.mm, at) and not is_huge(child.mm, at)
    assert machine.run(machine.process.read(at, 3)) == b"new" and holds(machine, child, at)
    machine.check_counts(machine.mm, child.mm)


@pytest.mark.parametrize("era", ERAS)
def test_fork_of_a_pinned_thp(make_machine: Any, era: str) -> None:
    """6.12 splits it and copies the pinned page for the child; 3.x shares it whole."""
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    found = machine.run(machine.mm.pin(at + PAGE, 1, True))
    child = machine.run(machine.process.fork())
    assert is_huge(child.mm, at) == (era != "v6.12")
    assert is_writable(machine.mm, at + PAGE) == (era == "v6.12") and not is_writable(machine.mm, at)
    assert holds(machine, child, at)
    machine.mm.unpin(found >> 1)
    machine.check_counts(machine.mm, child.mm)
