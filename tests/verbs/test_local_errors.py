"""Requests whose own memory is wrong: they fail where they were posted, and nothing reaches the peer."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.wr import SGE

from .failures import CALL_OR_COMPLETION, ERR, FLUSHED, FLUSHES_ITSELF, PATIENT, RTS, check, rights
from .memory import ALL, PAGE
from .sides import UC, atomic, atomic_request, pair, read, recv, refusal, send, write
from .waiting import successes

__all__ = ["check"]
PROTECTION = "LOC_PROT_ERR"
PACKETS = "left open: packets from before the bad place may have left, or the request may be checked whole"
BEFORE_IT_LEAVES = ("send", "write", "write_imm")


def post(qp, operation, sges, target, wr_id=1):
    {
        "send": lambda: send(qp, sges, wr_id=wr_id),
        "write": lambda: write(qp, sges, target.remote(), wr_id=wr_id),
        "write_imm": lambda: write(qp, sges, target.remote(), imm=5, wr_id=wr_id),
        "read": lambda: read(qp, sges, target.remote(), wr_id=wr_id),
        "atomic": lambda: atomic(qp, sges, target.remote(), add=1, wr_id=wr_id),
    }[operation]()


class Local:
    """Two connected QPs; `bad(sges)` posts a request with those elements and says what comes of it."""

    def __init__(self, near, far, check, kind=None, **changes):
        self.a, self.b = pair(near, far, *([] if kind is None else [kind]), **{**PATIENT, **changes})
        self.source, self.target = near.region(2), far.region(2)
        self.source.fill(1), self.target.fill(2)
        self.check = check
        self.before = self.source.bytes(), self.target.bytes()

    def fails(self, operation, sges):
        """With a receive at the peer and a request behind it, which must not overtake a READ."""
        recv(self.b, self.target.sge(), wr_id=21)
        post(self.a, operation, sges, self.target)
        send(self.a, self.source.sge(0, 8), wr_id=2, flags=e.IBV_SEND_FENCE)
        different = {}
        if operation in BEFORE_IT_LEAVES:
            different = {"rxe": {"near": [(1, FLUSHED), (2, FLUSHED)]}, "why": FLUSHES_ITSELF}
        self.check(self.a, self.b, near=[(1, PROTECTION), (2, FLUSHED)], states=(ERR, RTS), **different)
        self.nothing_changed()

    def nothing_changed(self):
        assert (self.source.bytes(), self.target.bytes()) == self.before


@pytest.fixture
def local(near, far, check):
    return lambda **options: Local(near, far, check, **options)


@pytest.mark.parametrize("operation", BEFORE_IT_LEAVES)
def test_an_lkey_that_does_not_exist(local, operation):
    this = local()
    this.fails(operation, SGE(this.source.address, 8, 0x7FFF01))


def test_an_lkey_that_does_not_exist_for_what_a_read_returns(local):
    this = local()
    this.fails("read", SGE(this.source.address, 8, 0x7FFF01))


@pytest.mark.parametrize("operation", BEFORE_IT_LEAVES)
def test_an_lkey_whose_low_byte_is_wrong(local, operation):
    this = local()
    this.fails(operation, SGE(this.source.address, 8, this.source.lkey ^ 1))


@pytest.mark.parametrize("operation", BEFORE_IT_LEAVES)
def test_a_region_of_another_pd(local, near, operation):
    this = local()
    pd = PD(near.context)
    mr = MR(pd, this.source.length, ALL, address=this.source.address)
    this.fails(operation, SGE(this.source.address, 8, mr.lkey))


@pytest.mark.parametrize("operation", BEFORE_IT_LEAVES)
def test_a_region_that_was_deregistered(local, near, operation):
    this = local()
    mr = MR(near.pd, this.source.length, ALL, address=this.source.address)
    lkey = mr.lkey
    mr.close()
    this.fails(operation, SGE(this.source.address, 8, lkey))


@pytest.mark.parametrize("operation", ["send", "write", "read"])
@pytest.mark.parametrize("start, length", [(-1, 8), (2 * PAGE - 7, 8), (2 * PAGE, 1), (-1, 1024)])
def test_an_element_that_is_not_all_inside_its_region(local, operation, start, length):
    this = local()
    this.fails(operation, SGE(this.source.address + start, length, this.source.lkey))


@pytest.mark.parametrize("operation", ["send", "write", "read"])
def test_an_element_that_leaves_its_region_in_the_middle_of_a_message(local, accept, operation):
    this = local()
    recv(this.b, this.target.sge(), wr_id=21)
    post(this.a, operation, SGE(this.source.address + 1, 2 * PAGE, this.source.lkey), this.target)
    different = {"rxe": {"near": [(1, FLUSHED)]}, "why": FLUSHES_ITSELF} if operation != "read" else {}
    this.check(this.a, this.b, near=[(1, PROTECTION)], states=(ERR, RTS), **different)
    source, target = this.before
    if operation == "read":
        possible = [source[:1] + target[:n] + source[n + 1 :] for n in range(0, 2 * PAGE, 1024)]
        assert this.target.bytes() == target
        packets = possible.index(this.source.bytes())
    else:
        possible = [source[1 : n + 1] + target[n:] for n in range(0, 2 * PAGE, 1024)]
        assert this.source.bytes() == source
        packets = possible.index(this.target.bytes())
    accept("packets that were moved", packets, spec=set(range(8)), why=PACKETS)


def test_an_element_that_wraps_at_the_end_of_the_address_space(local):
    this = local()
    this.fails("send", SGE(2**64 - 4, 8, this.source.lkey))


@pytest.mark.parametrize("operation", ["send", "write"])
def test_the_second_of_two_elements_is_bad(local, operation):
    this = local()
    this.fails(operation, [this.source.sge(0, 8), SGE(this.source.address, 8, 0x7FFF01)])


def test_the_second_element_of_a_multi_packet_write_is_bad(local, accept):
    this = local()
    elements = [this.source.sge(0, 2048), SGE(this.source.address, 2048, 0x7FFF01)]
    write(this.a, elements, this.target.remote(), wr_id=1)
    this.check(this.a, this.b, near=[(1, PROTECTION)], states=(ERR, RTS), rxe={"near": [(1, FLUSHED)]},
               why=FLUSHES_ITSELF)  # fmt: skip
    arrived, before = this.target.bytes(), this.before[1]
    possible = [this.source.bytes(0, n) + before[n:] for n in (0, 1024, 2048)]
    accept("packets of the good element that arrived", possible.index(arrived), spec={0, 1, 2}, why=PACKETS)


@pytest.mark.parametrize("access", ["", "REMOTE_READ"])
def test_a_read_into_memory_that_may_not_be_written(local, near, access):
    this = local()
    mr = MR(near.pd, this.source.length, rights(access), address=this.source.address)
    this.fails("read", SGE(this.source.address, 8, mr.lkey))


def test_an_atomic_whose_result_may_not_be_written(local, near, accept):
    this = local()
    this.target.fill(bytes(8))
    mr = MR(near.pd, this.source.length, 0, address=this.source.address)
    atomic(this.a, SGE(this.source.address, 8, mr.lkey), this.target.remote(), add=1, wr_id=1)
    this.check(this.a, this.b, near=[(1, PROTECTION)], states=(ERR, RTS))
    accept("the peer's word", int.from_bytes(this.target.bytes(0, 8), "little"), spec={0, 1},
           why="left open: a requester need not look at its own memory before it asks")  # fmt: skip
    assert this.source.bytes() == this.before[0]


@pytest.mark.parametrize("operation", ["send", "write"])
def test_sends_and_writes_need_no_local_write(local, near, operation):
    this = local()
    mr = MR(near.pd, this.source.length, 0, address=this.source.address)
    recv(this.b, this.target.sge(), wr_id=21)
    post(this.a, operation, SGE(this.source.address, 8, mr.lkey), this.target)
    successes(near.cq, 1)
    assert this.target.bytes(0, 8) == this.source.bytes(0, 8)


@pytest.mark.parametrize("length", [4, 16])
def test_an_atomic_that_is_not_eight_bytes(local, near, accept, length):
    this = local()
    this.target.fill(bytes(8))
    wr = atomic_request(this.source.sge(0, length), this.target.remote(), add=1, wr_id=1)
    answer = refusal(this.a.post_send, wr)
    accept("posting it", answer, spec={"accepted", "EINVAL"}, why=CALL_OR_COMPLETION)
    if answer == "accepted":
        this.check(this.a, this.b, near=[(1, "LOC_LEN_ERR")], states=(ERR, RTS),
                   rxe={"near": [(1, "SUCCESS")], "states": (RTS, RTS)},
                   why="rxe takes a longer element and fills its first 8 bytes; IBA 11.4.1.1 (recalled): an atomic's "
                       "element is 8 bytes long, another length is Local Length Error")  # fmt: skip


def test_requests_before_the_bad_one_are_done(local, check):
    this = local()
    for wr_id in (1, 2):
        write(this.a, this.source.sge(0, 16), this.target.remote(), wr_id=wr_id)
    read(this.a, SGE(this.source.address, 8, 0x7FFF01), this.target.remote(), wr_id=3)
    check(this.a, this.b, near=[(1, "SUCCESS"), (2, "SUCCESS"), (3, PROTECTION)], states=(ERR, RTS))
    assert this.target.bytes(0, 16) == this.source.bytes(0, 16)


def test_receives_of_the_failing_side_are_flushed(local, check):
    this = local()
    for wr_id in (11, 12):
        recv(this.a, this.source.sge(), wr_id=wr_id)
    read(this.a, SGE(this.source.address, 8, 0x7FFF01), this.target.remote(), wr_id=1)
    check(this.a, this.b, near=[(1, PROTECTION), (11, FLUSHED), (12, FLUSHED)], states=(ERR, RTS))


@pytest.mark.parametrize("operation", ["send", "write"])
def test_uc_fails_as_rc_does(local, near, operation):
    this = local(kind=UC)
    post(this.a, operation, SGE(this.source.address, 8, 0x7FFF01), this.target)
    this.check(this.a, this.b, near=[(1, PROTECTION)], states=("SQE", RTS),
               rxe={"near": [(1, FLUSHED)], "states": (ERR, RTS)},
               why={"near": FLUSHES_ITSELF,
                    "states": "rxe is wrong: it knows no SQE; IBA 10.3.1.5 (recalled): a failing request of a UC or UD "
                              "QP takes only the send queue to error"})  # fmt: skip
    this.nothing_changed()


def test_a_send_with_the_inline_flag_needs_no_key(near, far):
    a, b = pair(near, far, caps={"max_inline_data": 64})
    source, target = near.region(), far.region()
    source.fill(1)
    recv(b, target.sge(), wr_id=7)
    send(a, SGE(source.address, 32, 0x7FFF01), wr_id=1, flags=e.IBV_SEND_SIGNALED | e.IBV_SEND_INLINE)
    successes(near.cq, 1)
    assert target.bytes(0, 32) == source.bytes(0, 32)


def test_an_element_of_no_bytes_needs_no_key(near, far):
    """Elements of length 0 are skipped: their address and key mean nothing (verbs, ibv_post_send of rdma-core)."""
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    recv(b, target.sge(), wr_id=7)
    send(a, [SGE(0, 0, 0x7FFF01), source.sge(0, 8)], wr_id=1)
    successes(near.cq, 1)
    assert target.bytes(0, 8) == source.bytes(0, 8)


def test_a_read_without_initiator_resources(near, far, check):
    """max_rd_atomic 0: nothing that a QP may have outstanding."""
    a, b = pair(near, far, **PATIENT, max_rd_atomic=0)
    source, target = near.region(), far.region()
    read(a, source.sge(0, 8), target.remote(), wr_id=1)
    check(a, b, near=[(1, "LOC_QP_OP_ERR")], states=(ERR, RTS), rxe={"near": [], "states": (RTS, RTS)},
          why="rxe waits for ever for one of its no resources; IBA 11.6.2 (recalled) has Local QP Operation "
              "Error for a request that the QP cannot carry out")  # fmt: skip
