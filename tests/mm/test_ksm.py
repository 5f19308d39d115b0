"""KSM: equal pages become one, read-only, until somebody writes (``ksm.c``)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm.ksm import ksm_scan
from nicemu.mm.madvise import MADV_FREE, MADV_MERGEABLE, MADV_UNMERGEABLE
from nicemu.mm.migrate import migrate_page
from nicemu.mm.page_table import WRITE
from tests.mm.test_disciplines import Sleeper, SleepingInterval

PAGE = 4096
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
SAME = b"the same words" * 200


def mergeable(machine: Any, pages: int = 2, process: Any = None) -> int:
    """Address of mergeable memory whose pages are all alike."""
    process = process or machine.process
    at = int(machine.run(process.mmap(pages * PAGE)))
    for page in range(pages):
        machine.run(process.write(at + page * PAGE, SAME))
    machine.run(process.madvise(at, pages * PAGE, MADV_MERGEABLE))
    return at


def scan(machine: Any, passes: int = 2) -> int:
    """Whole passes of ksmd; pages merged."""
    merged = 0
    for _ in range(passes):
        before = machine.host.ksm.full_scans
        while machine.host.ksm.full_scans == before or machine.host.ksm._todo:
            merged += machine.run(ksm_scan(machine.host, 1))
            if not machine.host.ksm._todo and machine.host.ksm.full_scans > before:
                break
    return merged


@pytest.fixture
def merged(machine: Any) -> tuple[Any, int]:
    """A machine and the address of two pages that are one KSM page."""
    at = mergeable(machine)
    assert scan(machine) == 1
    machine.kinds()
    return machine, at


def test_equal_pages_share_a_read_only_frame(merged: tuple[Any, int]) -> None:
    machine, at = merged
    assert machine.frame(at) == machine.frame(at + PAGE) != 0
    assert not any(machine.mm.page_table.get(at // PAGE + page) & WRITE for page in (0, 1))
    assert machine.run(machine.process.read(at + PAGE, len(SAME))) == SAME
    assert (machine.host.ksm.pages_shared, machine.host.ksm.pages_sharing) == (1, 1)
    machine.check_counts()


def test_one_pass_only_learns_checksums(machine: Any) -> None:
    mergeable(machine)
    assert scan(machine, 1) == 0 and scan(machine, 1) == 1


def test_different_pages_are_left_alone(machine: Any) -> None:
    at = mergeable(machine)
    machine.run(machine.process.write(at, b"other"))
    assert scan(machine, 3) == 0 and machine.frame(at) != machine.frame(at + PAGE)


def test_a_page_that_changes_between_passes_is_not_merged(machine: Any) -> None:
    at = mergeable(machine)
    scan(machine, 1)
    machine.run(machine.process.write(at, b"x"))
    machine.run(machine.process.write(at + PAGE, b"x"))
    assert scan(machine, 1) == 0 and scan(machine, 1) == 1


def test_a_write_copies_and_leaves_the_others(merged: tuple[Any, int]) -> None:
    machine, at = merged
    machine.run(machine.process.write(at, b"mine"))
    assert machine.frame(at) != machine.frame(at + PAGE)
    assert machine.run(machine.process.read(at + PAGE, 4)) == SAME[:4]
    machine.check_counts()


def test_even_the_last_user_copies(merged: tuple[Any, int]) -> None:
    """``reuse_swap_page`` never reuses a KSM page."""
    machine, at = merged
    machine.run(machine.process.write(at, b"mine"))
    shared = machine.frame(at + PAGE)
    machine.run(machine.process.write(at + PAGE, b"mine"))
    assert machine.frame(at + PAGE) != shared and machine.host.ksm.pages_shared == 0
    machine.check_counts()


def test_the_last_mapping_frees_it(merged: tuple[Any, int]) -> None:
    machine, at = merged
    frame = machine.frame(at)
    generation = machine.frames.table[frame].generation
    machine.run(machine.process.munmap(at, 2 * PAGE))
    assert machine.frames.table[frame].generation > generation and machine.host.ksm.pages_shared == 0
    assert machine.frames.allocated == 0


def test_a_third_page_joins_through_the_stable_tree(merged: tuple[Any, int]) -> None:
    machine, at = merged
    other = mergeable(machine, 1)
    assert scan(machine, 1) == 1  # no need to wait for its checksum
    assert machine.frame(other) == machine.frame(at) and machine.host.ksm.pages_sharing == 2
    machine.check_counts()


def test_pages_of_several_address_spaces(machine: Any) -> None:
    from nicemu.mm import Process

    other = Process(machine.host, None, machine.host.new_address_space("other"), "model")
    at = mergeable(machine, 1)
    there = mergeable(machine, 1, other)
    assert scan(machine) == 1
    assert machine.frame(at) == other.mm.page_table.get(there // PAGE) >> 12
    machine.check_counts(machine.mm, other.mm)
    machine.run(machine.process.exit())
    assert machine.run(other.read(there, len(SAME))) == SAME
    machine.run(other.exit())
    assert machine.frames.allocated == 0


def test_reclaim_finds_every_mapping_and_its_child(merged: tuple[Any, int]) -> None:
    machine, at = merged
    child = machine.run(machine.process.fork())
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.frame(at) == machine.frame(at + PAGE) == 0
    assert machine.run(child.read(at + PAGE, len(SAME))) == SAME
    assert machine.run(machine.process.read(at, len(SAME))) == SAME
    machine.check_counts(machine.mm, child.mm)


def test_a_ksm_page_migrates(merged: tuple[Any, int]) -> None:
    machine, at = merged
    old = machine.frame(at)
    assert machine.run(migrate_page(machine.mm, at))
    assert machine.frame(at) == machine.frame(at + PAGE) != old
    assert machine.host.ksm.pages_sharing == 1
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.run(machine.process.read(at + PAGE, len(SAME))) == SAME
    machine.check_counts()


def test_a_pinned_page_is_not_merged(machine: Any) -> None:
    at = mergeable(machine)
    frames = machine.run(machine.mm.pin(at, 2, True)) >> 1
    assert scan(machine, 3) == 0
    assert machine.mm.page_table.get(at // PAGE) & WRITE
    machine.mm.unpin(frames)
    assert scan(machine) == 1


def test_a_page_that_somebody_holds_is_not_merged(machine: Any) -> None:
    """O_DIRECT may be writing to it: the entry is put back as it was."""
    at = mergeable(machine)
    frame, entry = machine.frame(at), machine.mm.page_table.get(at // PAGE)
    machine.host.pages.get(frame)
    assert scan(machine, 3) == 0 and machine.mm.page_table.get(at // PAGE) == entry
    machine.host.pages.put(frame)


def test_unmergeable_gives_everybody_a_page(merged: tuple[Any, int]) -> None:
    machine, at = merged
    machine.run(machine.process.madvise(at, 2 * PAGE, MADV_UNMERGEABLE))
    assert machine.frame(at) != machine.frame(at + PAGE) and scan(machine) == 0
    machine.check_counts()


def test_a_merged_page_is_not_lazily_freed(machine: Any) -> None:
    at = mergeable(machine)
    machine.run(machine.process.madvise(at, PAGE, MADV_FREE))
    scan(machine)
    machine.run(machine.host.reclaim.evict(machine.mm, at))
    machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.run(machine.process.read(at + PAGE, len(SAME))) == SAME


def test_a_write_between_protection_and_replacement_wins(machine: Any) -> None:
    at = mergeable(machine)
    scan(machine, 1)

    def writer() -> Any:
        yield from machine.process.write(at + PAGE, b"other")

    for delay in range(0, 4000, 97):
        merging = machine.scheduler.spawn(ksm_scan(machine.host, 2), "ksmd")
        writing = machine.scheduler.spawn(writer(), "writer", delay=delay)
        machine.timeline.advance(lambda a=merging, b=writing: a.finished and b.finished)
        assert machine.run(machine.process.read(at + PAGE, 5)) == b"other"
        assert machine.run(machine.process.read(at, len(SAME))) == SAME
        machine.check_counts()
        machine.run(machine.process.write(at + PAGE, SAME))
        scan(machine, 1)


PROTECT = ["pte_clear", "tlb_flush", "change_pte", "pte_set"]
BOTH_612 = ["notifier_start", "pte_clear", "tlb_flush", "pte_set", "notifier_end"]
ORDER = {
    "v3.6": [*PROTECT * 3, "free"],
    "v3.6+srcu": [*PROTECT * 3, "free"],
    "v3.7-seed": [*PROTECT * 3, "free"],
    "v3.7": [*["notifier_start", *PROTECT, "notifier_end"] * 3, "free"],
    "v6.12": [*BOTH_612 * 3, "free"],
}


@pytest.mark.parametrize("era", ERAS)
def test_order_of_each_era(make_machine: Any, era: str) -> None:
    """Two pages are write-protected (``write_protect_page``), then one is replaced (``replace_page``)."""
    machine = make_machine(era)
    mergeable(machine)
    machine.kinds()
    scan(machine)
    assert machine.kinds() == ORDER[era]


@pytest.mark.parametrize("era", ERAS)
def test_a_sleeping_subscriber_is_reported_until_the_calls_are_wrapped(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    machine.run(machine.mm.notifiers.register(Sleeper()))
    at = mergeable(machine)
    if machine.host.discipline.interval:
        machine.mm.intervals.insert(SleepingInterval(), at, 2 * PAGE)
    scan(machine)
    locked = {("ksm", "page_table_lock")} if era in ("v3.6", "v3.6+srcu", "v3.7-seed") else set()
    assert {(report.operation, report.lock) for report in machine.host.reports} == locked
