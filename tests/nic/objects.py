"""What lies on the bench: host memory for rings, regions, QPs, CQs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi import rings
from nicemu.abi.command import (
    QP_CONTEXT,
    Command,
    QpField,
    Status,
    mtt_entry,
)
from nicemu.abi.rings import CQE, CQE_BYTES, SEND_WQE, SGE, Doorbell, Eqn
from nicemu.abi.verbs import Access, QpAttrMask, QpState, QpType, SendFlag, SrqType
from nicemu.tables.records import FrameKind
from nicemu.tables.world import address_of, lazy_bytes

if TYPE_CHECKING:
    from tests.nic.testbench import Bench

ALL = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC
SLOTS = 64
INIT_MASK = QpAttrMask.STATE | QpAttrMask.ACCESS_FLAGS
RTR_MASK = (
    QpAttrMask.STATE
    | QpAttrMask.AV
    | QpAttrMask.PATH_MTU
    | QpAttrMask.DEST_QPN
    | QpAttrMask.RQ_PSN
    | QpAttrMask.MAX_DEST_RD_ATOMIC
    | QpAttrMask.MIN_RNR_TIMER
)
RTS_MASK = (
    QpAttrMask.STATE
    | QpAttrMask.TIMEOUT
    | QpAttrMask.RETRY_CNT
    | QpAttrMask.RNR_RETRY
    | QpAttrMask.SQ_PSN
    | QpAttrMask.MAX_QP_RD_ATOMIC
)


class Ring:
    """Zeroed host memory with an address."""

    def __init__(self, size: int) -> None:
        self.bytes = lazy_bytes(size)
        self.address = address_of(self.bytes)
        self.view = memoryview(self.bytes)

    def word(self, offset: int, value: int | None = None) -> int:
        """Read or write an int64."""
        if value is not None:
            struct.pack_into("<q", self.view, offset, value)
        return struct.unpack_from("<q", self.view, offset)[0]


class Mr:
    """A region of model frames: ``va`` is its base, ``data`` its bytes as one array."""

    def __init__(self, bench: Bench, index: int, va: int, pages: int, access: int, with_frames: bool = True) -> None:
        self.bench, self.index, self.key, self.va, self.pages = bench, index, index << 8 | 1, va, pages
        self.frames = [bench.frames.allocate(FrameKind.MODEL) for _ in range(pages if with_frames else 0)]
        self.access = access

    def sge(self, length: int | None = None, offset: int = 0) -> tuple[int, int, int]:
        """A scatter/gather element of this region."""
        return self.va + offset, self.pages * 4096 - offset if length is None else length, self.key

    def map(self, first: int = 0, pages: int | None = None, write: bool = True) -> None:
        """Give the NIC translations of some pages."""
        count = self.pages - first if pages is None else pages
        stamp = int(self.bench.world.control[0].stamp)
        entries = np.array([mtt_entry(f, write, stamp) for f in self.frames[first : first + count]], np.int64)
        self.bench.mailbox[: entries.nbytes] = entries.view(np.uint8)
        self.bench.command(Command.UPDATE_MTT, self.index, first, count)

    def zap(self, first: int, pages: int) -> int:
        """Invalidate; the answer is when it completed, ns."""
        self.bench.command(Command.ZAP_MTT, self.index, first, pages)
        return self.bench.world.now

    def fill(self, seed: int) -> bytes:
        """Random contents."""
        data = np.random.default_rng(seed).integers(0, 256, self.pages * 4096, np.uint8).tobytes()
        for i, frame in enumerate(self.frames):
            self.bench.frames.bytes_of(frame)[:] = np.frombuffer(data[i * 4096 : (i + 1) * 4096], np.uint8)
        return data

    @property
    def data(self) -> bytes:
        """What is in memory."""
        return b"".join(self.bench.frames.bytes_of(frame).tobytes() for frame in self.frames)


class Qp:
    """A QP with its rings."""

    def __init__(self, bench: Bench, number: int, cq: Cq, max_sge: int = 4, kind: int = QpType.RC,
                 srq: Srq | None = None, xrcd: int = 0, flags: int = 0) -> None:  # fmt: skip
        self.bench, self.number, self.cq, self.kind = bench, number, cq, kind
        self.send_stride, self.recv_stride = rings.send_stride(max_sge, 256), rings.recv_stride(max_sge)
        self.send, self.recv = Ring(SLOTS * self.send_stride), Ring(SLOTS * self.recv_stride)
        self.record = Ring(16)
        entries = bench.device.allocate_sq_entries(SLOTS)
        bench.command(
            Command.CREATE_QP,
            number,
            kind,
            bench.pd,
            cq.number,
            cq.number,
            xrcd or self.send.address,
            0 if xrcd else SLOTS,
            self.send_stride,
            srq.number if srq else self.recv.address,
            0 if srq or kind in (QpType.XRC_SEND, QpType.XRC_RECV) else SLOTS,
            self.recv_stride,
            self.record.address,
            flags,
            entries,
        )

    def modify(self, mask: int, expect: Status = Status.OK, **fields: int) -> None:
        """MODIFY_QP with the named context fields."""
        words = [0] * len(QpField)
        for name, value in fields.items():
            words[QpField[name]] = value
        self.bench.mailbox[: QP_CONTEXT.size] = np.frombuffer(QP_CONTEXT.pack(*words), np.uint8)
        self.bench.command(Command.MODIFY_QP, self.number, int(mask), expect=expect)

    def connect(self, peer: Qp, **changes: int) -> None:
        """INIT, RTR, RTS."""
        values = (
            dict(
                PATH_MTU=3,
                TIMEOUT=14,
                RETRY_CNT=7,
                RNR_RETRY=7,
                RQ_PSN=peer.psn,
                MAX_RD_ATOMIC=4,
                MIN_RNR_TIMER=1,
                SQ_PSN=self.psn,
                MAX_DEST_RD_ATOMIC=4,
                DEST_QPN=peer.number,
                DEST_NIC=1,
            )
            | changes
        )
        access = values.pop("ACCESS", ALL)
        self.modify(INIT_MASK, STATE=QpState.INIT, ACCESS=access)
        self.modify(RTR_MASK, **values | {"STATE": QpState.RTR})
        self.modify(RTS_MASK, **values | {"STATE": QpState.RTS})

    def ready(self, qkey: int = 0x11) -> None:
        """A UD QP to RTS."""
        mask = QpAttrMask.STATE | QpAttrMask.QKEY
        self.modify(mask, STATE=QpState.INIT, QKEY=qkey)
        self.modify(QpAttrMask.STATE, STATE=QpState.RTR)
        self.modify(QpAttrMask.STATE | QpAttrMask.SQ_PSN, STATE=QpState.RTS, SQ_PSN=self.psn)

    psn = 0xFFFFF0

    def post_recv(self, wr_id: int, *sges: tuple[int, int, int]) -> None:
        """Post a receive WQE."""
        tail = self.record.word(8)
        at = tail % SLOTS * self.recv_stride
        rings.RECV_WQE.pack_into(self.recv.view, at, wr_id, len(sges), 0)
        for i, sge in enumerate(sges):
            SGE.pack_into(self.recv.view, at + 16 + 16 * i, *sge)
        for i in range(len(sges), (self.recv_stride - 16) // 16):
            SGE.pack_into(self.recv.view, at + 16 + 16 * i, 0, 0, 0)
        self.record.word(8, tail + 1)
        self.bench.device.write_doorbell(rings.doorbell_offset(Doorbell.RECV, self.number), 0)

    def post_send(
        self,
        wr_id: int,
        opcode: int,
        *sges: tuple[int, int, int],
        remote: int = 0,
        rkey: int = 0,
        flags: int = SendFlag.SIGNALED,
        imm: int = 0,
        compare: int = 0,
        swap: int = 0,
        inline: bytes | None = None,
        qpn: int = 0,
        qkey: int = 0,
    ) -> None:
        """Post a send WQE and ring the doorbell."""
        tail = self.record.word(0)
        at = tail % SLOTS * self.send_stride
        if inline is not None:
            flags |= SendFlag.INLINE
            self.send.view[at + 64 : at + 64 + len(inline)] = inline
        SEND_WQE.pack_into(
            self.send.view,
            at,
            wr_id,
            opcode,
            flags,
            len(sges),
            imm,
            remote,
            rkey,
            len(inline or b""),
            compare,
            swap,
            qpn,
            qkey,
        )
        for i, sge in enumerate(sges):
            SGE.pack_into(self.send.view, at + 64 + 16 * i, *sge)
        self.record.word(0, tail + 1)
        self.bench.device.write_doorbell(rings.doorbell_offset(Doorbell.SEND, self.number), 0)

    def statuses(self) -> list[tuple[int, int]]:
        """(wr_id, status) of the completions of this QP that are there."""
        return [(cqe["wr_id"], cqe["status"]) for cqe in self.cq.poll()]

    def row(self) -> np.record:
        """The device's row, for looking only."""
        return self.bench.world.qp[int(self.bench.device.row.qp_base) + self.number]


