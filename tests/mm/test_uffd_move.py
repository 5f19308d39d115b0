"""UFFDIO_MOVE: pages change their address without a copy (``move_pages_pte``)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.mm.discipline import NotInThisKernel

PAGE = 4096


@pytest.fixture
def areas(machine: Any) -> tuple[Any, int, int, Any]:
    """A machine, four written pages, an empty registered area of four, its handler."""
    source = int(machine.run(machine.process.mmap(4 * PAGE)))
    for page in range(4):
        machine.run(machine.process.write(source + page * PAGE, b"page %d" % page))
    destination = int(machine.run(machine.process.mmap(4 * PAGE)))
    handler = machine.run(machine.process.userfaultfd())
    machine.run(handler.register(destination, 4 * PAGE))
    machine.kinds()
    return machine, source, destination, handler


def refused(machine: Any, steps: Any) -> int:
    with pytest.raises(OSError) as error:
        machine.run(steps)
    machine.check_counts()
    return int(error.value.errno or 0)


def test_the_same_frame_is_at_the_other_address(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    frames = [machine.frame(source + page * PAGE) for page in range(4)]
    assert machine.run(handler.move(destination, source, 4 * PAGE)) == 4 * PAGE
    assert [machine.frame(destination + page * PAGE) for page in range(4)] == frames
    assert machine.run(machine.process.read(destination + 3 * PAGE, 6)) == b"page 3"
    assert machine.run(machine.process.read(source, 6)) == bytes(6)
    machine.check_counts()


def test_each_page_is_notified_where_it_was(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    machine.run(handler.move(destination, source, 2 * PAGE))
    assert machine.kinds() == ["notifier_start", "pte_clear", "tlb_flush", "pte_move", "notifier_end"] * 2


def test_reverse_maps_follow(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    machine.run(handler.move(destination, source, PAGE))
    assert machine.run(machine.host.reclaim.evict(machine.mm, destination))
    assert machine.run(machine.process.read(destination, 6)) == b"page 0"
    machine.check_counts()


def test_a_swapped_page_moves(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    machine.run(machine.host.reclaim.evict(machine.mm, source))
    machine.run(handler.move(destination, source, PAGE))
    assert machine.run(machine.process.read(destination, 6)) == b"page 0"


def test_a_shared_page_is_busy(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    child = machine.run(machine.process.fork())
    with pytest.raises(OSError) as error:
        machine.run(handler.move(destination, source, PAGE))
    assert error.value.errno == errno.EBUSY
    machine.check_counts(machine.mm, child.mm)


def test_a_pinned_page_is_busy(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    machine.run(machine.mm.pin(source, 1, True))
    assert refused(machine, handler.move(destination, source, PAGE)) == errno.EBUSY


def test_an_occupied_destination_exists(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    machine.run(machine.process.write(destination, b"here"))
    assert refused(machine, handler.move(destination, source, PAGE)) == errno.EEXIST


def test_what_was_moved_before_an_error_is_reported(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    machine.run(machine.process.write(destination + 2 * PAGE, b"here"))
    assert machine.run(handler.move(destination, source, 4 * PAGE)) == 2 * PAGE


def test_holes_need_a_flag(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    machine.run(machine.process.madvise(source, PAGE, 4))
    assert refused(machine, handler.move(destination, source, 2 * PAGE)) == errno.ENOENT
    assert machine.run(handler.move(destination, source, 2 * PAGE, allow_holes=True)) == 2 * PAGE
    assert machine.run(machine.process.read(destination + PAGE, 6)) == b"page 1"


def test_areas_that_do_not_fit(areas: tuple[Any, int, int, Any]) -> None:
    machine, source, destination, handler = areas
    for steps in (
        handler.move(source, destination, PAGE),  # the destination is not registered
        handler.move(destination, source + 1, PAGE),
        handler.move(destination, source, 8 * PAGE),
        handler.move(destination, destination + PAGE, 2 * PAGE),
    ):
        assert refused(machine, steps) == errno.EINVAL


def test_move_is_not_in_3x(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    at = machine.run(machine.process.mmap(2 * PAGE))
    with pytest.raises(NotInThisKernel):
        machine.run(machine.run(machine.process.userfaultfd()).move(at, at + PAGE, PAGE))
