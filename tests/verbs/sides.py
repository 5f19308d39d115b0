"""A side: one context with what a test needs on it; connections between QPs; and posting."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from pyverbs import enums as e
from pyverbs.addr import AH, AHAttr, GlobalRoute
from pyverbs.cq import CQ, CompChannel
from pyverbs.device import Context
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

from .memory import ALL, Region, Remote

T = TypeVar("T")
PORT = 1
QKEY = 0x11111111
RC, UC, UD = e.IBV_QPT_RC, e.IBV_QPT_UC, e.IBV_QPT_UD
STATES = ("RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR")
"""Names of ibv_qp_state, by value."""
CAPS = {"max_send_wr": 64, "max_recv_wr": 64, "max_send_sge": 4, "max_recv_sge": 4, "max_inline_data": 0}
Sges = SGE | Sequence[SGE]


class SideQP(QP):  # type: ignore[misc]
    """A QP that knows its side."""

    def __init__(self, side: Side, init: QPInitAttr) -> None:
        self.side = side
        super().__init__(side.pd, init)


class Side:
    """A context of the device, with `pd`, `cq` (256 entries) and the index and text of its IPv4 RoCE v2 GID."""

    def __init__(self, device: str) -> None:
        self.context = Context(name=device)
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 256)
        self.gid_index, self.gid = find_gid(self.context)
        self.regions: list[Region] = []
        self._kept: list[Any] = []

    def qp(self, kind: int = RC, *, scq: Any = None, rcq: Any = None, srq: Any = None, sq_sig_all: int = 0,
           **caps: int) -> SideQP:  # fmt: skip
        """A QP in RESET on this side's CQ unless another is given; `caps` over CAPS."""
        init = QPInitAttr(qp_type=kind, scq=scq or self.cq, rcq=rcq or self.cq, srq=srq, sq_sig_all=sq_sig_all,
                          cap=QPCap(**{**CAPS, **caps}))  # fmt: skip
        return self._keep(SideQP(self, init))

    def region(self, pages: int = 1, access: int = ALL, odp: bool = False) -> Region:
        """Memory with an MR, checked for writes outside of it when the test is over."""
        self.regions.append(Region(self, pages, access, odp))
        return self.regions[-1]

    def channel(self) -> CompChannel:
        return self._keep(CompChannel(self.context))

    def new_cq(self, size: int = 256, channel: Any = None) -> CQ:
        return self._keep(CQ(self.context, size, None, channel))

    def address_of(self, other: Side) -> AH:
        """An address handle of this side's PD to the other side."""
        return self._keep(AH(self.pd, attr=_route(self, other)))

    def _keep(self, made: T) -> T:
        """pyverbs destroys what nobody refers to; what a side made lives as long as the side, unless it is closed."""
        self._kept.append(made)
        return made

    def check_guards(self) -> None:
        for region in self.regions:
            region.check_guards()

    def release_memory(self) -> None:
        for region in self.regions:
            region.release()


def find_gid(context: Context) -> tuple[int, Any]:
    """Index and GID of the port's first IPv4 address under RoCE v2: by address, for indices differ."""
    for index in range(context.query_port(PORT).gid_tbl_len):
        gid = context.query_gid(PORT, index)
        if str(gid).startswith("0000:0000:0000:0000:0000:ffff:") and (
            context.query_gid_type(PORT, index) == e.IBV_GID_TYPE_SYSFS_ROCE_V2
        ):
            return index, gid
    raise AssertionError("no GID of an IPv4 address on port 1")


def _route(side: Side, other: Side) -> AHAttr:
    route = GlobalRoute(dgid=other.gid, sgid_index=side.gid_index, hop_limit=64)
    return AHAttr(port_num=PORT, is_global=1, gr=route, dlid=0)


# -- connecting


def attributes(qp: SideQP, peer: SideQP | None = None, **changes: Any) -> QPAttr:
    """Attributes that take `qp` to any state; `changes` are attributes of QPAttr, and `access` of the QP."""
    attr = QPAttr(port_num=PORT)
    values = {"path_mtu": e.IBV_MTU_1024, "sq_psn": 0x1000, "rq_psn": 0x1000, "qkey": QKEY, "pkey_index": 0,
              "max_rd_atomic": 4, "max_dest_rd_atomic": 4, "timeout": 17, "retry_cnt": 3, "rnr_retry": 3,
              "min_rnr_timer": 12}  # fmt: skip
    if peer is not None:
        values["dest_qp_num"] = peer.qp_num
        attr.ah_attr = _route(qp.side, peer.side)
    if "sq_psn" in changes:
        values["rq_psn"] = changes["sq_psn"]
    values["qp_access_flags"] = changes.pop("access", ALL)
    for name, value in {**values, **changes}.items():
        setattr(attr, name, value)
    return attr


def connect(a: SideQP, b: SideQP, **changes: Any) -> None:
    """Connect two QPs and take both to RTS. `changes` go to both: for instance timeout, retry_cnt, rnr_retry,
    min_rnr_timer, path_mtu, access, sq_psn (the peer expects it, unless rq_psn is given too), max_rd_atomic.
    """
    for qp, peer in ((a, b), (b, a)):
        qp.to_rts(attributes(qp, peer, **changes))


def pair(
    near: Side, far: Side, kind: int = RC, caps: dict[str, Any] | None = None, **changes: Any
) -> tuple[SideQP, SideQP]:
    """Two new connected QPs; `caps` as for Side.qp, `changes` as for connect."""
    a, b = near.qp(kind, **(caps or {})), far.qp(kind, **(caps or {}))
    connect(a, b, **changes)
    return a, b


