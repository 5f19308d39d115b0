"""Reclaim: watermarks, kswapd, the swap device and its area, memory control groups."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.bench import residence
from nicemu.mm.lru import ROOM, RUN, WINDOW, Lru, Ring
from nicemu.mm.memcg import Memcg
from nicemu.mm.notifier import NotifierSubscriber
from nicemu.mm.page import Fault
from nicemu.mm.swap import SwapArea
from nicemu.mm.swap_device import SwapDevice
from nicemu.mm.watermark import Watermarks
from nicemu.timeline.host import Sleep, Steps

PAGE = 4096


def pattern(page: int) -> bytes:
    return bytes((page * 31 + i) & 255 for i in range(256)) * 16


def populated(machine: Any, pages: int, process: Any = None) -> int:
    """Address of so many pages, each written with its pattern."""
    process = process or machine.process
    at = int(machine.run(process.mmap(pages * PAGE)))
    for page in range(pages):
        machine.run(process.write(at + page * PAGE, pattern(page)))
    return at


# Watermarks and kswapd ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mebibytes", "min_kib"), [(16, 512), (64, 1024), (256, 2048), (1024, 4096), (16384, 16384), (2**24, 262144)]
)
def test_min_watermark_is_that_of_linux(mebibytes: int, min_kib: int) -> None:
    """The table in the comment over ``init_per_zone_wmark_min``."""
    assert Watermarks.of(mebibytes * 256).min == min_kib // 4


def test_low_and_high_are_a_quarter_of_min_or_a_thousandth_of_ram_apart() -> None:
    assert Watermarks.of(65536) == Watermarks(512, 640, 768)
    large = Watermarks.of(1 << 26)
    assert large.low - large.min == large.high - large.low == (1 << 26) // 1000


def test_min_free_pages_can_be_set() -> None:
    assert Watermarks.of(65536, 0) == Watermarks(0, 0, 0)
    assert Watermarks.of(65536, 1000) == Watermarks(1000, 1250, 1500)


def test_kswapd_wakes_below_low_and_sleeps_at_high(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(ram=1024, kswapd=True)
    marks, frames = machine.host.watermarks, machine.frames
    populated(machine, 1024 - marks.low)
    assert machine.host.counters["pgscan"] == 0
    populated(machine, 1)
    machine.timeline.advance(lambda: False)
    assert marks.high <= frames.available < marks.high + 32
    assert machine.host.counters["pgsteal_kswapd"] > 0 and not machine.host.counters["allocstall"]


def test_allocation_below_min_reclaims_by_itself(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(ram=1024, kswapd=True)
    machine.host.reclaim.kswapd_enabled = False
    populated(machine, 1024)
    assert machine.host.counters["allocstall"] > 0
    assert machine.frames.available >= machine.host.watermarks.min


def test_kswapd_gives_up_after_sixteen_failures(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(ram=4096, swap=0, kswapd=True)
    at = populated(machine, 4096 - machine.host.watermarks.low)
    machine.run(machine.mm.pin(at, 4096 - machine.host.watermarks.low, True))
    for _ in range(20):
        populated(machine, 1)
        machine.timeline.advance(lambda: False)
    scanned = machine.host.counters["pgscan"]
    populated(machine, 1)
    machine.timeline.advance(lambda: False)
    assert machine.host.counters["pgscan"] == scanned


# Who is evicted -----------------------------------------------------------------------------------------------------


class Kvm(NotifierSubscriber):
    """A secondary MMU with accessed bits: what it used lately is young."""

    def __init__(self) -> None:
        self.used: set[int] = set()

    def clear_flush_young(self, mm: Any, address: int) -> bool:
        young = address in self.used
        self.used.discard(address)
        return young


def survivors(machine: Any, use_by_device: Callable[[int], None]) -> tuple[int, int]:
    """Pages left of a region that the CPU uses and of one that only a device uses, beside a stream of others."""
    cpu, device = populated(machine, 64), populated(machine, 64)
    for _ in range(16):
        populated(machine, 32)
        for page in range(64):
            machine.run(machine.process.read(cpu + page * PAGE, 1))
            use_by_device(device + page * PAGE)
        machine.run(machine.host.reclaim.shrink(32))
    return machine.run(_resident(machine, cpu, 64)), machine.run(_resident(machine, device, 64))


def _resident(machine: Any, start: int, pages: int) -> Steps[int]:
    yield 0
    return len(machine.mm.frames_in(start, start + pages * PAGE))


def test_pages_that_only_the_nic_touches_go_first(machine: Any) -> None:
    """Device access does not age pages (odp.md 1.5): RDMA's interval notifiers have no young bit."""
    assert survivors(machine, lambda address: None) == (64, 0)


