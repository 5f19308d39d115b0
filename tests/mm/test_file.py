"""File mappings: what a fault maps, who sees a write, SIGBUS, fork, errno (``filemap.py``, ``file_calls.py``)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.mm import Fault
from nicemu.mm.discipline import NotInThisKernel
from nicemu.mm.file import FileKind, OpenFile
from nicemu.mm.memcg import Memcg
from nicemu.mm.page_table import DIRTY, PRESENT, WRITE
from nicemu.timeline.host import Sleep

PAGE = 4096
READ, RW = 1, 3
KINDS = [FileKind.REGULAR, FileKind.SHMEM, FileKind.DAX]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name.lower())
def file(machine: Any, request: Any) -> OpenFile:
    """A file of four pages, of which the first has words."""
    opened: OpenFile = machine.run(machine.process.open_file("data", 4 * PAGE, request.param))
    machine.run(machine.process.pwrite(opened, b"words", 0))
    return opened


def mapped(machine: Any, file: OpenFile, prot: int = RW, shared: bool = True, process: Any = None) -> int:
    address: int = machine.run((process or machine.process).mmap_file(file, 4 * PAGE, prot, shared))
    return address


def read(machine: Any, at: int, length: int = 5, process: Any = None) -> bytes:
    found: bytes = machine.run((process or machine.process).read(at, length))
    return found


def pread(machine: Any, file: OpenFile, length: int = 5, offset: int = 0) -> bytes:
    found: bytes = machine.run(machine.process.pread(file, length, offset))
    return found


def refused(machine: Any, steps: Any) -> int | None:
    with pytest.raises(OSError) as caught:
        machine.run(steps)
    return caught.value.errno


def test_a_mapping_shows_what_the_file_has(machine: Any, file: OpenFile) -> None:
    assert read(machine, mapped(machine, file)) == b"words"
    assert read(machine, mapped(machine, file, shared=False) + PAGE) == bytes(5)
    machine.check_counts()


def test_two_shared_mappings_are_one_page(machine: Any, file: OpenFile) -> None:
    first, second = mapped(machine, file), mapped(machine, file)
    machine.run(machine.process.write(first + 2 * PAGE, b"hello"))
    assert read(machine, second + 2 * PAGE) == pread(machine, file, 5, 2 * PAGE) == b"hello"
    assert machine.frame(first + 2 * PAGE) == machine.frame(second + 2 * PAGE)
    machine.check_counts()


def test_a_write_of_the_file_is_seen_through_every_mapping(machine: Any, file: OpenFile) -> None:
    shared, private = mapped(machine, file), mapped(machine, file, shared=False)
    assert read(machine, shared + PAGE) == read(machine, private + PAGE) == bytes(5)
    machine.run(machine.process.pwrite(file, b"later", PAGE))
    assert read(machine, shared + PAGE) == read(machine, private + PAGE) == b"later"
    machine.check_counts()


@pytest.mark.parametrize("read_first", [False, True])
def test_a_private_write_is_nobody_elses(machine: Any, file: OpenFile, read_first: bool) -> None:
    at = mapped(machine, file, shared=False)
    if read_first:
        read(machine, at)
    machine.run(machine.process.write(at, b"W"))
    assert read(machine, at) == b"Words" and pread(machine, file) == b"words"
    machine.run(machine.process.pwrite(file, b"other", 0))
    assert read(machine, at) == b"Words"
    machine.run(machine.process.madvise(at, PAGE, 4))
    assert read(machine, at) == b"other"
    machine.check_counts()


def test_a_page_of_the_cache_is_never_reused_by_a_private_write(machine: Any, file: OpenFile) -> None:
    """Mapped once, it is not the area's own, as an anonymous page would be."""
    at = mapped(machine, file, shared=False)
    read(machine, at)
    page = machine.frame(at)
    machine.run(machine.process.write(at, b"W"))
    assert machine.frame(at) != page == file.inode.pages[0]


