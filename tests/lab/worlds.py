"""One scenario in two worlds: on the default device and on the model of soft-RoCE."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

from nicemu.config import load_config
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AH, AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ, CompChannel
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.uverbs import session

T = TypeVar("T")
LOCAL = e.IBV_ACCESS_LOCAL_WRITE
ACCESS = LOCAL | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
ON_DEMAND = e.IBV_ACCESS_ON_DEMAND
BYTES, WRONG_KEY, QKEY = 1 << 16, 0xDEAD00, 0x1234
STATES = ("RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR")
Statuses = list[tuple[int, str]]


def in_both(scenario: Callable[[Ends], T]) -> tuple[T, T]:
    """What ``scenario`` gives on the default device, and on rxe."""
    default, rxe = (in_world(name, scenario) for name in (None, "rxe"))
    return default, rxe


def in_world(config: Any, scenario: Callable[[Ends], T]) -> T:
    """What ``scenario`` gives in a lab of its own: of a shipped name, a path, or the default."""
    session.reset()
    session.configure(load_config(config))
    ends = Ends()
    try:
        return scenario(ends)
    finally:
        ends.ctx.close()
        session.reset()


def errno_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Name of the errno that the call fails with, or ``ok``."""
    try:
        call(*arguments, **options)
    except PyverbsRDMAError as error:
        code = abs(error.error_code)
        return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode[code]
    return "ok"


class Ends:
    """A context, and pairs of QPs on it: the near one completes into ``near``, the far one into ``far``."""

    def __init__(self) -> None:
        self.ctx = Context(name=get_device_list()[0].name.decode())
        self.pd = PD(self.ctx)
        self.channel = CompChannel(self.ctx)
        self.near, self.far = CQ(self.ctx, 63), CQ(self.ctx, 63, None, self.channel)
        self.source, self.target = MR(self.pd, BYTES, ACCESS), MR(self.pd, BYTES, ACCESS)

    @property
    def nic(self) -> Any:
        """Row of the NIC: counters."""
        return session.current().world.nic[1]

    def pair(self, kind: int = e.IBV_QPT_RC, srq: SRQ | None = None, near: CQ | None = None, far: CQ | None = None,
             **changes: Any) -> tuple[QP, QP]:  # fmt: skip
        """Two QPs, connected, in RTS; ``changes`` of their attributes."""
        a, b = self.qps(kind, srq, near or self.near, far or self.far)
        for qp, peer in ((a, b), (b, a)):
            qp.to_rts(self.attributes(peer, **changes))
        return a, b

    def qps(self, kind: int = e.IBV_QPT_RC, srq: SRQ | None = None, near: CQ | None = None,
            far: CQ | None = None) -> tuple[QP, QP]:  # fmt: skip
        """Two QPs in RESET."""
        cap = QPCap(max_send_wr=15, max_recv_wr=15, max_send_sge=2, max_recv_sge=2, max_inline_data=16)
        a, b = (QP(self.pd, QPInitAttr(qp_type=kind, scq=cq, rcq=cq, srq=queue, cap=cap))
                for cq, queue in ((near or self.near, None), (far or self.far, srq)))  # fmt: skip
        return a, b

    def attributes(self, peer: QP, **changes: Any) -> QPAttr:
        """For any step."""
        attr = QPAttr(port_num=1)
        values = {"path_mtu": 3, "qp_access_flags": ACCESS, "dest_qp_num": peer.qp_num, "qkey": QKEY, "timeout": 10,
                  "max_rd_atomic": 4, "max_dest_rd_atomic": 4, "retry_cnt": 1, "rnr_retry": 1,
                  "min_rnr_timer": 1}  # fmt: skip
        for name, value in (values | changes).items():
            setattr(attr, name, value)
        attr.ah_attr = self.route()
        return attr

    def route(self) -> AHAttr:
        """To this device itself."""
        return AHAttr(port_num=1, is_global=1, gr=GlobalRoute(dgid=self.ctx.query_gid(1, 1), sgid_index=1))

    def cq(self, entries: int) -> CQ:
        return CQ(self.ctx, entries)

    def channel_events(self) -> int:
        """Completion events that have come."""
        return sum(len(channel.events) for channel in session.endpoint().dispatcher.channels)

    def shared(self) -> SRQ:
        return SRQ(self.pd, SrqInitAttr(SrqAttr(15, 2)))

    def out(self, length: int = 64, at: int = 0, key: int | None = None) -> SGE:
        """Bytes of the source."""
        return SGE(self.source.buf + at, length, self.source.lkey if key is None else key)

    def into(self, length: int = 64, at: int = 0, key: int | None = None) -> SGE:
        """Bytes of the target."""
        return SGE(self.target.buf + at, length, self.target.lkey if key is None else key)

    def post(self, qp: QP, opcode: int, sge: SGE, wr_id: int = 1, **remote: Any) -> None:
        """A signaled request; ``remote``: rkey, at (bytes into the target), ah, qpn, qkey, imm, flags, more (SGE)."""
        flags = e.IBV_SEND_SIGNALED | remote.get("flags", 0)
        sges = [sge, *([remote["more"]] if "more" in remote else [])]
        wr = SendWR(wr_id=wr_id, opcode=opcode, num_sge=len(sges), sg=sges, send_flags=flags,
                    imm_data=remote.get("imm", 0))  # fmt: skip
        rkey, at = remote.get("rkey", self.target.rkey), self.target.buf + remote.get("at", 0)
        if opcode in (e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WR_ATOMIC_FETCH_AND_ADD):
            wr.set_wr_atomic(rkey, at, 1, 0)
        elif "ah" in remote:
            wr.set_wr_ud(remote["ah"], remote["qpn"], remote.get("qkey", QKEY))
        else:
            wr.set_wr_rdma(rkey, at)
        qp.post_send(wr)

    def send(self, qp: QP, sge: SGE | None = None, wr_id: int = 1, **options: Any) -> None:
        self.post(qp, e.IBV_WR_SEND, sge or self.out(), wr_id, **options)

    def recv(self, queue: QP | SRQ, sge: SGE | None = None, wr_id: int = 100, more: SGE | None = None) -> None:
        sges = [sge or self.into(), *([more] if more else [])]
        queue.post_recv(RecvWR(wr_id=wr_id, num_sge=len(sges), sg=sges))

    def handle(self) -> AH:
        return AH(self.pd, attr=self.route())

    def statuses(self, cq: CQ) -> Statuses:
        """All that comes, until nothing has for a tenth of a virtual second."""
        done: Statuses = []
        idle = 0
        while idle < 10:
            found = cq.poll(32)[1]
            done += [(wc.wr_id, e.ibv_wc_status(wc.status).name.removeprefix("IBV_WC_")) for wc in found]
            idle = 0 if found else idle + 1
        return done

    def state(self, qp: QP) -> str:
        return STATES[qp.query(e.IBV_QP_STATE)[0].qp_state]

    def events(self) -> list[str]:
        """Async events that have come."""
        file = session.endpoint().dispatcher.async_files[self.ctx.context]
        names = []
        while file.events:
            event = self.ctx.get_async_event()
            event.ack()
            names.append(event.event_type.name.removeprefix("IBV_EVENT_"))
        return names
