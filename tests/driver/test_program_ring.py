"""Rings and records in memory of the program: held while their object exists, by keys of no protection domain."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.abi.command import Command, RingOwner, Status
from nicemu.abi.verbs import PAGE_SIZE, QpType, SrqType
from nicemu.driver import DriverError, context, cq, pd, qp, srq
from nicemu.driver.program_ring import HeldBytes, Places
from tests.driver.bench import Bench
from tests.driver.objects import CAPS, Objects

RING, RECORD = 0x10_0000, 0x20_0FF8
PLACES = Places(RING, RECORD)
PLACE = st.integers(0, 9000)


class FakeFrames:
    """Bytes by frame."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.gone: set[int] = set()

    def _page(self, frame: int) -> bytearray:
        return self.pages.setdefault(frame, bytearray(b"\xee" * PAGE_SIZE))

    def read(self, frame: int, offset: int, length: int) -> bytes:
        return b"" if frame in self.gone else bytes(self._page(frame)[offset : offset + length])

    def write(self, frame: int, offset: int, data: bytes) -> None:
        assert offset + len(data) <= PAGE_SIZE
        if frame not in self.gone:
            self._page(frame)[offset : offset + len(data)] = data


@pytest.fixture
def objects() -> Objects:
    bench = Bench()
    bench.mm.host.frames = FakeFrames()
    return Objects(bench)


def make_qp(o: Objects) -> Any:
    return o.bench.call(qp.create(o.pd, QpType.RC, (o.cq, o.cq), CAPS, 0, places=PLACES))


def make_cq(o: Objects) -> Any:
    return o.bench.call(cq.create(o.context, 10, 0, None, False, (o.pd, PLACES)))


def make_srq(o: Objects) -> Any:
    return o.bench.call(srq.create(o.pd, SrqType.BASIC, (8, 1), places=PLACES))


DESTROY: dict[Callable[..., Any], Callable[..., Any]] = {
    make_qp: qp.destroy,
    make_cq: cq.destroy,
    make_srq: srq.destroy,
}
OWNER = {make_qp: RingOwner.QP, make_cq: RingOwner.CQ, make_srq: RingOwner.SRQ}
EVERY = pytest.mark.parametrize("make", DESTROY)


def held(o: Objects) -> dict[int, int]:
    return {frame: pins for frame, pins in o.bench.mm.pinned.items() if pins}


@EVERY
def test_its_pages_are_held_and_the_device_is_told_where(objects: Objects, make: Any) -> None:
    made = make(objects)
    device = objects.bench.device
    ring, record = device.places[int(OWNER[make]), made.number]
    assert device.mkeys[ring].pd == device.mkeys[record].pd == 0, "no protection domain has that number"
    assert (device.mkeys[ring].skew, device.mkeys[record].skew) == (0, 0xFF8)
    assert len(device.mkeys[record].mtt) == 2, "a record across a page end"
    assert set(held(objects).values()) == {1}
    objects.bench.call(DESTROY[make](made))
    assert device.mkeys == {} and held(objects) == {} and objects.bench.mm.memlock.pinned_vm == 0


@EVERY
def test_the_memory_starts_zeroed(objects: Objects, make: Any) -> None:
    make(objects)
    table, frames = objects.bench.mm.host.frames, objects.bench.mm.table
    assert table.read(frames[RING >> 12], 0, 64) == bytes(64)
    assert table.read(frames[RECORD >> 12], 0xFF8, 8) == table.read(frames[(RECORD >> 12) + 1], 0, 8) == bytes(8)
    assert table.read(frames[(RECORD >> 12) + 1], 8, 1) == b"\xee", "and nothing beside it"


@EVERY
@pytest.mark.parametrize("places", [Places(RING + 8, RECORD), Places(RING, RECORD + 1), Places(RING, 1 << 64)])
def test_bad_addresses_are_einval(objects: Objects, monkeypatch: pytest.MonkeyPatch, make: Any, places: Places) -> None:
    monkeypatch.setitem(globals(), "PLACES", places)
    with pytest.raises(DriverError) as caught:
        make(objects)
    assert caught.value.errno == errno.EINVAL
    nothing_is_left(objects)


@EVERY
def test_memory_that_is_not_there_is_efault(objects: Objects, make: Any) -> None:
    objects.bench.mm.absent.add((RECORD >> 12) + 1)
    with pytest.raises(DriverError) as caught:
        make(objects)
    assert caught.value.errno == errno.EFAULT
    nothing_is_left(objects)


