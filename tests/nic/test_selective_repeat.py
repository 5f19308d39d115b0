"""Selective repeat and the other images of the transport: what they promise whatever the wire does, and what is won."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu import _jit
from tests.nic.image_files import image
from tests.nic.star import Star
from tests.nic.test_impairments import (
    DOUBLE,
    DROP,
    EVERYTHING,
    HOLD,
    QUICK,
    RELIABLE,
    SEEDS,
    Schedule,
    programs,
    run,
    run_on,
    same,
)
from tests.nic.testbench import Bench, WrOpcode

KINDS = {False: EVERYTHING, True: (DROP, DOUBLE, HOLD)}
"""What a wire does; with page faults too, no packet overtakes another."""
MESSAGE, MESSAGES, PACKETS = 65536, 60, 60 * 64


def check(name, there, back, schedule, cold):
    """On this firmware a connection ends as by default on a perfect wire, and nobody waits for anything."""
    bench = Bench(firmware_image=image(name))
    same(run_on(bench, (there, back), schedule, 7, cold), run(there, back, None))
    assert bench.device.row.requests_waiting == 0


RATES = st.sampled_from([0.02, 0.1, 0.3])


@given(there=programs(RELIABLE), back=programs(RELIABLE, size=5), seed=SEEDS, rate=RATES, cold=st.booleans())
@QUICK
def test_memory_and_completions_are_those_of_go_back_n(there, back, seed, rate, cold):
    check("selective_repeat", there, back, Schedule(seed, rate, KINDS[cold], 4), cold)


@pytest.mark.parametrize("name", ["connectx_damming", "adaptive_timeout"])
@given(there=programs(RELIABLE), back=programs(RELIABLE, size=5), seed=SEEDS, rate=RATES, cold=st.booleans())
@settings(QUICK, max_examples=25)
def test_so_they_are_with_other_timers_and_with_damming(name, there, back, seed, rate, cold):
    check(name, there, back, Schedule(seed, rate, KINDS[cold], 4), cold)


class Lossy:
    """Long WRITEs over a wire that loses one packet in a hundred."""

    def __init__(self, name: str | None) -> None:
        loss = {"kind": "loss", "probability": 0.01, "nics": [0], "direction": "out"}
        star = Star(2, {}, image(name) if name else None, (loss,))
        here, there = star.ends
        qp = star.connected(0, 1, 5, TIMEOUT=8)[0]
        source, target = here.mr(MESSAGE // 4096), there.mr(MESSAGE // 4096)
        data = source.fill(3)
        for number in range(MESSAGES):
            place = dict(remote=target.va, rkey=target.key)
            qp.post_send(number, WrOpcode.RDMA_WRITE, source.sge(MESSAGE), **place)
        start = star.world.now
        here.run()
        assert qp.statuses() == [(number, 0) for number in range(MESSAGES)] and target.data == data
        self.ns, row = star.world.now - start, here.device.row
        self.sent, self.again = int(row.packets_sent), int(row.packets_sent) - PACKETS
        self.kept = int(there.device.row.requests_kept)
        star.world.close()


@pytest.mark.skipif(not _jit.JIT, reason="thousands of packets")
def test_at_one_percent_loss_far_fewer_packets_are_sent_again():
    go_back, selective = Lossy(None), Lossy("selective_repeat")
    lost = PACKETS // 100
    assert go_back.kept == 0 and selective.kept > 10 * lost
    assert selective.again < 4 * lost < 10 * lost < go_back.again
