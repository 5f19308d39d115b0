"""Reclaim and migration of pages in a page cache; shmem and swap (``reclaim_file.py``, ``migrate.py``)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm.file import FileKind, OpenFile
from nicemu.mm.migrate import migrate_page
from nicemu.mm.page_cache import drop_caches
from nicemu.timeline.host import SeededChooser, Sleep

PAGE = 4096
RW = 3
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
START, END, CLEAR, FLUSH, FREE, PAGE_CALL = (
    "notifier_start", "notifier_end", "pte_clear", "tlb_flush", "free", "notifier_page")  # fmt: skip
ORDER = {
    "v3.6": [CLEAR, FLUSH, PAGE_CALL, "page_out", FREE],
    "v3.6+srcu": [CLEAR, FLUSH, PAGE_CALL, "page_out", FREE],
    "v3.7-seed": [CLEAR, FLUSH, PAGE_CALL, "page_out", FREE],
    "v3.7": [CLEAR, FLUSH, PAGE_CALL, "page_out", FREE],
    "v6.12": [START, CLEAR, FLUSH, END, "page_out", FREE],
}


def written(machine: Any, kind: FileKind = FileKind.REGULAR, pages: int = 1) -> tuple[OpenFile, int]:
    file = machine.run(machine.process.open_file("data", pages * PAGE, kind))
    at = machine.run(machine.process.mmap_file(file, pages * PAGE, RW, True))
    for page in range(pages):
        machine.run(machine.process.write(at + page * PAGE, b"page %d" % page))
    machine.kinds()
    return file, at


def read(machine: Any, at: int, length: int = 6) -> bytes:
    found: bytes = machine.run(machine.process.read(at, length))
    return found


def evict(machine: Any, at: int) -> bool:
    return bool(machine.run(machine.host.reclaim.evict(machine.mm, at)))


@pytest.mark.parametrize("kind", [FileKind.REGULAR, FileKind.SHMEM], ids=["regular", "shmem"])
@pytest.mark.parametrize("era", ERAS)
def test_a_file_page_is_freed_after_the_notifier(make_machine: Any, era: str, kind: FileKind) -> None:
    machine = make_machine(era)
    _, at = written(machine, kind)
    assert evict(machine, at)
    assert machine.kinds() == ORDER[era]
    assert read(machine, at) == b"page 0"
    machine.check_counts()


def test_a_dirty_page_is_written_first_and_a_clean_one_is_not(machine: Any) -> None:
    file, at = written(machine)
    assert evict(machine, at) and file.inode.blocks[0][:6] == b"page 0" and machine.host.counters["pgpgout"] == 1
    assert read(machine, at) == b"page 0" and evict(machine, at)
    assert machine.host.counters["pgpgout"] == 1 and machine.frames.allocated == 0


def test_a_page_is_taken_from_everybody(machine: Any) -> None:
    file, at = written(machine)
    private = machine.run(machine.process.mmap_file(file, PAGE, RW, False))
    child = machine.run(machine.process.fork())
    for process, address in ((machine.process, private), (child, at), (child, private)):
        machine.run(process.read(address, 1))
    assert evict(machine, at)
    assert not any(mm.page_table.get(a // PAGE) for mm in (machine.mm, child.mm) for a in (at, private))
    machine.check_counts(machine.mm, child.mm)


def test_shmem_goes_to_swap_and_comes_back(machine: Any) -> None:
    file, at = written(machine, FileKind.SHMEM, 4)
    child = machine.run(machine.process.fork())
    for page in range(4):
        assert evict(machine, at + page * PAGE)
    assert machine.frames.allocated == 0 and machine.host.swap.used == len(file.inode.slots) == 4
    assert machine.run(child.read(at + 2 * PAGE, 6)) == read(machine, at + 2 * PAGE) == b"page 2"
    assert machine.host.counters["pswpin"] == 1 and machine.host.swap.used == 3
    machine.check_counts(machine.mm, child.mm)


def test_shmem_without_swap_stays(make_machine: Any) -> None:
    machine = make_machine(swap=0)
    _, at = written(machine, FileKind.SHMEM)
    assert not evict(machine, at) and read(machine, at) == b"page 0"
    machine.check_counts()


def test_pages_that_nobody_maps_are_reclaimed(machine: Any) -> None:
    file = machine.run(machine.process.open_file("data"))
    machine.run(machine.process.pwrite(file, b"x" * 16 * PAGE, 0))
    assert machine.run(machine.host.reclaim.shrink(16)) == 16
    assert machine.frames.allocated == 0 and machine.run(machine.process.pread(file, 16 * PAGE, 0)) == b"x" * 16 * PAGE


def test_a_file_larger_than_ram_can_be_worked_through(make_machine: Any) -> None:
    machine = make_machine(ram=32)
    _, at = written(machine, FileKind.REGULAR, 128)
    for page in range(128):
        assert read(machine, at + page * PAGE).rstrip(b"\0") == (b"page %d" % page)[:6]
    assert machine.frames.peak <= 32
    machine.check_counts()


def test_a_locked_page_is_passed_over(machine: Any) -> None:
    file, at = written(machine)
    frame = file.inode.pages[0]
    machine.host.page_locks.set(frame)
    assert not evict(machine, at) and not machine.run(machine.host.reclaim.shrink(1))
    machine.host.page_locks.clear(frame)
    assert machine.run(machine.host.reclaim.shrink(1)) == 1


def test_a_fault_during_reclaim_waits_and_keeps_the_page(machine: Any) -> None:
    file, at = written(machine)
    frame = file.inode.pages[0]
    going = machine.scheduler.spawn(machine.host.reclaim.evict(machine.mm, at), "reclaim")

    def fault() -> Any:
        yield Sleep(10_000)
        assert frame in machine.host.page_locks
        return (yield from machine.process.read(at, 6))

    faulting = machine.scheduler.spawn(fault(), "fault")
    machine.timeline.advance(lambda: going.finished and faulting.finished)
    assert faulting.result == b"page 0" and machine.frame(at) == frame and not going.result
    machine.check_counts()


def test_drop_caches_leaves_dirty_and_mapped_pages(machine: Any) -> None:
    file, at = written(machine, FileKind.REGULAR, 3)
    assert machine.run(drop_caches(machine.host)) == 0
    machine.run(machine.process.fsync(file))
    machine.run(machine.process.munmap(at, 2 * PAGE))
    assert machine.run(drop_caches(machine.host)) == 2 and list(file.inode.pages) == [2]


def test_storage_itself_is_neither_reclaimed_nor_moved(machine: Any) -> None:
    _, at = written(machine, FileKind.DAX)
    assert not evict(machine, at) and not machine.run(machine.host.reclaim.shrink(1))
    assert not machine.run(migrate_page(machine.mm, at))


def test_the_dma_stamp_waits_for_the_last_mapping(machine: Any) -> None:
    """One page, mapped twice: a device may use it through the second area when the first is gone."""
    file, at = written(machine)
    second = machine.run(machine.process.mmap_file(file, PAGE, RW, True))
    machine.run(machine.process.write(second, b"x"))
    row = machine.world.frame_stamp[machine.frame(at)]
    machine.run(machine.process.munmap(at, PAGE))
    assert row.invalidated == 0
    machine.run(machine.process.munmap(second, PAGE))
    assert row.invalidated > 0


# Migration


@pytest.mark.parametrize("kind", [FileKind.REGULAR, FileKind.SHMEM], ids=["regular", "shmem"])
@pytest.mark.parametrize("era", ERAS)
def test_a_migrated_page_is_another_frame_in_the_cache(make_machine: Any, era: str, kind: FileKind) -> None:
    machine = make_machine(era)
    file, at = written(machine, kind)
    other = machine.run(machine.process.mmap_file(file, PAGE, RW, False))
    read(machine, other)
    old = machine.frame(at)
    assert machine.run(migrate_page(machine.mm, at))
    assert machine.frame(at) == machine.frame(other) == file.inode.pages[0] != old
    machine.run(machine.process.write(at, b"PAGE"))
    assert machine.run(machine.process.pread(file, 6, 0)) == b"PAGE 0"
    machine.check_counts()
    assert evict(machine, at) and read(machine, at) == b"PAGE 0"


def test_a_page_under_writeback_does_not_migrate(machine: Any) -> None:
    file, at = written(machine)
    syncing = machine.scheduler.spawn(machine.process.fsync(file), "fsync")

    def move() -> Any:
        yield Sleep(10_000)
        assert machine.host.writebacks
        return (yield from migrate_page(machine.mm, at))

    moving = machine.scheduler.spawn(move(), "migration")
    machine.timeline.advance(lambda: syncing.finished and moving.finished)
    assert not moving.result
    machine.check_counts()


@pytest.mark.parametrize("seed", range(30))
def test_everything_at_once_keeps_every_byte(make_machine: Any, seed: int) -> None:
    """Writers of disjoint bytes, writeback, reclaim, migration, hole punches elsewhere: no write is lost."""
    machine = make_machine(("v3.6", "v3.7", "v6.12")[seed % 3])
    machine.scheduler.chooser = SeededChooser(seed, 5000)
    file, at = written(machine, (FileKind.REGULAR, FileKind.SHMEM)[seed // 3 % 2], 4)
    second = machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, True))
    child = machine.run(machine.process.fork())

    def writer(process: Any, address: int, offset: int) -> Any:
        for number in range(12):
            yield from process.write(address + number % 3 * PAGE + offset + number, bytes([number + 1]))
            yield 500

    def background() -> Any:
        for page in range(6):
            yield from machine.process.fsync(file)
            yield from machine.host.reclaim.evict(machine.mm, at + page % 3 * PAGE)
            yield from migrate_page(machine.mm, second + page % 3 * PAGE)
            yield from machine.process.fallocate(file, 3, 3 * PAGE, PAGE)

    steps = [writer(machine.process, at, 100), writer(machine.process, second, 200), writer(child, at, 300),
             background(), machine.host.reclaim.shrink(4)]  # fmt: skip
    threads = [machine.scheduler.spawn(step, f"thread {i}") for i, step in enumerate(steps)]
    machine.timeline.advance(lambda: all(thread.finished for thread in threads))
    assert all(thread.finished for thread in threads), machine.timeline.who_waits()
    data = machine.run(machine.process.pread(file, 3 * PAGE, 0))
    for offset in (100, 200, 300):
        assert [data[number % 3 * PAGE + offset + number] for number in range(12)] == list(range(1, 13))
    machine.check_counts(machine.mm, child.mm)
    assert not machine.host.reports
