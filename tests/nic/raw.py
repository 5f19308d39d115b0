"""Raw Ethernet on the bench: frames from fields, raw packet QPs, flow rules."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import numpy as np

from nicemu.abi.command import WORK_QUEUE, Command, FlowType, QpFlag, Status
from nicemu.abi.verbs import QpAttrMask, QpState, QpType, WrOpcode
from nicemu.tables.raw_records import MatchField
from tests.nic.objects import SLOTS, Cq, Mr, Qp
from tests.nic.testbench import Bench

F = MatchField
DST, SRC = 0x015056_1920A7, 0x248A07_A528C8
TCP, UDP = 6, 17
EXACT = (1 << 63) - 1


def ethernet(payload: bytes, ether_type: int = 0x88B5, dst: int = DST, src: int = SRC, tags: tuple = ()) -> bytes:
    """A frame. ``tags``: (TPID, tag) from the outermost on."""
    head = dst.to_bytes(6, "big") + src.to_bytes(6, "big")
    return head + b"".join(struct.pack(">HH", *tag) for tag in tags) + ether_type.to_bytes(2, "big") + payload


def checksum(data: bytes) -> int:
    """Ones' complement of the sum of 16-bit words."""
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv4(payload: bytes, proto: int = UDP, src: str = "1.1.1.1", dst: str = "2.2.2.2", **fields: int) -> bytes:
    """An IPv4 packet; ``tos, ttl, flags, offset, ident, ihl, total, right``."""
    f = {"tos": 0, "ttl": 64, "flags": 2, "offset": 0, "ident": 0, "ihl": 5, "right": 0} | fields
    options = bytes(4 * (f["ihl"] - 5)) if f["ihl"] > 5 else b""
    total = fields.get("total", 20 + len(options) + len(payload))
    addresses = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed
    fragment = f["flags"] << 13 | f["offset"]
    head = struct.pack(">BBHHHBBH", 0x40 | f["ihl"], f["tos"], total, f["ident"], fragment, f["ttl"], proto, 0)
    if f["right"]:
        head = head[:10] + checksum(head + addresses + options).to_bytes(2, "big")
    return head + addresses + options + payload


def ipv6(payload: bytes, proto: int = UDP, src: str = "a0a1::a2", dst: str = "b0b1::b2", **fields: int) -> bytes:
    """An IPv6 packet; ``tos, ttl, label, length``."""
    first = 6 << 28 | fields.get("tos", 0) << 20 | fields.get("label", 0)
    head = struct.pack(">IHBB", first, fields.get("length", len(payload)), proto, fields.get("ttl", 64))
    return head + ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + payload


def udp(data: bytes = b"data", src: int = 1234, dst: int = 5678) -> bytes:
    """A UDP datagram without checksum."""
    return struct.pack(">HHHH", src, dst, 8 + len(data), 0) + data


def tcp(data: bytes = b"data", src: int = 1234, dst: int = 5678, seq: int = 1, flags: int = 0x18) -> bytes:
    """A TCP segment without checksum."""
    return struct.pack(">HHIIBBHHH", src, dst, seq, 0, 5 << 4, flags, 65535, 0, 0) + data


def frame4(**fields: Any) -> bytes:
    """Ethernet, IPv4, UDP."""
    return ethernet(ipv4(udp(), **fields), 0x0800)


class RawQp(Qp):
    """A raw packet QP in RTS."""

    def __init__(self, bench: Bench, number: int, cq: Cq, flags: int = 0) -> None:
        self.flags = flags
        super().__init__(bench, number, cq, 4, QpType.RAW_PACKET)
        self.to_rts()

    def to_rts(self) -> None:
        """RESET to RTS."""
        self.modify(QpAttrMask.STATE | QpAttrMask.PORT, STATE=QpState.INIT, PORT=1)
        for state in (QpState.RTR, QpState.RTS):
            self.modify(QpAttrMask.STATE, STATE=state)


class Wq(Qp):
    """A work queue, ready."""

    def __init__(self, bench: Bench, number: int, cq: Cq) -> None:
        super().__init__(bench, number, cq, 4, WORK_QUEUE)
        self.modify(QpAttrMask.STATE, STATE=QpState.RTR)


class Raw:
    """A sender and a receiver on one NIC; ``source`` holds what is sent, ``target`` what is received."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.a, self.b = RawQp(bench, 2, Cq(bench, 1)), RawQp(bench, 3, Cq(bench, 2))
        self.source, self.target = bench.mr(4), bench.mr(16)
        self.flows = 0

    def flow(self, qp: Qp | None = None, kind: int = FlowType.NORMAL, priority: int = 0, dont_trap: int = 0,
             match: dict[MatchField, tuple[int, int]] | None = None, expect: Status = Status.OK) -> int:  # fmt: skip
        """A rule; gives its number. ``match``: (value, mask) by field."""
        self.flows += 1
        pairs = [(match or {}).get(field, (0, 0)) for field in F]
        words = struct.pack("<34q", *(value & mask for value, mask in pairs), *(mask for _, mask in pairs))
        self.bench.mailbox[: len(words)] = np.frombuffer(words, np.uint8)
        number = (qp or self.b).number
        self.bench.command(Command.CREATE_FLOW, self.flows, number, kind, priority, dont_trap, expect=expect)
        return self.flows

    def put(self, data: bytes, region: Mr | None = None) -> None:
        """Bytes into the source region."""
        for at in range(0, len(data), 4096):
            part = data[at : at + 4096]
            page = self.bench.frames.bytes_of((region or self.source).frames[at // 4096])
            page[: len(part)] = np.frombuffer(part, np.uint8)

    def send(self, data: bytes, wr_id: int = 1, **options: Any) -> None:
        """Send a frame and run."""
        self.put(data)
        self.a.post_send(wr_id, options.pop("opcode", WrOpcode.SEND), self.source.sge(len(data)), **options)
        self.bench.run()

    def receive(self, wr_id: int, qp: Qp | None = None, length: int = 2048) -> None:
        """Post a receive WQE of ``length`` bytes; the n-th of them lies at page n of the target."""
        (qp or self.b).post_recv(wr_id, self.target.sge(length, 4096 * (wr_id % 16)))

    def got(self, qp: Qp | None = None) -> list[tuple[int, bytes]]:
        """(wr_id, bytes) of the frames that were received since the last call; all must be good."""
        found = []
        for cqe in (qp or self.b).cq.poll():
            assert cqe["status"] == 0, cqe
            at = 4096 * (cqe["wr_id"] % 16)
            found.append((cqe["wr_id"], self.target.data[at : at + cqe["byte_len"]]))
        return found

    def arrives(self, data: bytes) -> bool:
        """Send a frame; the receiver gets it."""
        self.receive(5)
        self.send(data)
        self.a.cq.poll()
        padded = data.ljust(60, b"\0")
        got = self.got()
        assert got in ([], [(5, padded)]), got
        if not got:
            self.b.record.word(8, self.b.record.word(8) - 1)  # take the receive back
        return bool(got)


__all__ = ["DST", "SLOTS", "SRC", "F", "QpFlag", "Raw", "RawQp", "Wq"]
