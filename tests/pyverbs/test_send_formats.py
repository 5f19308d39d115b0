"""Where each operation puts its fields in a send WQE, and which transport takes which operation."""

import errno

import pytest

from nicemu.abi.rings import SEND_WQE, SGE_BYTES
from nicemu.abi.verbs import QpType, WrOpcode
from nicemu.pyverbs._qp_operations import FLAG, OPERATIONS
from nicemu.pyverbs.addr import AH, GID, AHAttr, GlobalRoute
from nicemu.pyverbs.mr import MR, MW, MWBind, MWBindInfo
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QP, QPCap, QPEx, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from tests.pyverbs.conftest import rc_attr

NAMES = (
    "wr_id", "opcode", "flags", "num_sge", "imm", "remote_addr", "rkey", "inline", "compare_add", "swap", "remote_qpn",
    "remote_qkey",
)  # fmt: skip


def make(ctx, pd, cq, kind=QpType.RC, **cap):
    caps = {"max_send_wr": 4, "max_send_sge": 2, "max_inline_data": 64} | cap
    operations = OPERATIONS[kind]
    attr = QPInitAttrEx(
        qp_type=kind, scq=cq, rcq=cq, cap=QPCap(**caps), comp_mask=1 | 64, pd=pd, send_ops_flags=operations
    )
    pair = QPEx(ctx, attr)
    pair.to_rts(rc_attr())
    return pair


@pytest.fixture
def qp(ctx, pd, cq):
    return make(ctx, pd, cq)


def posted(kernel, qp, call):
    """The fields that differ from 0 in the WQE that one operation posts."""
    qp.wr_start()
    qp.wr_id = 5
    call(qp)
    qp.wr_complete()
    response = kernel.qps[qp._handle]
    at = (response.record[0] - 1) % response.send_slots * response.send_stride
    values = dict(zip(NAMES, SEND_WQE.unpack_from(response.send_ring, at), strict=True))
    return {name: value for name, value in values.items() if value and name != "wr_id"}


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (lambda qp: qp.wr_send_inv(0x123), {"opcode": WrOpcode.SEND_WITH_INV, "imm": 0x123}),
        (lambda qp: qp.wr_local_inv(0x123), {"opcode": WrOpcode.LOCAL_INV, "imm": 0x123}),
        (lambda qp: qp.wr_send_imm(0x01020304), {"opcode": WrOpcode.SEND_WITH_IMM, "imm": 0x04030201}),
        (lambda qp: qp.wr_rdma_read(7, 0x4000), {"opcode": WrOpcode.RDMA_READ, "rkey": 7, "remote_addr": 0x4000}),
        (
            lambda qp: qp.wr_flush(7, 0x4000, 1 << 33, 2, 1),
            {"opcode": WrOpcode.FLUSH, "rkey": 7, "remote_addr": 0x4000, "compare_add": 0x102, "swap": 1 << 33},
        ),
        (
            lambda qp: qp.wr_atomic_cmp_swp(7, 0x4000, 1, 2),
            {"opcode": WrOpcode.ATOMIC_CMP_AND_SWP, "rkey": 7, "remote_addr": 0x4000, "compare_add": 1, "swap": 2},
        ),
        (
            lambda qp: qp.wr_atomic_fetch_add(7, 0x4000, 3),
            {"opcode": WrOpcode.ATOMIC_FETCH_AND_ADD, "rkey": 7, "remote_addr": 0x4000, "compare_add": 3},
        ),
        (
            lambda qp: qp.wr_atomic_write(7, 0x4000, b"12345678"),
            {"opcode": WrOpcode.ATOMIC_WRITE, "flags": 8, "rkey": 7, "remote_addr": 0x4000, "inline": 8},
        ),
    ],
    ids=["send_inv", "local_inv", "send_imm", "read", "flush", "cmp_swp", "fetch_add", "atomic_write"],
)
def test_fields_of_an_operation(kernel, qp, call, wanted):
    assert posted(kernel, qp, call) == {name: int(value) for name, value in wanted.items()}


def window(mw_type):
    """A memory window without a kernel."""
    stand_in = type("Window", (MW,), {"__slots__": ("_rkey", "type"), "rkey": property(lambda self: self._rkey)})
    made = stand_in.__new__(stand_in)
    made._rkey, made.type = 0x1FF, mw_type
    return made


def test_bind_names_window_region_and_new_key(kernel, pd, qp):
    mr = MR(pd, 4096, 1)
    info = MWBindInfo(mr, mr.buf + 16, 100, 2)
    wanted = {
        "opcode": 8, "imm": 2, "remote_addr": mr.buf + 16, "rkey": 0x155, "compare_add": 0x1FF, "swap": 100,
        "remote_qpn": mr.lkey,
    }  # fmt: skip
    assert posted(kernel, qp, lambda qp: qp.wr_bind_mw(window(2), 0x155, info)) == wanted


def test_bind_through_post_send_takes_the_next_key(pd):
    mr = MR(pd, 4096, 1)
    wr = SendWR(opcode=WrOpcode.BIND_MW)
    wr.set_bind_wr(window(2), MWBindInfo(mr, mr.buf, 100, 2))
    assert wr.rkey == 0x100


