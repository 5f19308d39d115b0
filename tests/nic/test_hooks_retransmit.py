"""Hook RETRANSMIT: what is asked when, and what ``ONLY`` sends; the same connection goes on in every state."""

from __future__ import annotations

import pytest

from nicemu.abi.verbs import QpState
from nicemu.tables.trace import Ev
from nicemu.wire import opcode as bth
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.image_files import image, written
from tests.nic.packets import DROP, Wire
from tests.nic.testbench import Bench

ONLY = "def retransmit(world, row, arg):\n    return ONLY\n"
REASONS = """
mine = qp_state("timeout", "nak", "rnr", "gap", "psn")


def retransmit(world, row, arg):
    state = mine(world, row)
    reason = arg >> 24
    state.psn = arg & 0xFFFFFF
    if reason == BY_TIMEOUT:
        state.timeout += 1
    elif reason == BY_NAK:
        state.nak += 1
    elif reason == BY_RNR:
        state.rnr += 1
    else:
        state.gap += 1
    return GO_BACK
"""


def firmware(text, **changes):
    """A connected pair on firmware of this text."""
    return connected(Bench(firmware_image=written(text)), **changes)


def psns(bench, opcodes, first=0xFFFFF0):
    """PSNs of the packets that left, counted from the first of the connection."""
    sent = [(opcode, psn) for kind, _, opcode, psn, *_ in bench.trace() if kind == Ev.SEND]
    return [psn - first & 0xFFFFFF for opcode, psn in sent if opcode in opcodes]


def lose_once(*numbers, opcodes=range(RcOpcode.READ_REQUEST + 1)):
    """Loses the first packet of these opcodes with each of the PSNs, counted from the first of the connection."""
    left = set(numbers)

    def decide(row):
        number = int(row.psn) - 0xFFFFF0 & 0xFFFFFF
        if row.opcode in opcodes and number in left:
            left.discard(number)
            return DROP
        return None

    return decide


REQUESTS = range(RcOpcode.READ_REQUEST + 1)
RESPONSES = range(bth.READ_RESP_FIRST, bth.READ_RESP_ONLY + 1)


@pytest.mark.parametrize(("word", "reason"), list(enumerate(["timeout", "nak", "rnr", "gap"])))
def test_firmware_hears_the_reason_and_the_psn(word, reason):
    rc = firmware(REASONS, TIMEOUT=3)
    decide = lose_once(1)
    if reason == "timeout":
        rc.write(0, 8)
        rc.write(1, 8)
    elif reason == "nak":
        rc.write(1, 5000)
    elif reason == "rnr":
        decide = lose_once()
        rc.write(1, 8)
        rc.send(2, 100)
    else:
        decide = lose_once(1, opcodes=RESPONSES)
        rc.read(1, 5000)
    Wire(rc.bench, decide).run(rc.bench.world.now + 15_000 if reason == "rnr" else 1 << 60)
    state = rc.bench.world.qp_state[int(rc.bench.device.row.qp_base) + 2]
    assert [int(state[f"word{i}"]) for i in range(4)] == [int(i == word) for i in range(4)]
    assert state.word4 == 0xFFFFF1


def test_a_named_packet_is_sent_alone_if_the_responder_keeps_the_others():
    rc = connected(Bench(firmware_image=image("selective_repeat")))
    rc.bench.log()
    rc.write(1, 16384)
    Wire(rc.bench, lose_once(3, 4, 9)).run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data == rc.local.data
    sent = psns(rc.bench, REQUESTS)
    assert sorted(sent) == sorted([*range(16), 3, 4, 9])
    assert rc.bench.device.row.sequence_naks_sent == 3 and rc.bench.device.row.timeouts == 0


def test_the_queue_goes_on_where_it_was():
    """The packet that is sent again comes between two new ones."""
    rc = connected(Bench(firmware_image=image("selective_repeat")))
    rc.bench.log()
    for number in range(8):
        rc.write(number, 16384)
    Wire(rc.bench, lose_once(2)).run()
    sent = psns(rc.bench, REQUESTS)
    at = sent.index(2, 3)
    assert sent[at - 1] + 1 == sent[at + 1] and at < len(sent) - 1
    assert rc.a.statuses() == [(number, 0) for number in range(8)]


def test_a_read_is_asked_for_again_from_the_missing_response_on():
    rc = firmware(ONLY)
    data = rc.remote.data
    rc.bench.log()
    rc.read(1, 5000)
    Wire(rc.bench, lose_once(2, opcodes=RESPONSES)).run()
    assert rc.a.statuses() == [(1, 0)] and rc.local.data[:5000] == data[:5000]
    assert psns(rc.bench, REQUESTS) == [0, 2]
    assert psns(rc.bench, RESPONSES) == [0, 1, 2, 3, 4, 2, 3, 4]


def test_without_a_responder_that_keeps_them_the_others_follow_one_timeout_after_the_other():
    rc = firmware(ONLY, TIMEOUT=3)
    rc.bench.log()
    rc.write(1, 5000)
    Wire(rc.bench, lose_once(0)).run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data[:5000] == rc.local.data[:5000]
    assert psns(rc.bench, REQUESTS) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert rc.bench.device.row.timeouts > 0


