"""XRC: domains, initiators and targets, and how requests name an SRQ."""

import errno

import pytest

from nicemu.abi.rings import SEND_WQE
from nicemu.abi.verbs import QpAttrMask as Mask
from nicemu.abi.verbs import QpType
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPEx, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs.srq import SRQ, SrqInitAttrEx
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.pyverbs.xrcd import XRCD, XRCDInitAttr
from nicemu.uverbs import messages as m
from nicemu.uverbs import srq_messages as s
from tests.pyverbs.conftest import fake_cq, rc_attr

PD_BIT, XRCD_BIT, OPS_BIT = 1, 2, 64


@pytest.fixture
def xrcd(ctx):
    return XRCD(ctx, XRCDInitAttr(comp_mask=3, oflags=64, fd=5))


@pytest.fixture
def target(ctx, xrcd):
    return QP(ctx, QPInitAttrEx(qp_type=QpType.XRC_RECV, comp_mask=XRCD_BIT, xrcd=xrcd), QPAttr())


@pytest.fixture
def initiator(ctx, pd, cq):
    cap = QPCap(max_send_wr=2, max_recv_wr=0, max_recv_sge=0, max_inline_data=16)
    attr = QPInitAttrEx(qp_type=QpType.XRC_SEND, comp_mask=PD_BIT | OPS_BIT, pd=pd, scq=cq, cap=cap, send_ops_flags=0x4)
    made = QPEx(ctx, attr)
    made.to_rts(rc_attr())
    return made


def code(call):
    with pytest.raises(PyverbsRDMAError) as info:
        call()
    return info.value.error_code


def send():
    return SendWR(num_sge=1, sg=[SGE(0x1000, 8, 3)])


def test_a_domain_is_opened_by_file_and_flags_as_far_as_the_mask_goes(kernel, ctx, xrcd):
    XRCD(ctx, XRCDInitAttr(comp_mask=0, oflags=64, fd=5))
    handle = ctx._handle
    assert kernel.commands(s.OpenXrcd) == [s.OpenXrcd(handle, 5, 64), s.OpenXrcd(handle, -1, 0)]


def test_a_refused_domain(kernel, ctx):
    kernel.fail[s.OpenXrcd] = errno.EOPNOTSUPP
    with pytest.raises(PyverbsRDMAError, match="Failed to allocate XRCD") as info:
        XRCD(ctx, XRCDInitAttr(0, 0, -1))
    assert info.value.error_code == errno.EOPNOTSUPP


def test_a_target_needs_its_domain_only(kernel, ctx, xrcd, target):
    (command,) = kernel.commands(m.CreateQp)
    assert (command.type, command.pd, command.send_cq, command.recv_cq, command.srq) == (10, 0, 0, 0, 0)
    assert command.xrcd == xrcd._handle and target.qp_state == 1
    attr = QPInitAttrEx(qp_type=QpType.XRC_RECV, xrcd=xrcd)
    assert code(lambda: QP(ctx, attr)) == errno.EINVAL


def test_a_target_posts_nothing(target):
    target._state = 3
    assert code(lambda: target.post_send(send())) == errno.EINVAL
    assert code(lambda: target.post_recv(RecvWR())) == errno.EINVAL
    target.modify(QPAttr(qp_state=0), Mask.STATE)


def test_a_target_is_taken_to_rts_as_a_responder(kernel, target):
    target.to_rts(rc_attr())
    rtr = Mask.STATE | Mask.AV | Mask.PATH_MTU | Mask.DEST_QPN | Mask.RQ_PSN | Mask.MAX_DEST_RD_ATOMIC
    masks = [command.mask for command in kernel.commands(m.ModifyQp)]
    assert masks[1:] == [rtr | Mask.MIN_RNR_TIMER, Mask.STATE | Mask.TIMEOUT | Mask.SQ_PSN]


def test_an_initiator_needs_no_receive_cq_and_takes_no_receives(kernel, cq, initiator):
    (command,) = kernel.commands(m.CreateQp)
    assert (command.send_cq, command.recv_cq, command.xrcd) == (cq._handle, 0, 0)
    assert code(lambda: initiator.post_recv(RecvWR())) == errno.EINVAL


def test_a_request_names_the_srq(kernel, initiator):
    wr = send()
    wr.set_qp_type_xrc(77)
    initiator.post_send(wr)
    initiator.wr_start()
    initiator.wr_send()
    initiator.wr_set_xrc_srqn(78)
    initiator.wr_set_sge(SGE(1, 2, 3))
    initiator.wr_complete()
    response = kernel.qps[initiator._handle]
    numbers = [SEND_WQE.unpack_from(response.send_ring, n * response.send_stride)[10] for n in range(2)]
    assert numbers == [77, 78]


def test_completions_of_a_target_come_on_the_srqs_cq_and_survive_a_send(kernel, ctx, pd, cq, xrcd, target):
    queue = CQ(ctx, 4)
    attr = SrqInitAttrEx()
    attr.srq_type, attr.pd, attr.cq, attr.xrcd, attr.comp_mask = 1, pd, queue, xrcd, 15
    SRQ(ctx, attr)
    fake_cq(kernel, queue).complete(target.qp_num, 5, opcode=128, counter=3)
    assert [wc.wr_id for wc in queue.poll()[1]] == [5]


def test_legacy_creation_has_no_targets(kernel, pd, cq):
    kernel.fail[m.CreateQp] = errno.EINVAL
    assert code(lambda: QP(pd, QPInitAttr(qp_type=QpType.XRC_RECV, scq=cq, rcq=cq))) == errno.EINVAL


def test_a_domain_closes_its_qps_and_srqs_first(kernel, ctx, pd, cq, xrcd, target):
    attr = SrqInitAttrEx()
    attr.srq_type, attr.pd, attr.cq, attr.xrcd, attr.comp_mask = 1, pd, cq, xrcd, 15
    shared = SRQ(ctx, attr)
    xrcd.close()
    kinds = (m.DestroyQp, s.DestroySrq, s.CloseXrcd)
    names = [type(command).__name__ for command in kernel.log if isinstance(command, kinds)]
    assert names == ["DestroyQp", "DestroySrq", "CloseXrcd"] and shared and target


def test_a_context_closes_domains_last(kernel, ctx, pd, xrcd, target):
    ctx.close()
    kinds = (m.DestroyQp, m.DeallocPd, s.CloseXrcd, m.CloseDevice)
    names = [type(command).__name__ for command in kernel.log if isinstance(command, kinds)]
    assert names == ["DestroyQp", "DeallocPd", "CloseXrcd", "CloseDevice"]
