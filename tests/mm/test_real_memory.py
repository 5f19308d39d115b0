"""Arena and program memory: the model operation around the real one; the real address space is the truth."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from typing import Any

import pytest

from nicemu.memory import arena as real
from nicemu.memory import safe_copy
from nicemu.mm import Fault

PAGE = 4096
MADV_WIPEONFORK = 18


@pytest.fixture
def here(make_machine: Any, arena: Any) -> Any:
    """A machine whose program has an arena."""
    return make_machine(arena=arena)


def pointer(machine: Any, frame: int) -> int:
    return int(machine.world.frame[frame].pointer)


def touched(machine: Any, pages: int = 4) -> int:
    at = machine.run(machine.process.mmap(pages * PAGE))
    machine.run(machine.mm.fault_in(at, pages, True))
    ctypes.memset(at, 7, pages * PAGE)
    return int(at)


def test_frames_point_at_the_real_pages(here: Any) -> None:
    at = touched(here)
    assert [pointer(here, here.frame(at + i * PAGE)) for i in range(4)] == [at + i * PAGE for i in range(4)]


@pytest.mark.parametrize("operation", ["munmap", "dontneed"])
def test_old_frames_go_to_the_graveyard_before_real_memory_goes(here: Any, operation: str) -> None:
    at = touched(here)
    frame = here.frame(at)
    here.run(here.process.munmap(at, 4 * PAGE) if operation == "munmap" else here.process.madvise(at, 4 * PAGE, 4))
    assert pointer(here, frame) == here.frames.graveyard and not here.frame(at)
    assert safe_copy.read(at, PAGE) == (b"" if operation == "munmap" else bytes(PAGE))


@pytest.mark.parametrize("operation", ["munmap", "dontneed"])
def test_pinned_pages_go_on_without_the_program(here: Any, operation: str) -> None:
    at = touched(here)
    frames = here.run(here.mm.pin(at, 4, True)) >> 1
    here.run(here.process.munmap(at, 4 * PAGE) if operation == "munmap" else here.process.madvise(at, 4 * PAGE, 4))
    assert safe_copy.read(at, PAGE) == (b"" if operation == "munmap" else bytes(PAGE))
    for frame in frames.tolist():
        assert here.frames.read(frame, 0, PAGE) == bytes([7]) * PAGE
        here.frames.write(frame, 8, b"x")
        assert here.frames.read(frame, 7, 3) == b"\7x\7"
    assert here.frames.allocated == 4
    here.mm.unpin(frames)
    assert here.frames.allocated == 0
    assert {pointer(here, frame) for frame in frames.tolist()} == {here.frames.graveyard}


def test_a_pin_for_reading_takes_memory_that_is_read_only_behind_our_back(here: Any) -> None:
    with mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapping:
        view = ctypes.c_char.from_buffer(mapping)
        at = ctypes.addressof(view)
        ctypes.memset(at, 7, PAGE)
        real.mprotect(at, PAGE, real.PROT_READ)
        here.mm.adopt(at, PAGE)
        with pytest.raises(Fault, match="protected the page"):
            here.run(here.mm.pin(at, 1, True))
        frames = here.run(here.mm.pin(at, 1, False)) >> 1
        assert here.frames.read(int(frames[0]), 0, PAGE) == bytes([7]) * PAGE
        here.mm.unpin(frames)
        real.mprotect(at, PAGE, real.PROT_READ | real.PROT_WRITE)
        del view


def test_advice_that_the_model_does_not_know_is_the_kernels(here: Any) -> None:
    at = touched(here)
    here.run(here.process.madvise(at, PAGE, MADV_WIPEONFORK))
    child = os.fork()
    if not child:
        os._exit(ctypes.string_at(at, 1)[0] * 16 + ctypes.string_at(at + PAGE, 1)[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with pytest.raises(OSError, match="Invalid argument"):
        here.run(here.process.madvise(at, PAGE, 77))


def test_cow_break_takes_the_address_over(here: Any) -> None:
    at = touched(here)
    old = here.frame(at)
    child = here.run(here.process.fork())
    here.run(here.process.write(at, b"x"))
    new = here.frame(at)
    assert new != old and pointer(here, new) == at and pointer(here, old) == here.frames.graveyard
    assert here.host.pages.mapcount[old] == 1 and child.mm.page_table.get(at // PAGE) >> 12 == old
    assert safe_copy.read(at, 2) == b"x\7"
    with pytest.raises(OSError, match="Bad address"):
        here.run(child.read(at, 1))  # its bytes are in another process
    here.run(child.exit())
    here.check_counts()


def test_eviction_leaves_contents_in_place(here: Any) -> None:
    at = touched(here)
    old = here.frame(at)
    assert here.run(here.host.reclaim.evict(here.mm, at))
    assert pointer(here, old) == here.frames.graveyard and safe_copy.read(at, 2) == b"\7\7"
    assert here.run(here.process.read(at, 2)) == b"\7\7"
    assert here.host.counters["pswpin"] == 1 and pointer(here, here.frame(at)) == at


def test_mprotect_is_real(here: Any) -> None:
    at = touched(here)
    here.run(here.process.mprotect(at, PAGE, 1))
    assert safe_copy.write(at, b"x") == 0
    with pytest.raises(Fault):
        here.run(here.mm.fault_in(at, 1, True))


def test_mremap_moves_real_memory_and_frames(here: Any) -> None:
    at = touched(here)
    frame = here.frame(at)
    here.run(here.process.mmap(PAGE))
    new = here.run(here.process.mremap(at, 4 * PAGE, 8 * PAGE))
    assert new != at and here.frame(new) == frame and pointer(here, frame) == new
    assert safe_copy.read(new, 2) == b"\7\7" and safe_copy.read(at, 1) == b""
    assert here.run(here.process.mremap(new, 8 * PAGE, 9 * PAGE)) == new  # in place
    here.run(here.process.munmap(new, 9 * PAGE))
    assert here.frames.allocated == 0


def test_posix_memalign_and_free(here: Any) -> None:
    at = here.run(here.process.posix_memalign(10000, 1 << 16))
    assert at % (1 << 16) == 0 and safe_copy.read(at, 10000) == bytes(10000)
    small = here.run(here.process.malloc(10))
    assert safe_copy.write(small, b"x") == 1
    here.run(here.process.free(at))
    here.run(here.process.free(0))
    assert safe_copy.read(at, 1) == b""


def program_memory(pages: int = 4) -> tuple[mmap.mmap, int]:
    area = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return area, ctypes.addressof(ctypes.c_char.from_buffer(area))


def test_adopted_memory_is_read_where_it_is(here: Any) -> None:
    area, at = program_memory()
    area[100:105] = b"hello"
    assert here.mm.adopt(at + 100, 3 * PAGE) == 1 and here.mm.adopt(at, 4 * PAGE) == 0
    assert here.run(here.process.read(at + 100, 5)) == b"hello"
    here.run(here.process.write(at + PAGE - 2, b"over"))
    assert area[PAGE - 2 : PAGE + 2] == b"over"
    assert pointer(here, here.frame(at)) == at


def test_program_that_unmaps_or_protects_behind_our_back_gets_efault(here: Any) -> None:
    at = real.mmap(0, 4 * PAGE, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS)
    here.mm.adopt(at, 4 * PAGE)
    here.run(here.mm.fault_in(at, 4, True))
    real.mprotect(at + PAGE, PAGE, 1)
    assert len(here.run(here.mm.fault_in(at, 4, False))) == 4
    for write, change in ((True, lambda: None), (False, lambda: real.munmap(at + PAGE, PAGE))):
        change()
        with pytest.raises(Fault) as caught:
            here.run(here.mm.fault_in(at, 4, write))
        assert caught.value.address == at + PAGE
    here.run(here.process.munmap(at, 4 * PAGE))
    assert safe_copy.read(at, 1) == b""


def test_madvise_on_program_memory_is_real(here: Any) -> None:
    area, at = program_memory()
    area[:] = b"\7" * 4 * PAGE
    here.run(here.process.madvise(at, PAGE, 4))
    assert area[: 2 * PAGE] == bytes(PAGE) + b"\7" * PAGE


def test_file_mapping_is_real_and_adopted(here: Any) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"contents" + bytes(PAGE))
        file.flush()
        at = here.run(here.process.mmap(PAGE, 3, real.MAP_SHARED, fd=file.fileno()))
        assert here.run(here.process.read(at, 8)) == b"contents"
        os.pwrite(file.fileno(), b"changed!", 0)
        assert here.run(here.process.read(at, 8)) == b"changed!"
        here.run(here.process.munmap(at, PAGE))
    assert safe_copy.read(at, 1) == b""


def test_reserved_addresses_are_not_adopted(here: Any, arena: Any) -> None:
    assert here.mm.adopt(arena.base + (1 << 20), PAGE) == 0 and here.mm.adopt(arena.model_base, PAGE) == 0
    with pytest.raises(OSError, match="Bad address"):
        here.run(here.process.read(arena.base + (1 << 20), 1))


def test_munmap_of_an_arena_page_that_reclaim_is_unmapping(make_machine: Any, arena: Any) -> None:
    """v3.7: the entry is gone, the notifier still runs, and the program unmaps: nothing may point there any more."""
    machine = make_machine("v3.7", arena=arena)
    from nicemu.mm import NotifierSubscriber
    from nicemu.timeline.host import Sleep

    class Slow(NotifierSubscriber):
        def invalidate_page(self, mm: Any, address: int) -> Any:
            yield Sleep(100_000)

    machine.run(machine.mm.notifiers.register(Slow()))
    at = touched(machine)
    frame = machine.frame(at)
    machine.scheduler.spawn(machine.host.reclaim.evict(machine.mm, at), "evict")

    def late() -> Any:
        yield 10_000
        assert not machine.frame(at) and pointer(machine, frame) == at
        yield from machine.process.munmap(at, 4 * PAGE)
        assert pointer(machine, frame) == machine.frames.graveyard

    machine.run(late())
    machine.timeline.advance(lambda: False)
    assert machine.frames.allocated == 0 and machine.host.swap.used == 0
