"""Splits of THP: for which operations, in which order, and what does without (odp.md 1.3, 1.5)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm.migrate import migrate_page
from nicemu.mm.page import PG_HEAD, PG_TAIL
from nicemu.mm.page_table import ACCESSED
from nicemu.mm.rmap import page_referenced
from tests.mm.huge_machines import (
    CLEAR,
    END,
    ERAS,
    FLUSH,
    FREE,
    HUGE_SIZE,
    MADV_DONTNEED,
    MADV_PAGEOUT,
    MOVE,
    PAGE,
    PAGES,
    PROTECT,
    SET,
    SPLIT,
    SPLITTING,
    START,
    aligned,
    fill,
    holds,
    is_huge,
    is_writable,
    shared_thp,
    thp,
    under_lock,
    watch,
)  # fmt: skip


@pytest.mark.parametrize("era", ERAS)
def test_partial_munmap_splits_before_it_starts(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    head = machine.frame(at)
    machine.run(machine.process.munmap(at + 3 * PAGE, PAGE))
    assert machine.kinds() == [*SPLIT[era], START, CLEAR, END, FLUSH, FREE]
    assert not is_huge(machine.mm, at) and machine.frame(at + 4 * PAGE) == head + 4
    assert not machine.host.pages.flags[head] & (PG_HEAD | PG_TAIL) and not machine.host.compound_mapcount
    counter = "thp_split_pmd" if era == "v6.12" else "thp_split"
    assert machine.host.counters[counter] == 1
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_partial_dontneed_splits_inside_its_pair(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    machine.run(machine.process.madvise(at + 3 * PAGE, PAGE, MADV_DONTNEED))
    assert machine.kinds() == [START, *SPLIT[era], CLEAR, END, FLUSH, FREE]
    assert machine.run(machine.process.read(at + 3 * PAGE, 2)) == bytes(2)
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_split_notifies_with_the_lock_held_in_v3_6_only(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    watcher = watch(machine)
    machine.run(machine.process.madvise(at + PAGE, PAGE, MADV_DONTNEED))
    locked = era.startswith("v3.6")
    assert under_lock(watcher) == [("start", False), ("start", locked), ("end", locked), ("end", False)]


@pytest.mark.parametrize("era", ERAS)
def test_split_notifies_where_no_huge_mapping_is_except_in_v3_6(make_machine: Any, era: str) -> None:
    """The child has unmapped it; its area is still one that could map the page."""
    machine, at, child = shared_thp(make_machine, era)
    machine.run(child.madvise(at, HUGE_SIZE, MADV_DONTNEED))
    machine.kinds()
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    starts = [fields["mm"] for kind, fields in machine.events if kind == START and fields["operation"] == "split_huge"]
    assert starts == ([1] if era.startswith("v3.6") else [1, 2])


@pytest.mark.parametrize("era", ERAS)
def test_mprotect_of_a_part_splits_and_of_all_does_not(make_machine: Any, era: str) -> None:
    tail = [END, FLUSH] if era == "v6.12" else [FLUSH, END]
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    machine.run(machine.process.mprotect(at, HUGE_SIZE, 1))
    assert machine.kinds() == [START, PROTECT, *tail] and is_huge(machine.mm, at)
    assert not is_writable(machine.mm, at) and not is_writable(machine.mm, at + HUGE_SIZE - PAGE)
    machine.run(machine.process.mprotect(at, HUGE_SIZE, 3))
    machine.kinds()
    machine.run(machine.process.mprotect(at, 5 * PAGE, 1))
    assert machine.kinds() == [*SPLIT[era], START, PROTECT, *tail] and not is_huge(machine.mm, at)
    assert holds(machine, machine.process, at)


def hole(machine: Any, length: int) -> int:
    """An aligned address where nothing is mapped; the log is empty."""
    at = aligned(machine, length)
    machine.run(machine.process.munmap(at, length))
    machine.kinds()
    return at


@pytest.mark.parametrize("era", ERAS)
def test_mremap_moves_an_aligned_mapping_whole(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    to = hole(machine, HUGE_SIZE)
    assert machine.run(machine.process.mremap(at, HUGE_SIZE, HUGE_SIZE, 3, to)) == to
    assert machine.kinds() == [START, MOVE, FLUSH, END]
    assert is_huge(machine.mm, to) and holds(machine, machine.process, to)
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_mremap_to_an_odd_place_splits_inside_its_pair(make_machine: Any, era: str) -> None:
    """3.x goes through both areas that the page could be in, the new one among them."""
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    to = hole(machine, 2 * HUGE_SIZE) + PAGE
    machine.run(machine.process.mremap(at, HUGE_SIZE, HUGE_SIZE, 3, to))
    empty = [START, END] if era.startswith("v3.7") else []
    split = [*SPLIT[era][:4], *empty, *SPLIT[era][4:]]
    assert machine.kinds() == [START, *split, MOVE, FLUSH, END]
    assert not is_huge(machine.mm, to) and holds(machine, machine.process, to)
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_reclaim_splits_first(make_machine: Any, era: str) -> None:
    machine, at, child = shared_thp(make_machine, era)
    assert machine.run(machine.host.reclaim.evict(machine.mm, at + 7 * PAGE))
    kinds = machine.kinds("notifier_start", "notifier_page", "swap_out", "pte_clear", SET, SPLITTING)
    split = [START, CLEAR, SET] * 2 if era == "v6.12" else [START, SPLITTING] * 2 + [CLEAR, SET] * 2
    assert kinds[: len(split)] == split and kinds.count("swap_out") == 2
    assert holds(machine, machine.process, at) and holds(machine, child, at)
    machine.check_counts(machine.mm, child.mm)


@pytest.mark.parametrize("era", ERAS)
def test_pageout_of_a_thp(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    machine.run(machine.process.madvise(at, HUGE_SIZE, MADV_PAGEOUT))
    assert machine.frames.allocated == 0 and machine.host.swap.used == PAGES
    assert holds(machine, machine.process, at)


@pytest.mark.parametrize("era", ERAS)
def test_migration_splits_first(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    old = machine.frame(at + PAGE)
    assert machine.run(migrate_page(machine.mm, at + PAGE))
    assert machine.frame(at + PAGE) != old and not is_huge(machine.mm, at) and holds(machine, machine.process, at)
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_a_pinned_thp_is_not_split_for_reclaim_in_6_12(make_machine: Any, era: str) -> None:
    """3.x splits it and leaves the pinned page."""
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    machine.run(machine.mm.pin(at + PAGE, 1, True))
    assert machine.run(machine.host.reclaim.evict(machine.mm, at)) == (era != "v6.12")
    assert not machine.run(machine.host.reclaim.evict(machine.mm, at + PAGE))
    assert is_huge(machine.mm, at + PAGE) == (era == "v6.12") and holds(machine, machine.process, at)
    machine.check_counts()


def test_reclaim_under_pressure_goes_through_huge_pages(make_machine: Any) -> None:
    machine = make_machine("v6.12", ram=1100)
    at = thp(machine, 2 * PAGES)
    other = machine.run(machine.process.mmap(400 * PAGE))
    fill(machine, other, 400)
    assert machine.host.counters["pswpout"] > 300 and holds(machine, machine.process, at, PAGES)
    assert holds(machine, machine.process, other, 400)
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_a_use_of_any_part_keeps_the_whole_in_memory(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = thp(machine)
    head = machine.frame(at)
    view = machine.mm.page_table.view(at // PAGE, at // PAGE + PAGES)
    view &= ~ACCESSED
    view[100] |= ACCESSED
    assert machine.run(page_referenced(machine.host, head)) and not machine.run(page_referenced(machine.host, head))
