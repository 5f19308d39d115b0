"""Closing things: in which order, what goes along, and what others notice."""

from __future__ import annotations

from pyverbs.addr import AH
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPCap, QPInitAttr
from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr

from .memory import ALL
from .sides import RC, Remote, connect, datagram, datagrams, needs, pair, read, recv, refusal, send, state, write
from .waiting import completions, leftovers, status, successes


def test_closing_twice_is_harmless(near):
    for thing in (near.qp(), near.region().mr, near.new_cq(), near.channel()):
        thing.close()
        thing.close()


def test_a_closed_context_takes_everything_along(device, near):
    context = Context(name=device)
    pd, cq = PD(context), CQ(context, 8)
    qp = QP(pd, QPInitAttr(qp_type=RC, scq=cq, rcq=cq, cap=QPCap()))
    mr = MR(pd, 4096, ALL)
    context.close()
    for thing in (qp, mr, cq, pd):
        thing.close()
    near.region()  # the other contexts live on


def test_a_cq_with_qps_closes_them_first(near, far):
    """The kernel would say EBUSY; pyverbs closes what stands on an object before the object."""
    cq = near.new_cq()
    a, b = near.qp(scq=cq, rcq=cq), far.qp()
    connect(a, b, timeout=8, retry_cnt=1)
    cq.close()
    a.close()
    source, target = far.region(), near.region()
    write(b, source.sge(0, 8), target.remote())
    assert status(completions(far.cq, 1)[0]) == "RETRY_EXC_ERR"


def test_a_pd_with_regions_and_qps_closes_them_first(near, far):
    pd = PD(near.context)
    mr = MR(pd, 4096, ALL)
    _a, b = pair(near, far)
    remote = Remote(mr.buf, mr.rkey)
    pd.close()
    mr.close()
    write(b, far.region().sge(0, 8), remote)
    assert status(completions(far.cq, 1)[0]) == "REM_ACCESS_ERR"


def test_memory_of_a_closed_region_is_the_programs_again(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    source.fill(1)
    write(a, source.sge(0, 100), target.remote())
    successes(near.cq, 1)
    target.mr.close()
    assert target.bytes(0, 100) == source.bytes(0, 100)
    target.fill(3)
    assert state(b) == "RTS"


def test_regions_closed_and_made_again_have_keys_that_work(near, far):
    a, _b = pair(near, far)
    source = near.region()
    source.fill(1)
    old = set()
    for round_ in range(10):
        target = far.region()
        write(a, source.sge(0, 64), target.remote(8 * round_))
        successes(near.cq, 1)
        assert target.bytes(8 * round_, 64) == source.bytes(0, 64)
        old.add(target.rkey)
        target.mr.close()
    assert len(old) > 1


def test_two_regions_over_the_same_memory_are_independent(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    source.fill(1)
    second = MR(far.pd, target.length, ALL, address=target.address)
    assert second.rkey != target.rkey
    target.mr.close()
    recv(b)
    write(a, source.sge(0, 100), Remote(target.address, second.rkey), imm=1)
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert target.bytes(0, 100) == source.bytes(0, 100)
    second.close()


def test_a_qp_with_outstanding_requests_may_be_closed(near, far):
    a, b = pair(near, far, rnr_retry=7, min_rnr_timer=1, timeout=0)
    c, d = pair(near, far)
    source, target = near.region(), far.region()
    for _ in range(5):
        send(a, source.sge(0, 100))
    leftovers(near.cq, 3)
    a.close()
    recv(b, target.sge())
    assert leftovers(far.cq, 5) == []
    recv(d, target.sge())
    send(c, source.sge(0, 8))
    assert successes(far.cq, 1)[0].byte_len == 8
    assert state(b) == "RTS"


def test_a_peer_that_is_gone_is_noticed(near, far):
    a, b = pair(near, far, timeout=8, retry_cnt=1)
    source, target = near.region(), far.region()
    remote = target.remote()
    b.close()
    write(a, source.sge(0, 8), remote)
    assert status(completions(near.cq, 1)[0]) == "RETRY_EXC_ERR"
    assert state(a) == "ERR"
    assert target.bytes() == bytes(target.length)


def test_an_address_handle_may_go_when_its_datagrams_are_complete(near, far):
    a, b = datagrams(near), datagrams(far)
    source, target = near.region(), far.region()
    for _ in range(5):
        ah = near.address_of(far)
        recv(b, target.sge())
        datagram(a, source.sge(0, 8), ah, b.qp_num)
        successes(near.cq, 1)
        successes(far.cq, 1)
        assert isinstance(ah, AH)
        ah.close()


def test_a_hundred_qps_come_and_go(near, far):
    source, target = near.region(), far.region()
    source.fill(1)
    for index in range(100):
        a, b = near.qp(max_send_wr=4, max_recv_wr=4), far.qp(max_send_wr=4, max_recv_wr=4)
        connect(a, b)
        if index % 10 == 0:
            write(a, source.sge(0, 64), target.remote(8 * index))
            read(a, source.sge(1024, 8), target.remote())
            successes(near.cq, 2)
            assert target.bytes(8 * index, 64) == source.bytes(0, 64)
        a.close()
        b.close()


def test_the_far_side_may_leave_first(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    recv(b, target.sge())
    send(a, source.sge(0, 8))
    successes(near.cq, 1)
    successes(far.cq, 1)
    far.context.close()
    assert state(a) == "RTS"


def test_an_srq_with_qps_goes_with_them_or_stays(near, accept):
    """The kernel refuses to destroy an SRQ that a QP uses; a library may close the QP first."""
    with needs("SRQs"):
        srq = SRQ(near.pd, SrqInitAttr(SrqAttr(max_wr=8, max_sge=1)))
    qp = near.qp(srq=srq)
    why = "EBUSY of the kernel (ib_destroy_srq, usecnt) if the QP is still there; pyverbs closes it first"
    accept("closing an SRQ that a QP uses", refusal(srq.close), spec={"accepted", "EBUSY"}, why=why)
    qp.close()
    srq.close()


def test_a_device_that_is_opened_many_times_is_one_device(device, near, far):
    contexts = [Context(name=device) for _ in range(5)]
    guids = {context.query_device().node_guid for context in (*contexts, near.context, far.context)}
    assert len(guids) == 1
    for context in contexts:
        context.close()
    a, _b = pair(near, far)
    source, target = near.region(), far.region()
    write(a, source.sge(0, 8), target.remote())
    successes(near.cq, 1)


def test_keys_of_different_regions_differ(near, far):
    regions = [side.region() for side in (near, far) for _ in range(10)]
    assert len({region.rkey for region in regions}) == len(regions)