@EVERY
@pytest.mark.parametrize("command", [Command.CREATE_MKEY, Command.UPDATE_MTT, Command.PLACE_RINGS])
def test_a_device_that_refuses_is_left_as_before(objects: Objects, make: Any, command: Command) -> None:
    objects.bench.device.refuse[command] = Status.NO_MEMORY
    with pytest.raises(DriverError):
        make(objects)
    nothing_is_left(objects)


def nothing_is_left(o: Objects) -> None:
    device = o.bench.device
    assert device.mkeys == {} and held(o) == {} and o.bench.mm.memlock.pinned_vm == 0 and o.pd.users == 0
    assert list(device.cqs) == [o.cq.number] and device.qps == {} and device.srqs == {} and device.sq_entries == set()


def test_rings_count_towards_rlimit_memlock(objects: Objects) -> None:
    objects.bench.mm.memlock.limit = 2
    with pytest.raises(DriverError) as caught:
        make_cq(objects)
    assert caught.value.errno == errno.ENOMEM
    nothing_is_left(objects)


def test_a_cq_keeps_its_parent_domain_busy(objects: Objects) -> None:
    made = make_cq(objects)
    with pytest.raises(DriverError) as caught:
        pd.deallocate(objects.pd)
    assert caught.value.errno == errno.EBUSY
    objects.bench.call(cq.destroy(made))
    pd.deallocate(objects.pd)


def test_a_parent_domain_of_another_context_is_einval(objects: Objects) -> None:
    other = objects.bench.open()
    with pytest.raises(DriverError) as caught:
        objects.bench.call(cq.create(other, 10, 0, None, False, (objects.pd, PLACES)))
    assert caught.value.errno == errno.EINVAL


def test_resizing_them_is_not_supported(objects: Objects) -> None:
    for call in (cq.resize(make_cq(objects), 100), srq.modify(make_srq(objects), (100, 1), 0, srq.MAX_WR)):
        with pytest.raises(DriverError) as caught:
            objects.bench.call(call)
        assert caught.value.errno == errno.EOPNOTSUPP


def test_a_context_that_closes_lets_go_of_them(objects: Objects) -> None:
    for make in DESTROY:
        make(objects)
    objects.bench.call(context.close(objects.context))
    assert held(objects) == {} and objects.bench.device.mkeys == {}


def test_force_odp_does_not_concern_them() -> None:
    bench = Bench(force_odp=True)
    bench.mm.host.frames = FakeFrames()
    made = Objects(bench)
    make_qp(made)
    assert {mkey.flags for mkey in bench.device.mkeys.values()} == {0}


class TestHeldBytes:
    """A memoryview's manners, over pages that may go."""

    @pytest.fixture
    def table(self) -> FakeFrames:
        return FakeFrames()

    @pytest.fixture
    def held(self, table: FakeFrames) -> HeldBytes:
        return HeldBytes(table, [7, 9, 8], 4000, 5000)

    def test_slices_cross_pages(self, table: FakeFrames, held: HeldBytes) -> None:
        data = np.random.default_rng(1).bytes(5000)
        held[:] = data
        assert held[:] == data and len(held) == 5000 and held[4096] == data[4096]
        assert bytes(table.pages[7][4000:]) == data[:96] and bytes(table.pages[8][:808]) == data[-808:]
        assert held.part(90, 10)[:] == data[90:100]

    def test_what_is_gone_reads_as_ones_and_takes_nothing(self, table: FakeFrames, held: HeldBytes) -> None:
        held[:] = bytes(5000)
        table.gone.add(9)
        held[90:110] = b"x" * 20
        assert held[90:110] == b"x" * 6 + b"\xff" * 14

    def test_words_are_signed(self, held: HeldBytes) -> None:
        words = held.cast("q")
        words[12] = -5
        assert words[12] == -5 and held[96:104] == (-5).to_bytes(8, "little", signed=True)

    def test_no_more_is_written_than_there_is_room_for(self, held: HeldBytes) -> None:
        held[:] = bytes(5000)
        held[4990:4995] = b"y" * 100
        assert held[4990:5000] == b"y" * 5 + bytes(5)

    @given(
        st.integers(0, 4095), st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000), st.binary(max_size=200)))
    )
    def test_it_is_a_bytearray_of_fixed_length(self, first: int, writes: list[tuple[int, int, bytes]]) -> None:
        held, plain = HeldBytes(FakeFrames(), [3, 1, 2], first, 8000), bytearray(8000)
        held[:] = bytes(8000)
        for start, stop, data in writes:
            room = len(plain[start:stop])
            held[start:stop] = data
            plain[start : start + len(data[:room])] = data[:room]
            assert held[start:stop] == plain[start:stop]
        assert held[:] == plain
