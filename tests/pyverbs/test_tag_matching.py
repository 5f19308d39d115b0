"""TM-SRQs and operations on tags, on a fake kernel and on the emulated NIC."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest

from nicemu.abi.tag_matching import RVH, TMH
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ, CQEX, CqInitAttrEx
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import ibv_ops_wr_opcode, ibv_srq_type
from nicemu.pyverbs.mem_alloc import free, madvise, mmap, posix_memalign, read, write
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD, ParentDomain, ParentDomainContext, ParentDomainInitAttr
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.srq import SRQ, OpsWr, SrqAttr, SrqInitAttr, SrqInitAttrEx
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from tests.pyverbs.on_the_nic import ACCESS, Pair, ctx, lab

__all__ = ["ctx", "lab"]
ADD, DEL, SYNC = (int(op) for op in ibv_ops_wr_opcode)
TYPE, PD_BIT, CQ_BIT, TM_BIT = 1, 2, 8, 16
NO_TAG, RNDV, FIN, EAGER = range(4)
MATCH, DATA_VALID = 32, 64
FULL = (1 << 64) - 1
DONT_NEED = 4


def srq_attr(pd: PD, cq: CQ | CQEX | None, tags: int = 3, ops: int = 4) -> SrqInitAttrEx:
    attr = SrqInitAttrEx(max_wr=8, max_sge=1)
    attr.comp_mask = TYPE | PD_BIT | CQ_BIT | TM_BIT
    attr.srq_type, attr.pd, attr.max_num_tags, attr.max_ops = ibv_srq_type.IBV_SRQT_TM, pd, tags, ops
    if cq is not None:
        attr.cq = cq
    return attr


class Tags:
    """A client and a server on a TM-SRQ with 3 tags and 4 operations; a region for each."""

    def __init__(
        self, ctx: Context, access: int = ACCESS, sends: int = 0, own_cq: bool = False, pd: PD | None = None
    ) -> None:
        self.ctx, self.pd = ctx, pd or PD(ctx)
        self.cq, self.client_cq = CQEX(ctx, CqInitAttrEx(wc_flags=0x47F)), CQ(ctx, 64)
        self.server_cq = CQ(ctx, 16) if own_cq else self.cq
        self.srq = SRQ(ctx, srq_attr(self.pd, self.cq))
        init = QPInitAttr(qp_type=2, scq=self.client_cq, rcq=self.client_cq, cap=QPCap(max_send_wr=8, max_recv_wr=8))
        self.client = QP(self.pd, init)
        cap = QPCap(max_send_wr=sends, max_recv_wr=0, max_send_sge=1, max_recv_sge=0)
        self.server = QP(self.pd, QPInitAttr(qp_type=2, scq=self.server_cq, rcq=self.server_cq, srq=self.srq, cap=cap))
        self.addresses = [mmap(length=65_536) for _ in range(2)]
        self.source, self.target = (MR(self.pd, 65_536, access, address=at) for at in self.addresses)
        connect(ctx, self.client, self.server)

    def add(self, wr_id: int, tag: int, length: int = 1000, at: int = 0, **options: int) -> OpsWr:
        buffer = [SGE(self.target.buf + at, length, self.target.lkey)]
        wr = OpsWr(wr_id, ADD, recv_wr_id=100 + wr_id, num_sge=1, tag=tag, mask=FULL, sg_list=buffer, **options)
        self.srq.post_srq_ops(wr)
        return wr

    def untagged(self, wr_id: int, at: int = 32_768) -> None:
        self.srq.post_recv(RecvWR(wr_id, 1, [SGE(self.target.buf + at, 8192, self.target.lkey)]))

    def send(self, data: bytes, at: int = 0) -> None:
        write(self.source.buf + at, data, len(data))
        self.client.post_send(SendWR(1, num_sge=1, sg=[SGE(self.source.buf + at, len(data), self.source.lkey)]))

    def poll(self, count: int) -> list[tuple[int, int, int, int]]:
        """(wr_id, opcode, flags, status) of so many completions of the SRQ."""
        done = []
        for _ in range(50 * count):
            if self.cq.start_poll() == 0:
                done.append((self.cq.wr_id, self.cq.read_opcode(), self.cq.read_wc_flags(), self.cq.status))
                self.last = self.cq.read_tm_info()
                self.cq.end_poll()
            if len(done) == count:
                break
        assert len(done) == count
        return done


def connect(ctx: Context, *qps: QP) -> None:
    pair = Pair.__new__(Pair)
    pair.ctx, (pair.left, pair.right) = ctx, qps
    pair.connect()


@pytest.fixture
def tags(ctx: Context) -> Tags:
    return Tags(ctx)


def code(call) -> int:
    with pytest.raises(PyverbsRDMAError) as info:
        call()
    return info.value.error_code


def eager(tag: int, data: bytes = b"payload", app_ctx: int = 0) -> bytes:
    return TMH.pack(EAGER, app_ctx, tag) + data


RECV = e.IBV_WC_TM_RECV if hasattr(e, "IBV_WC_TM_RECV") else 133


# The request ----------------------------------------------------------------------------------------------------------


def test_members_of_a_request():
    wr = OpsWr(1, DEL, 2, None, 3, 4, 0, FULL, 6)
    assert (wr.wr_id, wr.opcode, wr.flags, wr.next_wr, wr.unexpected_cnt) == (1, DEL, 2, None, 3)
    assert (wr.recv_wr_id, wr.tag, wr.mask, wr.handle) == (4, FULL, 6, 0)
    wr.handle, wr.tag, wr.next_wr = 9, 5.7, OpsWr()
    assert (wr.handle, wr.tag) == (9, 5) and wr.next_wr.opcode == ADD and wr.next_wr.flags == 1
    wr.close()


def test_bad_members_of_a_request():
    with pytest.raises(OverflowError):
        OpsWr(tag=1 << 64)
    with pytest.raises(TypeError):
        OpsWr(next_wr=RecvWR())
    with pytest.raises(TypeError):
        OpsWr(sg_list=[SGE(0, 8, 1)])


# Creation -------------------------------------------------------------------------------------------------------------


def test_the_device_says_what_it_can(ctx):
    caps = ctx.query_device_ex().tm_caps
    assert (caps.max_rndv_hdr_size, caps.max_num_tags, caps.flags, caps.max_ops, caps.max_sge) == (64, 127, 1, 16384, 1)


@pytest.mark.parametrize(
    "change",
    [
        dict(comp_mask=TYPE | PD_BIT | CQ_BIT),
        dict(comp_mask=TYPE | PD_BIT | TM_BIT),
        dict(max_num_tags=0),
        dict(max_num_tags=128),
        dict(max_ops=16385),
        dict(max_wr=0),
    ],
)
def test_a_tm_srq_needs_an_extended_cq_and_a_size_that_the_device_has(ctx, change):
    attr = srq_attr(PD(ctx), CQEX(ctx))
    for name, value in change.items():
        setattr(attr, name, value)
    assert code(lambda: SRQ(ctx, attr)) == errno.EINVAL


def test_a_plain_cq_will_not_do(ctx):
    assert code(lambda: SRQ(ctx, srq_attr(PD(ctx), CQ(ctx, 4)))) == errno.EINVAL


def test_it_serves_rc_only(ctx):
    pd, cq = PD(ctx), CQEX(ctx)
    srq = SRQ(ctx, srq_attr(pd, cq))
    for kind in (3, 4):
        assert code(lambda kind=kind: QP(pd, QPInitAttr(qp_type=kind, scq=cq, rcq=cq, srq=srq))) == errno.EINVAL


def test_closing_the_cq_closes_srq_and_qp(tags):
    tags.add(0, 1)
    tags.cq.close()
    assert tags.srq._handle is None and tags.server._handle is None


# Refusals of operations -----------------------------------------------------------------------------------------------


def test_another_srq_has_no_tags(ctx):
    srq = SRQ(PD(ctx), SrqInitAttr(SrqAttr()))
    assert code(lambda: srq.post_srq_ops(OpsWr())) == errno.EINVAL


def test_all_tags_in_use_is_enomem_until_a_completion_that_frees_one_is_polled(tags):
    for n in range(3):
        assert tags.add(n, n).handle == n
    tags.poll(3)
    assert code(lambda: tags.add(3, 3)) == errno.ENOMEM
    tags.send(eager(1))
    tags.ctx._kernel.settle(lambda: False, 10_000_000)
    assert code(lambda: tags.add(3, 3)) == errno.ENOMEM
    assert tags.poll(1) == [(101, RECV, MATCH | DATA_VALID, 0)]
    assert tags.add(3, 3).handle == 1


def test_too_many_operations_outstanding_is_enomem(tags):
    chain = [OpsWr(n, SYNC) for n in range(5)]
    for wr, following in pairwise(chain):
        wr.next_wr = following
    refused = OpsWr()
    with pytest.raises(PyverbsRDMAError, match=r"post SRQ ops failed\.") as info:
        tags.srq.post_srq_ops(chain[0], refused)
    assert info.value.error_code == errno.ENOMEM and refused.wr_id == 4
    assert [wr_id for wr_id, *_ in tags.poll(4)] == [0, 1, 2, 3]
    tags.srq.post_srq_ops(OpsWr(9, SYNC))
    assert tags.poll(1) == [(9, 132, 0, 0)]


def test_operations_that_make_no_sense_are_einval(tags):
    two = [SGE(tags.target.buf, 8, tags.target.lkey)] * 2
    for wr in (OpsWr(opcode=7), OpsWr(opcode=DEL), OpsWr(num_sge=2, sg_list=two), OpsWr(num_sge=1), OpsWr(num_sge=-1)):
        assert code(lambda wr=wr: tags.srq.post_srq_ops(wr)) == errno.EINVAL


def test_deleting_a_tag(tags):
    wr = tags.add(0, 5)
    tags.poll(1)
    gone = OpsWr(7, DEL)
    gone.handle = wr.handle
    tags.srq.post_srq_ops(gone)
    assert tags.poll(1) == [(7, 131, 0, 0)]
    assert code(lambda: tags.srq.post_srq_ops(gone)) == errno.EINVAL, "it has no tag any more"
    for n in range(3):
        tags.add(n, n)


def test_deleting_a_tag_that_a_message_has_taken_completes_with_an_error(tags):
    wr = tags.add(0, 5)
    tags.poll(1)
    tags.send(eager(5))
    tags.ctx._kernel.settle(lambda: False, 10_000_000)
    late = OpsWr(7, DEL)
    late.handle = wr.handle
    tags.srq.post_srq_ops(late)
    tags.ctx._kernel.settle(lambda: False, 10_000_000)
    assert tags.poll(2) == [(100, RECV, MATCH | DATA_VALID, 0), (7, 131, 0, e.IBV_WC_GENERAL_ERR + 1)]


def test_deletions_without_a_signal_give_their_handles_back(tags):
    for _ in range(5):
        for n in range(3):
            wr = tags.add(n, n, flags=0)
            gone = OpsWr(0, DEL, 0)
            gone.handle = wr.handle
            tags.srq.post_srq_ops(gone)
            tags.ctx._kernel.settle(lambda: False, 10_000)


# Traffic --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", [ACCESS, ACCESS | e.IBV_ACCESS_ON_DEMAND])
def test_an_eager_message(ctx, access):
    tags = Tags(ctx, access)
    tags.add(1, 77, 20_000, 100)
    tags.poll(1)
    data = bytes(range(256)) * 60
    tags.send(eager(77, data, app_ctx=3))
    assert tags.poll(1) == [(101, RECV, MATCH, 0)] and (tags.last.tag, tags.last.priv) == (77, 3)
    assert tags.poll(1) == [(101, RECV, DATA_VALID, 0)] and (tags.last.tag, tags.last.priv) == (0, 0)
    assert read(tags.target.buf + 100, len(data)) == data


def test_members_that_tag_matching_has_no_use_for_read_as_zero(tags):
    tags.add(1, FULL)
    tags.send(eager(FULL, app_ctx=0xFFFFFFFF))
    tags.poll(2)
    cq = tags.cq
    assert (cq.read_src_qp(), cq.read_slid(), cq.read_sl(), cq.read_dlid_path_bits()) == (0, 0, 0, 0)
    assert (tags.last.tag, tags.last.priv) == (FULL, 0xFFFFFFFF)
    assert cq.read_byte_len() == 7 and cq.read_qp_num() == tags.server.qp_num


@pytest.mark.parametrize("on_demand", [False, True])
@pytest.mark.parametrize("zapped", [False, True])
def test_a_rendezvous(ctx, on_demand, zapped):
    tags = Tags(ctx, ACCESS | (e.IBV_ACCESS_ON_DEMAND if on_demand else 0))
    data = bytes(range(1, 251)) * 80
    write(tags.source.buf + 9000, data, len(data))
    tags.add(1, 77, 30_000, 5000)
    tags.client.post_recv(RecvWR(5, 1, [SGE(tags.source.buf + 60_000, 64, tags.source.lkey)]))
    if zapped and on_demand:
        madvise(tags.addresses[1], 32_768, DONT_NEED)
    tags.send(TMH.pack(RNDV, 9, 77) + RVH.pack(tags.source.buf + 9000, tags.source.rkey, len(data)))
    assert tags.poll(3)[1:] == [(101, RECV, MATCH, 0), (101, RECV, DATA_VALID, 0)]
    assert read(tags.target.buf + 5000, len(data)) == data
    done = []
    for _ in range(100):
        done += tags.client_cq.poll(4)[1]
    assert {wc.wr_id: wc.status for wc in done} == {1: 0, 5: 0}
    assert TMH.unpack(read(tags.source.buf + 60_000, 16)) == (FIN, 9, 77)


def test_a_server_with_a_send_queue_sends_as_ever_and_leaves_rendezvous_to_software(ctx):
    tags = Tags(ctx, sends=2)
    for n in range(5):
        tags.client.post_recv(RecvWR(5 + n, 1, [SGE(tags.source.buf + 60_000, 64, tags.source.lkey)]))
        tags.server.post_send(SendWR(n, num_sge=1, sg=[SGE(tags.target.buf, 8, tags.target.lkey)]))
        assert tags.poll(1) == [(n, e.IBV_WC_SEND, 0, 0)]
    tags.add(1, 77)
    tags.send(TMH.pack(RNDV, 9, 77) + RVH.pack(tags.source.buf, tags.source.rkey, 100))
    assert tags.poll(2)[1] == (101, RECV, MATCH | DATA_VALID, e.IBV_WC_GENERAL_ERR + 2)


def test_a_server_without_one_cannot_post_sends(tags):
    wr = SendWR(1, num_sge=1, sg=[SGE(tags.target.buf, 8, tags.target.lkey)])
    assert code(lambda: tags.server.post_send(wr)) == errno.ENOMEM


def test_a_parent_domain_s_allocator_gives_no_memory_for_the_device_s_own_queue(ctx):
    sizes = []

    def allocate(_pd, _context, size, alignment, _kind):
        sizes.append(size)
        return posix_memalign(size, alignment)

    real = PD(ctx)
    memory = ParentDomainContext(real, allocate, lambda _pd, _context, address, _kind: free(address))
    domain = ParentDomain(ctx, ParentDomainInitAttr(real, memory))
    tags = Tags(ctx, pd=domain)
    assert sizes and max(sizes) <= 4096
    tags.add(1, 77, 30_000, 5000)
    tags.client.post_recv(RecvWR(5, 1, [SGE(tags.source.buf + 60_000, 64, tags.source.lkey)]))
    tags.send(TMH.pack(RNDV, 9, 77) + RVH.pack(tags.source.buf + 9000, tags.source.rkey, 20_000))
    assert tags.poll(3)[1:] == [(101, RECV, MATCH, 0), (101, RECV, DATA_VALID, 0)]


def test_unexpected_then_in_step(tags):
    tags.untagged(50)
    tags.send(eager(9))
    assert tags.poll(1) == [(50, RECV, 0, 0)] and tags.last.tag == 0
    assert read(tags.target.buf + 32_768, 23) == eager(9)
    tags.add(0, 9)
    assert tags.poll(1) == [(0, 130, 16, 0)]
    tags.srq.post_srq_ops(OpsWr(1, SYNC, 3, unexpected_cnt=1))
    assert tags.poll(1) == [(1, 132, 0, 0)]
    tags.send(eager(9))
    assert tags.poll(1) == [(100, RECV, MATCH | DATA_VALID, 0)]


@pytest.mark.parametrize("own_cq", [False, True])
def test_a_reset_or_a_destroyed_qp_loses_no_handles(ctx, own_cq):
    tags = Tags(ctx, own_cq=own_cq)
    for n in range(3):
        tags.add(n, n)
        tags.send(eager(n), at=64 * n)
    tags.ctx._kernel.settle(lambda: False, 10_000_000)
    tags.server.modify(QPAttr(qp_state=0), 1)
    waiting = 6 if own_cq else 3
    assert len(tags.poll(waiting)) == waiting, "the QP's own completions are gone with a CQ of its own"
    for n in range(3):
        tags.add(n, n)
    tags.poll(3)
    tags.server.close()
    tags.srq.close()
