"""What the tests of the backup ring share: a NIC with the image, UD and UC ends, a driver that serves faults."""

from __future__ import annotations

from functools import cache

from nicemu.abi.verbs import QpType
from nicemu.config import NicProfile
from nicemu.config.nic_profile import BackupRingProfile
from nicemu.config.paths import shipped
from nicemu.nic import firmware
from tests.nic.testbench import Bench, Cq, Mr, Qp, Srq, WrOpcode, default_image, pair

QKEY = 0x11
IPV4_GID = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1))
GRH = 40


@cache
def image() -> firmware.Image:
    """The firmware under test."""
    return firmware.load(shipped("firmware") / "backup_ring.py", default_image())


def ring_bench(**size: int) -> Bench:
    """A NIC with the image, and a ring of the given size."""
    return Bench(NicProfile(backup_ring=BackupRingProfile(**size)), firmware_image=image())


def cold(bench: Bench, pages: int = 4) -> Mr:
    """A region that the NIC has no translation of."""
    region = bench.mr(pages, mapped=False)
    region.fill(9)
    return region


def ring(bench: Bench) -> dict[str, int]:
    """The ring's counters; what went in is delivered, discarded or in it."""
    row = bench.device.row
    names = ("packets", "delivered", "discards", "drops")
    found = {name: int(row[f"backup_ring_{name}"]) for name in names}
    assert found["packets"] == found["delivered"] + found["discards"] + row.backup_packets
    assert (row.backup_used == 0) == (row.backup_packets == 0)
    return found


def in_ring(bench: Bench) -> int:
    """Packets that wait."""
    return int(bench.device.row.backup_packets)


def serve(bench: Bench, *regions: Mr, limit: int = 200) -> int:
    """Play the driver: map the page that each fault names and resume, until nothing more happens; the faults."""
    served = 0
    for _ in range(limit):
        found = bench.faults()
        while not found and bench.engine_step():
            found = bench.faults()
        if not found:
            return served
        for fault in found:
            region = next(r for r in regions if r.va <= fault["va"] < r.va + r.pages * 4096)
            region.map((fault["va"] - region.va) // 4096, 1)
            bench.resume(fault["token"])
            served += 1
    raise AssertionError("faults without end")


class Ud:
    """UD QPs of one NIC: ``a`` sends from ``local``; ``b`` receives into ``warm`` (mapped) or ``cold`` (not)."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.a, self.b = (self.qp(number) for number in (2, 3))
        self.local, self.warm, self.cold = bench.mr(4), bench.mr(4), cold(bench)
        self.local.fill(1)
        self.ah = bench.ah(1, IPV4_GID)

    def qp(self, number: int, srq: Srq | None = None) -> Qp:
        """One more UD QP in RTS."""
        qp = Qp(self.bench, number, Cq(self.bench, number), kind=QpType.UD, srq=srq)
        qp.ready(QKEY)
        return qp

    def send(self, wr_id: int, length: int = 64, offset: int = 0, qpn: int = 3, **options: int) -> None:
        """A datagram of ``local[offset:][:length]``."""
        ah, opcode = options.pop("ah", self.ah), options.pop("opcode", WrOpcode.SEND)
        self.a.post_send(wr_id, opcode, self.local.sge(length, offset), rkey=ah, qpn=qpn, qkey=QKEY, **options)


class Uc:
    """Two connected UC QPs: ``a`` sends from ``local`` to ``b``, whose ``cold`` region is not mapped."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.a, self.b = pair(bench, kind=QpType.UC)
        self.local, self.warm, self.cold = bench.mr(4), bench.mr(4), cold(bench)
        self.local.fill(1)

    def send(self, wr_id: int, length: int, offset: int = 0) -> None:
        """A SEND of ``local[offset:][:length]``."""
        self.a.post_send(wr_id, WrOpcode.SEND, self.local.sge(length, offset))

    def write(self, wr_id: int, length: int, target: Mr, at: int = 0, opcode: int = WrOpcode.RDMA_WRITE,
              imm: int = 0) -> None:  # fmt: skip
        """A WRITE of ``local[:length]`` to ``target[at:]``."""
        self.a.post_send(wr_id, opcode, self.local.sge(length), remote=target.va + at, rkey=target.key, imm=imm)


def free_packets(bench: Bench) -> int:
    """Packets of the pool that are in use."""
    control = bench.world.control[0]
    p, free = int(control.packet_free), 0
    while p:
        p, free = int(bench.world.packet[p].next), free + 1
    return int(control.packet_next) - 1 - free
