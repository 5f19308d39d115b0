"""Faults, COW, swap, pins and system calls on model memory: contents and counts."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest

from nicemu.mm import Fault
from nicemu.timeline.host import Steps

PAGE = 4096


def pattern(page: int) -> bytes:
    return np.random.default_rng(page).bytes(PAGE)


def test_read_fault_maps_the_zero_page_and_a_write_replaces_it(machine: Any) -> None:
    at = machine.run(machine.process.mmap(2 * PAGE))
    assert machine.run(machine.process.read(at, 2 * PAGE)) == bytes(2 * PAGE)
    assert machine.frame(at) == machine.frame(at + PAGE) == machine.host.zero_frame
    machine.run(machine.process.write(at, b"x"))
    assert machine.frame(at) != machine.host.zero_frame and machine.host.counters["cow"] == 1
    assert machine.run(machine.process.read(at, 3)) == b"x\0\0"
    machine.check_counts()


def test_fault_in_answers_frame_and_permission(machine: Any) -> None:
    at = machine.run(machine.process.mmap(1024 * PAGE))
    found = machine.run(machine.mm.fault_in(at, 1024, True))
    assert found.dtype == np.int32 and (found & 1).all() and len(set(found.tolist())) == 1024
    machine.run(machine.process.fork())
    assert not (machine.run(machine.mm.fault_in(at, 1024, False)) & 1).any()


@pytest.mark.parametrize("write", [False, True])
def test_fault_in_without_mapping_is_efault_at_that_page(machine: Any, write: bool) -> None:
    at = machine.run(machine.process.mmap(4 * PAGE))
    machine.run(machine.process.munmap(at + 2 * PAGE, PAGE))
    with pytest.raises(Fault) as caught:
        machine.run(machine.mm.fault_in(at, 4, write))
    assert (caught.value.errno, caught.value.address) == (errno.EFAULT, at + 2 * PAGE)


def test_write_fault_on_read_only_memory_is_efault(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE, prot=1))
    machine.run(machine.mm.fault_in(at, 1, False))
    with pytest.raises(Fault):
        machine.run(machine.mm.fault_in(at, 1, True))
    machine.run(machine.process.mprotect(at, PAGE, 0))
    with pytest.raises(Fault):
        machine.run(machine.mm.fault_in(at, 1, False))


def test_fork_shares_until_one_side_writes(machine: Any) -> None:
    at = machine.run(machine.process.mmap(3 * PAGE))
    machine.run(machine.process.write(at, b"one"))
    child = machine.run(machine.process.fork())
    shared = machine.frame(at)
    assert machine.host.pages.mapcount[shared] == 2
    machine.run(machine.process.write(at, b"two"))
    assert machine.frame(at) != shared
    assert machine.run(child.read(at, 3)) == b"one" and machine.run(machine.process.read(at, 3)) == b"two"
    machine.run(child.write(at, b"six"))  # sole owner: reused
    assert child.mm.page_table.get(at // PAGE) >> 12 == shared
    machine.check_counts(machine.mm, child.mm)
    machine.run(child.exit())
    machine.check_counts()


def test_dontfork_memory_is_not_in_the_child(machine: Any) -> None:
    at = machine.run(machine.process.mmap(2 * PAGE))
    machine.run(machine.process.write(at, b"x" * 2 * PAGE))
    machine.run(machine.process.madvise(at, PAGE, 10))
    child = machine.run(machine.process.fork())
    with pytest.raises(OSError, match="Bad address"):
        machine.run(child.read(at, 1))
    assert machine.run(child.read(at + PAGE, 1)) == b"x"


def test_pageout_and_back(machine: Any) -> None:
    at = machine.run(machine.process.mmap(40 * PAGE))
    for page in range(40):
        machine.run(machine.process.write(at + page * PAGE, pattern(page)))
    machine.run(machine.process.madvise(at, 40 * PAGE, 21))
    assert machine.frames.allocated == 0 and machine.host.swap.used == 40
    for page in reversed(range(40)):
        assert machine.run(machine.process.read(at + page * PAGE, PAGE)) == pattern(page)
    assert machine.host.swap.used == len(machine.host.swap.cache) == machine.host.counters["pswpin"] == 40
    machine.check_counts()


@pytest.mark.parametrize("kswapd", [False, True])
def test_more_memory_than_ram(make_machine: Any, kswapd: bool) -> None:
    """Every byte survives; RAM is never exceeded."""
    machine = make_machine(ram=256, swap=4096, kswapd=kswapd)
    at = machine.run(machine.process.mmap(1024 * PAGE))
    for page in range(1024):
        machine.run(machine.process.write(at + page * PAGE, pattern(page)))
    for page in range(1024):
        assert machine.run(machine.process.read(at + page * PAGE, PAGE)) == pattern(page)
    assert machine.frames.peak <= 256
    assert machine.host.counters["pswpout"] >= 768 and machine.host.counters["pswpin"] >= 768
    assert bool(machine.host.counters["allocstall"]) or kswapd
    machine.check_counts()


def test_shared_page_goes_to_swap_for_both(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, b"shared"))
    child = machine.run(machine.process.fork())
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.frames.allocated == 0 and machine.host.swap.used == 1
    assert machine.run(child.read(at, 6)) == machine.run(machine.process.read(at, 6)) == b"shared"
    assert machine.host.counters["pswpin"] == machine.host.swap.used == len(machine.host.swap.cache) == 1


def test_out_of_memory_is_enomem(make_machine: Any) -> None:
    machine = make_machine(ram=32, swap=8)
    at = machine.run(machine.process.mmap(64 * PAGE))
    with pytest.raises(Fault) as caught:
        machine.run(machine.process.write(at, b"x" * 64 * PAGE))
    assert caught.value.errno == errno.ENOMEM


def test_pinned_pages_stay(machine: Any) -> None:
    at = machine.run(machine.process.mmap(4 * PAGE))
    machine.run(machine.process.write(at, b"pinned"))
    frames = machine.run(machine.mm.pin(at, 4, True)) >> 1
    assert not machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.run(machine.process.madvise(at, 4 * PAGE, 21)) is None and machine.frame(at) == frames[0]
    machine.run(machine.process.munmap(at, 4 * PAGE))
    assert bytes(machine.frames.bytes_of(int(frames[0]))[:6]) == b"pinned"
    assert machine.world.frame_stamp[int(frames[0])].invalidated == 0
    machine.mm.unpin(frames)
    assert machine.frames.allocated == 0


def test_pin_that_fails_pins_nothing(machine: Any) -> None:
    at = machine.run(machine.process.mmap(4 * PAGE))
    machine.run(machine.process.munmap(at + 3 * PAGE, PAGE))
    with pytest.raises(Fault):
        machine.run(machine.mm.pin(at, 4, True))
    machine.run(machine.process.exit())
    assert machine.frames.allocated == 0


@pytest.mark.parametrize("era", ["v3.7", "v6.12"])
def test_fork_and_a_pinned_page(make_machine: Any, era: str) -> None:
    """6.12 copies for the child, so device and parent stay together; before, the parent's write parts them."""
    machine = make_machine(era)
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, b"before"))
    frame = int(machine.run(machine.mm.pin(at, 1, True))[0] >> 1)
    child = machine.run(machine.process.fork())
    machine.run(machine.process.write(at, b"after!"))
    assert (machine.frame(at) == frame) == (era == "v6.12")
    assert machine.run(child.read(at, 6)) == b"before"
    machine.mm.unpin([frame])
    machine.check_counts(machine.mm, child.mm)


