"""Two ends of each transport in one program, as rdma-core's tests make them: one device, loopback."""

from __future__ import annotations

from typing import Any

from nicemu.abi.verbs import QpType
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AH, GID, AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ, WC
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs.srq import SRQ, SrqAttr, SrqInitAttr, SrqInitAttrEx
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.pyverbs.xrcd import XRCD, XRCDInitAttr

ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
OPEN: list[Context] = []
"""Contexts of all ends made since the last ``close_all``."""
QKEY = 0x11111111
SIZE = 1 << 16
GRH = 40


class End:
    """One side: context, PD, CQ and a region of ``SIZE`` bytes."""

    def __init__(self, access: int = ACCESS, gid_index: int = 1) -> None:
        self.ctx = Context(name="nicemu0")
        OPEN.append(self.ctx)
        self.pd, self.cq = PD(self.ctx), CQ(self.ctx, 256)
        self.mr = MR(self.pd, SIZE, access)
        self.gid_index = gid_index
        self.qp: Any = None
        self.srq: Any = None

    def make(self, kind: int, srq: SRQ | None = None, max_sge: int = 1) -> QP:
        cap = QPCap(max_send_wr=32, max_recv_wr=32, max_send_sge=max_sge, max_inline_data=64)
        self.srq = srq
        self.qp = QP(self.pd, QPInitAttr(qp_type=kind, scq=self.cq, rcq=self.cq, srq=srq, cap=cap))
        return self.qp

    def make_srq(self, max_wr: int = 32) -> SRQ:
        return SRQ(self.pd, SrqInitAttr(SrqAttr(max_wr=max_wr)))

    def gid(self) -> GID:
        return self.ctx.query_gid(1, self.gid_index)

    def attr(self, peer: QP, psns: tuple[int, int] = (5, 5)) -> QPAttr:
        """Everything that takes a QP to RTS, towards ``peer``. ``psns``: send, receive."""
        attr = QPAttr(path_mtu=e.IBV_MTU_1024)
        attr.qp_access_flags, attr.dest_qp_num, attr.qkey = ACCESS, peer.qp_num, QKEY
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 4
        attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer = 14, 7, 7, 12
        attr.sq_psn, attr.rq_psn = psns
        route = GlobalRoute(dgid=self.gid(), sgid_index=self.gid_index)
        attr.ah_attr = AHAttr(is_global=1, gr=route)
        return attr

    def sge(self, length: int, offset: int = 0) -> SGE:
        return SGE(self.mr.buf + offset, length, self.mr.lkey)

    def send(self, length: int, wr_id: int = 1, **options: Any) -> SendWR:
        return SendWR(wr_id, num_sge=1, sg=[self.sge(length)], **options)

    def receive(self, length: int, wr_id: int = 1, offset: int = 0) -> None:
        (self.srq or self.qp).post_recv(RecvWR(wr_id, 1, [self.sge(length, offset)]))

    def poll(self, count: int = 1) -> list[WC]:
        return poll(self.cq, count)


def close_all() -> None:
    """The end of a program."""
    while OPEN:
        OPEN.pop().close()


def poll(cq: CQ, count: int = 1) -> list[WC]:
    """Exactly ``count`` completions; they may take a while."""
    done: list[WC] = []
    for _ in range(100):
        done += cq.poll(count - len(done))[1]
        if len(done) == count:
            return done
    raise AssertionError(f"{len(done)} completions, not {count}")


def connect(kind: int) -> tuple[End, End]:
    """Two ends with a connected QP each."""
    left, right = End(), End()
    left.make(kind), right.make(kind)
    left.qp.to_rts(left.attr(right.qp))
    right.qp.to_rts(right.attr(left.qp))
    return left, right


def datagrams(gid_index: int = 1) -> tuple[End, End, AH]:
    """Two UD ends and the way to the right one."""
    left, right = End(gid_index=gid_index), End(gid_index=gid_index)
    for end in (left, right):
        end.make(QpType.UD)
        end.qp.to_rts(end.attr(end.qp))
    route = GlobalRoute(dgid=right.gid(), sgid_index=gid_index)
    return left, right, AH(left.pd, attr=AHAttr(is_global=1, gr=route))


class XrcEnd(End):
    """An end with an initiator, a target, and an SRQ in a domain of its own."""

    def __init__(self, access: int = ACCESS, targets: int = 1) -> None:
        super().__init__(access)
        self.xrcd = XRCD(self.ctx, XRCDInitAttr(0, 0, -1))
        attr = SrqInitAttrEx(max_wr=64, max_sge=32)
        attr.srq_type, attr.pd, attr.cq, attr.xrcd = e.IBV_SRQT_XRC, self.pd, self.cq, self.xrcd
        attr.comp_mask = 15
        self.srq = SRQ(self.ctx, attr)
        init = QPInitAttrEx(qp_type=e.IBV_QPT_XRC_RECV, comp_mask=e.IBV_QP_INIT_ATTR_XRCD, xrcd=self.xrcd)
        self.targets = [QP(self.ctx, init) for _ in range(targets)]
        cap = QPCap(max_send_wr=32, max_recv_wr=0, max_recv_sge=0)
        init = QPInitAttrEx(
            qp_type=e.IBV_QPT_XRC_SEND, sq_sig_all=1, comp_mask=e.IBV_QP_INIT_ATTR_PD, pd=self.pd, scq=self.cq, cap=cap
        )
        self.initiators = [QP(self.ctx, init) for _ in range(targets)]
        self.qp = self.initiators[0]


def connect_xrc(count: int = 1) -> tuple[XrcEnd, XrcEnd]:
    """Two XRC ends; initiator ``n`` of each is connected to target ``n`` of the other."""
    left, right = XrcEnd(targets=count), XrcEnd(targets=count)
    for one, other in ((left, right), (right, left)):
        for initiator, target in zip(one.initiators, other.targets, strict=True):
            initiator.to_rts(one.attr(target))
            target.to_rts(other.attr(initiator))
    return left, right
