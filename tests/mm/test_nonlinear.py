"""remap_file_pages and reclaim of nonlinear areas (``nonlinear.py``)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.mm.discipline import NotInThisKernel
from nicemu.mm.file import FileKind, OpenFile

PAGE = 4096
RW = 3
PAGES = 40
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7")
START, END, CLEAR, FLUSH, FREE, PAGE_CALL = (
    "notifier_start", "notifier_end", "pte_clear", "tlb_flush", "free", "notifier_page")  # fmt: skip


def numbered(machine: Any, kind: FileKind = FileKind.SHMEM) -> tuple[OpenFile, int]:
    """A file whose pages begin with their numbers, mapped shared and read once."""
    file = machine.run(machine.process.open_file("data", PAGES * PAGE, kind))
    at = machine.run(machine.process.mmap_file(file, PAGES * PAGE, RW, True))
    for page in range(PAGES):
        machine.run(machine.process.write(at + page * PAGE, bytes([page + 1])))
    machine.kinds()
    return file, at


def pages(machine: Any, at: int, count: int = PAGES) -> list[int]:
    return [machine.run(machine.process.read(at + page * PAGE, 1))[0] - 1 for page in range(count)]


@pytest.fixture(params=ERAS)
def machine(make_machine: Any, request: Any) -> Any:
    return make_machine(request.param)


def test_order(machine: Any) -> None:
    _, at = numbered(machine)
    machine.run(machine.process.remap_file_pages(at, 2 * PAGE, 7))
    assert machine.kinds() == [START, CLEAR, FLUSH, CLEAR, FLUSH, END]


@pytest.mark.parametrize("kind", [FileKind.SHMEM, FileKind.REGULAR], ids=["nonlinear", "emulated"])
def test_the_pages_are_in_any_order(machine: Any, kind: FileKind) -> None:
    file, at = numbered(machine, kind)
    machine.run(machine.process.remap_file_pages(at, 2 * PAGE, 30))
    machine.run(machine.process.remap_file_pages(at + 5 * PAGE, 2 * PAGE, 30))
    assert pages(machine, at, 8) == [30, 31, 2, 3, 4, 30, 31, 7]
    machine.run(machine.process.write(at, b"x"))
    assert machine.run(machine.process.pread(file, 1, 30 * PAGE)) == b"x"
    machine.check_counts()
    machine.run(machine.process.munmap(at, PAGES * PAGE))
    machine.check_counts()


def test_a_file_that_tracks_dirty_pages_gets_linear_areas(machine: Any) -> None:
    _, at = numbered(machine, FileKind.REGULAR)
    machine.run(machine.process.remap_file_pages(at, 2 * PAGE, 30))
    assert machine.kinds(START, END) == [START, END]
    assert [vma.pgoff for vma in machine.mm.vmas] == [30, 2]


def test_reclaim_unmaps_a_cluster_at_a_time(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    file, at = numbered(machine)
    machine.run(machine.process.remap_file_pages(at, PAGE, 1))
    machine.run(machine.process.read(at, 1))
    machine.kinds()
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    events = machine.kinds()
    assert events == [START, *[CLEAR, FLUSH] * 32, END, FREE]
    assert pages(machine, at) == [1, *range(1, PAGES)] and len(file.inode.slots) == 0
    machine.check_counts()


@pytest.mark.parametrize("era", ["v3.6", "v3.6+srcu"])
def test_v3_6_calls_invalidate_page_for_each_entry_under_the_lock(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    _, at = numbered(machine)
    machine.run(machine.process.remap_file_pages(at, PAGE, 1))
    machine.run(machine.process.read(at, 1))
    machine.kinds()
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.kinds() == [*[CLEAR, FLUSH, PAGE_CALL] * 32, FREE]


def test_reclaim_goes_on_where_it_stopped(machine: Any) -> None:
    _, at = numbered(machine)
    machine.run(machine.process.remap_file_pages(at + 39 * PAGE, PAGE, 38))
    vma = machine.mm.vmas.find(at)
    assert machine.run(machine.host.reclaim.evict(machine.mm, at)) and vma.cursor == 32
    assert machine.run(machine.host.reclaim.evict(machine.mm, at + 35 * PAGE)) and vma.cursor == 64
    assert pages(machine, at) == [*range(39), 38]
    machine.check_counts()


def test_truncation_finds_the_pages_wherever_they_are(machine: Any) -> None:
    file, at = numbered(machine)
    machine.run(machine.process.remap_file_pages(at, PAGE, 35))
    machine.run(machine.process.remap_file_pages(at + PAGE, PAGE, 3))
    assert pages(machine, at, 2) == [35, 3]
    machine.run(machine.process.ftruncate(file, 10 * PAGE))
    with pytest.raises(OSError):
        machine.run(machine.process.read(at, 1))
    assert pages(machine, at + PAGE, 9) == [3, *range(2, 10)]
    machine.check_counts()


def test_a_child_has_the_order_too(machine: Any) -> None:
    _, at = numbered(machine)
    machine.run(machine.process.remap_file_pages(at, 3 * PAGE, 20))
    machine.run(machine.process.read(at, 1))
    child = machine.run(machine.process.fork())
    assert [machine.run(child.read(at + page * PAGE, 1))[0] - 1 for page in range(4)] == [20, 21, 22, 3]
    machine.run(child.write(at, b"x"))
    assert machine.run(machine.process.read(at, 1)) == b"x"
    machine.check_counts(machine.mm, child.mm)
    machine.run(child.exit())
    machine.check_counts()


def test_errno(machine: Any) -> None:
    file, at = numbered(machine)
    process = machine.process
    private = machine.run(process.mmap_file(file, PAGE, RW, False))
    anonymous = machine.run(process.mmap(PAGE))
    for steps in (
        process.remap_file_pages(private, PAGE, 0), process.remap_file_pages(anonymous, PAGE, 0),
        process.remap_file_pages(at, PAGE, 0, 1), process.remap_file_pages(at + PAGE, PAGES * PAGE, 0),
        process.remap_file_pages(at, 0, 0), process.remap_file_pages(1 << 20, PAGE, 0),
    ):  # fmt: skip
        with pytest.raises(OSError) as caught:
            machine.run(steps)
        assert caught.value.errno == errno.EINVAL


def test_6_12_has_no_nonlinear_areas(make_machine: Any) -> None:
    machine = make_machine("v6.12")
    _, at = numbered(machine)
    with pytest.raises(NotInThisKernel):
        machine.run(machine.process.remap_file_pages(at, PAGE, 1))
    assert pages(machine, at, 2) == [0, 1]
