"""Where files and shared memory are mapped: in a window at a fixed address; the kernel does not draw the history.

Page tables are cut at multiples of 2 MiB (and 1 GiB, 512 GiB): an area across one is faulted in, copied by fork and
zapped in two steps instead of one.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nicemu.memory import arena as real
from nicemu.memory import safe_copy
from nicemu.memory.arena import HUGE_PAGE, Arena

PAGE = 4096
TOP = 0x5F00_0000_0000
"""A multiple of 512 GiB."""
SHARED = real.MAP_SHARED
PLACES = {"within one leaf": TOP + PAGE, "across 2 MiB": TOP + 3 * HUGE_PAGE - 3 * PAGE,
          "across 1 GiB": TOP + (1 << 30) - 5 * PAGE, "across 512 GiB": TOP - 2 * PAGE}  # fmt: skip


@pytest.fixture
def here(make_machine: Any, arena: Arena) -> Any:
    """A machine whose program has an arena."""
    return make_machine(arena=arena)


@pytest.fixture
def fd() -> Iterator[int]:
    """A file of eight pages."""
    with tempfile.TemporaryFile() as file:
        file.write(b"contents" + bytes(8 * PAGE - 8))
        file.flush()
        yield file.fileno()


def reserved(arena: Arena, at: int) -> bool:
    """Nothing is there, and the kernel puts nothing there."""
    with pytest.raises(OSError, match="File exists"):
        real.mmap(at, PAGE, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS | real.MAP_FIXED_NOREPLACE)
    return safe_copy.read(at, 1) == b"" and arena.mapped.is_free(at, PAGE)


def kernel_puts_files_at(monkeypatch: pytest.MonkeyPatch, places: list[int]) -> None:
    """Where the caller has no wish, the kernel's choice is the next of ``places``."""
    mmap, left = real.mmap, iter(places)

    def steered(address: int, length: int, prot: int, flags: int, fd: int = -1, offset: int = 0) -> int:
        if fd >= 0 and not flags & real.MAP_FIXED:
            address, flags = next(left), flags | real.MAP_FIXED_NOREPLACE
        return mmap(address, length, prot, flags, fd, offset)

    monkeypatch.setattr(real, "mmap", steered)


def history(machine: Any, fd: int) -> list[Any]:
    """Two mappings of a file: faulted in, forked, zapped in part, faulted in, unmapped; events and times."""
    run, process, times = machine.run, machine.process, []
    areas = [run(process.mmap(8 * PAGE, 3, SHARED, fd=fd)) for _ in range(2)]
    for at in areas:
        run(machine.mm.fault_in(at, 8, True))
        times.append(machine.scheduler.clock())
    child = run(process.fork())
    for at in areas:
        run(process.madvise(at + PAGE, 6 * PAGE, real.MADV_DONTNEED))
        run(machine.mm.fault_in(at, 8, False))
        times.append(machine.scheduler.clock())
    run(child.exit())
    for at in areas:
        run(process.munmap(at, 8 * PAGE))
    return [*machine.events, *times]


@pytest.mark.parametrize("places", [(0, 1), (1, 0), (2, 0), (3, 0), (0, 3)], ids=str)
def test_one_history_wherever_the_kernel_would_map(make_machine: Any, fd: int, monkeypatch: pytest.MonkeyPatch,
                                                   places: tuple[int, int]) -> None:  # fmt: skip
    histories, known = [], list(PLACES.values())
    for order in ((0, 0), places):
        with monkeypatch.context() as patch:
            kernel_puts_files_at(patch, [known[place] + i * 64 * PAGE for i, place in enumerate(order)])
            arena = Arena(size=1 << 30)
            histories.append(history(make_machine(arena=arena), fd))
            arena.close()
    assert histories[0] == histories[1] and len(histories[0]) > 20


def test_mappings_start_at_multiples_of_2_mib_from_the_lowest_free_one(here: Any, arena: Arena, fd: int) -> None:
    first, second = (here.run(here.process.mmap(PAGE, 3, SHARED, fd=fd)) for _ in range(2))
    assert (first, second) == (arena.mapped.base, arena.mapped.base + HUGE_PAGE)
    here.run(here.process.munmap(first, PAGE))
    assert reserved(arena, first)
    shared = real.MAP_SHARED | real.MAP_ANONYMOUS
    assert here.run(here.process.mmap(PAGE, 3, shared)) == first
    assert here.run(here.process.read(second, 8)) == b"contents"


def test_a_hint_is_not_taken_and_a_fixed_address_is(here: Any, arena: Arena, fd: int) -> None:
    assert here.run(here.process.mmap(PAGE, 3, SHARED, address=TOP, fd=fd)) == arena.mapped.base
    flags = SHARED | real.MAP_FIXED_NOREPLACE
    assert here.run(here.process.mmap(PAGE, 3, flags, address=TOP, fd=fd)) == TOP
    here.run(here.process.munmap(TOP, PAGE))
    assert safe_copy.read(TOP, 1) == b""


def test_a_part_that_was_mapped_anew_is_not_given_away(here: Any, arena: Arena, fd: int) -> None:
    at = here.run(here.process.mmap(4 * HUGE_PAGE, 3, SHARED, fd=fd))
    again = here.run(here.process.mmap(HUGE_PAGE, 3, SHARED | real.MAP_FIXED, address=at + HUGE_PAGE, fd=fd))
    assert again == at + HUGE_PAGE and here.run(here.process.read(again, 8)) == b"contents"
    assert here.run(here.process.mmap(PAGE, 3, SHARED, fd=fd)) == at + 4 * HUGE_PAGE


def test_part_of_a_mapping_can_be_unmapped(here: Any, arena: Arena, fd: int) -> None:
    at = here.run(here.process.mmap(8 * PAGE, 3, SHARED, fd=fd))
    here.run(here.process.munmap(at + 2 * PAGE, PAGE))
    assert reserved(arena, at + 2 * PAGE) and not arena.mapped.is_free(at + PAGE, PAGE)
    here.run(here.process.munmap(at, 8 * PAGE))
    assert arena.mapped.is_free(at, 8 * PAGE) and here.frames.allocated == 0


@pytest.mark.parametrize(("opened", "expected"), [(lambda: os.open("/dev/null", os.O_WRONLY), errno.EACCES),
                                                  (lambda: -1, errno.EBADF)])  # fmt: skip
def test_a_refused_mapping_leaves_its_place_reserved(here: Any, arena: Arena, opened: Callable[[], int],
                                                     expected: int) -> None:  # fmt: skip
    fd = opened()
    with pytest.raises(OSError) as caught:
        here.run(here.process.mmap(PAGE, 3, SHARED, fd=fd))
    if fd >= 0:
        os.close(fd)
    assert caught.value.errno == expected and reserved(arena, arena.mapped.base)
