"""The DMA sanitizer at the device: clean on a correct NIC, and catches NICs that skip a step of an invalidation.

The host side is played by hand: zap, wait for the completion, stamp the frames, free or re-point them.
"""

import pytest

from nicemu.abi.command import Command
from nicemu.abi.rings import Eqn
from nicemu.tables.records import ViolationKind
from tests.nic.conftest import Rc, connected
from tests.nic.testbench import Bench

PAGES = 4
INVALIDATED, FREED, PROTECTED = ViolationKind.INVALIDATED, ViolationKind.FREED, ViolationKind.WRITE_PROTECTED


def violations(bench: Bench) -> set[ViolationKind]:
    """Kinds of violation found so far."""
    count = int(bench.world.control[0].violations)
    return {ViolationKind(int(row.kind)) for row in bench.world.violation[:count]}


def zap(rc: Rc, region) -> None:
    """ZAP_MTT, waiting for its completion one event at a time."""
    rc.bench.submit(Command.ZAP_MTT, region.index, 0, region.pages)
    rc.bench.step_until(lambda: rc.bench.events(Eqn.COMMAND))


def invalidate(rc: Rc, region, free: bool = False) -> None:
    """What munmap or reclaim does: the device is told, then the frames are stamped and freed or retired."""
    zap(rc, region)
    frames = rc.bench.frames
    frames.stamp_invalidated(region.frames, "munmap")
    for frame in region.frames:
        frames.free(frame) if free else frames.retire(frame)


def busy(mutants=(), **costs) -> Rc:
    """A pair in the middle of a large WRITE; a zap costs nothing but what the device must wait for."""
    rc = connected(Bench(mutants=mutants), pages=64, RNR_RETRY=0, RETRY_CNT=0)
    row = rc.bench.device.row
    row.zap_ns = row.zap_page_ns = row.command_ns = 0
    for name, value in costs.items():
        row[name] = value
    rc.write(1, 64 * 4096)
    rc.bench.step_until(lambda: rc.b.row().message_offset > 16 * 4096)
    return rc


@pytest.mark.parametrize("side", ["local", "remote"])
@pytest.mark.parametrize("free", [False, True])
def test_an_invalidation_in_the_middle_of_a_transfer_is_clean(side, free):
    rc = busy()
    invalidate(rc, getattr(rc, side), free)
    rc.bench.run_for(1_000_000)
    assert violations(rc.bench) == set()
    assert rc.bench.faults()


@pytest.mark.parametrize("side", ["local", "remote"])
def test_a_nic_that_does_not_drain_is_caught(side):
    rc = busy(mutants=("zap_without_drain",), pcie_latency_ns=5000)
    invalidate(rc, getattr(rc, side))
    rc.bench.run_for(1_000_000)
    assert INVALIDATED in violations(rc.bench)


@pytest.mark.parametrize("side", ["local", "remote"])
def test_a_nic_that_does_not_drain_touches_freed_frames(side):
    rc = busy(mutants=("zap_without_drain",), pcie_latency_ns=5000)
    invalidate(rc, getattr(rc, side), free=True)
    rc.bench.run_for(1_000_000)
    assert FREED in violations(rc.bench)


@pytest.mark.parametrize("side", ["local", "remote"])
def test_a_nic_that_does_not_flush_its_iotlb_is_caught(side):
    rc = connected(Bench(mutants=("zap_without_flush",)))
    rc.write(1, 8)
    rc.bench.run()
    invalidate(rc, getattr(rc, side))
    rc.write(2, 8)
    rc.bench.run_for(1_000_000)
    assert violations(rc.bench) == {INVALIDATED} and rc.bench.faults() == []


def test_a_correct_nic_faults_there_instead(rc):
    rc.write(1, 8)
    rc.bench.run()
    invalidate(rc, rc.remote)
    rc.write(2, 8)
    rc.bench.run_for(1_000_000)
    assert violations(rc.bench) == set() and len(rc.bench.faults()) == 1


def test_without_a_flush_stale_bytes_are_poison_and_stale_writes_are_lost():
    """With the sanitizer off the ordering error shows as wrong data."""
    bench = Bench(mutants=("zap_without_flush",))
    bench.world.control[0].sanitizer = 0
    rc = connected(bench)
    rc.write(1, 8)
    rc.read(2, 8)
    bench.run()
    invalidate(rc, rc.local)
    rc.write(3, 64)
    bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0), (3, 0)]
    assert rc.remote.data[:64] == b"\xdb" * 64
    before = rc.local.data
    rc.read(4, 64, at=4096)
    bench.run()
    assert rc.a.statuses() == [(4, 0)] and rc.local.data == before
    assert violations(bench) == set()


def test_a_write_through_a_translation_made_before_write_protection_is_caught(rc):
    """fork protected the pages, told the device, and the device still writes."""
    rc.write(1, 8)
    rc.bench.run()
    rc.bench.frames.stamp_protected(rc.remote.frames, "fork")
    rc.write(2, 8)
    rc.bench.run()
    assert violations(rc.bench) == {PROTECTED}


def test_reading_a_write_protected_page_is_fine(rc):
    rc.bench.frames.stamp_protected(rc.remote.frames, "fork")
    rc.read(1, 64)
    rc.bench.run()
    assert violations(rc.bench) == set()


def test_a_translation_made_after_write_protection_may_write(rc):
    rc.bench.frames.stamp_protected(rc.remote.frames, "fork")
    rc.remote.zap(0, PAGES)
    rc.remote.map()
    rc.write(1, 64)
    rc.bench.run()
    assert violations(rc.bench) == set() and rc.a.statuses() == [(1, 0)]


def test_atomics_are_judged_too(rc):
    rc.add(1, 1)
    rc.bench.run()
    rc.bench.frames.stamp_protected(rc.remote.frames, "ksm")
    rc.add(2, 1)
    rc.bench.run()
    assert violations(rc.bench) == {PROTECTED}


def test_a_violation_tells_both_histories(rc):
    rc.write(1, 8)
    rc.bench.run()
    stamp = int(rc.bench.world.control[0].stamp)
    rc.bench.frames.stamp_invalidated(rc.remote.frames, "reclaim")
    rc.write(2, 8, at=4096 + 10)
    rc.bench.run()
    row = rc.bench.world.violation[0]
    assert (row.kind, row.mkey, row.page, row.frame) == (INVALIDATED, rc.remote.index, 1, rc.remote.frames[1])
    assert (row.write, row.made_stamp, row.taken_stamp) == (1, stamp, stamp + 1)
    assert rc.bench.frames.operation_name(int(row.operation)) == "reclaim"
    assert 0 < row.translated_at < row.time <= rc.bench.world.now


def test_many_violations_are_counted_beyond_the_table():
    bench = Bench(mutants=("zap_without_flush",))
    rc = connected(bench)
    rc.write(0, 16384)
    bench.run()
    bench.frames.stamp_invalidated(rc.remote.frames, "munmap")
    for wr_id in range(150):
        rc.write(wr_id, 16384)
        bench.run()
        rc.a.cq.poll()
    assert bench.world.control[0].violations == 150 * 16
    assert bench.world.control[0].trap == 0
