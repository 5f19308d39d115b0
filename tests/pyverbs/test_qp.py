"""Queue pairs: creation, states, attributes, and what RESET does to rings and CQs."""

import errno

import pytest

from nicemu.abi.rings import SEND_WQE
from nicemu.abi.verbs import QpAttrMask as Mask
from nicemu.abi.verbs import WrOpcode
from nicemu.pyverbs.base import inc_rkey
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.mr import MR, MW, MWBind, MWBindInfo
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.qp import ECE, QP, QPAttr, QPCap, QPEx, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.uverbs import messages as m
from tests.pyverbs.conftest import fake_cq, rc_attr


def masks(kernel):
    return [command.mask for command in kernel.commands(m.ModifyQp)]


def test_creation_is_told_to_the_kernel(kernel, pd, cq):
    QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=cq, cap=QPCap(5, 6, 2, 3, 64), sq_sig_all=0))
    (command,) = kernel.commands(m.CreateQp)
    assert command == m.CreateQp(pd.handle, 2, cq._handle, cq._handle, m.Capabilities(5, 6, 2, 3, 64), 0)


def test_defaults():
    attr, cap = QPInitAttr(), QPCap()
    assert (attr.qp_type, attr.sq_sig_all, QPInitAttrEx().sq_sig_all) == (4, 1, 0)
    assert [cap.max_send_wr, cap.max_recv_wr, cap.max_send_sge, cap.max_recv_sge, cap.max_inline_data] == [
        1,
        10,
        1,
        1,
        0,
    ]
    assert (QPAttr().qp_state, QPAttr().cur_qp_state, QPAttr().port_num, QPAttr().path_mtu) == (1, 0, 1, 3)


def test_rc_masks(kernel, qp):
    init = Mask.STATE | Mask.PKEY_INDEX | Mask.PORT | Mask.ACCESS_FLAGS
    rtr = Mask.STATE | Mask.AV | Mask.PATH_MTU | Mask.DEST_QPN | Mask.RQ_PSN | Mask.MAX_DEST_RD_ATOMIC
    rts = Mask.STATE | Mask.TIMEOUT | Mask.RETRY_CNT | Mask.RNR_RETRY | Mask.SQ_PSN | Mask.MAX_QP_RD_ATOMIC
    assert masks(kernel) == [init, rtr | Mask.MIN_RNR_TIMER, rts]


@pytest.mark.parametrize(("qp_type", "state"), [(2, 1), (3, 1), (4, 3), (8, 3)])
def test_how_far_a_qp_attr_takes_a_new_qp(kernel, pd, cq, qp_type, state):
    qp = QP(pd, QPInitAttr(qp_type=qp_type, scq=cq, rcq=cq), QPAttr())
    assert qp.qp_state == state


def test_qp_num_is_a_plain_int(qp):
    assert type(qp.qp_num) is int and qp.qp_type == 2


def test_refused_creation(kernel, pd, cq):
    kernel.fail[m.CreateQp] = errno.EOPNOTSUPP
    with pytest.raises(PyverbsRDMAError, match=r"Failed to create QP. Errno: 95") as info:
        QP(pd, QPInitAttr(scq=cq, rcq=cq))
    assert info.value.error_code == errno.EOPNOTSUPP


def test_a_cq_must_be_one():
    with pytest.raises(PyverbsUserError, match="Expected CQ/CQEX, got"):
        QPInitAttr(scq=QPCap())


def test_pd_takes_init_attr_and_context_init_attr_ex(ctx, pd, cq):
    with pytest.raises(TypeError):
        QP(ctx, QPInitAttr(scq=cq, rcq=cq))
    with pytest.raises(TypeError):
        QP(pd, QPInitAttrEx(scq=cq, rcq=cq, pd=pd, comp_mask=1))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"comp_mask": 0}, errno.EINVAL),
        ({"comp_mask": 1 | 4, "create_flags": 2}, errno.EOPNOTSUPP),
        ({"comp_mask": 1 | 64, "send_ops_flags": 1 << 30}, errno.EOPNOTSUPP),
    ],
)
def test_extended_creation_that_is_refused(ctx, pd, cq, options, code):
    with pytest.raises(PyverbsRDMAError) as info:
        QP(ctx, QPInitAttrEx(qp_type=2, scq=cq, rcq=cq, pd=pd, **options))
    assert info.value.error_code == code


def test_modify_failures_name_the_state(kernel, pd, cq):
    qp = QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=cq))
    kernel.fail[m.ModifyQp] = errno.EINVAL
    with pytest.raises(PyverbsRDMAError, match="Failed to modify QP state to init"):
        qp.to_rts(rc_attr())
    assert qp.qp_state == 0


def test_query_gives_back_everything(kernel, qp):
    attr, init_attr = qp.query(0x1FFFFFF)
    assert attr.ah_attr.dgid == rc_attr().ah_attr.dgid and attr.ah_attr.sgid_index == 1
    assert init_attr.cap.max_send_wr == attr.cap.max_send_wr == 3 and init_attr.qp_type == 2


