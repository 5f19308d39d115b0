"""Writeback: page_mkclean and its order, later writes fault again, fsync and msync (``writeback.py``)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm.dirty_helpers import clean_record_shared_mapping_range, wp_shared_mapping_range
from nicemu.mm.discipline import NotInThisKernel
from nicemu.mm.file import FileKind, OpenFile
from nicemu.mm.page_table import DIRTY, WRITE
from nicemu.timeline.host import Sleep

PAGE = 4096
RW = 3
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
START, END, CLEAR, FLUSH, SET, PAGE_CALL = (
    "notifier_start", "notifier_end", "pte_clear", "tlb_flush", "pte_set", "notifier_page")  # fmt: skip
ORDER = {
    "v3.6": [CLEAR, FLUSH, PAGE_CALL, SET],
    "v3.6+srcu": [CLEAR, FLUSH, PAGE_CALL, SET],
    "v3.7-seed": [CLEAR, FLUSH, SET, PAGE_CALL],
    "v3.7": [CLEAR, FLUSH, SET, PAGE_CALL],
    "v6.12": [START, CLEAR, FLUSH, SET, END],
}


def dirty(machine: Any, pages: int = 1, kind: FileKind = FileKind.REGULAR) -> tuple[OpenFile, int]:
    """A file and where it is mapped shared; its pages were written through the mapping."""
    file = machine.run(machine.process.open_file("data", pages * PAGE, kind))
    at = machine.run(machine.process.mmap_file(file, pages * PAGE, RW, True))
    for page in range(pages):
        machine.run(machine.process.write(at + page * PAGE, b"dirty"))
    machine.kinds()
    return file, at


def entry(machine: Any, at: int, mm: Any = None) -> int:
    found: int = (mm or machine.mm).page_table.get(at // PAGE)
    return found


@pytest.mark.parametrize("era", ERAS)
def test_mkclean_order(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    file, at = dirty(machine)
    assert machine.run(machine.process.fsync(file)) == 1
    assert machine.kinds() == ORDER[era]
    assert file.inode.blocks[0][:5] == b"dirty" and entry(machine, at) & (WRITE | DIRTY) == 0
    machine.check_counts()


def test_every_shared_mapping_is_cleaned_and_private_ones_are_let_be(machine: Any) -> None:
    file, at = dirty(machine)
    other, private = (machine.run(machine.process.mmap_file(file, PAGE, RW, shared)) for shared in (True, False))
    child = machine.run(machine.process.fork())
    for process, address in ((machine.process, other), (child, at)):
        machine.run(process.write(address, b"again"))
    machine.run(machine.process.read(private, 1))
    machine.kinds()
    machine.run(machine.process.fsync(file))
    assert machine.kinds(START) == [START] * 3
    assert not any(found & (WRITE | DIRTY) for found in (
        entry(machine, at), entry(machine, other), entry(machine, at, child.mm)))  # fmt: skip


def test_the_next_write_faults_and_makes_the_page_dirty_again(machine: Any) -> None:
    file, at = dirty(machine)
    machine.run(machine.process.fsync(file))
    frame = machine.frame(at)
    machine.run(machine.process.write(at, b"D"))
    assert machine.kinds("wp_fault") == ["wp_fault"] and machine.frame(at) == frame
    assert machine.run(machine.process.fsync(file)) == 1 and file.inode.blocks[0][:5] == b"Dirty"
    assert machine.run(machine.process.fsync(file)) == 0


def test_a_page_written_while_it_is_written_back_is_dirty_afterwards(machine: Any) -> None:
    file, at = dirty(machine)
    syncing = machine.scheduler.spawn(machine.process.fsync(file), "fsync")

    def write() -> Any:
        yield Sleep(10_000)
        assert machine.host.writebacks
        yield from machine.process.write(at, b"D")
        assert machine.host.writebacks

    writing = machine.scheduler.spawn(write(), "writer")
    machine.timeline.advance(lambda: syncing.finished and writing.finished)
    assert file.inode.blocks[0][:5] == b"dirty"
    assert machine.run(machine.process.fsync(file)) == 1 and file.inode.blocks[0][:5] == b"Dirty"


def test_stable_pages_hold_still_while_they_are_written(machine: Any) -> None:
    file, at = dirty(machine)
    file.inode.stable_writes = True
    syncing = machine.scheduler.spawn(machine.process.fsync(file), "fsync")

    def write() -> Any:
        yield Sleep(10_000)
        yield from machine.process.write(at, b"D")
        assert not machine.host.writebacks

    writing = machine.scheduler.spawn(write(), "writer")
    machine.timeline.advance(lambda: syncing.finished and writing.finished)


def test_a_device_write_before_the_notifier_returns_reaches_the_storage(make_machine: Any) -> None:
    """The bytes are taken after every device was told, so what it wrote until then is among them."""
    from nicemu.mm import IntervalNotifier

    machine = make_machine()
    file, at = dirty(machine)
    frame = machine.frame(at)

    class Device(IntervalNotifier):
        name = "device"

        def invalidate(self, range: Any, cur_seq: int) -> Any:
            yield Sleep(1000)
            machine.frames.bytes_of(frame)[:5] = list(b"DMAed")
            self.set_seq(cur_seq)
            return True

    machine.mm.intervals.insert(Device(), at, PAGE)
    machine.run(machine.process.fsync(file))
    assert file.inode.blocks[0][:5] == b"DMAed"


def test_msync_writes_the_range_and_ms_async_nothing(machine: Any) -> None:
    file, at = dirty(machine, 4)
    machine.run(machine.process.msync(at, 4 * PAGE, 1))
    assert not file.inode.blocks
    machine.run(machine.process.msync(at + PAGE, 2 * PAGE, 4))
    assert sorted(file.inode.blocks) == [1, 2]


def test_what_is_beyond_the_end_is_not_written(machine: Any) -> None:
    file = machine.run(machine.process.open_file("data", 3))
    at = machine.run(machine.process.mmap_file(file, PAGE, RW, True))
    machine.run(machine.process.write(at, b"12345"))
    machine.run(machine.process.fsync(file))
    assert file.inode.blocks[0] == b"123" + bytes(PAGE - 3)


def test_dax_writeback_cleans_the_mappings_and_flushes(machine: Any) -> None:
    file, at = dirty(machine, 2, FileKind.DAX)
    assert machine.run(machine.process.fsync(file)) == 2
    assert machine.kinds(START, END) == [START, END] * 2 and not file.inode.blocks
    machine.run(machine.process.write(at, b"x"))
    assert machine.kinds("wp_fault") == ["wp_fault"]
    assert machine.run(machine.process.fsync(file)) == 1
    machine.check_counts()


def test_shmem_has_nothing_to_write(machine: Any) -> None:
    file, _ = dirty(machine, 1, FileKind.SHMEM)
    assert machine.run(machine.process.fsync(file)) == 0 and machine.kinds() == []


def test_the_stamp_says_protected_once_no_mapping_is_writable(machine: Any) -> None:
    file, at = dirty(machine)
    stamp = machine.world.control[0].stamp
    machine.run(machine.process.fsync(file))
    row = machine.world.frame_stamp[machine.frame(at)]
    assert row.protected > stamp and row.invalidated == 0 and machine.frames.operation_name(row.operation) == "mkclean"


# mapping_dirty_helpers.c


def test_wp_clean_notifies_once_an_area(machine: Any) -> None:
    file, at = dirty(machine, 4)
    machine.run(machine.process.mmap_file(file, 4 * PAGE, RW, False))
    assert machine.run(wp_shared_mapping_range(machine.host, file.inode, 1, 2)) == 2
    assert machine.kinds() == [START, "pte_protect", FLUSH, END]
    assert [bool(entry(machine, at + i * PAGE) & WRITE) for i in range(4)] == [True, False, False, True]
    assert machine.run(clean_record_shared_mapping_range(machine.host, file.inode, 0, 2)) == [0, 1]
    assert machine.run(clean_record_shared_mapping_range(machine.host, file.inode, 0, 4)) == [2, 3]
    assert machine.run(machine.process.fsync(file)) == 4


@pytest.mark.parametrize("era", ERAS[:-1])
def test_3x_has_no_dirty_helpers(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    file, at = dirty(machine)
    with pytest.raises(NotInThisKernel):
        machine.run(wp_shared_mapping_range(machine.host, file.inode, 0, 1))
    assert entry(machine, at) & WRITE


@pytest.mark.parametrize(
    ("era", "lock"),
    [("v3.6", "page_table_lock"), ("v3.6+srcu", "page_table_lock"), ("v3.7-seed", ""), ("v3.7", ""), ("v6.12", "")],
)
def test_a_subscriber_that_sleeps_in_mkclean_is_reported_until_the_seed(make_machine: Any, era: str, lock: str) -> None:
    from tests.mm.test_disciplines import Sleeper

    machine = make_machine(era)
    machine.run(machine.mm.notifiers.register(Sleeper()))
    file, _ = dirty(machine)
    machine.run(machine.process.fsync(file))
    assert [(report.operation, report.lock) for report in machine.host.reports] == [("mkclean", lock)] * bool(lock)