def test_the_first_write_to_a_shared_page_that_was_read_makes_it_dirty(machine: Any) -> None:
    file = machine.run(machine.process.open_file("data", PAGE))
    at = machine.run(machine.process.mmap_file(file, PAGE, RW, True))
    read(machine, at)
    assert machine.mm.page_table.get(at // PAGE) & (WRITE | DIRTY) == 0
    machine.run(machine.process.write(at, b"x"))
    assert machine.mm.page_table.get(at // PAGE) & (WRITE | DIRTY) == WRITE | DIRTY
    assert machine.host.counters["page_mkwrite"] == 1


def test_shmem_has_no_dirty_accounting(machine: Any) -> None:
    file = machine.run(machine.process.memfd_create("memory"))
    machine.run(machine.process.ftruncate(file, PAGE))
    at = machine.run(machine.process.mmap_file(file, PAGE, RW, True))
    read(machine, at)
    assert machine.mm.page_table.get(at // PAGE) & WRITE


def test_a_page_is_read_from_the_device_once(machine: Any) -> None:
    file = machine.run(machine.process.open_file("data", PAGE))
    file.inode.blocks[0] = b"old" + bytes(PAGE - 3)
    at = machine.run(machine.process.mmap_file(file, PAGE, READ, False))
    faults = [machine.scheduler.spawn(machine.process.read(at, 3), f"reader {i}") for i in range(3)]
    machine.timeline.advance(lambda: all(fault.finished for fault in faults))
    assert [fault.result for fault in faults] == [b"old"] * 3 and machine.host.counters["pgpgin"] == 1


# Beyond the end


def test_beyond_the_end_is_sigbus_and_beyond_the_mapping_sigsegv(machine: Any, file: OpenFile) -> None:
    at = machine.run(machine.process.mmap_file(file, 8 * PAGE, RW, True))
    for address, signal in ((at + 4 * PAGE, "SIGBUS"), (at + 8 * PAGE, "SIGSEGV")):
        for steps in (machine.process.read(address, 1), machine.process.write(address, b"x")):
            with pytest.raises(Fault) as caught:
                machine.run(steps)
            assert (caught.value.errno, caught.value.address) == (errno.EFAULT, address)
            assert caught.value.signal == signal
    machine.check_counts()


def test_a_private_write_beyond_the_end_is_sigbus_too(machine: Any, file: OpenFile) -> None:
    at = machine.run(machine.process.mmap_file(file, 8 * PAGE, RW, False))
    with pytest.raises(Fault) as caught:
        machine.run(machine.process.write(at + 4 * PAGE, b"x"))
    assert caught.value.signal == "SIGBUS"
    machine.check_counts()


def test_a_device_fault_beyond_the_end_is_efault_at_that_page(machine: Any, file: OpenFile) -> None:
    at = machine.run(machine.process.mmap_file(file, 8 * PAGE, RW, True))
    with pytest.raises(Fault) as caught:
        machine.run(machine.mm.fault_in(at, 8, True))
    assert (caught.value.errno, caught.value.address) == (errno.EFAULT, at + 4 * PAGE)


# fork, mprotect, mremap, munmap


def test_a_child_shares_the_shared_and_copies_the_private(machine: Any, file: OpenFile) -> None:
    shared, private = mapped(machine, file), mapped(machine, file, shared=False)
    machine.run(machine.process.write(private, b"P"))
    read(machine, private + PAGE)
    child = machine.run(machine.process.fork())
    machine.run(child.write(shared, b"child"))
    machine.run(child.write(private, b"C"))
    machine.run(child.write(private + PAGE, b"c"))
    assert read(machine, shared) == pread(machine, file) == b"child"
    assert read(machine, private) == b"Pords" and read(machine, private, process=child) == b"Cords"
    assert read(machine, private + PAGE, 1) == b"\0"
    machine.check_counts(machine.mm, child.mm)
    machine.run(child.exit())
    machine.check_counts()


def test_fork_copies_no_entry_of_a_mapping_that_a_fault_can_make_anew(machine: Any, file: OpenFile) -> None:
    """``vma_needs_copy``: neither shared mappings nor private ones without a private page; nobody is notified."""
    at, private = mapped(machine, file), mapped(machine, file, shared=False)
    machine.run(machine.process.write(at, b"x"))
    read(machine, private)
    machine.kinds()
    child = machine.run(machine.process.fork())
    assert machine.kinds() == ["fork", "tlb_flush"]
    assert not child.mm.page_table.get(at // PAGE) and machine.mm.page_table.get(at // PAGE) & WRITE


def test_anonymous_shared_memory_is_shared_with_a_child(machine: Any) -> None:
    at = machine.run(machine.process.mmap(2 * PAGE, RW, 0x21))
    child = machine.run(machine.process.fork())
    machine.run(child.write(at + PAGE, b"from the child"))
    assert read(machine, at + PAGE, 14) == b"from the child"
    machine.run(child.exit())
    machine.run(machine.process.exit())
    assert machine.frames.allocated == 0 and not machine.host.files


def test_a_protected_shared_page_stays_dirty_and_becomes_writable_again(machine: Any, file: OpenFile) -> None:
    at = mapped(machine, file)
    machine.run(machine.process.write(at, b"1"))
    machine.run(machine.process.mprotect(at, PAGE, READ))
    assert refused(machine, machine.process.write(at, b"2")) == errno.EFAULT
    machine.run(machine.process.mprotect(at, PAGE, RW))
    machine.run(machine.process.write(at, b"3"))
    assert pread(machine, file) == b"3ords"
    machine.check_counts()


def test_a_moved_mapping_shows_the_same_part_of_the_file(machine: Any, file: OpenFile) -> None:
    at = machine.run(machine.process.mmap_file(file, 2 * PAGE, RW, True, 2 * PAGE))
    machine.run(machine.process.write(at + PAGE, b"moved"))
    machine.run(machine.process.mmap(PAGE))
    new = machine.run(machine.process.mremap(at + PAGE, PAGE, 2 * PAGE))
    assert read(machine, new) == pread(machine, file, 5, 3 * PAGE) == b"moved"
    with pytest.raises(Fault) as caught:
        read(machine, new + PAGE)
    assert caught.value.signal == "SIGBUS"
    machine.check_counts()


def test_unmapping_keeps_the_page_in_the_cache_and_its_dirty_bit(machine: Any) -> None:
    file = machine.run(machine.process.open_file("data", PAGE))
    at = machine.run(machine.process.mmap_file(file, PAGE, RW, True))
    machine.run(machine.process.write(at, b"kept"))
    machine.run(machine.process.munmap(at, PAGE))
    assert machine.host.pages.flags[file.inode.pages[0]] & 1
    assert machine.run(machine.process.fsync(file)) == 1 and file.inode.blocks[0][:4] == b"kept"
    machine.check_counts()


def test_a_file_without_a_name_goes_with_its_last_user(machine: Any) -> None:
    file = machine.run(machine.process.memfd_create("memory"))
    machine.run(machine.process.ftruncate(file, PAGE))
    at = machine.run(machine.process.mmap_file(file, PAGE, RW, True))
    machine.run(machine.process.write(at, b"x"))
    machine.run(machine.process.close(file))
    assert read(machine, at, 1) == b"x"
    machine.run(machine.process.munmap(at, PAGE))
    assert machine.frames.allocated == 0 and not machine.host.files


def test_a_named_file_is_found_again(machine: Any) -> None:
    first = machine.run(machine.process.open_file("data", PAGE))
    machine.run(machine.process.pwrite(first, b"x", 0))
    machine.run(machine.process.close(first))
    again = machine.run(machine.process.open_file("data"))
    assert again.inode is first.inode and pread(machine, again, 1) == b"x"


# errno


def test_errno_of_mmap(machine: Any) -> None:
    process = machine.process
    file = machine.run(process.open_file("data", PAGE))
    reader = machine.run(process.open_file("data", writable=False))
    writer = machine.run(process.open_file("data", readable=False))
    assert refused(machine, process.mmap_file(file, 0, RW, True)) == errno.EINVAL
    assert refused(machine, process.mmap_file(file, PAGE, RW, True, 17)) == errno.EINVAL
    assert refused(machine, process.mmap_file(file, PAGE, RW, True, (1 << 63) - PAGE)) == errno.EOVERFLOW
    assert refused(machine, process.mmap_file(reader, PAGE, RW, True)) == errno.EACCES
    assert refused(machine, process.mmap_file(writer, PAGE, READ, False)) == errno.EACCES
    at = machine.run(process.mmap_file(reader, PAGE, READ, True))
    assert refused(machine, process.mprotect(at, PAGE, RW)) == errno.EACCES
    assert machine.run(process.mmap_file(reader, PAGE, RW, False))
    machine.run(process.close(file))
    assert refused(machine, process.mmap_file(file, PAGE, RW, True)) == errno.EBADF
    assert refused(machine, process.close(file)) == errno.EBADF


def test_errno_of_file_calls(machine: Any) -> None:
    process = machine.process
    file = machine.run(process.open_file("data", PAGE))
    reader = machine.run(process.open_file("data", writable=False))
    assert (
        refused(machine, process.ftruncate(file, -1)) == refused(machine, process.ftruncate(reader, 0)) == errno.EINVAL
    )
    assert refused(machine, process.fallocate(file, 3, 0, 0)) == refused(machine, process.fallocate(file, 3, -1, 1))
    assert refused(machine, process.fallocate(file, 3, 0, 0)) == errno.EINVAL
    assert refused(machine, process.fallocate(file, 2, 0, PAGE)) == errno.EOPNOTSUPP
    assert refused(machine, process.fallocate(reader, 3, 0, PAGE)) == errno.EBADF
    assert refused(machine, process.pwrite(reader, b"x", 0)) == errno.EBADF
    assert refused(machine, process.pread(file, 1, -1)) == errno.EINVAL


def test_errno_of_msync_and_madvise_remove(machine: Any) -> None:
    process = machine.process
    file = machine.run(process.open_file("data", PAGE))
    at = machine.run(process.mmap_file(file, PAGE, RW, True))
    private = machine.run(process.mmap_file(file, PAGE, RW, False))
    anonymous = machine.run(process.mmap(PAGE))
    assert refused(machine, process.msync(at + 1, PAGE, 4)) == errno.EINVAL
    assert (
        refused(machine, process.msync(at, PAGE, 1 | 4))
        == refused(machine, process.msync(at, PAGE, 64))
        == errno.EINVAL
    )
    assert refused(machine, process.msync(anonymous, 1 << 30, 4)) == errno.ENOMEM
    assert refused(machine, process.madvise_remove(private, PAGE)) == errno.EACCES
    assert refused(machine, process.madvise_remove(anonymous, PAGE)) == errno.EINVAL
    assert refused(machine, process.madvise_remove(1 << 20, PAGE)) == errno.ENOMEM


@pytest.mark.parametrize(("era", "kind"), [("v6.12", FileKind.XIP), ("v3.7", FileKind.DAX)])
def test_an_era_without_the_kind_of_file_says_so(make_machine: Any, era: str, kind: FileKind) -> None:
    machine = make_machine(era)
    with pytest.raises(NotInThisKernel):
        machine.run(machine.process.open_file("data", PAGE, kind))
    assert not machine.host.files


# Long-term pins


def test_6_12_pins_no_file_whose_writeback_would_miss_the_device(machine: Any, file: OpenFile) -> None:
    at = mapped(machine, file)
    kind = file.inode.kind
    if kind == FileKind.SHMEM:
        assert len(machine.run(machine.mm.pin(at, 1, True)))
        return
    with pytest.raises(Fault) as caught:
        machine.run(machine.mm.pin(at, 1, True))
    assert caught.value.errno == (errno.EOPNOTSUPP if kind == FileKind.DAX else errno.EFAULT)


def test_3x_pins_it_and_reclaim_leaves_it(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    file = machine.run(machine.process.open_file("data", PAGE))
    at = machine.run(machine.process.mmap_file(file, PAGE, RW, True))
    frames = machine.run(machine.mm.pin(at, 1, True)) >> 1
    assert not machine.run(machine.host.reclaim.evict(machine.mm, at))
    machine.mm.unpin(frames)
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    machine.check_counts()


def test_a_fault_waits_for_a_page_that_is_being_read(machine: Any) -> None:
    file = machine.run(machine.process.open_file("data", PAGE))
    file.inode.blocks[0] = bytes(PAGE)
    at = machine.run(machine.process.mmap_file(file, PAGE, READ, True))
    reader = machine.scheduler.spawn(machine.process.pread(file, 1, 0), "reader")

    def late() -> Any:
        yield Sleep(10_000)
        assert machine.host.page_locks
        yield from machine.process.read(at, 1)

    faulting = machine.scheduler.spawn(late(), "late")
    machine.timeline.advance(lambda: reader.finished and faulting.finished)
    assert machine.mm.page_table.get(at // PAGE) & PRESENT and machine.host.counters["pgpgin"] == 1


def test_a_private_copy_and_a_page_read_in_are_charged_to_the_group(machine: Any) -> None:
    file = machine.run(machine.process.open_file("data", PAGE))
    machine.mm.memcg = Memcg(machine.host, "group", 16)
    at = machine.run(machine.process.mmap_file(file, PAGE, RW, False))
    machine.run(machine.process.write(at, b"x"))
    assert machine.mm.memcg.usage == 2
    machine.run(machine.process.munmap(at, PAGE))
    assert machine.mm.memcg.usage == 1  # the page of the cache