def test_query_refreshes_the_cached_state(kernel, qp):
    kernel.attributes[qp._handle].qp_state = 6
    assert qp.qp_state == 3
    qp.query(Mask.STATE)
    assert qp.qp_state == 6


def test_getters_give_copies():
    attr = QPAttr()
    attr.cap.max_send_wr = 77
    attr.ah_attr.port_num = 9
    assert attr.cap.max_send_wr == 0 and attr.ah_attr.port_num == 0


def test_attr_text():
    text = str(rc_attr())
    assert "QP state              : Init                \n" in text
    assert "    dgid                  : fe80:0000" in text


def test_reset_drops_only_that_qps_completions(kernel, pd, cq, qp):
    other = QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=cq))
    device = fake_cq(kernel, cq)
    for pair, wr_id in ((qp, 1), (other, 2), (qp, 3), (other, 4)):
        device.complete(pair.qp_num, wr_id)
    qp.modify(QPAttr(qp_state=0), Mask.STATE)
    assert device.consumed == 2
    device.complete(other.qp_num, 5)
    assert [wc.wr_id for wc in cq.poll(10)[1]] == [2, 4, 5]
    assert cq.poll(10) == (0, [])


def test_cleaning_keeps_owner_words_at_any_phase(kernel, pd, cq, qp):
    other = QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=cq))
    device = fake_cq(kernel, cq)
    expected, seen = [], []
    for wr_id in range(60):
        device.complete((qp, other)[wr_id % 3 == 0].qp_num, wr_id)
        expected += [wr_id] * (wr_id % 3 == 0)
        if wr_id % 4 == 3:
            qp.modify(QPAttr(qp_state=0), Mask.STATE)
            seen += [wc.wr_id for wc in cq.poll(10)[1]]
    assert seen == expected


def test_reset_empties_the_rings(kernel, qp):
    qp.post_send(SendWR(num_sge=1, sg=[SGE(1, 1, 1)]))
    qp.post_recv(RecvWR())
    qp.modify(QPAttr(qp_state=0), Mask.STATE)
    assert bytes(kernel.qps[qp._handle].record) == bytes(16)
    qp.to_rts(rc_attr())
    qp.post_send(SendWR(num_sge=1, sg=[SGE(1, 1, 1)]))
    assert kernel.qps[qp._handle].record[0] == 1


def test_completions_of_a_destroyed_qp_are_gone(kernel, qp, cq):
    fake_cq(kernel, cq).complete(qp.qp_num)
    qp.close()
    assert cq.poll()[0] == 0


def test_send_and_receive_cq_may_differ(kernel, ctx, pd, cq):
    recv_cq = CQ(ctx, 4)
    qp = QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=recv_cq))
    for queue in (cq, recv_cq):
        fake_cq(kernel, queue).complete(qp.qp_num)
    qp.modify(QPAttr(qp_state=0), Mask.STATE)
    assert cq.poll()[0] == recv_cq.poll()[0] == 0


def test_the_device_grants_no_ece_options(qp):
    qp.set_ece(ECE(vendor_id=0x1234, options=7))
    ece = qp.query_ece()
    assert (ece.vendor_id, ece.options, ece.comp_mask) == (0x1234, 0, 0)


def test_ece_without_a_vendor_asks_for_nothing(qp):
    qp.set_ece(ECE(options=7, comp_mask=1))


@pytest.mark.parametrize("ece", [ECE(vendor_id=1), ECE(vendor_id=0x1234, comp_mask=1)])
def test_ece_of_another_vendor_or_with_a_comp_mask_is_einval(qp, ece):
    with pytest.raises(PyverbsRDMAError, match="Failed to set ECE") as info:
        qp.set_ece(ece)
    assert info.value.error_code == errno.EINVAL


@pytest.mark.parametrize("flags", [0, 1, 2])
def test_no_data_is_promised_to_be_in_order(qp, flags):
    assert qp.query_data_in_order(0, flags) == 0


@pytest.mark.parametrize("signal_all", [0, 1])
def test_query_tells_whether_all_sends_are_signaled(pd, cq, signal_all):
    qp = QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=cq, sq_sig_all=signal_all))
    assert qp.query(Mask.STATE)[1].sq_sig_all == signal_all


def test_text(qp):
    assert str(qp) == (
        f"QP type               : RC                  \n  number              : {qp.qp_num:<20}\n"
        "  state               : RTS                 \n"
    )
    assert "    max recv SGE        : 1" in str(QPInitAttr(cap=QPCap()))


@pytest.fixture
def qp_ex(ctx, pd, cq):
    cap = QPCap(max_send_wr=2, max_inline_data=16)
    attr = QPInitAttrEx(qp_type=2, scq=cq, rcq=cq, cap=cap, comp_mask=1 | 64, pd=pd, send_ops_flags=0x1FFF & ~0x400)
    pair = QPEx(ctx, attr)
    pair.to_rts(rc_attr())
    return pair


