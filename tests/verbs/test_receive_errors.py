"""Receives that do not fit their message: both sides fail, and memory around the receive is left alone."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.wr import SGE

from .failures import ERR, FLUSHED, FORBIDDEN_ELEMENT, LONGER_THAN_RECEIVE, PATIENT, check, gather, outcome
from .memory import ALL, PAGE
from .sides import pair, recv, send, write
from .waiting import successes

__all__ = ["check"]
TOO_LONG = {
    "rxe": {"near": [(1, "REM_OP_ERR"), (2, FLUSHED)], "far": [(21, "LOC_QP_OP_ERR"), (22, FLUSHED)]},
    "why": LONGER_THAN_RECEIVE,
}
BAD_ELEMENT = {"rxe": {"far": [(21, "LOC_QP_OP_ERR"), (22, FLUSHED)]}, "why": FORBIDDEN_ELEMENT}


class Receiving:
    """A sends 1 and 2; B has the receive 21 that does not fit, and 22."""

    def __init__(self, near, far, check, pages=4):
        self.a, self.b = pair(near, far, **PATIENT)
        self.source, self.target = near.region(pages), far.region(pages)
        self.source.fill(1), self.target.fill(2)
        self.check = check
        self.before = self.target.bytes()

    def send(self, length, sges):
        recv(self.b, sges, wr_id=21)
        recv(self.b, self.target.sge(3 * PAGE, PAGE), wr_id=22)
        send(self.a, self.source.sge(0, length), wr_id=1)
        send(self.a, self.source.sge(0, 8), wr_id=2)

    def too_long(self):
        self.check(self.a, self.b, near=[(1, "REM_INV_REQ_ERR"), (2, FLUSHED)],
                   far=[(21, "LOC_LEN_ERR"), (22, FLUSHED)], states=(ERR, ERR), **TOO_LONG)  # fmt: skip

    def bad_element(self):
        self.check(self.a, self.b, near=[(1, "REM_OP_ERR"), (2, FLUSHED)],
                   far=[(21, "LOC_PROT_ERR"), (22, FLUSHED)], states=(ERR, ERR), **BAD_ELEMENT)  # fmt: skip

    def only_within(self, start, length):
        """Bytes outside of the receive are as they were."""
        after = self.target.bytes()
        assert after[:start] == self.before[:start]
        assert after[start + length :] == self.before[start + length :]


@pytest.fixture
def receiving(near, far, check):
    return lambda **options: Receiving(near, far, check, **options)


@pytest.mark.parametrize("length, room", [(1, 0), (65, 64), (1024, 1023), (1024, 1)])
def test_a_message_of_one_packet_longer_than_the_receive(receiving, length, room):
    this = receiving()
    this.send(length, this.target.sge(64, room))
    this.too_long()
    this.only_within(64, room)


@pytest.mark.parametrize("length, room", [(1025, 1024), (3000, 1500), (3000, 2999), (3000, 100)])
def test_a_message_of_several_packets_longer_than_the_receive(receiving, length, room):
    this = receiving()
    this.send(length, this.target.sge(64, room))
    this.too_long()
    this.only_within(64, room)


def test_a_message_longer_than_the_elements_of_the_receive_together(receiving):
    this = receiving()
    this.send(200, [this.target.sge(0, 64), this.target.sge(128, 64), this.target.sge(256, 64)])
    this.too_long()
    after = this.target.bytes()
    for gap in ((64, 128), (192, 256), (320, len(after))):
        assert after[slice(*gap)] == this.before[slice(*gap)]


def test_a_message_that_fits_exactly_is_no_error(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    source.fill(1)
    recv(b, [target.sge(0, 64), target.sge(128, 64)], wr_id=21)
    send(a, source.sge(0, 128), wr_id=1)
    assert successes(far.cq, 1)[0].byte_len == 128
    assert target.bytes(0, 64) + target.bytes(128, 64) == source.bytes(0, 128)


def test_a_receive_with_an_lkey_that_does_not_exist(receiving):
    this = receiving()
    this.send(8, SGE(this.target.address, 64, 0x7FFF01))
    this.bad_element()
    this.only_within(0, 0)


def test_a_receive_into_a_region_of_another_pd(receiving, far):
    this = receiving()
    pd = PD(far.context)
    mr = MR(pd, this.target.length, ALL, address=this.target.address)
    this.send(8, SGE(this.target.address, 64, mr.lkey))
    this.bad_element()
    this.only_within(0, 0)


def test_a_receive_into_a_region_that_was_deregistered(receiving, far):
    this = receiving()
    mr = MR(far.pd, this.target.length, ALL, address=this.target.address)
    lkey = mr.lkey
    mr.close()
    this.send(8, SGE(this.target.address, 64, lkey))
    this.bad_element()
    this.only_within(0, 0)


def test_a_receive_into_memory_that_may_not_be_written(receiving, far):
    this = receiving()
    mr = MR(far.pd, this.target.length, e.IBV_ACCESS_REMOTE_READ, address=this.target.address)
    this.send(8, SGE(this.target.address, 64, mr.lkey))
    this.bad_element()
    this.only_within(0, 0)


@pytest.mark.parametrize("start, length", [(-1, 64), (4 * PAGE - 8, 9), (4 * PAGE, 64)])
def test_a_receive_element_that_is_not_all_inside_its_region(receiving, start, length):
    this = receiving()
    this.send(length, SGE(this.target.address + start, length, this.target.lkey))
    this.bad_element()


def test_a_bad_second_element_that_the_message_does_not_reach(receiving, accept, near, far):
    this = receiving()
    recv(this.b, [this.target.sge(0, 64), SGE(this.target.address, 64, 0x7FFF01)], wr_id=21)
    send(this.a, this.source.sge(0, 8), wr_id=1)
    seen = tuple(gather(near.cq, 1) + gather(far.cq, 1))
    late, early = ((1, "SUCCESS"), (21, "SUCCESS")), ((1, "REM_OP_ERR"), (21, "LOC_PROT_ERR"))
    accept("completions of both sides", seen, spec={late, early},
           why="left open: a device may look at elements when it takes the receive, or when it needs them")  # fmt: skip


def test_a_bad_second_element_in_the_middle_of_a_message(receiving, accept):
    this = receiving()
    this.send(128, [this.target.sge(0, 64), SGE(this.target.address + 128, 64, 0x7FFF01)])
    this.bad_element()
    this.only_within(0, 64)
    arrived = this.target.bytes(0, 64)
    choices = {this.before[:64]: "nothing", this.source.bytes(0, 64): "the good element"}
    accept("what arrived", choices[arrived], spec={"nothing", "the good element"},
           why="left open: the bytes of the good element may have arrived")  # fmt: skip


def test_a_bad_receive_for_a_write_with_immediate_is_not_looked_at(near, far):
    """A WRITE with immediate takes a receive but none of its memory (IBA 9.4.4, recalled)."""
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    source.fill(1)
    recv(b, SGE(target.address, 64, 0x7FFF01), wr_id=21)
    write(a, source.sge(0, 100), target.remote(), imm=7, wr_id=1)
    (done,) = successes(far.cq, 1)
    assert (done.wr_id, done.byte_len) == (21, 100)
    successes(near.cq, 1)
    assert target.bytes(0, 100) == source.bytes(0, 100)


def test_messages_before_the_bad_receive_have_arrived(receiving, check):
    this = receiving()
    recv(this.b, this.target.sge(0, 64), wr_id=21)
    recv(this.b, SGE(this.target.address, 64, 0x7FFF01), wr_id=22)
    send(this.a, this.source.sge(0, 32), wr_id=1)
    send(this.a, this.source.sge(0, 32), wr_id=2)
    check(this.a, this.b, near=[(1, "SUCCESS"), (2, "REM_OP_ERR")], far=[(21, "SUCCESS"), (22, "LOC_PROT_ERR")],
          states=(ERR, ERR), rxe={"far": [(21, "SUCCESS"), (22, "LOC_QP_OP_ERR")]}, why=BAD_ELEMENT["why"])  # fmt: skip
    assert this.target.bytes(0, 32) == this.source.bytes(0, 32)


def test_a_failing_receive_flushes_what_its_side_sends(receiving):
    this = receiving()
    write(this.b, this.target.sge(0, 8), this.source.remote(), wr_id=31)
    recv(this.b, SGE(this.target.address, 64, 0x7FFF01), wr_id=21)
    successes(this.b.side.cq, 1)
    send(this.b, this.target.sge(0, 8), wr_id=32)  # waits for a receive of A
    send(this.a, this.source.sge(0, 8), wr_id=1)
    seen = outcome(this.a, this.b, 1, 2)
    assert sorted(wr_id for wr_id, _ in seen.far) == [21, 32]
    assert (32, FLUSHED) in seen.far
    assert seen.states == (ERR, ERR)


def test_a_receive_that_is_too_short_for_one_message_serves_a_shorter_one(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    recv(b, target.sge(0, 64), wr_id=21)
    send(a, source.sge(0, 64), wr_id=1)
    assert successes(far.cq, 1)[0].byte_len == 64
    recv(b, target.sge(0, 64), wr_id=22)
    send(a, source.sge(0, 3), wr_id=2)
    assert successes(far.cq, 1)[0].byte_len == 3
    successes(near.cq, 2)