def test_after_an_rnr_nak_only_that_request_waits():
    """What was posted meanwhile goes out at once, and is dropped in silence; the ACK timer has to find out."""
    rc = firmware(ONLY, MIN_RNR_TIMER=14, TIMEOUT=5)
    rc.send(1, 100)
    rc.bench.run_for(10_000)
    rc.b.post_recv(7, rc.remote.sge(4096))
    rc.bench.log()
    rc.write(2, 8)
    rc.bench.run_for(10_000)
    assert psns(rc.bench, REQUESTS) == [1] and rc.bench.device.row.sequence_naks_sent == 0
    rc.bench.run_for(1_300_000)
    assert psns(rc.bench, REQUESTS) == [1, 0] and rc.a.statuses() == [(1, 0)]
    rc.bench.run_for(200_000)
    assert psns(rc.bench, REQUESTS) == [1, 0, 1] and rc.a.statuses() == [(2, 0)]
    assert rc.bench.device.row.timeouts == 1


def test_a_third_request_makes_the_loss_known_before_the_timer():
    rc = connected(Bench(firmware_image=image("connectx_damming")), MIN_RNR_TIMER=14, TIMEOUT=18)
    rc.send(1, 100)
    rc.bench.run_for(10_000)
    rc.b.post_recv(7, rc.remote.sge(4096))
    rc.write(2, 8)
    rc.bench.run_for(5_000_000)
    rc.write(3, 8)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0), (3, 0)]
    assert rc.bench.device.row.timeouts == 0 and rc.bench.device.row.sequence_naks_sent >= 1


def test_after_rnr_firmware_may_have_the_gap_naked():
    rc = firmware("def after_rnr(world, row, arg):\n    return NAK\n" + "\n\n" + ONLY, MIN_RNR_TIMER=14)
    rc.send(1, 100)
    rc.bench.run_for(10_000)
    rc.write(2, 8)
    rc.bench.run_for(10_000)
    assert rc.bench.device.row.sequence_naks_sent == 1
    rc.b.post_recv(7, rc.remote.sge(4096))
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]


def test_a_sequence_nak_in_an_rnr_wait_holds_the_queue_until_its_end():
    """The timer of the RNR NAK is a minimum, whatever else the responder says."""
    rc = firmware("def after_rnr(world, row, arg):\n    return NAK\n" + "\n\n" + ONLY, MIN_RNR_TIMER=14)
    rc.send(1, 100)
    rc.bench.run_for(10_000)
    rc.bench.log()
    rc.write(2, 8)
    rc.bench.run_for(1_200_000)
    assert psns(rc.bench, REQUESTS) == [1]


@pytest.mark.parametrize("state", [QpState.RESET, QpState.ERR])
@pytest.mark.parametrize("waits", [True, False])
def test_a_qp_that_ends_in_between_begins_anew(state, waits):
    rc = firmware(ONLY, MIN_RNR_TIMER=14, TIMEOUT=8)
    if waits:
        rc.send(1, 100)
    else:
        rc.read(1, 5000)
    rc.write(2, 8)
    Wire(rc.bench, lose_once(0)).run(rc.bench.world.now + 5_000)
    rc.a.modify(1, STATE=state)
    rc.a.modify(1, STATE=QpState.RESET)
    rc.b.modify(1, STATE=QpState.RESET)
    statuses = [status for _, status in rc.a.statuses()]
    assert len(statuses) == (2 if state == QpState.ERR else 0) and 0 not in statuses
    for qp in (rc.a, rc.b):
        qp.record.word(0, 0)
        qp.record.word(8, 0)
    rc.a.connect(rc.b)
    rc.b.connect(rc.a)
    rc.write(3, 5000)
    rc.bench.run()
    assert rc.a.statuses() == [(3, 0)]


def test_what_an_rnr_nak_held_is_not_sent_again_by_a_qp_in_error():
    """The end of the wait is nobody's: the receives that come in ERR wait for DMA, and the QP with them."""
    rc = firmware(ONLY, MIN_RNR_TIMER=14)
    rc.send(1, 100)
    rc.bench.run_for(10_000)
    row = rc.a.row()
    assert row.rnr_alone == 1
    row.commit_until = row.rnr_until + 1  # bytes on their way hold the flush back until the wait is over
    rc.a.modify(1, STATE=QpState.ERR)
    rc.bench.run()
    assert rc.bench.device.row.retransmits == 0
    assert [wr_id for wr_id, _ in rc.a.statuses()] == [1]


def test_sqd_finishes_what_was_sent_alone():
    """Drained is said when the request that waited is done too."""
    rc = firmware(ONLY, MIN_RNR_TIMER=14, TIMEOUT=5)
    rc.send(1, 100)
    rc.write(2, 8)
    rc.bench.run_for(10_000)
    rc.a.modify(1, STATE=QpState.SQD)
    rc.b.post_recv(7, rc.remote.sge(4096))
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]
    assert rc.a.row().sq_draining == 0 and rc.a.row().state == QpState.SQD