def test_batch_is_posted_at_once(kernel, qp_ex):
    qp_ex.wr_start()
    qp_ex.wr_id, qp_ex.wr_flags = 5, 2
    qp_ex.wr_rdma_write_imm(0x77, 0x4000, 0x01020304)
    qp_ex.wr_set_sge(SGE(0x1000, 8, 3))
    assert kernel.doorbells == []
    qp_ex.wr_complete()
    ring = bytes(kernel.qps[qp_ex._handle].send_ring)
    assert header(ring) == (5, 1, 2, 1, 0x04030201, 0x4000, 0x77)
    assert len(kernel.doorbells) == 1


def header(ring):
    return SEND_WQE.unpack_from(ring)[:7]


def test_atomic_write_carries_its_bytes(kernel, qp_ex):
    qp_ex.wr_start()
    qp_ex.wr_atomic_write(1, 0x4000, b"abcdefgh")
    qp_ex.wr_complete()
    assert bytes(kernel.qps[qp_ex._handle].send_ring[64:72]) == b"abcdefgh"


def test_batch_that_does_not_fit_posts_nothing(kernel, qp_ex):
    qp_ex.wr_start()
    for _ in range(3):
        qp_ex.wr_send()
    with pytest.raises(PyverbsRDMAError, match=r"ibv_wr_complete failed\.") as info:
        qp_ex.wr_complete()
    assert info.value.error_code == errno.ENOMEM and kernel.doorbells == []
    qp_ex.wr_start()
    qp_ex.wr_send()
    qp_ex.wr_complete()


def test_batch_in_reset_is_einval(qp_ex):
    qp_ex.modify(QPAttr(qp_state=0), Mask.STATE)
    qp_ex.wr_start()
    qp_ex.wr_send()
    with pytest.raises(PyverbsRDMAError) as info:
        qp_ex.wr_complete()
    assert info.value.error_code == errno.EINVAL


def test_operation_that_the_device_lacks_fails_the_batch(qp_ex):
    qp_ex.wr_start()
    qp_ex.wr_send_tso(1, 2, 3)
    qp_ex.wr_set_sge(SGE(1, 1, 1))
    with pytest.raises(PyverbsRDMAError) as info:
        qp_ex.wr_complete()
    assert info.value.error_code == errno.EOPNOTSUPP


def test_operation_that_was_not_asked_for_fails_the_batch(kernel, ctx, pd, cq):
    pair = QPEx(ctx, QPInitAttrEx(qp_type=2, scq=cq, rcq=cq, comp_mask=1 | 64, pd=pd, send_ops_flags=4))
    pair.to_rts(rc_attr())
    pair.wr_start()
    pair.wr_send()
    pair.wr_send_imm(1)
    with pytest.raises(PyverbsRDMAError) as info:
        pair.wr_complete()
    assert info.value.error_code == errno.EINVAL and kernel.doorbells == []


def test_aborted_batch_is_gone(kernel, qp_ex):
    qp_ex.wr_start()
    qp_ex.wr_send()
    qp_ex.wr_abort()
    assert kernel.qps[qp_ex._handle].record[0] == 0


def test_bind_mw_posts_the_next_key(kernel, pd, qp):
    mr, mw = MR(pd, 64, 1), MW(pd, 1)
    old = mw.rkey
    qp.bind_mw(mw, MWBind(MWBindInfo(mr, mr.buf + 8, 16, 6), 2, wr_id=7))
    entry = SEND_WQE.unpack_from(kernel.qps[qp._handle].send_ring)
    assert entry == (7, WrOpcode.BIND_MW, 2, 0, 6, mr.buf + 8, inc_rkey(old), 0, old, 16, mr.lkey, 0)
    assert mw.rkey == inc_rkey(old)


@pytest.mark.parametrize(("kind", "flags"), [(2, 6), (1, 6 | 32)])
def test_bind_mw_is_for_type_1_and_never_zero_based(kernel, pd, qp, kind, flags):
    mr, mw = MR(pd, 64, 1), MW(pd, kind)
    with pytest.raises(PyverbsRDMAError, match="Failed to Bind MW") as info:
        qp.bind_mw(mw, MWBind(MWBindInfo(mr, mr.buf, 16, flags), 2))
    assert info.value.error_code == errno.EINVAL and kernel.doorbells == []


def test_a_bind_request_takes_the_next_key_and_leaves_the_window_its_own(pd):
    mr, mw = MR(pd, 64, 1), MW(pd, 2)
    wr = SendWR(opcode=WrOpcode.BIND_MW)
    wr.set_bind_wr(mw, MWBindInfo(mr, mr.buf, 64, 2))
    assert (wr.rkey, mw.rkey & 0xFF) == (inc_rkey(mw.rkey), 0xFF)
