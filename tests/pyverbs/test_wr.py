"""Work requests and the ring bytes that they become."""

import errno

import pytest

from nicemu.abi.rings import RECV_WQE, SEND_WQE, SGE_BYTES, Doorbell
from nicemu.abi.rings import SGE as SGE_STRUCT
from nicemu.pyverbs.addr import AH, GID, AHAttr, GlobalRoute
from nicemu.pyverbs.libibverbs_enums import ibv_send_flags, ibv_wr_opcode
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.qp import QPAttr
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from tests.pyverbs.conftest import fake_cq


def response(kernel, qp):
    return kernel.qps[qp._handle]


def send_slot(kernel, qp, index):
    ring = response(kernel, qp)
    at = index % ring.send_slots * ring.send_stride
    return bytes(ring.send_ring[at : at + ring.send_stride])


def counters(kernel, qp):
    record = response(kernel, qp).record
    return int.from_bytes(record[:8], "little"), int.from_bytes(record[8:], "little")


def one_send(wr_id=1, **options):
    return SendWR(wr_id=wr_id, num_sge=1, sg=[SGE(0x10000, 16, 7)], **options)


def test_a_send_needs_an_sge():
    with pytest.raises(PyverbsUserError, match="A WR needs at least one SGE"):
        SendWR()


def test_invalidation_needs_none():
    assert SendWR(opcode=ibv_wr_opcode.IBV_WR_LOCAL_INV, imm_data=5).imm_data == 5


def test_send_bytes(kernel, qp):
    wr = SendWR(wr_id=1 << 40, num_sge=2, sg=[SGE(0x1000, 16, 7), SGE(0x2000, 8, 9)], imm_data=3)
    wr.opcode = ibv_wr_opcode.IBV_WR_SEND_WITH_IMM
    qp.post_send(wr)
    slot = send_slot(kernel, qp, 0)
    assert SEND_WQE.unpack(slot[:64]) == (1 << 40, 3, 2, 2, 3, 0, 0, 0, 0, 0, 0, 0)
    assert list(SGE_STRUCT.iter_unpack(slot[64:96])) == [(0x1000, 16, 7), (0x2000, 8, 9)]


def test_rdma_and_atomic_members(kernel, qp):
    write = one_send(opcode=ibv_wr_opcode.IBV_WR_RDMA_WRITE)
    write.set_wr_rdma(0x55, 0x123456789A)
    atomic = one_send(opcode=ibv_wr_opcode.IBV_WR_ATOMIC_CMP_AND_SWP)
    atomic.set_wr_atomic(0x66, 0x1000, 2**64 - 1, 4)
    write.next_wr = atomic
    qp.post_send(write)
    assert SEND_WQE.unpack(send_slot(kernel, qp, 0)[:64])[5:7] == (0x123456789A, 0x55)
    assert SEND_WQE.unpack(send_slot(kernel, qp, 1)[:64])[5:10] == (0x1000, 0x66, 0, 2**64 - 1, 4)


def test_ud_members(kernel, pd):
    ah = AH(pd, attr=AHAttr(is_global=1, gr=GlobalRoute(dgid=GID())))
    wr = one_send()
    wr.set_wr_ud(ah, 0x123, 0x11111111)
    assert SEND_WQE.unpack(wr._image)[6] == ah._number != ah._handle
    assert SEND_WQE.unpack(wr._image)[10:] == (0x123, 0x11111111)


def test_one_doorbell_for_a_chain_after_the_record(kernel, qp):
    seen = []
    kernel.ring_doorbell = lambda *a: seen.append((a, counters(kernel, qp)))
    qp.post_send(one_send(1, next_wr=one_send(2)))
    assert seen == [((0, 0, qp.qp_num, 2), (2, 0))]


def test_sges_are_copied_when_the_request_is_made(kernel, qp):
    sge = SGE(0x1000, 16, 7)
    wr = SendWR(num_sge=1, sg=[sge])
    sge.length = 99
    qp.post_send(wr)
    assert SGE_STRUCT.unpack_from(send_slot(kernel, qp, 0), 64)[1] == 16


def test_sg_list_is_read_when_the_request_is_posted(kernel, qp):
    wr, sge = one_send(), SGE(0x3000, 4, 1)
    wr.sg_list = sge
    sge.length = 5
    qp.post_send(wr)
    assert SGE_STRUCT.unpack_from(send_slot(kernel, qp, 0), 64) == (0x3000, 5, 1)