def regions(near: Side, far: Side, pages: int = 2) -> tuple[Region, Region]:
    """A region of each side; that of `near` is filled."""
    source, target = near.region(pages), far.region(pages)
    source.fill(1)
    return source, target


def datagrams(side: Side, **caps: Any) -> SideQP:
    """A UD QP in RTS."""
    qp = side.qp(UD, **caps)
    qp.to_rts(attributes(qp))
    return qp


def move_to(qp: SideQP, state: int, attr: QPAttr | None = None, mask: int = 0) -> None:
    """Modify the state, and what `mask` names of `attr`."""
    attr = attr or QPAttr()
    attr.qp_state = state
    qp.modify(attr, mask | e.IBV_QP_STATE)


def state(qp: SideQP) -> str:
    """Name of the state that the device has the QP in."""
    return STATES[qp.query(e.IBV_QP_STATE)[0].qp_state]


# -- requests


def _list(sges: Sges) -> list[SGE]:
    return [sges] if isinstance(sges, SGE) else list(sges)


def request(opcode: int, sges: Sges, remote: Remote | None = None, *, wr_id: int = 0, flags: int = e.IBV_SEND_SIGNALED,
            imm: int = 0) -> SendWR:  # fmt: skip
    """A send request. `imm` is in network order, or the rkey to invalidate."""
    elements = _list(sges)
    wr = SendWR(wr_id=wr_id, opcode=opcode, num_sge=len(elements), imm_data=imm, sg=elements, send_flags=flags)
    if remote is not None:
        wr.set_wr_rdma(remote.rkey, remote.address)
    return wr


def chain(*wrs: Any) -> Any:
    """Link requests to one list; its first."""
    for wr, following in pairwise(wrs):
        wr.next_wr = following
    return wrs[0]


def send(qp: SideQP, sges: Sges, *, imm: int | None = None, invalidate: int | None = None, **options: Any) -> None:
    """Post a SEND, with immediate data or with an rkey to invalidate; `options`: wr_id, flags."""
    if invalidate is not None:
        qp.post_send(request(e.IBV_WR_SEND_WITH_INV, sges, imm=invalidate, **options))
    elif imm is not None:
        qp.post_send(request(e.IBV_WR_SEND_WITH_IMM, sges, imm=imm, **options))
    else:
        qp.post_send(request(e.IBV_WR_SEND, sges, **options))


def write(qp: SideQP, sges: Sges, remote: Remote, *, imm: int | None = None, **options: Any) -> None:
    """Post an RDMA WRITE, with immediate data if given; `options`: wr_id, flags."""
    opcode = e.IBV_WR_RDMA_WRITE if imm is None else e.IBV_WR_RDMA_WRITE_WITH_IMM
    qp.post_send(request(opcode, sges, remote, imm=imm or 0, **options))


def read(qp: SideQP, sges: Sges, remote: Remote, **options: Any) -> None:
    """Post an RDMA READ; `options`: wr_id, flags."""
    qp.post_send(request(e.IBV_WR_RDMA_READ, sges, remote, **options))


def atomic_request(sge: SGE, remote: Remote, *, add: int | None = None, compare: int = 0, swap: int = 0,
                   **options: Any) -> SendWR:  # fmt: skip
    """FETCH_ADD if `add` is given, else CMP_SWP."""
    opcode = e.IBV_WR_ATOMIC_FETCH_AND_ADD if add is not None else e.IBV_WR_ATOMIC_CMP_AND_SWP
    wr = request(opcode, sge, **options)
    wr.set_wr_atomic(remote.rkey, remote.address, compare if add is None else add, swap)
    return wr


def atomic(qp: SideQP, sge: SGE, remote: Remote, **options: Any) -> None:
    """Post an atomic: `add`, or `compare` and `swap`; wr_id, flags."""
    qp.post_send(atomic_request(sge, remote, **options))


def recv(queue: Any, sges: Sges = (), *, wr_id: int = 0) -> None:
    """Post a receive to a QP or an SRQ; without elements it takes messages of no bytes."""
    queue.post_recv(receive(sges, wr_id=wr_id))


def receive(sges: Sges = (), *, wr_id: int = 0) -> RecvWR:
    """A receive request; some releases of pyverbs make none without an element, so it loses that afterwards."""
    elements = _list(sges)
    wr = RecvWR(wr_id=wr_id, num_sge=len(elements) or 1, sg=elements or [SGE(0, 0, 0)])
    wr.num_sge = len(elements)
    return wr


def datagram(
    qp: SideQP, sges: Sges, ah: AH, qpn: int, qkey: int = QKEY, *, imm: int | None = None, **options: Any
) -> None:
    """Post a SEND on a UD QP."""
    opcode = e.IBV_WR_SEND if imm is None else e.IBV_WR_SEND_WITH_IMM
    wr = request(opcode, sges, imm=imm or 0, **options)
    wr.set_wr_ud(ah, qpn, qkey)
    qp.post_send(wr)


# -- refusals


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Name of the errno that a call fails with; `accepted` if it does not fail."""
    try:
        call(*arguments, **options)
    except PyverbsRDMAError as error:
        return errno.errorcode.get(abs(error.error_code), str(error.error_code))
    return "accepted"


@contextmanager
def needs(what: str) -> Iterator[None]:
    """Skip the test if the device says EOPNOTSUPP to what is inside; `what` names it."""
    try:
        yield
    except PyverbsRDMAError as error:
        if abs(error.error_code) in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOSYS):
            pytest.skip(f"the device has no {what}")
        raise
