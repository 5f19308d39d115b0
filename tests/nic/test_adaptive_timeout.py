"""The image ``adaptive_timeout``: a first timeout drawn from the seed, doubled, and back again with progress."""

from __future__ import annotations

from itertools import pairwise

from nicemu.abi.verbs import QpState, WcStatus
from nicemu.tables.trace import Ev
from tests.nic.conftest import connected
from tests.nic.image_files import image
from tests.nic.packets import DROP, Wire
from tests.nic.testbench import Bench, Qp

BASE_NS = 4096


def lonely(seed=1, **changes):
    """A connection whose peer is gone."""
    bench = Bench(firmware_image=image("adaptive_timeout"))
    bench.world.fabric[0].seed = seed
    rc = connected(bench, **changes)
    rc.b.modify(1, STATE=QpState.RESET)
    return rc


def timeouts(rc, ns):
    """Exponents of the timeouts that run out within ``ns``, in time bases."""
    rc.bench.log()
    start = rc.bench.world.now
    rc.bench.run_for(ns)
    times = [start] + [time for kind, time, *_ in rc.bench.trace() if kind == Ev.TIMEOUT]
    waits = [(after - before) / BASE_NS for before, after in pairwise(times)]
    return [round(wait).bit_length() - 1 for wait in waits]


def test_timeouts_double_and_the_longer_ones_are_used_twice():
    rc = lonely()
    rc.write(1, 8)
    found = timeouts(rc, 3_000_000_000)
    first = found[0]
    assert 8 <= first <= 10
    assert found == [first, *range(max(first + 1, 9), 13), 13, 13, 14, 14, 15][:8]
    assert rc.a.statuses() == [(1, WcStatus.RETRY_EXC_ERR)]


def test_the_first_one_depends_on_qp_and_seed_and_on_nothing_else():
    def firsts(seed):
        rc = lonely(seed, RETRY_CNT=0)
        rc.write(1, 8)
        rc.bench.run()
        row = rc.bench.world.qp_state[int(rc.bench.device.row.qp_base) + rc.a.number]
        return int(row.word0)

    found = [firsts(seed) for seed in range(8)]
    assert found == [firsts(seed) for seed in range(8)]
    assert len(set(found)) > 1 and set(found) <= {8, 9, 10}


def test_progress_brings_the_first_timeout_back():
    bench = Bench(firmware_image=image("adaptive_timeout"))
    rc = connected(bench, TIMEOUT=20)
    lost: list[int] = []
    bench.log()
    wire = Wire(bench, lambda row: lost.append(1) or DROP if row.dest_qpn == rc.b.number and len(lost) < 3 else None)
    waits = []
    for number in range(2):
        lost.clear()
        begun = bench.world.now
        rc.write(number, 8)
        wire.run()
        expired = [time for kind, time, *_ in bench.trace() if kind == Ev.TIMEOUT][-3:]
        waits.append([round((after - before) / BASE_NS) for before, after in pairwise([begun, *expired])])
    assert rc.a.statuses() == [(0, 0), (1, 0)]
    assert waits[0] == waits[1] and waits[0][0] < waits[0][1] < waits[0][2]


def test_a_timeout_of_0_is_still_never():
    rc = lonely(TIMEOUT=0)
    rc.write(1, 8)
    assert timeouts(rc, 3_000_000_000) == []


def test_a_new_life_draws_anew():
    rc = lonely()
    rc.write(1, 8)
    rc.bench.run()
    row = int(rc.bench.device.row.qp_base) + rc.a.number
    assert rc.bench.world.qp_state[row].word0 > 0
    rc.a.modify(1, STATE=QpState.RESET)
    assert rc.bench.world.qp_state[row].word0 == 0
    assert isinstance(rc.a, Qp)