def test_a_secondary_mmu_with_young_bits_keeps_its_pages(machine: Any) -> None:
    kvm = Kvm()
    machine.run(machine.mm.notifiers.register(kvm))
    assert survivors(machine, kvm.used.add) == (64, 64)


# Swap ---------------------------------------------------------------------------------------------------------------


def test_pages_of_even_words_are_kept_short_and_others_whole() -> None:
    area = SwapArea(8)
    rows = np.zeros((4, 512), np.int64)
    rows[1] = -7
    rows[2] = np.arange(512) * -(1 << 60) + 99
    rows[3] = np.frombuffer(np.random.default_rng(1).bytes(PAGE), np.int64)
    slots = np.array([5, 2, 8, 1])
    area.store(slots, rows.view(np.uint8))
    assert (area.load(slots).view(np.int64) == rows).all()
    assert area.short(slots) == 3


def test_a_slot_that_held_a_whole_page_can_hold_a_short_one_and_back() -> None:
    area, slot = SwapArea(1), np.array([1])
    for word in (b"a", os.urandom(1), b"b"):
        page = np.frombuffer((word + bytes(7)) * 512 if word != b"b" else pattern(3), np.uint8)[None]
        area.store(slot, page)
        assert (area.load(slot) == page).all()


def device(machine: Any, depth: int, page_ns: int) -> SwapDevice:
    machine.host.profile.swap_queue_depth = depth
    found = SwapDevice(machine.scheduler, machine.host.profile)
    found.page_ns = page_ns
    return found


def times(machine: Any, disk: SwapDevice, requests: list[tuple[int, int]]) -> list[int]:
    """When each of requests (latency, pages), all submitted at once, is done."""
    ends: list[int] = []

    def one(latency: int, pages: int) -> Steps[None]:
        yield from disk.request(latency, pages)
        ends.append(machine.scheduler.clock())

    for latency, pages in requests:
        machine.scheduler.spawn(one(latency, pages), "reader")
    machine.timeline.advance(lambda: False)
    return ends


def test_latencies_overlap_and_transfers_do_not(machine: Any) -> None:
    assert times(machine, device(machine, 32, 10), [(1000, 8)] * 3) == [1080, 1160, 1240]


def test_requests_beyond_the_queue_wait(machine: Any) -> None:
    disk = device(machine, 2, 0)
    assert times(machine, disk, [(1000, 1)] * 4) == [1000, 1000, 2000, 2000]
    assert disk.deepest == 4 and disk.in_flight == 0


