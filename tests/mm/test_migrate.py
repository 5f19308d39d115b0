"""Page migration: contents and permissions stay, the frame changes, whoever comes meanwhile waits (``migrate.c``)."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from nicemu.mm import Process
from nicemu.mm.migrate import migrate_page, unmap_and_move
from nicemu.mm.page_table import MIGRATION, PRESENT, WRITE
from nicemu.timeline.host import SeededChooser
from tests.mm.test_disciplines import Sleeper, SleepingInterval

PAGE = 4096
WORDS = b"the bytes of the page"
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")


@pytest.fixture(params=["model", "arena"])
def machine(request: Any, make_machine: Any, arena: Any) -> Any:
    """A machine of each memory kind, where a copy takes long enough for a fault to come meanwhile."""
    machine = make_machine(arena=arena if request.param == "arena" else None)
    machine.host.costs = SimpleNamespace(**vars(machine.host.costs) | {"copy_page_ns": 10_000})
    return machine


def page_with_words(machine: Any) -> int:
    at: int = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, WORDS))
    return at


def migrate(machine: Any, at: int) -> bool:
    return bool(machine.run(migrate_page(machine.mm, at)))


def beside_a_migration(machine: Any, at: int, steps: Any, delay: int) -> Any:
    """Run ``steps`` so many ns after a migration began; the migration's result."""
    moving = machine.scheduler.spawn(migrate_page(machine.mm, at), "migration")
    other = machine.scheduler.spawn(steps, "other", delay=delay)
    machine.timeline.advance(lambda: moving.finished and other.finished)
    assert moving.finished and other.finished, machine.timeline.who_waits()
    return moving.result


def text(machine: Any, at: int, process: Process | None = None) -> bytes:
    found: bytes = machine.run((process or machine.process).read(at, len(WORDS)))
    return found


def test_another_frame_has_the_bytes_and_the_old_one_is_free(machine: Any) -> None:
    at = page_with_words(machine)
    old, generation = machine.frame(at), machine.frames.table[machine.frame(at)].generation
    assert migrate(machine, at)
    assert machine.frame(at) not in (0, old) and text(machine, at) == WORDS
    assert machine.frames.table[old].generation > generation
    assert machine.host.counters["pgmigrate_success"] == 1
    machine.check_counts()


def test_real_memory_stays_and_the_old_frame_points_at_the_graveyard(make_machine: Any, arena: Any) -> None:
    machine = make_machine(arena=arena)
    at = page_with_words(machine)
    old = machine.frame(at)
    assert migrate(machine, at)
    pointer = machine.host.pages.pointer
    assert pointer[machine.frame(at)] == at and pointer[old] == machine.frames.graveyard
    assert ctypes.string_at(at, len(WORDS)) == WORDS


