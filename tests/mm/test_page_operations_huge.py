"""Page operations that meet a transparent huge page split it, or treat it as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm.compaction import compact_block
from nicemu.mm.compound import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from nicemu.mm.device_memory import migrate_vma
from nicemu.mm.madvise import MADV_FREE, MADV_HWPOISON, MADV_MERGEABLE, MADV_SOFT_OFFLINE
from nicemu.mm.migrate import migrate_page
from nicemu.mm.numa import change_prot_numa
from nicemu.mm.page_table import HUGE, SOFT_DIRTY, WRITE
from nicemu.mm.soft_dirty import clear_refs

PAGE = 4096
LAST = HPAGE_PMD_NR - 1


@pytest.fixture
def huge(make_machine: Any) -> tuple[Any, int]:
    """A machine and the address of a THP, each of whose pages holds its number."""
    machine = make_machine()
    machine.host.transparent_hugepage = "always"
    at = int(machine.run(machine.process.mmap(HPAGE_PMD_SIZE)))
    for page in range(HPAGE_PMD_NR):
        machine.run(machine.process.write(at + page * PAGE, page.to_bytes(2, "little") * 2048))
    assert is_huge(machine, at)
    machine.kinds()
    return machine, at


def is_huge(machine: Any, at: int) -> bool:
    """Whole or not at all."""
    view = machine.mm.page_table.view(at // PAGE, at // PAGE + HPAGE_PMD_NR) & HUGE
    assert view.all() or not view.any()
    return bool(view.all())


def intact(machine: Any, at: int, but: tuple[int, ...] = ()) -> bool:
    pages = [page for page in (0, 1, 7, 300, LAST) if page not in but]
    return all(machine.run(machine.process.read(at + page * PAGE, 2)) == page.to_bytes(2, "little") for page in pages)


def test_ksm_splits_it_for_a_page_that_has_its_like(huge: tuple[Any, int]) -> None:
    machine, at = huge
    machine.run(machine.process.write(at + 7 * PAGE, (9).to_bytes(2, "little") * 2048))
    machine.run(machine.process.madvise(at, HPAGE_PMD_SIZE, MADV_MERGEABLE))
    machine.run(machine.host.ksm_scan(2 * HPAGE_PMD_NR))
    assert not is_huge(machine, at) and machine.frame(at + 7 * PAGE) == machine.frame(at + 9 * PAGE)
    assert intact(machine, at, but=(7,))
    machine.check_counts()


def test_ksm_leaves_a_huge_page_without_twins(huge: tuple[Any, int]) -> None:
    machine, at = huge
    machine.run(machine.process.madvise(at, HPAGE_PMD_SIZE, MADV_MERGEABLE))
    machine.run(machine.host.ksm_scan(2 * HPAGE_PMD_NR))
    assert is_huge(machine, at)


@pytest.mark.parametrize("advice", [MADV_HWPOISON, MADV_SOFT_OFFLINE])
def test_failing_memory_costs_one_page(huge: tuple[Any, int], advice: int) -> None:
    machine, at = huge
    machine.run(machine.process.madvise(at + 7 * PAGE, PAGE, advice))
    assert not is_huge(machine, at) and intact(machine, at, but=(7,))
    if advice == MADV_SOFT_OFFLINE:
        assert intact(machine, at)
    machine.check_counts()


def test_a_pinned_huge_page_cannot_lose_a_page(huge: tuple[Any, int]) -> None:
    machine, at = huge
    machine.run(machine.mm.pin(at, 1, True))
    with pytest.raises(OSError):
        machine.run(machine.process.madvise(at + 7 * PAGE, PAGE, MADV_HWPOISON))
    assert intact(machine, at)


def test_clear_refs_treats_it_as_a_whole(huge: tuple[Any, int]) -> None:
    machine, at = huge
    machine.run(clear_refs(machine.mm))
    view = machine.mm.page_table.view(at // PAGE, at // PAGE + HPAGE_PMD_NR)
    assert is_huge(machine, at) and not (view & (WRITE | SOFT_DIRTY)).any()
    machine.run(machine.process.write(at + 7 * PAGE, b"x"))
    assert is_huge(machine, at) and (view & SOFT_DIRTY).all()


def test_clear_refs_leaves_a_pinned_one(huge: tuple[Any, int]) -> None:
    machine, at = huge
    machine.run(machine.mm.pin(at, 1, True))
    machine.run(clear_refs(machine.mm))
    assert (machine.mm.page_table.view(at // PAGE, at // PAGE + HPAGE_PMD_NR) & WRITE).all()


def test_free_marks_small_pages(huge: tuple[Any, int]) -> None:
    machine, at = huge
    machine.run(machine.process.madvise(at, 8 * PAGE, MADV_FREE))
    assert not is_huge(machine, at) and machine.run(machine.host.reclaim.evict(machine.mm, at + 7 * PAGE))
    assert machine.run(machine.process.read(at + 7 * PAGE, 2)) == bytes(2) and intact(machine, at, but=(7,))
    machine.check_counts()


def test_a_locked_huge_page_is_not_reclaimed(huge: tuple[Any, int]) -> None:
    machine, at = huge
    machine.run(machine.process.mlock(at, HPAGE_PMD_SIZE))
    assert machine.run(machine.host.reclaim.shrink(4)) == 0 and is_huge(machine, at)


def test_userfaultfd_splits_what_it_watches(huge: tuple[Any, int]) -> None:
    machine, at = huge
    handler = machine.run(machine.process.userfaultfd(True))
    machine.run(handler.register(at, HPAGE_PMD_SIZE))
    machine.run(handler.writeprotect(at + 7 * PAGE, PAGE, True))
    assert not is_huge(machine, at) and intact(machine, at)


@pytest.mark.parametrize("operation", ["numa", "private", "compact"])
def test_operations_that_leave_it_alone(huge: tuple[Any, int], operation: str) -> None:
    machine, at = huge
    steps = {"numa": change_prot_numa(machine.mm, at, at + HPAGE_PMD_SIZE),
             "private": migrate_vma(machine.mm, at, at + HPAGE_PMD_SIZE, None),
             "compact": compact_block(machine.host)}[operation]  # fmt: skip
    machine.run(steps)
    assert is_huge(machine, at) and intact(machine, at)


def test_migration_splits_it(huge: tuple[Any, int]) -> None:
    machine, at = huge
    frame = machine.frame(at + 7 * PAGE)
    assert machine.run(migrate_page(machine.mm, at + 7 * PAGE))
    assert not is_huge(machine, at) and machine.frame(at + 7 * PAGE) != frame and intact(machine, at)
    machine.check_counts()


# UFFDIO_MOVE


def destination(machine: Any, offset: int = 0) -> tuple[int, Any]:
    """An empty registered area, and its handler."""
    there = int(machine.run(machine.process.mmap(2 * HPAGE_PMD_SIZE))) + offset
    handler = machine.run(machine.process.userfaultfd())
    machine.run(handler.register(there - offset, 2 * HPAGE_PMD_SIZE))
    machine.kinds()
    return there, handler


def test_move_takes_it_whole(huge: tuple[Any, int]) -> None:
    machine, at = huge
    head = machine.frame(at)
    there, handler = destination(machine)
    assert machine.run(handler.move(there, at, HPAGE_PMD_SIZE)) == HPAGE_PMD_SIZE
    assert machine.kinds() == ["notifier_start", "pte_clear", "tlb_flush", "pte_move", "notifier_end"]
    assert is_huge(machine, there) and machine.frame(there) == head and intact(machine, there)
    machine.check_counts()
    assert machine.run(machine.host.reclaim.shrink(1)) >= 1 and intact(machine, there)


def test_move_to_an_odd_place_splits_it(huge: tuple[Any, int]) -> None:
    machine, at = huge
    there, handler = destination(machine, offset=PAGE)
    assert machine.run(handler.move(there, at, 8 * PAGE)) == 8 * PAGE
    assert machine.run(machine.process.read(there + 7 * PAGE, 2)) == (7).to_bytes(2, "little")
    assert intact(machine, at, but=(0, 1, 7))
    machine.check_counts()


def test_a_pinned_huge_page_does_not_move(huge: tuple[Any, int]) -> None:
    machine, at = huge
    machine.run(machine.mm.pin(at + 3 * PAGE, 1, True))
    there, handler = destination(machine)
    with pytest.raises(OSError):
        machine.run(handler.move(there, at, HPAGE_PMD_SIZE))
    assert is_huge(machine, at) and intact(machine, at)
