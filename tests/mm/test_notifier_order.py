"""Order of notifier, page-table entry, CPU TLB flush and free, per operation and era (odp.md 1.3, 1.5)."""

from __future__ import annotations

from typing import Any

import pytest

PAGE = 4096
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
START, END, CLEAR, PROTECT, FLUSH, FREE, PAGE_CALL = (
    "notifier_start", "notifier_end", "pte_clear", "pte_protect", "tlb_flush", "free", "notifier_page",
)  # fmt: skip


def touched(machine: Any, pages: int = 4) -> int:
    """Address of memory that was written."""
    at = machine.run(machine.process.mmap(pages * PAGE))
    machine.run(machine.process.write(at, b"x" * pages * PAGE))
    machine.kinds()
    return int(at)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("operation", ["munmap", "dontneed"])
def test_zap_ends_before_flush_and_free(make_machine: Any, era: str, operation: str) -> None:
    machine = make_machine(era)
    at = touched(machine)
    steps = machine.process.munmap(at, 4 * PAGE) if operation == "munmap" else machine.process.madvise(at, 4 * PAGE, 4)
    machine.run(steps)
    assert machine.kinds() == [START, CLEAR, END, FLUSH, FREE]


@pytest.mark.parametrize("era", ERAS)
def test_fork_notifies_the_parent_once_an_area(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    touched(machine)
    machine.run(machine.process.fork())
    assert machine.kinds() == ["fork", START, PROTECT, END, FLUSH]


@pytest.mark.parametrize("era", ERAS)
def test_mprotect_flushes_before_the_end_in_3x_and_after_it_in_6_12(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    machine.run(machine.process.mprotect(touched(machine), 4 * PAGE, 1))
    tail = [END, FLUSH] if era == "v6.12" else [FLUSH, END]
    assert machine.kinds() == [START, PROTECT, *tail]


@pytest.mark.parametrize(("era", "expected"), [("v3.7", [START, END]), ("v6.12", [])])
def test_mprotect_of_untouched_memory(make_machine: Any, era: str, expected: list[str]) -> None:
    machine = make_machine(era)
    machine.run(machine.process.mprotect(machine.run(machine.process.mmap(PAGE)), PAGE, 1))
    assert machine.kinds() == expected


@pytest.mark.parametrize("era", ERAS)
def test_mremap_notifies_the_old_range_and_ends_after_the_flush(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    at = touched(machine)
    machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.mremap(at, 4 * PAGE, 8 * PAGE))
    assert machine.kinds() == [START, "pte_move", FLUSH, END]


COW_ORDER = {
    "v3.6": [CLEAR, FLUSH, "change_pte", "cow"],
    "v3.6+srcu": [CLEAR, FLUSH, "change_pte", "cow"],
    "v3.7-seed": [CLEAR, FLUSH, "change_pte", "cow", PAGE_CALL],
    "v3.7": [START, CLEAR, FLUSH, "change_pte", "cow", END],
    "v6.12": [START, CLEAR, FLUSH, "cow", END],
}


@pytest.mark.parametrize("era", ERAS)
def test_cow(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    at = touched(machine)
    machine.run(machine.process.fork())
    machine.kinds()
    machine.run(machine.process.write(at, b"y"))
    assert machine.kinds() == ["wp_fault", *COW_ORDER[era]]


RECLAIM_ORDER = {
    "v3.6": [CLEAR, FLUSH, PAGE_CALL, "swap_out", FREE],
    "v3.6+srcu": [CLEAR, FLUSH, PAGE_CALL, "swap_out", FREE],
    "v3.7-seed": [CLEAR, FLUSH, PAGE_CALL, "swap_out", FREE],
    "v3.7": [CLEAR, FLUSH, PAGE_CALL, "swap_out", FREE],
    "v6.12": [START, CLEAR, FLUSH, END, "swap_out", FREE],
}


@pytest.mark.parametrize("era", ERAS)
def test_reclaim_frees_after_the_notifier(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    at = touched(machine)
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.kinds() == RECLAIM_ORDER[era]


@pytest.mark.parametrize("era", ERAS)
def test_exit_releases_before_it_unmaps(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    touched(machine)
    machine.run(machine.process.exit())
    assert machine.kinds() == ["notifier_release", START, CLEAR, END, FLUSH, FREE]
    assert machine.frames.allocated == 0


def test_reuse_of_a_page_nobody_shares_notifies_nobody(machine: Any) -> None:
    at = touched(machine)
    machine.run(machine.process.mprotect(at, 4 * PAGE, 1))
    machine.run(machine.process.mprotect(at, 4 * PAGE, 3))
    frame = machine.frame(at)
    machine.kinds()
    machine.run(machine.process.write(at, b"y"))
    assert machine.kinds() == ["wp_fault"]
    assert machine.frame(at) == frame


@pytest.mark.parametrize("era", ERAS)
def test_stamps_follow_the_notifier(make_machine: Any, era: str) -> None:
    """A frame is stamped by what took it, after the stamp every translation made so far carries."""
    machine = make_machine(era)
    at = touched(machine)
    frame, stamp = machine.frame(at), machine.world.control[0].stamp
    machine.run(machine.process.fork())
    row = machine.world.frame[frame]
    assert row.protected > stamp and row.invalidated == 0 and machine.frames.operation_name(row.operation) == "fork"
    stamp = machine.world.control[0].stamp
    machine.run(machine.process.write(at, b"y"))
    assert row.invalidated > stamp and machine.frames.operation_name(row.operation) == "cow"
    new = machine.frame(at)
    machine.run(machine.process.madvise(at, PAGE, 4))
    assert machine.frames.operation_name(machine.world.frame[new].operation) == "dontneed"
    assert machine.world.frame[new].generation == 2


@pytest.mark.parametrize("era", ERAS)
def test_what_a_child_unmaps_is_no_news_of_its_parents_pages(make_machine: Any, era: str) -> None:
    """A device translates through the parent: the shared frame is still there, whatever the child does."""
    machine = make_machine(era)
    at = machine.run(machine.process.mmap(2 * PAGE))
    machine.run(machine.process.write(at, bytes(2 * PAGE)))
    child = machine.run(machine.process.fork())
    rows = [machine.world.frame[machine.frame(address)] for address in (at, at + PAGE)]
    machine.run(child.write(at, b"x"))
    machine.run(child.madvise(at + PAGE, PAGE, 4))
    machine.run(child.exit())
    assert [int(row.invalidated) for row in rows] == [0, 0]
    machine.run(machine.process.madvise(at, 2 * PAGE, 4))
    assert all(int(row.invalidated) > 0 for row in rows)
