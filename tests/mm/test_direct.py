"""Execute-in-place and DAX: a block takes the place of a hole that is mapped (``direct.py``)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import Fault
from nicemu.mm.file import FileKind, OpenFile
from nicemu.mm.page_table import WRITE
from nicemu.timeline.host import SeededChooser
from tests.mm.test_disciplines import Sleeper

PAGE = 4096
READ, RW = 1, 3
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7")
CLEAR, FLUSH, PAGE_CALL = "pte_clear", "tlb_flush", "notifier_page"
ORDER = {
    "v3.6": [CLEAR, FLUSH, PAGE_CALL],
    "v3.6+srcu": [CLEAR, FLUSH, PAGE_CALL],
    "v3.7-seed": [CLEAR, FLUSH, PAGE_CALL],
    "v3.7": [CLEAR, FLUSH, PAGE_CALL],
}


def sparse(machine: Any, kind: FileKind = FileKind.XIP) -> tuple[OpenFile, int]:
    """A file of four holes and a read-only mapping of it that was read."""
    file = machine.run(machine.process.open_file("data", 4 * PAGE, kind))
    at = machine.run(machine.process.mmap_file(file, 4 * PAGE, READ, True))
    assert machine.run(machine.process.read(at, 4 * PAGE)) == bytes(4 * PAGE)
    machine.kinds()
    return file, at


def test_all_holes_are_one_page(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    _, at = sparse(machine)
    assert {machine.frame(at + page * PAGE) for page in range(4)} == {machine.host.xip_sparse}
    machine.check_counts()
    machine.run(machine.process.munmap(at, 4 * PAGE))
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_a_block_takes_the_sparse_page_out_of_every_mapping(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    file, at = sparse(machine)
    private = machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, False))
    machine.run(machine.process.read(private, 4 * PAGE))
    machine.kinds()
    machine.run(machine.process.pwrite(file, b"block", PAGE))
    assert machine.kinds() == ORDER[era] * 2
    assert (
        machine.run(machine.process.read(at + PAGE, 5))
        == machine.run(machine.process.read(private + PAGE, 5))
        == b"block"
    )
    assert machine.frame(at) == machine.host.xip_sparse
    machine.check_counts()


@pytest.mark.parametrize(("era", "lock"), [("v3.6", "page_table_lock"), ("v3.6+srcu", "page_table_lock"), ("v3.7", "")])
def test_invalidate_page_is_called_under_the_lock_in_v3_6_and_after_it_since_the_seed(
    make_machine: Any, era: str, lock: str
) -> None:
    machine = make_machine(era)
    held = []

    class Device(Sleeper):
        def invalidate_page(self, mm: Any, address: int) -> Any:
            held.append([str(lock) for lock in machine.host.thread.held])
            return (yield from super().invalidate_page(mm, address))

    machine.run(machine.mm.notifiers.register(Device()))
    file, _ = sparse(machine)
    machine.run(machine.process.pwrite(file, b"block", 0))
    assert all(("page_table_lock" in locks) == bool(lock) and "i_mmap_mutex" in locks for locks in held) and held
    assert [(report.operation, report.lock) for report in machine.host.reports] == [("xip_unmap", lock)] * bool(lock)


def test_a_fault_of_shared_writable_memory_allocates_the_block(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    file, at = sparse(machine)
    writable = machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, True))
    machine.run(machine.process.read(writable, 1))
    assert list(file.inode.pages) == [0] and machine.mm.page_table.get(writable // PAGE) & WRITE
    machine.run(machine.process.write(writable, b"x"))
    assert machine.run(machine.process.read(at, 1)) == b"x"
    machine.check_counts()


def test_a_private_write_to_a_hole_copies_the_sparse_page(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    file, _ = sparse(machine)
    private = machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, False))
    machine.run(machine.process.read(private, 1))
    machine.run(machine.process.write(private, b"mine"))
    assert not file.inode.pages and machine.run(machine.process.read(private, 5)) == b"mine\0"
    machine.run(machine.process.write(private + PAGE, b"mine"))
    machine.check_counts()


def test_beyond_the_end_is_sigbus(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    file, at = sparse(machine)
    machine.run(machine.process.ftruncate(file, PAGE))
    with pytest.raises(Fault) as caught:
        machine.run(machine.process.read(at + PAGE, 1))
    assert caught.value.signal == "SIGBUS" and machine.frame(at) and not machine.frame(at + PAGE)
    machine.check_counts()


def test_a_dax_block_zaps_the_zero_page_everywhere(make_machine: Any) -> None:
    machine = make_machine("v6.12")
    file, at = sparse(machine, FileKind.DAX)
    assert machine.frame(at) == machine.host.zero_frame
    writable = machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, True))
    machine.kinds()
    machine.run(machine.process.write(writable + PAGE, b"block"))
    assert machine.kinds("notifier_start", "notifier_end") == ["notifier_start", "notifier_end"] * 2
    assert machine.run(machine.process.read(at + PAGE, 5)) == b"block"
    machine.check_counts()


@pytest.mark.parametrize(("era", "kind"), [("v3.7", FileKind.XIP), ("v6.12", FileKind.DAX)])
def test_a_write_to_a_hole_that_is_mapped_shared_allocates_the_block(
    make_machine: Any, era: str, kind: FileKind
) -> None:
    machine = make_machine(era)
    file, at = sparse(machine, kind)
    machine.run(machine.process.mprotect(at, 4 * PAGE, RW))
    machine.run(machine.process.write(at + PAGE, b"block"))
    assert list(file.inode.pages) == [1] and machine.run(machine.process.pread(file, 5, PAGE)) == b"block"
    machine.check_counts()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("era", "kind"), [("v3.7", FileKind.XIP), ("v6.12", FileKind.DAX)])
def test_nobody_keeps_a_hole_after_the_block_came(make_machine: Any, era: str, kind: FileKind, seed: int) -> None:
    machine = make_machine(era)
    file, at = sparse(machine, kind)
    private = machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, False))
    machine.scheduler.chooser = SeededChooser(seed, 1000)

    def reader(address: int) -> Any:
        for page in (0, 1, 2, 3, 1, 0):
            yield from machine.process.read(address + page * PAGE, 1)

    def writer(first: int) -> Any:
        for page in (first, first + 2):
            yield from machine.process.pwrite(file, b"block", page * PAGE)

    steps = [reader(at), reader(private), writer(0), writer(1)]
    threads = [machine.scheduler.spawn(step, f"thread {i}") for i, step in enumerate(steps)]
    machine.timeline.advance(lambda: all(thread.finished for thread in threads))
    for address in (at, private):
        for page in range(4):
            assert machine.run(machine.process.read(address + page * PAGE, 5)) == b"block"
    machine.check_counts()
    assert not machine.host.reports