def test_mremap_moves_contents_and_frames(machine: Any) -> None:
    at = machine.run(machine.process.mmap(700 * PAGE))
    for page in (0, 511, 512, 699):
        machine.run(machine.process.write(at + page * PAGE, pattern(page)))
    machine.run(machine.process.mmap(PAGE))
    frame = machine.frame(at)
    new = machine.run(machine.process.mremap(at, 700 * PAGE, 900 * PAGE))
    assert new != at and machine.frame(new) == frame
    for page in (0, 511, 512, 699):
        assert machine.run(machine.process.read(new + page * PAGE, PAGE)) == pattern(page)
    with pytest.raises(OSError, match="Bad address"):
        machine.run(machine.process.read(at, 1))
    assert machine.run(machine.host.reclaim.evict(machine.mm, new))  # the reverse map followed
    assert machine.run(machine.process.read(new, PAGE)) == pattern(0)
    assert machine.run(machine.process.mremap(new, 900 * PAGE, PAGE)) == new
    machine.check_counts()


def test_mprotect_splits_and_merges(machine: Any) -> None:
    at = machine.run(machine.process.mmap(8 * PAGE))
    machine.run(machine.process.mprotect(at + PAGE, PAGE, 1))
    assert len(machine.mm.vmas) == 3
    machine.run(machine.process.mprotect(at + PAGE, PAGE, 3))
    assert len(machine.mm.vmas) == 1
    machine.run(machine.process.munmap(at + 4 * PAGE, PAGE))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        machine.run(machine.process.mprotect(at, 8 * PAGE, 1))


@pytest.mark.parametrize("call", ["mmap", "munmap", "madvise", "mprotect", "mremap", "posix_memalign", "free"])
def test_bad_arguments_are_einval(machine: Any, call: str) -> None:
    process = machine.process
    steps = {
        "mmap": lambda: process.mmap(0), "munmap": lambda: process.munmap(1, PAGE),
        "madvise": lambda: process.madvise(1, PAGE, 4), "mprotect": lambda: process.mprotect(1, PAGE, 1),
        "mremap": lambda: process.mremap(1, PAGE, PAGE), "posix_memalign": lambda: process.posix_memalign(8, 24),
        "free": lambda: process.free(PAGE),
    }  # fmt: skip
    with pytest.raises(OSError) as caught:
        machine.run(steps[call]())
    assert caught.value.errno == errno.EINVAL


def test_page_tables_are_given_back(machine: Any) -> None:
    def nodes() -> int:
        control, free = machine.world.control[0], 0
        node = int(control.node_free)
        while node:
            free, node = free + 1, int(machine.world.nodes[node, 0])
        return int(control.node_next) - free

    before = nodes()
    at = machine.run(machine.process.mmap(1 << 30))
    for page in range(0, 262144, 4096):
        machine.run(machine.process.write(at + page * PAGE, b"x"))
    assert nodes() > before
    machine.run(machine.process.munmap(at, 1 << 30))
    assert nodes() == before


def test_swap_in_of_a_page_under_writeback_waits_for_it(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, b"bytes"))
    machine.scheduler.spawn(machine.host.reclaim.evict(machine.mm, at), "evict")

    def late() -> Steps[bytes]:
        yield 3_000
        assert machine.host.swap.writeback
        return (yield from machine.process.read(at, 5))

    assert machine.run(late()) == b"bytes"


def test_logs_name_pages_by_region(machine: Any) -> None:
    at = machine.run(machine.process.mmap(4 * PAGE))
    machine.run(machine.process.write(at + 2 * PAGE, b"x"))
    kind, fields = machine.events[-1]
    assert (kind, fields["region"], fields["page"]) == ("fault", 1, 2)
    assert not any(value >= at for _, fields in machine.events for value in fields.values() if isinstance(value, int))