class Srq:
    """A shared receive queue with its ring. XRC: with a domain and a CQ."""

    def __init__(self, bench: Bench, number: int, xrcd: int = 0, cq: Cq | None = None, slots: int = SLOTS) -> None:
        self.bench, self.number, self.slots = bench, number, slots
        self.stride = rings.recv_stride(4)
        self.ring, self.record = Ring(slots * self.stride), Ring(16)
        kind = self._kind(cq)
        bench.command(
            Command.CREATE_SRQ, number, bench.pd, self.ring.address, slots, self.stride, self.record.address, kind,
            xrcd, cq.number if cq else 0,
        )  # fmt: skip

    def _kind(self, cq: Cq | None) -> SrqType:
        return SrqType.XRC if cq else SrqType.BASIC

    def post(self, wr_id: int, *sges: tuple[int, int, int]) -> None:
        """Post a receive WQE."""
        tail = self.record.word(0)
        at = tail % self.slots * self.stride
        rings.RECV_WQE.pack_into(self.ring.view, at, wr_id, len(sges), 0)
        for i, sge in enumerate(sges):
            SGE.pack_into(self.ring.view, at + 16 + 16 * i, *sge)
        self.record.word(0, tail + 1)

    @property
    def free(self) -> int:
        """Slots that the device has given back and that are not posted."""
        return self.slots - (self.record.word(0) - self.record.word(8))


class Cq:
    """A CQ with its ring."""

    def __init__(self, bench: Bench, number: int, slots: int = 256, flags: int = 0) -> None:
        self.bench, self.number, self.slots = bench, number, slots
        self.ring, self.record = Ring(slots * CQE_BYTES), Ring(16)
        bench.command(Command.CREATE_CQ, number, self.ring.address, slots, self.record.address, Eqn.COMPLETION, flags)

    def poll(self) -> list[dict[str, int]]:
        """All completions that are there."""
        found = []
        names = (
            "wr_id",
            "qp_num",
            "src_qp",
            "byte_len",
            "imm",
            "status",
            "opcode",
            "flags",
            "vendor",
            "time",
            "wqe",
            "pkey",
            "rsvd",
            "owner",
        )
        while True:
            head = self.record.word(0)
            values = CQE.unpack_from(self.ring.view, head % self.slots * CQE_BYTES)
            if values[-1] != rings.owner(head, self.slots):
                return found
            found.append(dict(zip(names, values, strict=True)))
            self.record.word(0, head + 1)
