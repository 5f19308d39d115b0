"""Truncation, hole punching, the end of an inode: who loses what, in which order (``truncate.py``)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import Fault
from nicemu.mm.file import FileKind, OpenFile
from nicemu.timeline.host import SeededChooser, Sleep

PAGE = 4096
RW = 3
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
START, END, CLEAR, FLUSH, FREE = "notifier_start", "notifier_end", "pte_clear", "tlb_flush", "free"


@pytest.fixture(params=[FileKind.REGULAR, FileKind.SHMEM], ids=["regular", "shmem"])
def kind(request: Any) -> FileKind:
    found: FileKind = request.param
    return found


def written(machine: Any, kind: FileKind = FileKind.REGULAR, shared: bool = True) -> tuple[OpenFile, int]:
    """A file of four pages of words, and where it is mapped; all were written through the mapping."""
    file = machine.run(machine.process.open_file("data", 4 * PAGE, kind))
    at = machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, shared))
    for page in range(4):
        machine.run(machine.process.pwrite(file, b"file", page * PAGE))
        machine.run(machine.process.write(at + page * PAGE, b"w%d" % page))
    machine.kinds()
    return file, at


def read(machine: Any, at: int, length: int = 4) -> bytes:
    found: bytes = machine.run(machine.process.read(at, length))
    return found


def bus_error(machine: Any, at: int) -> bool:
    with pytest.raises(Fault) as caught:
        read(machine, at)
    return caught.value.signal == "SIGBUS"


@pytest.mark.parametrize("era", ERAS)
def test_truncation_zaps_frees_and_zaps_again(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    file, _ = written(machine)
    machine.run(machine.process.ftruncate(file, 3 * PAGE))
    assert machine.kinds() == [START, CLEAR, END, FLUSH, FREE, START, CLEAR, END]


@pytest.mark.parametrize("era", ERAS)
def test_a_hole_punch_zaps_then_frees(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    file, _ = written(machine)
    machine.run(machine.process.fallocate(file, 3, PAGE, PAGE))
    assert machine.kinds() == [START, CLEAR, END, FLUSH, FREE]


def test_what_was_cut_off_is_sigbus_and_zero_when_it_grows_again(machine: Any, kind: FileKind) -> None:
    file, at = written(machine, kind)
    machine.run(machine.process.ftruncate(file, 2 * PAGE + 2))
    assert read(machine, at + 2 * PAGE) == b"w2\0\0" and bus_error(machine, at + 3 * PAGE)
    machine.run(machine.process.ftruncate(file, 4 * PAGE))
    assert read(machine, at + 2 * PAGE) == b"w2\0\0" and read(machine, at + 3 * PAGE) == bytes(4)
    machine.check_counts()


def test_bytes_written_beyond_the_end_do_not_come_back(machine: Any, kind: FileKind) -> None:
    file, at = written(machine, kind)
    machine.run(machine.process.ftruncate(file, 3 * PAGE + 1))
    machine.run(machine.process.write(at + 3 * PAGE, b"lost"))
    machine.run(machine.process.ftruncate(file, 4 * PAGE))
    assert read(machine, at + 3 * PAGE) == b"l\0\0\0"


def test_truncation_takes_private_copies_and_a_hole_punch_leaves_them(machine: Any, kind: FileKind) -> None:
    file, at = written(machine, kind, shared=False)
    machine.run(machine.process.fallocate(file, 3, 2 * PAGE, 2 * PAGE))
    assert [read(machine, at + page * PAGE) for page in range(4)] == [b"w0le", b"w1le", b"w2le", b"w3le"]
    machine.run(machine.process.ftruncate(file, 3 * PAGE))
    assert read(machine, at + 2 * PAGE) == b"w2le" and bus_error(machine, at + 3 * PAGE)
    machine.check_counts()


@pytest.mark.parametrize(("start", "end"), [(10, 20), (10, PAGE), (10, 2 * PAGE + 10), (PAGE, 3 * PAGE), (5, 1 << 20)])
def test_a_hole_reads_as_zeros_and_the_rest_stays(machine: Any, kind: FileKind, start: int, end: int) -> None:
    file = machine.run(machine.process.open_file("data", 4 * PAGE, kind))
    machine.run(machine.process.pwrite(file, b"x" * 4 * PAGE, 0))
    machine.run(machine.process.fsync(file))
    machine.run(machine.process.fallocate(file, 3, start, end - start))
    end = min(end, 4 * PAGE)
    expected = b"x" * start + bytes(end - start) + b"x" * (4 * PAGE - end)
    assert machine.run(machine.process.pread(file, 1 << 20, 0)) == expected
    machine.check_counts()


def test_madv_remove_punches_the_hole_of_the_range(machine: Any, kind: FileKind) -> None:
    file, at = written(machine, kind)
    machine.run(machine.process.madvise_remove(at + PAGE, PAGE))
    assert machine.run(machine.process.pread(file, 4, PAGE)) == bytes(4) and read(machine, at) == b"w0le"


def test_every_area_is_zapped_of_every_process(machine: Any) -> None:
    file, at = written(machine)
    child = machine.run(machine.process.fork())
    machine.run(child.read(at, 4 * PAGE))
    machine.run(machine.process.mmap_file(file, PAGE, RW, True))  # maps another part
    machine.kinds()
    machine.run(machine.process.fallocate(file, 3, 2 * PAGE, 2 * PAGE))
    assert machine.kinds(START) == [START] * 2
    machine.check_counts(machine.mm, child.mm)


def test_i_mmap_is_held_around_the_notifiers(make_machine: Any) -> None:
    from tests.mm.test_disciplines import SleepingInterval

    machine = make_machine()
    file, at = written(machine)
    seen = []

    class Device(SleepingInterval):
        def invalidate(self, range: Any, cur_seq: int) -> Any:
            seen.append([str(lock) for lock in machine.host.thread.held])
            return (yield from super().invalidate(range, cur_seq))

    machine.mm.intervals.insert(Device(), at, 4 * PAGE)
    machine.run(machine.process.ftruncate(file, 0))
    assert seen and all("i_mmap_rwsem" in locks and "page_table_lock" not in locks for locks in seen)


def test_a_page_under_writeback_is_waited_for(machine: Any) -> None:
    file, _ = written(machine)
    syncing = machine.scheduler.spawn(machine.process.fsync(file), "fsync")

    def cut() -> Any:
        yield Sleep(15_000)
        assert machine.host.writebacks
        yield from machine.process.ftruncate(file, 0)
        assert not machine.host.writebacks

    cutting = machine.scheduler.spawn(cut(), "truncate")
    machine.timeline.advance(lambda: syncing.finished and cutting.finished)
    assert not file.inode.pages and not file.inode.blocks
    machine.check_counts()


def test_shmem_in_swap_is_given_back(machine: Any) -> None:
    file, at = written(machine, FileKind.SHMEM)
    for page in range(4):
        assert machine.run(machine.host.reclaim.evict(machine.mm, at + page * PAGE))
    assert machine.host.swap.used == 4
    machine.run(machine.process.ftruncate(file, PAGE + 1))
    assert machine.host.swap.used == 1
    assert read(machine, at + PAGE) == b"w\0\0\0"


@pytest.mark.parametrize("seed", range(20))
def test_faults_beside_a_truncation_see_the_page_or_sigbus(make_machine: Any, seed: int) -> None:
    """Whatever the schedule: no page of the cut part stays mapped or in the cache, and nothing leaks."""
    machine = make_machine(("v3.6", "v6.12")[seed % 2])
    machine.scheduler.chooser = SeededChooser(seed, 3000)
    file, at = written(machine, (FileKind.REGULAR, FileKind.SHMEM)[seed // 2 % 2])
    private = machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, False))

    def touch(address: int) -> Any:
        for page in (3, 2, 1, 0):
            try:
                yield from machine.process.write(address + page * PAGE, b"x")
                yield from machine.process.read(address + page * PAGE, 1)
            except Fault as fault:
                assert fault.signal == "SIGBUS"

    steps = [touch(at), touch(private), machine.process.ftruncate(file, PAGE), machine.process.fsync(file),
             machine.host.reclaim.shrink(4), machine.process.mprotect(at + PAGE, PAGE, RW)]  # fmt: skip
    threads = [machine.scheduler.spawn(step, f"thread {i}") for i, step in enumerate(steps)]
    machine.timeline.advance(lambda: all(thread.finished for thread in threads))
    assert all(thread.finished for thread in threads), machine.timeline.who_waits()
    assert set(file.inode.pages) <= {0}
    for address in (at, private):
        assert not any(machine.mm.page_table.get(address // PAGE + page) for page in (1, 2, 3))
        assert bus_error(machine, address + PAGE)
    machine.check_counts()
    assert not machine.host.reports
