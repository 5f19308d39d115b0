"""The optional caches: the IOTLB's second level, the QP contexts; and what a walk of the MTT costs."""

import pytest

from nicemu.config import NicProfile
from nicemu.config.nic_profile import IotlbProfile, NicCosts, QpCacheProfile, SecondLevelProfile
from tests.nic.conftest import connected
from tests.nic.testbench import Bench

L2 = SecondLevelProfile(sets=64, ways=4, latency_ns=90)


def translation_ns(bench):
    """From the first IOTLB miss to the packet on the wire, without the PCIe latency."""
    sends = [time for kind, time, a, *_ in bench.trace() if kind.name == "SEND" and a != 17]
    misses = [time for kind, time, *_ in bench.trace() if kind.name == "IOTLB_MISS"]
    return sends[0] - misses[0] - int(bench.device.row.pcie_latency_ns)


def write_again(bench, rc, pages=1):
    """A WRITE whose pages were used before."""
    for wr_id in (1, 2):
        bench.log()
        rc.write(wr_id, pages * 4096)
        bench.run()
    return rc.a.statuses()


def test_a_page_that_left_the_first_level_is_found_in_the_second():
    bench = Bench(NicProfile(iotlb=IotlbProfile(sets=1, ways=1), l2_iotlb=L2))
    rc = connected(bench)
    assert write_again(bench, rc) == [(1, 0), (2, 0)]
    row = bench.device.row
    assert (int(row.l2_iotlb_misses), int(row.l2_iotlb_hits)) == (2, int(row.iotlb_misses) - 2)
    assert translation_ns(bench) == 90


def test_a_miss_of_both_levels_costs_both():
    bench = Bench(NicProfile(iotlb=IotlbProfile(sets=1, ways=1), l2_iotlb=L2))
    rc = connected(bench)
    bench.log()
    rc.write(1, 8)
    bench.run()
    assert translation_ns(bench) == 90 + bench.device.row.iotlb_miss_ns


def test_a_walk_can_cost_by_level():
    bench = Bench(NicProfile(costs=NicCosts(mtt_level_ns=70)))
    rc = connected(bench, pages=520)  # 2 levels
    bench.log()
    rc.write(1, 8)
    bench.run()
    assert translation_ns(bench) == bench.device.row.iotlb_miss_ns + 2 * 70


def test_an_invalidation_flushes_both_levels():
    bench = Bench(NicProfile(l2_iotlb=L2, iotlb=IotlbProfile(sets=4, ways=1)))
    rc = connected(bench)
    rc.write(1, 4 * 4096)
    bench.run()
    rc.remote.zap(0, 4)
    first = int(bench.device.row.iotlb_base)
    lines = bench.world.iotlb[first : first + 4 + 256]
    remote = int(bench.device.row.mkey_base) + rc.remote.index
    assert remote not in lines.mkey and len(set(lines.mkey)) > 1


def test_qp_contexts_miss_once_and_then_hit():
    bench = Bench(NicProfile(iotlb=IotlbProfile(sets=4, ways=1), qp_cache=QpCacheProfile(sets=4, ways=2, miss_ns=700)))
    rc = connected(bench)
    start = bench.world.now
    bench.log()
    rc.write(1, 8)
    bench.run()
    row = bench.device.row
    assert int(row.qp_cache_misses) >= 1
    cold = next(time for kind, time, *_ in bench.trace() if kind.name == "IOTLB_MISS") - start
    assert cold == row.doorbell_ns + row.wqe_fetch_ns + 700
    hits = int(row.qp_cache_hits)
    rc.write(2, 8)
    bench.run()
    assert int(row.qp_cache_hits) > hits


def test_without_them_nothing_is_counted(rc):
    rc.write(1, 8)
    rc.bench.run()
    row = rc.bench.device.row
    assert not any(int(row[name]) for name in ("l2_iotlb_hits", "l2_iotlb_misses", "qp_cache_hits", "qp_cache_misses"))


def test_more_lines_than_the_world_has_is_an_error():
    with pytest.raises(AssertionError, match="cache lines"):
        Bench(NicProfile(l2_iotlb=SecondLevelProfile()))
