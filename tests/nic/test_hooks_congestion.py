"""Hooks of congestion control, turns and interrupts: what is asked when, and what the answers do."""

from itertools import pairwise

import pytest

from nicemu.abi.rings import Eqn
from nicemu.config import NicProfile
from nicemu.tables.trace import Ev
from nicemu.wire import opcode as bth
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.image_files import written
from tests.nic.packets import inject
from tests.nic.test_msix import arm, nop, quiet, vectors
from tests.nic.testbench import Bench, Cq, Qp

KBPS = 1_000_000
LIMIT = f"def cc_sent(world, row, arg):\n    return {KBPS}\n"
COUNT = """
mine = qp_state("asked", "total")


def HOOK(world, row, arg):
    state = mine(world, row)
    state.asked += 1
    state.total += arg
    return KEEP_RATE
"""


def asked(bench, qp):
    """How often the counting hook was asked about a QP, and the sum of its arguments."""
    state = bench.world.qp_state[int(bench.device.row.qp_base) + qp.number]
    return int(state.word0), int(state.word1)


def departures(bench, opcodes):
    return [time for kind, time, opcode, *_ in bench.trace() if kind == Ev.SEND and opcode in opcodes]


def spread_over(times, ns):
    """Evenly, but for what IOTLB misses take."""
    gaps = [after - before for before, after in pairwise(times)]
    return abs(sum(gaps) - ns) <= 500 and max(gaps) - min(gaps) <= 1000


def test_a_rate_paces_the_packets_of_a_write():
    rc = connected(Bench(firmware_image=written(LIMIT)))
    rc.bench.log()
    rc.write(1, 8192)
    rc.bench.run_for(1_000_000)
    times = departures(rc.bench, range(RcOpcode.WRITE_FIRST, RcOpcode.WRITE_ONLY + 1))
    assert rc.a.statuses() == [(1, 0)] and len(times) == 8
    assert spread_over(times, 7 * 1024 * 8)


def test_a_rate_paces_the_responses_of_a_read():
    rc = connected(Bench(firmware_image=written(LIMIT)))
    rc.bench.log()
    rc.read(1, 8192)
    rc.bench.run_for(1_000_000)
    times = departures(rc.bench, range(bth.READ_RESP_FIRST, bth.READ_RESP_ONLY + 1))
    assert rc.a.statuses() == [(1, 0)] and len(times) == 8
    assert spread_over(times, 7 * 1024 * 8)


def test_cc_sent_hears_of_every_payload_and_cc_ack_of_every_packet():
    for hook, expected in (("cc_sent", (5, 5000)), ("cc_ack", (1, 5))):
        rc = connected(Bench(firmware_image=written(COUNT.replace("HOOK", hook))))
        rc.write(1, 5000)
        rc.bench.run()
        assert rc.a.statuses() == [(1, 0)]
        assert asked(rc.bench, rc.a) == expected


def marked(bench, source, target, psn):
    """A WRITE of no bytes that a switch has marked."""
    inject(bench, source, target, psn=psn, opcode=RcOpcode.WRITE_ONLY, ecn=1)


@pytest.mark.parametrize(("answer", "cnps"), [("0", 0), ("1", 4), ("arg", 2)])
def test_firmware_decides_which_marks_are_answered(answer, cnps):
    rc = connected(Bench(firmware_image=written(f"def cc_ecn(world, row, arg):\n    return {answer}\n")))
    for psn, wait in enumerate((1_000, 1_000, 3_000, 1_000)):  # the interval is 4 us
        marked(rc.bench, rc.a, rc.b, psn)
        rc.bench.run_for(wait)
    assert rc.bench.device.row.cnps_sent == cnps


def test_a_cnp_limits_the_qp_that_it_names_until_the_timer_lifts_that():
    text = f"""
mine = qp_state("periods")


def cc_cnp(world, row, arg):
    return {KBPS}


def cc_timer(world, row, arg):
    mine(world, row).periods += 1
    return 0 if mine(world, row).periods == 3 else KEEP_RATE
"""
    rc = connected(Bench(NicProfile(congestion_timer_ns=10_000), firmware_image=written(text)))
    start = rc.bench.world.now
    marked(rc.bench, rc.a, rc.b, 0)
    rc.bench.step_until(lambda: rc.a.row().cc_kbps)
    told = rc.bench.world.now
    assert rc.a.row().cc_kbps == KBPS and rc.b.row().cc_kbps == 0
    rc.bench.run()
    assert rc.a.row().cc_kbps == rc.a.row().cc_timer == 0
    assert rc.bench.world.now == told + 30_000 > start


@pytest.mark.parametrize("answer", ["KEEP_RATE", KBPS])
def test_a_lasting_limit_does_not_keep_an_idle_device_busy(answer):
    """The timer stops when nothing happens, and starts again with the next packet."""
    timer = f"\n\ndef cc_timer(world, row, arg):\n    return {answer}\n"
    rc = connected(Bench(firmware_image=written(LIMIT + timer)))
    rc.write(1, 8)
    rc.bench.run()
    assert rc.a.row().cc_kbps == KBPS and rc.a.row().cc_timer == 0
    rc.write(2, 8)
    rc.bench.run_for(10_000)
    assert rc.a.row().cc_timer == 1


def test_a_reset_forgets_the_limit():
    rc = connected(Bench(firmware_image=written(LIMIT)))
    rc.write(1, 8)
    rc.bench.run_for(10_000)
    rc.a.modify(1, STATE=0)
    assert rc.a.row().cc_kbps == rc.a.row().cc_timer == rc.a.row().paced_until == 0
    rc.bench.run()


def test_turns_share_the_port_as_firmware_says():
    """QP 2 takes one packet where QP 7 takes three."""
    text = "def next_turn(world, row, arg):\n    return 400 if qp(world, row).number == 7 else 1200\n"
    bench = Bench(firmware_image=written(text))
    rc = connected(bench)
    other = connected_second(bench)
    bench.log()
    for number in range(4):
        rc.write(number, 16384)
        other.post_send(number, 0, rc.local.sge(16384), remote=rc.remote.va, rkey=rc.remote.key)
    bench.run_for(18_000)
    sent = [qpn for kind, _, opcode, _, qpn, _ in bench.trace() if kind == Ev.SEND and opcode != bth.ACKNOWLEDGE]
    mine, theirs = sent.count(3), sent.count(8)
    assert mine > 5 and abs(theirs - 3 * mine) <= 3
    bench.run()


def connected_second(bench):
    """QP 7, connected with QP 8."""
    other, peer = Qp(bench, 7, Cq(bench, 7)), Qp(bench, 8, Cq(bench, 8))
    other.connect(peer)
    peer.connect(other)
    return other


def test_firmware_holds_interrupts_back_where_the_profile_does_not():
    text = "def interrupt_moderation(world, row, arg):\n    return 20_000 if eq(world, row).number == 1 else 0\n"
    bench = quiet(Bench(firmware_image=written(text)))
    start = bench.world.now
    nop(bench)
    assert vectors(bench) == []
    bench.run_for(30_000)
    assert vectors(bench) == [Eqn.COMMAND] and bench.world.now > start


def test_firmware_lets_interrupts_go_that_the_profile_holds_back():
    profile = NicProfile(interrupt_moderation={"count": 0, "time_ns": 1_000_000})
    bench = quiet(Bench(profile, firmware_image=written("def interrupt_moderation(world, row, arg):\n    return 0\n")))
    nop(bench)
    assert vectors(bench) == [Eqn.COMMAND]
    arm(bench, Eqn.COMMAND)
