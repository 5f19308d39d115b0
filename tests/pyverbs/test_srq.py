"""Shared receive queues: creation, the ring, and QPs that receive from them."""

import errno
import struct

import pytest

from nicemu.abi.rings import RECV_WQE
from nicemu.abi.rings import SGE as SGE_FORMAT
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.srq import SRQ, SrqAttr, SrqInitAttr, SrqInitAttrEx
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.pyverbs.xrcd import XRCD, XRCDInitAttr
from nicemu.uverbs import messages as m
from nicemu.uverbs import srq_messages as s
from tests.pyverbs.conftest import fake_cq, rc_attr

TYPE, PD_BIT, XRCD_BIT, CQ_BIT = 1, 2, 4, 8


@pytest.fixture
def srq(pd):
    return SRQ(pd, SrqInitAttr(SrqAttr(max_wr=3, max_sge=2)))


@pytest.fixture
def xrcd(ctx):
    return XRCD(ctx, XRCDInitAttr(comp_mask=3, oflags=64, fd=5))


def recv(wr_id, sges=1, next_wr=None):
    return RecvWR(wr_id, sges, [SGE(0x1000 * (n + 1), 16, 9) for n in range(sges)], next_wr)


def record(kernel, srq):
    """(posted by the library, taken by the device)."""
    return struct.unpack("<qq", kernel.srqs[srq._handle].record)


def take(kernel, srq, count):
    """The device takes WQEs."""
    posted, taken = record(kernel, srq)
    struct.pack_into("<qq", kernel.srqs[srq._handle].record, 0, posted, taken + count)


def code(call):
    with pytest.raises(PyverbsRDMAError) as info:
        call()
    return info.value.error_code


def test_creation_from_a_pd(kernel, pd, srq):
    assert kernel.commands(s.CreateSrq) == [s.CreateSrq(pd.handle, 3, 2)]
    assert srq.get_srq_num() == kernel.srqs[srq._handle].number and type(srq.get_srq_num()) is int


def test_creation_from_a_context_names_its_parts_by_mask(kernel, ctx, pd, cq, xrcd):
    attr = SrqInitAttrEx(max_wr=7)
    attr.srq_type, attr.pd, attr.cq, attr.xrcd = 1, pd, cq, xrcd
    attr.comp_mask = TYPE | PD_BIT | CQ_BIT | XRCD_BIT
    SRQ(ctx, attr)
    attr.comp_mask = PD_BIT
    SRQ(ctx, attr)
    handles = xrcd._handle, cq._handle
    assert kernel.commands(s.CreateSrq) == [s.CreateSrq(pd.handle, 7, 1, 1, *handles), s.CreateSrq(pd.handle, 7, 1)]
    attr.comp_mask = TYPE
    assert code(lambda: SRQ(ctx, attr)) == errno.EINVAL


def test_what_an_srq_is_not_made_of(pd, ctx):
    with pytest.raises(TypeError):
        SRQ(pd, SrqInitAttrEx())
    with pytest.raises(TypeError):
        SRQ(ctx, SrqInitAttr())
    with pytest.raises(PyverbsRDMAError, match="Srq needs either Context or PD"):
        SRQ("nicemu0", SrqInitAttr())


def test_requests_are_written_and_counted_without_a_doorbell(kernel, srq):
    srq.post_recv(recv(7, 2, recv(8)))
    ring = kernel.srqs[srq._handle].ring
    assert RECV_WQE.unpack_from(ring) == (7, 2, 0) and RECV_WQE.unpack_from(ring, 64) == (8, 1, 0)
    assert SGE_FORMAT.unpack_from(ring, 16) == (0x1000, 16, 9)
    assert record(kernel, srq) == (2, 0) and kernel.doorbells == []


def test_a_slot_is_free_when_the_device_has_taken_it(kernel, srq):
    srq.post_recv(recv(0, next_wr=recv(1, next_wr=recv(2))))
    bad = RecvWR()
    assert code(lambda: srq.post_recv(recv(3), bad)) == errno.ENOMEM and bad.wr_id == 3
    take(kernel, srq, 1)
    srq.post_recv(recv(3))
    assert code(lambda: srq.post_recv(recv(4))) == errno.ENOMEM
    assert record(kernel, srq) == (4, 1)