def test_receive_bytes(kernel, qp):
    qp.post_recv(RecvWR(wr_id=9, num_sge=2, sg=[SGE(1, 2, 3), SGE(4, 5, 6)]))
    ring = response(kernel, qp).recv_ring
    assert RECV_WQE.unpack_from(ring) == (9, 2, 0)
    assert list(SGE_STRUCT.iter_unpack(ring[16 : 16 + 2 * SGE_BYTES])) == [(1, 2, 3), (4, 5, 6)]
    assert counters(kernel, qp) == (0, 1) and [bank for _, bank, *_ in kernel.doorbells] == [Doorbell.RECV]


def test_inline_data_is_copied_at_post_time(kernel, qp):
    kernel.process.write(0x10000, b"0123456789")
    first, second = SGE(0x10000, 4, 0), SGE(0x10006, 2, 0)
    qp.post_send(SendWR(num_sge=2, sg=[first, second], send_flags=ibv_send_flags.IBV_SEND_INLINE))
    kernel.process.write(0x10000, b"zzzzzzzzzz")
    slot = send_slot(kernel, qp, 0)
    assert SEND_WQE.unpack(slot[:64])[2:4] == (8, 0) and SEND_WQE.unpack(slot[:64])[7] == 6
    assert slot[64:70] == b"012367"


def refused(call, *arguments):
    with pytest.raises(PyverbsRDMAError) as info:
        call(*arguments)
    return info.value.error_code


def test_too_much_inline_data_is_einval(qp):
    wr = SendWR(num_sge=1, sg=[SGE(0x10000, 33, 0)], send_flags=ibv_send_flags.IBV_SEND_INLINE)
    assert refused(qp.post_send, wr) == errno.EINVAL


def test_too_many_sges_is_einval(qp):
    sges = [SGE(1, 1, 1)] * 3
    assert refused(qp.post_send, SendWR(num_sge=3, sg=sges)) == errno.EINVAL
    assert refused(qp.post_recv, RecvWR(num_sge=3, sg=sges)) == errno.EINVAL


def test_an_opcode_that_rc_lacks_is_einval(qp):
    assert refused(qp.post_send, one_send(opcode=ibv_wr_opcode.IBV_WR_TSO)) == errno.EINVAL


def test_a_full_queue_is_enomem_and_bad_wr_says_where(kernel, qp):
    chain = one_send(1, next_wr=one_send(2, next_wr=one_send(3, next_wr=one_send(4))))
    bad = one_send(99)
    assert refused(qp.post_send, chain, bad) == errno.ENOMEM
    assert bad.wr_id == 4
    assert counters(kernel, qp) == (3, 0) and len(kernel.doorbells) == 1


def test_the_receive_queue_has_exactly_max_recv_wr(qp):
    for _ in range(2):
        qp.post_recv(RecvWR())
    assert refused(qp.post_recv, RecvWR()) == errno.ENOMEM


def test_completions_free_slots(kernel, qp, cq):
    qp.post_send(one_send(1, next_wr=one_send(2, next_wr=one_send(3))))
    qp.post_recv(RecvWR(next_wr=RecvWR()))
    device = fake_cq(kernel, cq)
    device.complete(qp.qp_num, opcode=0, counter=1)  # completes the unsignalled one before it too
    device.complete(qp.qp_num, opcode=128, counter=0)
    cq.poll(2)
    qp.post_send(one_send(4, next_wr=one_send(5)))
    assert refused(qp.post_send, one_send(6)) == errno.ENOMEM
    qp.post_recv(RecvWR())
    assert refused(qp.post_recv, RecvWR()) == errno.ENOMEM


@pytest.mark.parametrize("state", [0, 1, 2])
def test_sends_need_rts(qp, state):
    qp._state = state
    assert refused(qp.post_send, one_send()) == errno.EINVAL


def test_receives_are_refused_in_reset_only(qp):
    attr = QPAttr(qp_state=0)
    qp.modify(attr, 1)
    assert refused(qp.post_recv, RecvWR()) == errno.EINVAL
    qp._state = 1
    qp.post_recv(RecvWR())


def test_typed_requests(qp):
    with pytest.raises(TypeError):
        qp.post_send(RecvWR())
    with pytest.raises(TypeError):
        qp.post_recv(None)


def test_next_wr_is_the_request_given():
    second = RecvWR(wr_id=2)
    assert RecvWR(next_wr=second).next_wr is second
    with pytest.raises(TypeError):
        second.next_wr = None


def test_text():
    assert str(SGE(16, 2, 3)).splitlines()[0] == "Address               : 0x10                "
    assert "Send flags            : IBV_SEND_SIGNALED Imm Data" in str(one_send())