def test_a_type_1_window_has_its_next_key_after_bind_mw(kernel, pd, qp):
    mr = MR(pd, 4096, 1)
    bind = MWBind(MWBindInfo(mr, mr.buf, 100, 2), 2, 77)
    first, second = window(1), window(2)
    qp.bind_mw(first, bind)
    assert first.rkey == 0x100
    header = SEND_WQE.unpack_from(kernel.qps[qp._handle].send_ring)
    assert header[:3] == (77, 8, 2) and header[6] == 0x100 and header[8] == 0x1FF
    with pytest.raises(PyverbsRDMAError, match="Failed to Bind MW") as info:
        qp.bind_mw(second, bind)
    assert info.value.error_code == errno.EINVAL and second.rkey == 0x1FF


def test_a_datagram_names_its_address_handle_by_number(kernel, ctx, pd, cq):
    qp = make(ctx, pd, cq, QpType.UD)
    ah = AH(pd, attr=AHAttr(is_global=1, gr=GlobalRoute(dgid=GID())))

    def send(qp):
        qp.wr_send()
        qp.wr_set_ud_addr(ah, 0x123, 0x11111111)
        qp.wr_set_sge(SGE(1, 2, 3))

    assert posted(kernel, qp, send) == {
        "opcode": 2, "num_sge": 1, "rkey": ah._number, "remote_qpn": 0x123, "remote_qkey": 0x11111111,
    }  # fmt: skip


def test_inline_data_up_to_what_was_granted(kernel, qp):
    address = kernel.process.malloc(128)

    def write(length):
        def call(qp):
            qp.wr_rdma_write(1, 2)
            qp.wr_set_inline_data(address, length)

        return call

    assert posted(kernel, qp, write(64))["inline"] == 64
    with pytest.raises(PyverbsRDMAError) as info:
        posted(kernel, qp, write(65))
    assert info.value.error_code == errno.EINVAL


def test_element_lists_up_to_what_was_granted(kernel, ctx, pd, cq):
    qp = make(ctx, pd, cq, max_send_sge=32)
    elements = [SGE(0x1000 + n, n, n) for n in range(33)]

    def write(count):
        def call(qp):
            qp.wr_rdma_write(1, 2)
            qp.wr_set_sge_list(count, elements)

        return call

    assert posted(kernel, qp, write(32))["num_sge"] == 32
    ring = kernel.qps[qp._handle].send_ring
    assert bytes(ring[64 : 64 + 32 * SGE_BYTES]) == b"".join(bytes(sge._image) for sge in elements[:32])
    with pytest.raises(PyverbsRDMAError) as info:
        posted(kernel, qp, write(33))
    assert info.value.error_code == errno.EINVAL


RELIABLE = set(FLAG) - {WrOpcode.TSO}
TRANSPORTS = {
    QpType.RC: RELIABLE, QpType.XRC_SEND: RELIABLE, QpType.UD: {WrOpcode.SEND, WrOpcode.SEND_WITH_IMM},
    QpType.RAW_PACKET: {WrOpcode.SEND, WrOpcode.TSO},
    QpType.UC: {
        WrOpcode.SEND, WrOpcode.SEND_WITH_IMM, WrOpcode.RDMA_WRITE, WrOpcode.RDMA_WRITE_WITH_IMM, WrOpcode.LOCAL_INV,
        WrOpcode.BIND_MW,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", list(TRANSPORTS), ids=lambda kind: kind.name)
@pytest.mark.parametrize("opcode", list(FLAG), ids=lambda opcode: opcode.name)
def test_a_qp_may_ask_for_the_operations_of_its_transport(kernel, ctx, pd, cq, kind, opcode):
    attr = QPInitAttrEx(qp_type=kind, scq=cq, rcq=cq, comp_mask=1 | 64, pd=pd, send_ops_flags=int(FLAG[opcode]))
    if opcode in TRANSPORTS[kind]:
        QPEx(ctx, attr)
        return
    with pytest.raises(PyverbsRDMAError) as info:
        QPEx(ctx, attr)
    assert info.value.error_code == errno.EOPNOTSUPP


@pytest.mark.parametrize("kind", list(TRANSPORTS), ids=lambda kind: kind.name)
@pytest.mark.parametrize("opcode", list(FLAG), ids=lambda opcode: opcode.name)
def test_post_send_takes_the_operations_of_the_transport(kernel, pd, cq, kind, opcode):
    qp = QP(pd, QPInitAttr(qp_type=kind, scq=cq, rcq=cq, cap=QPCap()))
    qp.to_rts(rc_attr())
    wr = SendWR(opcode=opcode, num_sge=1, sg=[SGE(1, 8, 3)])
    if opcode in TRANSPORTS[kind] - {WrOpcode.TSO}:  # which has headers, and only QPEx takes them
        qp.post_send(wr)
        return
    with pytest.raises(PyverbsRDMAError) as info:
        qp.post_send(wr)
    assert info.value.error_code == errno.EINVAL


@pytest.mark.parametrize(("state", "sends", "receives"), [
    (0, False, False), (1, False, True), (2, False, True), (3, True, True), (4, True, True), (5, True, True),
    (6, True, True),
])  # fmt: skip
def test_which_states_take_posts(pd, cq, state, sends, receives):
    qp = QP(pd, QPInitAttr(qp_type=4, scq=cq, rcq=cq, cap=QPCap()))
    qp._state = state
    wr = SendWR(num_sge=1, sg=[SGE(1, 8, 3)])
    for allowed, call in ((sends, lambda: qp.post_send(wr)), (receives, lambda: qp.post_recv(RecvWR()))):
        if allowed:
            call()
        else:
            with pytest.raises(PyverbsRDMAError) as info:
                call()
            assert info.value.error_code == errno.EINVAL
