"""What lies on a fuzz bench: QPs of every type in every state, regions of every sort, shared queues, an honest pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nicemu.abi import rings
from nicemu.abi.command import ADDRESS_VECTOR, QP_CONTEXT, AvField, Command, MkeyFlag, QpField
from nicemu.abi.rings import RECV_WQE, SEND_WQE, SGE
from nicemu.abi.verbs import Access, QpAttrMask, QpState, QpType, SrqType, WrOpcode
from nicemu.lab.fuzz.bench import Bench
from nicemu.lab.fuzz.memory import PAGE, Region
from nicemu.lab.fuzz.tables import Kind

OWN_PD, FOREIGN_PD, SHUT_PD, HEALTHY_PD = 1, 2, 3, 9
SLOTS, SRQ_SLOTS, SGES = 16, 64, 8
QKEY, XRCD, GROUP = 0x11, 5, (-0x00FFFFFFFFFFFFFF, 7)
EVERY_RIGHT = (
    Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC | Access.MW_BIND
    | Access.FLUSH_GLOBAL | Access.FLUSH_PERSISTENT
)  # fmt: skip
TYPES = {
    Kind.RC: QpType.RC, Kind.RC_SRQ: QpType.RC, Kind.UC: QpType.UC, Kind.UC_SRQ: QpType.UC, Kind.UD: QpType.UD,
    Kind.UD_SRQ: QpType.UD, Kind.XRC_INI: QpType.XRC_SEND, Kind.XRC_TGT: QpType.XRC_RECV,
}  # fmt: skip
WITH_SRQ = (Kind.RC_SRQ, Kind.UC_SRQ, Kind.UD_SRQ)
DATAGRAM = (Kind.UD, Kind.UD_SRQ)
CONNECTED_MASK = (
    QpAttrMask.ACCESS_FLAGS | QpAttrMask.AV | QpAttrMask.PATH_MTU | QpAttrMask.TIMEOUT | QpAttrMask.RETRY_CNT
    | QpAttrMask.RNR_RETRY | QpAttrMask.RQ_PSN | QpAttrMask.MAX_QP_RD_ATOMIC | QpAttrMask.MIN_RNR_TIMER
    | QpAttrMask.SQ_PSN | QpAttrMask.MAX_DEST_RD_ATOMIC | QpAttrMask.DEST_QPN
)  # fmt: skip
DATAGRAM_MASK = QpAttrMask.ACCESS_FLAGS | QpAttrMask.QKEY | QpAttrMask.SQ_PSN
DATA_AT, DATA_BYTES = 64, 2944
"""Of each page of the local region, what SGEs name."""


@dataclass(frozen=True)
class Plan:
    """A target to be."""

    kind: Kind
    state: QpState
    mtu: int = 3
    pd: int = OWN_PD
    access: int = int(EVERY_RIGHT)
    reads: int = 4


def live_plans() -> Iterator[Plan]:
    """Targets that can take packets: every type, RTR, RTS with three PMTUs, SQD."""
    for kind in Kind:
        yield Plan(kind, QpState.RTR)
        yield Plan(kind, QpState.RTS, 1)
        yield Plan(kind, QpState.RTS, 3, reads=1)
        yield Plan(kind, QpState.RTS, 5)
        yield Plan(kind, QpState.SQD)
    for kind in (Kind.RC, Kind.UC):
        yield Plan(kind, QpState.RTS, pd=SHUT_PD, access=0)


def dead_plans() -> Iterator[Plan]:
    """Targets that hear nothing, or only some things."""
    for kind in Kind:
        for state in (QpState.RESET, QpState.INIT, QpState.ERR):
            yield Plan(kind, state)
    for kind in (Kind.UC, Kind.UC_SRQ, Kind.UD, Kind.UD_SRQ):
        yield Plan(kind, QpState.SQE)


def regions(bench: Bench, nic: int) -> dict[str, Region]:
    """A region of every sort on a NIC, by name."""
    every, made = int(EVERY_RIGHT), {}
    sorts = (
        # name, base va or offset in its page, bytes, pages, rights, PD, how mapped
        ("open", 0, 8 * PAGE, 8, every, OWN_PD, "all"),
        ("cold", 0, 8 * PAGE, 8, every, OWN_PD, "even"),
        ("read", 0, 2 * PAGE, 2, int(Access.REMOTE_READ), OWN_PD, "all"),
        ("foreign", 0, 2 * PAGE, 2, every, FOREIGN_PD, "all"),
        ("odd", 1000, 6000, 2, every, OWN_PD, "all"),
        ("protected", 0, 2 * PAGE, 2, every, OWN_PD, "read"),
        ("stale", 0, 2 * PAGE, 2, every, OWN_PD, "all"),
        ("local", 0, 8 * PAGE, 8, int(Access.LOCAL_WRITE), OWN_PD, "all"),
        ("empty", 0, 0, 1, every, OWN_PD, "none"),
        ("top", (1 << 63) - 2 * PAGE, 2 * PAGE, 2, every, OWN_PD, "all"),
        ("negative", -2 * PAGE, 2 * PAGE, 2, every, OWN_PD, "all"),
        ("shut", 0, 2 * PAGE, 2, every, SHUT_PD, "all"),
    )
    for index, (name, base, length, pages, access, pd, mapped) in enumerate(sorts, 1):
        va = base if abs(base) > PAGE else (nic << 32 | index << 24) + base
        region = Region(nic, index, va, length, access, pd, bench.ram.allocate(pages), name=name)
        region.valid, region.cold = name != "stale", name == "cold"
        made[name] = bench.region(region, mapped)
    for index, flag in ((20, MkeyFlag.MW_TYPE_1), (21, MkeyFlag.MW_TYPE_2), (22, MkeyFlag.MW_TYPE_2)):
        window = Region(nic, index, made["open"].va, 0, 0, OWN_PD, np.empty(0, np.int64), name=flag.name or "")
        made[f"window{index}"] = bench.region(window, "none", int(flag))
    return made


def allow_remote(bench: Bench, made: dict[str, Region]) -> None:
    """Bytes that a peer or a posted receive may change."""
    for name in ("open", "cold", "odd", "top", "negative"):
        r = made[name]
        bench.ram.allow(r.frames, r.va & PAGE - 1, r.length)
    for i in range(made["local"].pages):
        bench.ram.allow(made["local"].frames[i : i + 1], DATA_AT, DATA_BYTES)


def allow_local(bench: Bench, made: dict[str, Region]) -> None:
    """Bytes that the program itself may change by work requests."""
    allow_remote(bench, made)
    for name in ("local", "shut"):
        bench.ram.allow(made[name].frames, 0, made[name].length)


def local_sge(made: dict[str, Region], i: int, length: int = DATA_BYTES) -> bytes:
    """An element in page ``i`` of the local region."""
    local = made["local"]
    return SGE.pack((local.va + i % 8 * PAGE + DATA_AT) % 2**64, length, local.key)


def receive(made: dict[str, Region], i: int) -> bytes:
    """A receive WQE: long, short, with faults, wrong."""
    if i % 16 == 3:
        return RECV_WQE.pack(i, 1, 0) + SGE.pack(made["local"].va, 4096, made["local"].key + 1)
    if i % 16 == 7:
        return RECV_WQE.pack(i, 1000, 0)
    if i % 16 == 11:
        return RECV_WQE.pack(i, 0, 0)
    if i % 16 == 10:
        return RECV_WQE.pack(i, 1, 0) + local_sge(made, i, 700)
    if i % 8 == 5:
        return RECV_WQE.pack(i, 1, 0) + SGE.pack(made["cold"].va, 8 * PAGE, made["cold"].key)
    return RECV_WQE.pack(i, 5, 0) + b"".join(local_sge(made, i + j, 0 if j == 2 else DATA_BYTES) for j in range(5))


def send(made: dict[str, Region], kind: Kind, i: int, mtu: int) -> bytes:
    """A send WQE: every operation in turn."""
    size = 128 << mtu
    operations = (
        WrOpcode.RDMA_READ, WrOpcode.ATOMIC_CMP_AND_SWP, WrOpcode.RDMA_WRITE, WrOpcode.SEND, WrOpcode.FLUSH,
        WrOpcode.ATOMIC_WRITE, WrOpcode.RDMA_READ, WrOpcode.ATOMIC_FETCH_AND_ADD, WrOpcode.SEND_WITH_INV,
        WrOpcode.RDMA_WRITE_WITH_IMM, WrOpcode.SEND_WITH_IMM, WrOpcode.RDMA_READ, WrOpcode.SEND, WrOpcode.RDMA_READ,
        WrOpcode.ATOMIC_WRITE, WrOpcode.RDMA_WRITE,
    )  # fmt: skip
    simple = (WrOpcode.SEND, WrOpcode.SEND_WITH_IMM)
    unreliable = (*simple, WrOpcode.RDMA_WRITE, WrOpcode.RDMA_WRITE_WITH_IMM)
    opcode = operations[i % 16]
    if kind in DATAGRAM:
        opcode = simple[i % 2]
    elif kind in (Kind.UC, Kind.UC_SRQ):
        opcode = unreliable[i % 4]
    eight = opcode in (WrOpcode.ATOMIC_CMP_AND_SWP, WrOpcode.ATOMIC_FETCH_AND_ADD, WrOpcode.ATOMIC_WRITE)
    length = 8 if eight else min(size * (1 + i % 3) - i % 2 * 57, 2 * DATA_BYTES)
    if kind in DATAGRAM:
        length = min(length, DATA_BYTES)
    sges = [min(length, DATA_BYTES), length - min(length, DATA_BYTES)]
    rkey = 1 if kind in DATAGRAM else made["open"].key
    qpn = 2 if kind == Kind.XRC_INI else 200
    head = SEND_WQE.pack(
        i, opcode, 2, 2, i, made["open"].va % 2**64, rkey, 0, 0x101, 4096, qpn, QKEY
    )  # fmt: skip
    return head + b"".join(local_sge(made, i + j, size) for j, size in enumerate(sges))


class Targets:
    """QPs, SRQs and address handles of a NIC, as rows of the fuzz tables."""

    def __init__(self, bench: Bench, nic: int, made: dict[str, Region]) -> None:
        self.bench, self.nic, self.made = bench, nic, made
        self.next = 2
        bench.cq(nic, 250, 4096)
        for number, kind, xrcd in ((1, SrqType.BASIC, 0), (2, SrqType.XRC, XRCD), (3, SrqType.XRC, XRCD + 1)):
            self._srq(number, kind, xrcd)
        for number, dest in ((1, 3 - nic), (2, 3), (3, nic), (4, 0)):
            words = [0] * len(AvField)
            words[AvField.DEST_NIC], words[AvField.DGID_LOW], words[AvField.HOP_LIMIT] = dest, number, 64
            bench.command(nic, Command.CREATE_AH, number, OWN_PD, mailbox=ADDRESS_VECTOR.pack(*words))
        words = [0] * len(AvField)
        words[AvField.DEST_NIC], words[AvField.MULTICAST] = 3 - nic, 1
        words[AvField.DGID_HIGH], words[AvField.DGID_LOW] = GROUP
        bench.command(nic, Command.CREATE_AH, 5, OWN_PD, mailbox=ADDRESS_VECTOR.pack(*words))

    def _srq(self, number: int, kind: SrqType, xrcd: int) -> None:
        bench, stride = self.bench, rings.recv_stride(SGES)
        ring, record = bench.rings.take(SRQ_SLOTS * stride), bench.rings.take(16)
        for i in range(SRQ_SLOTS):
            bench.rings.write(ring + i * stride, receive(self.made, i))
        bench.command(
            self.nic, Command.CREATE_SRQ, number, OWN_PD, bench.address(ring), SRQ_SLOTS, stride,
            bench.address(record), kind, xrcd, 250 if xrcd else 0,
        )  # fmt: skip
        fuzz = bench.tables.fuzz[0]
        row = bench.tables.shared[int(fuzz.srqs)]
        fuzz.srqs += 1
        row.row, row.nic, row.number = int(bench.devices[self.nic - 1].row.srq_base) + number, self.nic, number
        row.ring, row.slots, row.stride, row.record = bench.address(ring), SRQ_SLOTS, stride, bench.address(record)
        row.xrc = int(xrcd != 0)

    def add(self, plan: Plan, dest_nic: int, dest_qpn: int) -> int:
        """Create a target; its row in the fuzz tables."""
        bench, number, kind = self.bench, self.next, plan.kind
        self.next += 1
        bench.cq(self.nic, number)
        sends, receives = 0 if kind == Kind.XRC_TGT else SLOTS, 0
        if kind in (Kind.RC, Kind.UC, Kind.UD):
            receives = SLOTS
        send_stride, recv_stride = rings.send_stride(SGES, 256), rings.recv_stride(SGES)
        send_ring, recv_ring = bench.rings.take(SLOTS * send_stride), bench.rings.take(SLOTS * recv_stride)
        record, mailbox = bench.rings.take(16), bench.rings.take(QP_CONTEXT.size)
        for i in range(SLOTS):
            bench.rings.write(send_ring + i * send_stride, send(self.made, kind, i + number, plan.mtu))
            bench.rings.write(recv_ring + i * recv_stride, receive(self.made, i))
        device = bench.devices[self.nic - 1]
        second = bench.address(recv_ring) if receives else int(kind in WITH_SRQ)
        bench.command(
            self.nic, Command.CREATE_QP, number, TYPES[kind], plan.pd, number, number,
            bench.address(send_ring) if sends else XRCD, sends, send_stride, second, receives, recv_stride,
            bench.address(record), 0, device.allocate_sq_entries(SLOTS),
        )  # fmt: skip
        bench.rings.write(mailbox, self._context(plan, number, dest_nic, dest_qpn))
        if kind in DATAGRAM:
            bench.command(self.nic, Command.ATTACH_MCAST, number, *GROUP)
        fuzz = bench.tables.fuzz[0]
        index = int(fuzz.targets)
        fuzz.targets += 1
        row = bench.tables.target[index]
        row.qp, row.nic, row.number, row.kind = int(device.row.qp_base) + number, self.nic, number, kind
        row.state, row.mailbox = plan.state, bench.address(mailbox)
        row.mask = int(DATAGRAM_MASK if kind in DATAGRAM else CONNECTED_MASK)
        row.record, row.send_ring, row.recv_ring = (bench.address(at) for at in (record, send_ring, recv_ring))
        row.send_stride, row.recv_stride, row.send_slots, row.recv_slots = send_stride, recv_stride, sends, receives
        row.posts = SLOTS // 2 if sends else 0
        return index

    def _context(self, plan: Plan, number: int, dest_nic: int, dest_qpn: int) -> bytes:
        words = [0] * len(QpField)
        values = dict(
            ACCESS=plan.access, QKEY=QKEY, PATH_MTU=plan.mtu, TIMEOUT=6, RETRY_CNT=3, RNR_RETRY=3,
            RQ_PSN=0xFFFFF0 if number % 2 else 0, MAX_RD_ATOMIC=4, MIN_RNR_TIMER=1,
            SQ_PSN=0xFFFFF0 if number % 2 else 0, MAX_DEST_RD_ATOMIC=plan.reads, DEST_QPN=dest_qpn, DEST_NIC=dest_nic,
        )  # fmt: skip
        for name, value in values.items():
            words[QpField[name]] = int(value)
        return QP_CONTEXT.pack(*words)


class Honest:
    """Two connected RC QPs on NICs 1 and 2 that nobody attacks."""

    qpn = 240

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        mine, theirs = (self._region(nic, pages) for nic, pages in ((1, 2), (2, 3)))
        for region in (mine, theirs):
            bench.ram.allow(region.frames, 0, region.length)
        ends = [self._qp(nic) for nic in (1, 2)]
        self._fill(ends, mine, theirs)
        row = bench.tables.healthy[0]
        row.qp = int(bench.devices[0].row.qp_base) + self.qpn
        row.record, row.peer_record = (bench.address(end["record"]) for end in ends)
        row.cq, row.peer_cq = (int(d.row.cq_base) + self.qpn for d in bench.devices[:2])
        row.source, row.drop = (bench.ram.page(int(f)) for f in mine.frames)
        row.peer_source, row.peer_written, row.peer_received = (bench.ram.page(int(f)) for f in theirs.frames)

    def _region(self, nic: int, pages: int) -> Region:
        region = Region(
            nic, 40, nic << 32, pages * PAGE, int(EVERY_RIGHT), HEALTHY_PD, self.bench.ram.allocate(pages),
            name="honest",
        )  # fmt: skip
        return self.bench.region(region)

    def _qp(self, nic: int) -> dict[str, int]:
        bench = self.bench
        send_stride, recv_stride = rings.send_stride(1, 0), rings.recv_stride(1)
        end = {"send": bench.rings.take(4 * send_stride), "recv": bench.rings.take(4 * recv_stride)}
        end["record"] = bench.rings.take(16)
        bench.cq(nic, self.qpn, 16, watched=False)
        bench.command(
            nic, Command.CREATE_QP, self.qpn, QpType.RC, HEALTHY_PD, self.qpn, self.qpn, bench.address(end["send"]), 4,
            send_stride, bench.address(end["recv"]), 4, recv_stride, bench.address(end["record"]), 0,
            bench.devices[nic - 1].allocate_sq_entries(4),
        )  # fmt: skip
        words = [0] * len(QpField)
        values = dict(
            ACCESS=int(EVERY_RIGHT), PATH_MTU=3, TIMEOUT=14, RETRY_CNT=7, RNR_RETRY=7, RQ_PSN=100, MAX_RD_ATOMIC=4,
            MIN_RNR_TIMER=1, SQ_PSN=100, MAX_DEST_RD_ATOMIC=4, DEST_QPN=self.qpn, DEST_NIC=3 - nic,
        )  # fmt: skip
        for name, value in values.items():
            words[QpField[name]] = value
        for state in (QpState.INIT, QpState.RTR, QpState.RTS):
            words[QpField.STATE] = state
            mask = QpAttrMask.STATE | (CONNECTED_MASK if state == QpState.INIT else 0)
            bench.command(nic, Command.MODIFY_QP, self.qpn, mask, mailbox=QP_CONTEXT.pack(*words))
        return end

    def _fill(self, ends: list[dict[str, int]], mine: Region, theirs: Region) -> None:
        """The round: WRITE to their page 1, READ of their page 0 into page 1, SEND, WRITE of nothing."""
        bench, stride = self.bench, rings.send_stride(1, 0)
        round_ = (
            (WrOpcode.RDMA_WRITE, 0, PAGE, 1), (WrOpcode.RDMA_READ, 1, PAGE, 0), (WrOpcode.SEND, 0, PAGE, 0),
            (WrOpcode.RDMA_WRITE, 0, 0, 0),
        )  # fmt: skip
        for i, (opcode, page, length, remote) in enumerate(round_):
            va = theirs.va + remote * PAGE
            wqe = SEND_WQE.pack(i, opcode, 2, 1, 0, va, theirs.key, 0, 0, 0, 0, 0)
            bench.rings.write(ends[0]["send"] + i * stride, wqe + SGE.pack(mine.va + page * PAGE, length, mine.key))
        sge = SGE.pack(theirs.va + 2 * PAGE, PAGE, theirs.key)
        for i in range(4):
            bench.rings.write(ends[1]["recv"] + i * rings.recv_stride(1), RECV_WQE.pack(i, 1, 0) + sge)