def test_the_entry_keeps_its_permissions(machine: Any) -> None:
    at = page_with_words(machine)
    before = machine.mm.page_table.get(at // PAGE)
    migrate(machine, at)
    assert machine.mm.page_table.get(at // PAGE) & 0xFFF == before & 0xFFF


def test_nothing_to_move_where_nothing_is_mapped(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    assert not migrate(machine, at) and not migrate(machine, at + PAGE)


def test_parent_and_child_share_the_new_frame_as_they_shared_the_old(machine: Any) -> None:
    at = page_with_words(machine)
    child = machine.run(machine.process.fork())
    assert migrate(machine, at)
    entries = [mm.page_table.get(at // PAGE) for mm in (machine.mm, child.mm)]
    assert entries[0] >> 12 == entries[1] >> 12 and not any(entry & WRITE for entry in entries)
    machine.check_counts(machine.mm, child.mm)
    machine.run(machine.process.write(at, b"THE"))
    assert machine.frame(at) != child.mm.page_table.get(at // PAGE) >> 12
    assert text(machine, at) == b"THE" + WORDS[3:]
    machine.run(child.exit())
    machine.check_counts()


def test_a_pinned_page_stays(machine: Any) -> None:
    at = page_with_words(machine)
    frame = machine.run(machine.mm.pin(at, 1, True)) >> 1
    assert not migrate(machine, at) and machine.frame(at) == frame[0]
    machine.mm.unpin(frame)
    assert migrate(machine, at)
    machine.check_counts()


def test_a_page_that_somebody_holds_is_mapped_again(machine: Any) -> None:
    at = page_with_words(machine)
    entry, frame = machine.mm.page_table.get(at // PAGE), machine.frame(at)
    machine.host.pages.get(frame)
    assert not migrate(machine, at)
    assert machine.mm.page_table.get(at // PAGE) == entry and text(machine, at) == WORDS
    assert machine.host.counters["pgmigrate_fail"] == 1
    machine.host.pages.put(frame)
    machine.check_counts()


def test_a_migrated_page_can_be_reclaimed(machine: Any) -> None:
    at = page_with_words(machine)
    migrate(machine, at)
    assert machine.run(machine.host.reclaim.evict(machine.mm, at)) and not machine.frame(at)
    assert text(machine, at) == WORDS
    machine.check_counts()


# Others at the same time


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_racing_fault_waits_and_sees_the_new_frame(machine: Any, write: bool) -> None:
    at = page_with_words(machine)
    old = machine.frame(at)
    found = []

    def fault() -> Any:
        assert machine.mm.page_table.get(at // PAGE) & MIGRATION
        found.append((yield from machine.mm.fault_in(at, 1, write)))

    assert beside_a_migration(machine, at, fault(), 100)
    assert machine.host.counters["migration_wait"] == 1
    assert found[0][0] == machine.frame(at) << 1 | 1 and machine.frame(at) != old


def test_a_racing_fault_of_many_pages_waits_too(machine: Any) -> None:
    at = machine.run(machine.process.mmap(8 * PAGE))
    machine.run(machine.process.write(at + 3 * PAGE, WORDS))
    assert beside_a_migration(machine, at + 3 * PAGE, machine.mm.fault_in(at, 8, True), 100)
    assert machine.host.counters["migration_wait"] == 1 and text(machine, at + 3 * PAGE) == WORDS
    machine.check_counts()


def test_discarded_meanwhile_the_page_is_gone(machine: Any) -> None:
    at = page_with_words(machine)
    beside_a_migration(machine, at, machine.process.madvise(at, PAGE, 4), 100)
    assert not machine.frame(at) and text(machine, at) == bytes(len(WORDS))
    machine.check_counts()


def test_write_protected_meanwhile_it_is_read_only(machine: Any) -> None:
    at = page_with_words(machine)
    assert beside_a_migration(machine, at, machine.process.mprotect(at, PAGE, 1), 100)
    assert machine.mm.page_table.get(at // PAGE) & (PRESENT | WRITE) == PRESENT
    machine.check_counts()


def test_forked_meanwhile_both_have_it(machine: Any) -> None:
    at = page_with_words(machine)
    children = []

    def fork() -> Any:
        assert machine.mm.page_table.get(at // PAGE) & MIGRATION
        children.append((yield from machine.process.fork()))

    assert beside_a_migration(machine, at, fork(), 100)
    entries = [mm.page_table.get(at // PAGE) for mm in (machine.mm, children[0].mm)]
    assert entries[0] & (PRESENT | WRITE | MIGRATION) == PRESENT and entries[0] >> 12 == entries[1] >> 12
    assert text(machine, at) == WORDS
    machine.check_counts(machine.mm, children[0].mm)


def test_a_shared_page_under_migration_is_not_reused_for_a_write(machine: Any) -> None:
    """The parent's entry waits for the bytes as they were: a write by the only other mapper must copy."""
    at = page_with_words(machine)
    child = machine.run(machine.process.fork())
    old = machine.frame(at)
    reclaim, new = machine.host.reclaim, machine.run(machine.host.alloc_pages(machine.host.pages.kind[old], 1))
    assert reclaim.isolate(old)

    def write_between() -> Any:
        machine.host.pages.mapcount[old] -= 1
        machine.host.pages.refcount[old] -= 1
        entry = child.mm.page_table.get(at // PAGE)
        child.mm.page_table.set(at // PAGE, entry & ~PRESENT | MIGRATION)
        yield from machine.mm.fault_in(at, 1, True)
        assert machine.frame(at) != old
        yield from unmap_and_move(machine.host, old, int(new[0]))
        reclaim.putback(old, "migrate")

    machine.run(write_between())
    assert child.mm.page_table.get(at // PAGE) >> 12 == new[0]
    machine.check_counts(machine.mm, child.mm)


def test_a_page_that_is_isolated_but_still_mapped_keeps_its_bytes(make_machine: Any, arena: Any) -> None:
    """mprotect and munmap retire frames that reclaim or migration has unmapped, not those it is about to unmap."""
    machine = make_machine(arena=arena)
    at = page_with_words(machine)
    frame = machine.frame(at)
    assert machine.host.reclaim.isolate(frame)
    machine.run(machine.process.mprotect(at, PAGE, 1))
    assert machine.host.pages.pointer[frame] == at
    machine.host.reclaim.putback(frame, "test")
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("seed", range(8))
def test_any_interleaving_keeps_bytes_and_counts(make_machine: Any, era: str, seed: int) -> None:
    machine = make_machine(era, ram=256)
    machine.scheduler.chooser = SeededChooser(seed, 700)
    at = machine.run(machine.process.mmap(4 * PAGE))
    for page in range(4):
        machine.run(machine.process.write(at + page * PAGE, b"page %d" % page))
    children: list[Process] = []

    def fork() -> Any:
        children.append((yield from machine.process.fork()))

    def rewrite(page: int) -> Any:
        found = yield from machine.process.read(at + page * PAGE, 6)
        assert found == b"page %d" % page
        yield from machine.process.write(at + page * PAGE, found)

    spawn = machine.scheduler.spawn
    threads = [spawn(migrate_page(machine.mm, at + page * PAGE), f"migrate {page}") for page in (0, 1, 2, 3, 1, 2)]
    threads += [spawn(machine.host.reclaim.evict(machine.mm, at + page * PAGE), f"evict {page}") for page in (1, 3)]
    threads += [spawn(rewrite(page), f"write {page}") for page in (0, 1, 2, 3)]
    threads += [spawn(fork(), "fork"), spawn(machine.process.mremap(at + 3 * PAGE, PAGE, PAGE), "mremap")]
    machine.timeline.advance(lambda: all(thread.finished for thread in threads))
    assert all(thread.finished and thread.error is None for thread in threads), machine.timeline.who_waits()
    for process in (machine.process, *children):
        for page in range(4):
            assert machine.run(process.read(at + page * PAGE, 6)) == b"page %d" % page
    machine.check_counts(machine.mm, *(child.mm for child in children))


# Notifiers


@pytest.mark.parametrize(
    ("era", "expected"),
    [
        ("v3.6", ["pte_clear", "tlb_flush", "notifier_page", "migrate", "migrated", "free"]),
        ("v3.6+srcu", ["pte_clear", "tlb_flush", "notifier_page", "migrate", "migrated", "free"]),
        ("v3.7-seed", ["pte_clear", "tlb_flush", "notifier_page", "migrate", "migrated", "free"]),
        ("v3.7", ["pte_clear", "tlb_flush", "notifier_page", "migrate", "migrated", "free"]),
        ("v6.12", ["notifier_start", "pte_clear", "tlb_flush", "notifier_end", "migrate", "migrated", "free"]),
    ],
)
def test_order_of_each_era(make_machine: Any, era: str, expected: list[str]) -> None:
    machine = make_machine(era)
    at = page_with_words(machine)
    machine.kinds()
    migrate(machine, at)
    assert machine.kinds() == expected


@pytest.mark.parametrize("era", ERAS)
def test_a_sleeping_subscriber_is_reported_where_reclaim_would(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    machine.run(machine.mm.notifiers.register(Sleeper()))
    at = page_with_words(machine)
    if machine.host.discipline.interval:
        machine.mm.intervals.insert(SleepingInterval(), at, PAGE)
    migrate(machine, at)
    locked = {("migrate", "page_table_lock")} if era in ("v3.6", "v3.6+srcu") else set()
    assert {(report.operation, report.lock) for report in machine.host.reports} == locked
