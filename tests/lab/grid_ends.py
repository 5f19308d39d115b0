"""Two ends of any transport whose whole memory is compared: fill both sides, run one operation, say what should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nicemu.abi.verbs import MTU_BYTES, QpType
from nicemu.pyverbs import enums as e
from nicemu.pyverbs._qp_operations import OPERATIONS
from nicemu.pyverbs.addr import AH, AHAttr, GlobalRoute
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPEx, QPInitAttrEx
from nicemu.pyverbs.wr import SGE, SendWR
from nicemu.uverbs import session
from tests.lab.transports import ACCESS, QKEY, End, XrcEnd

PAGE = 4096
ALL = ACCESS | e.IBV_ACCESS_MW_BIND | e.IBV_ACCESS_FLUSH_GLOBAL | e.IBV_ACCESS_FLUSH_PERSISTENT
NAMES = {"RC": QpType.RC, "UC": QpType.UC, "UD": QpType.UD, "XRC": QpType.XRC_SEND}


def pattern(size: int, seed: int) -> bytes:
    """Bytes that differ at every place and seed."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


class BigEnd(End):
    """An end with a region of ``size`` bytes, all rights, and QPs that know every operation of their type."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.memory = MR(self.pd, size, ALL)

    def make_ex(self, kind: int, **more: Any) -> QPEx:
        cap = QPCap(max_send_wr=64, max_recv_wr=64, max_send_sge=32, max_recv_sge=32, max_inline_data=256)
        mask = e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS
        init = QPInitAttrEx(qp_type=kind, scq=self.cq, rcq=self.cq, cap=cap, pd=self.pd, comp_mask=mask,
                            send_ops_flags=OPERATIONS[kind], **more)  # fmt: skip
        self.qp = QPEx(self.ctx, init)
        return self.qp


class BigXrcEnd(XrcEnd):
    """The same for XRC: initiator ``qp``, target ``targets[0]``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.memory = MR(self.pd, size, ALL)
        cap = QPCap(max_send_wr=64, max_recv_wr=0, max_send_sge=32, max_recv_sge=0, max_inline_data=256)
        mask = e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS
        init = QPInitAttrEx(qp_type=QpType.XRC_SEND, scq=self.cq, cap=cap, pd=self.pd, comp_mask=mask,
                            send_ops_flags=OPERATIONS[QpType.XRC_SEND])  # fmt: skip
        self.qp = QPEx(self.ctx, init)


@dataclass
class Ends:
    """``left`` asks, ``right`` answers. ``mtu`` is the enum of 6.4, ``psns`` the first PSN of each direction."""

    kind: QpType
    size: int
    mtu: int = e.IBV_MTU_1024
    psns: tuple[int, int] = (5, 5)
    left: Any = field(init=False)
    right: Any = field(init=False)
    ah: AH | None = None

    def __post_init__(self) -> None:
        xrc = self.kind == QpType.XRC_SEND
        self.left, self.right = (BigXrcEnd(self.size) if xrc else BigEnd(self.size) for _ in range(2))
        if not xrc:
            self.left.make_ex(self.kind), self.right.make_ex(self.kind)
        takes = self.right.targets[0] if xrc else self.right.qp
        self.left.qp.to_rts(self._attr(self.left, takes, self.psns))
        takes.to_rts(self._attr(self.right, self.left.qp, self.psns[::-1]))
        if self.kind == QpType.UD:
            route = GlobalRoute(dgid=self.right.gid(), sgid_index=1)
            self.ah = AH(self.left.pd, attr=AHAttr(is_global=1, gr=route))

    def _attr(self, end: Any, peer: QP, psns: tuple[int, int]) -> QPAttr:
        attr: QPAttr = end.attr(peer, psns)
        attr.path_mtu, attr.qp_access_flags = self.mtu, ALL
        return attr

    @property
    def pmtu(self) -> int:
        """Bytes of a packet: a datagram's limit is the port's."""
        return MTU_BYTES[e.IBV_MTU_4096 if self.kind == QpType.UD else self.mtu]

    def fill(self, seed: int) -> list[bytearray]:
        """New contents on both sides; what is there now."""
        images = []
        for turn, end in enumerate((self.left, self.right)):
            data = pattern(self.size, 2 * seed + turn)
            end.memory.write(data, self.size)
            images.append(bytearray(data))
        return images

    def memory(self) -> list[bytes]:
        """Both sides' bytes."""
        return [end.memory.read(self.size, 0) for end in (self.left, self.right)]

    def request(self, wr_id: int, opcode: int, sges: list[SGE], **options: Any) -> SendWR:
        """A send request that names its receiver, where the transport wants it."""
        wr = SendWR(wr_id, opcode, len(sges), sg=sges or None, **options)
        if self.kind == QpType.UD:
            assert self.ah is not None
            wr.set_wr_ud(self.ah, self.right.qp.qp_num, QKEY)
        elif self.kind == QpType.XRC_SEND:
            wr.set_qp_type_xrc(self.right.srq.get_srq_num())
        return wr

    def call(self, build: Callable[[QPEx], None], wr_id: int = 1) -> None:
        """Post one request through the newer interface."""
        qp = self.left.qp
        qp.wr_start()
        qp.wr_id, qp.wr_flags = wr_id, e.IBV_SEND_SIGNALED
        build(qp)
        if self.kind == QpType.XRC_SEND:
            qp.wr_set_xrc_srqn(self.right.srq.get_srq_num())
        qp.wr_complete()

    def settle(self) -> None:
        """Until nothing is on its way: nobody says when a UC WRITE has landed."""
        session.endpoint().settle(lambda: False, 20_000_000)


def at(end: Any, place: int, length: int) -> SGE:
    """``length`` bytes of an end's region."""
    return SGE(end.memory.buf + place, length, end.memory.lkey)