def test_part_of_a_chain_is_posted(kernel, srq):
    assert code(lambda: srq.post_recv(recv(0, next_wr=recv(1, sges=3)))) == errno.EINVAL
    assert record(kernel, srq) == (1, 0)


def test_resize_goes_on_in_the_new_ring(kernel, srq):
    srq.post_recv(recv(0, next_wr=recv(1, next_wr=recv(2))))
    srq.modify(SrqAttr(max_wr=6, max_sge=2), 1)
    srq.post_recv(recv(3, next_wr=recv(4, next_wr=recv(5))))
    assert code(lambda: srq.post_recv(recv(6))) == errno.ENOMEM
    ring, stride = kernel.srqs[srq._handle].ring, kernel.srqs[srq._handle].stride
    assert [RECV_WQE.unpack_from(ring, n * stride)[0] for n in (3, 4, 5)] == [3, 4, 5]
    assert kernel.commands(s.ModifySrq) == [s.ModifySrq(srq._handle, 6, 2, 0, 1)]


def test_modify_and_query(kernel, srq):
    srq.modify(SrqAttr(srq_limit=2), 2)
    assert kernel.commands(s.ModifySrq)[0].srq_limit == 2
    attr = srq.query()
    assert (attr.max_wr, attr.max_sge, attr.srq_limit) == (3, 2, 3)
    kernel.fail[s.ModifySrq] = errno.EINVAL
    with pytest.raises(PyverbsRDMAError, match=r"Failed to modify SRQ. Errno: 22"):
        srq.modify(SrqAttr(srq_limit=9), 2)


@pytest.fixture
def pair(pd, cq, srq):
    made = QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=cq, srq=srq, cap=QPCap(max_send_wr=3)))
    made.to_rts(rc_attr())
    return made


def test_a_qp_says_which_srq(kernel, pair, srq):
    assert kernel.commands(m.CreateQp)[0].srq == srq._handle


def test_a_qp_with_an_srq_takes_no_receives(pair):
    assert code(lambda: pair.post_recv(recv(1))) == errno.EINVAL


def test_receive_completions_free_no_send_slots(kernel, pair, cq):
    for _ in range(3):
        pair.post_send(SendWR(num_sge=1, sg=[SGE(1, 1, 1)]))
    fake_cq(kernel, cq).complete(pair.qp_num, 1, opcode=128, counter=2)
    assert cq.poll()[1][0].wr_id == 1
    assert code(lambda: pair.post_send(SendWR(num_sge=1, sg=[SGE(1, 1, 1)]))) == errno.ENOMEM
    fake_cq(kernel, cq).complete(pair.qp_num, 2, opcode=0, counter=0)
    cq.poll()
    pair.post_send(SendWR(num_sge=1, sg=[SGE(1, 1, 1)]))


def test_reset_leaves_the_srq_alone(kernel, pair, srq, cq):
    srq.post_recv(recv(1))
    fake_cq(kernel, cq).complete(pair.qp_num, 1, opcode=128)
    pair.modify(QPAttr(qp_state=0), 1)
    assert record(kernel, srq) == (1, 0) and cq.poll()[0] == 0


def closings(kernel):
    kinds = (m.DestroyQp, s.DestroySrq, m.DestroyCq, s.CloseXrcd, m.DeallocPd)
    return [type(command).__name__ for command in kernel.log if isinstance(command, kinds)]


def test_qps_close_before_their_srq(kernel, pair, srq):
    srq.close()
    assert closings(kernel) == ["DestroyQp", "DestroySrq"]


def test_a_pd_closes_qps_then_srqs(kernel, pd, pair, srq):
    pd.close()
    assert closings(kernel) == ["DestroyQp", "DestroySrq", "DeallocPd"] and pair and srq


def test_a_qp_keeps_its_srq(kernel, ctx):
    queue = CQ(ctx, 4)
    domain = PD(ctx)
    made = QP(domain, QPInitAttr(qp_type=2, scq=queue, rcq=queue, srq=SRQ(domain, SrqInitAttr(SrqAttr()))))
    assert closings(kernel) == []
    made.close()
    assert closings(kernel) == ["DestroyQp", "DestroySrq"]


def test_a_closed_srq_says_so(srq):
    srq.close()
    for call in (srq.get_srq_num, srq.query, lambda: srq.post_recv(recv(1))):
        with pytest.raises(Exception, match="This SRQ is closed"):
            call()
