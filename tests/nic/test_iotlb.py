"""IOTLB: hits, misses, evictions, flushes; bounded and never stale."""

import pytest

from nicemu.config import NicProfile
from nicemu.config.nic_profile import IotlbProfile
from tests.nic.conftest import connected
from tests.nic.testbench import Bench


def counters(bench):
    """(hits, misses, evictions)."""
    row = bench.device.row
    return int(row.iotlb_hits), int(row.iotlb_misses), int(row.iotlb_evictions)


def test_the_second_access_to_a_page_hits(rc):
    rc.write(1, 8)
    rc.bench.run()
    assert counters(rc.bench) == (0, 2, 0)
    rc.write(2, 8)
    rc.bench.run()
    assert counters(rc.bench) == (2, 2, 0)


def test_a_miss_delays_the_packet(rc):
    rc.bench.log()
    rc.write(1, 8)
    rc.write(2, 8)
    rc.bench.run()
    sends = [time for kind, time, a, *_ in rc.bench.trace() if kind.name == "SEND" and a != 17]
    misses = [time for kind, time, *_ in rc.bench.trace() if kind.name == "IOTLB_MISS"]
    assert sends[0] - misses[0] == rc.bench.device.row.pcie_latency_ns + rc.bench.device.row.iotlb_miss_ns


@pytest.mark.parametrize("sets, ways", [(1, 1), (1, 2), (2, 1), (4, 4)])
def test_a_small_cache_evicts_and_stays_right(sets, ways):
    bench = Bench(NicProfile(iotlb=IotlbProfile(sets=sets, ways=ways)))
    rc = connected(bench, pages=16)
    rc.write(1, 16 * 4096)
    rc.read(2, 16 * 4096)
    bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)] and rc.local.data == rc.remote.data
    assert counters(bench)[2] > 0
    first = int(bench.device.row.iotlb_base)
    lines = bench.world.iotlb
    assert not lines.mkey[first + sets * ways :].any()


def test_absent_pages_are_not_cached(rc_cold_local):
    rc_cold_local.write(1, 8)
    rc_cold_local.bench.run()
    lines = rc_cold_local.bench.world.iotlb
    assert not (lines.mkey == rc_cold_local.bench.device.row.mkey_base + rc_cold_local.local.index).any()


def test_a_zap_forgets_exactly_its_pages(rc):
    rc.write(1, 16384)
    rc.bench.run()
    row = int(rc.bench.device.row.mkey_base) + rc.local.index
    lines = rc.bench.world.iotlb
    rc.local.zap(1, 2)
    assert sorted(int(line.page) for line in lines if line.mkey == row) == [0, 3]


def test_an_update_replaces_what_was_cached(rc):
    """A page mapped to another frame is seen at once."""
    rc.write(1, 64)
    rc.bench.run()
    rc.local.frames[0], rc.local.frames[1] = rc.local.frames[1], rc.local.frames[0]
    rc.local.map()
    rc.write(2, 64)
    rc.bench.run()
    assert rc.remote.data[:64] == rc.local.data[:64]


def test_a_destroyed_region_leaves_no_line_behind(rc):
    from nicemu.abi.command import Command

    rc.write(1, 16384)
    rc.bench.run()
    rc.bench.command(Command.DESTROY_MKEY, rc.local.index)
    row = int(rc.bench.device.row.mkey_base) + rc.local.index
    assert not (rc.bench.world.iotlb.mkey == row).any()