def test_full_swap_leaves_pages_where_they_are(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(swap=4)
    at = populated(machine, 16)
    machine.run(machine.process.madvise(at, 16 * PAGE, 21))
    assert machine.host.swap.used == 4 and machine.frames.allocated == 12
    assert all(machine.run(machine.process.read(at + page * PAGE, PAGE)) == pattern(page) for page in range(16))
    machine.check_counts()


def test_slot_is_kept_until_its_page_is_written(machine: Any) -> None:
    """A page unmapped while it is under writeback gives its slot back only then."""
    at = populated(machine, 1)
    machine.scheduler.spawn(machine.host.reclaim.evict(machine.mm, at), "evict")
    slots = []

    def unmap() -> Steps[None]:
        yield 3_000
        yield from machine.process.munmap(at, PAGE)
        slots.append(machine.host.swap.used)
        yield Sleep(1_000_000)
        slots.append(machine.host.swap.used)

    machine.run(unmap())
    assert slots == [1, 0]


# The list -----------------------------------------------------------------------------------------------------------


def test_list_is_first_in_first_out_and_skips_the_dead() -> None:
    ring = Ring(10_000)
    ring.add_many(np.arange(1, 9))
    ring.drop(2)
    ring.add(1)
    assert ring.live == 7
    assert ring.take(3).tolist() == [3]  # of the first three entries one lives
    assert ring.take(9).tolist() == [4, 5, 6, 7, 8, 1]
    assert not len(ring.take(1)) and ring.live == 0


def test_oldest_of_some_leaves_the_others_in_place() -> None:
    ring, odd = Ring(100), np.arange(100) % 2 == 1
    ring.add_many(np.arange(1, 9))
    assert ring.oldest(2, odd).tolist() == [1, 3]
    assert ring.take(9).tolist() == [2, 4, 5, 6, 7, 8]


class Plain(Ring):
    """Every frame's place is written at once."""

    def add_many(self, frames: np.ndarray) -> None:
        """Put frames at the tail, in order."""
        self._make_room(len(frames))
        self._put(frames, self._tail)
        self._tail += len(frames)


FRESH = st.tuples(st.just("fresh"), st.integers(0, 3), st.integers(2, 3 * RUN))
OF_FRAMES = st.tuples(st.sampled_from(("add", "drop")), st.integers(0, 400), st.just(1)) | st.tuples(
    st.sampled_from(("add_many", "age")), st.integers(0, 400), st.integers(1, 2 * RUN))  # fmt: skip
TAKES = st.tuples(st.sampled_from(("take", "oldest")), st.integers(0, 3), st.integers(1, 2 * RUN))


@given(operations=st.lists(FRESH | OF_FRAMES | TAKES, max_size=30))
def test_runs_are_on_the_list_as_frames_are_one_by_one(operations: list[tuple[str, int, int]]) -> None:
    ring, plain, chosen = Ring(10_000), Plain(10_000), np.arange(10_000) % 3 == 0
    fresh = 0
    for what, frame, count in operations:
        frames = np.arange(frame, frame + count)
        if what == "fresh":
            fresh, frames = fresh + frame + count, frames + fresh
        for each in (ring, plain):
            if what in ("add", "drop"):
                getattr(each, what)(frame)
            elif what in ("add_many", "fresh", "age"):
                (each.age if what == "age" else each.add_many)(frames)
        if what == "take":
            assert ring.take(count).tolist() == plain.take(count).tolist()
        elif what == "oldest":
            assert ring.oldest(count, chosen).tolist() == plain.oldest(count, chosen).tolist()
        assert (ring.live, len(ring)) == (plain.live, len(plain))


def test_a_list_of_runs_that_nobody_takes_from_has_no_places_in_memory() -> None:
    ring = Ring(1 << 20)
    for first in range(1, 1 << 19, 512):
        ring.add_many(np.arange(first, first + 512))
    assert not residence.resident(ring._places) and ring.live == 1 << 19
    assert ring.take(2).tolist() == [1, 2]


def test_a_list_closed_up_after_its_window_moved_on_goes_on() -> None:
    """Places begin anew, before those that were looked up last."""
    ring = Ring(10)
    for _ in range(WINDOW + 2):
        ring.add(1)
        assert ring.take(1).tolist() == [1]
    for _ in range(ROOM + 1):
        ring.add(1)
    assert len(ring) < ROOM and ring.take(len(ring)).tolist() == [1]


def test_page_found_used_stays_once_and_is_active_the_second_time() -> None:
    lru = Lru(10)
    lru.add(1)
    for live in ((1, 0), (0, 1)):
        assert lru.inactive.take(1).tolist() == [1]
        lru.used(1)
        assert (lru.inactive.live, lru.active.live) == live
    assert lru.inactive_is_low
    lru.add(1)  # deactivated: it has to be used twice again
    lru.inactive.take(1)
    lru.used(1)
    assert (lru.inactive.live, lru.active.live) == (1, 0)


def test_pages_in_use_survive_a_stream_of_pages_used_once(machine: Any) -> None:
    """What is written once and never looked at again goes before what is read all the time."""
    hot = populated(machine, 64)
    for turn in range(64):
        if turn == 1:  # at first there is nothing else to take
            machine.host.counters.clear()
        populated(machine, 32)
        for page in range(64):
            machine.run(machine.process.read(hot + page * PAGE, 1))
        machine.run(machine.host.reclaim.shrink(32))
    assert machine.run(_resident(machine, hot, 64)) == 64
    assert machine.host.counters["pswpin"] <= 32


# Control groups -----------------------------------------------------------------------------------------------------


def test_group_reclaims_its_own_pages_and_nobody_elses(machine: Any) -> None:
    outside = populated(machine, 32)
    child = machine.run(machine.process.fork())
    child.mm.memcg = Memcg(machine.host, "small", 64)
    at = populated(machine, 256, child)
    group = child.mm.memcg
    assert group.usage <= group.peak <= 64
    assert len(machine.mm.frames_in(outside, outside + 32 * PAGE)) == 32
    for page in range(256):
        assert machine.run(child.read(at + page * PAGE, PAGE)) == pattern(page)
    assert group.usage == np.count_nonzero(group.members) <= 64
    machine.run(child.exit())
    assert group.usage == 0


def test_fork_inherits_the_group(machine: Any) -> None:
    machine.mm.memcg = Memcg(machine.host, "both", 64)
    child = machine.run(machine.process.fork())
    assert child.mm.memcg is machine.mm.memcg
    populated(machine, 60)
    populated(machine, 60, child)
    assert machine.mm.memcg.peak <= 64


def test_group_without_swap_is_out_of_memory_while_the_host_is_not(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(swap=0)
    machine.mm.memcg = Memcg(machine.host, "small", 16)
    with pytest.raises(Fault) as caught:
        populated(machine, 17)
    assert caught.value.errno == errno.ENOMEM and "in group small, limit 16" in str(caught.value)
    assert machine.frames.available > 1000
    (report,) = machine.host.oom_reports
    assert "Memory cgroup out of memory" in report.headline
