"""A RoCEv2 frame as a value: ``parse(frame)`` and ``.emit()`` lose nothing, ``build`` fills in what follows.

Parsing checks the shape only (lengths, versions, an opcode that exists); whether checksum and ICRC are right is asked
of the value, since a wrong one is a packet to count, not bytes to refuse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nicemu.wire.bth import Bth
from nicemu.wire.header import Header, WireError
from nicemu.wire.icrc import ICRC_BYTES, icrc
from nicemu.wire.ip import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_VLAN,
    PROTOCOL_UDP,
    ROCE_PORT,
    Ethernet,
    Ipv4,
    Ipv6,
    Udp,
    Vlan,
    ipv4_checksum,
)
from nicemu.wire.opcode import CARRIES, CNP_BYTES, CNP_OPCODE, name_of
from nicemu.wire.xth import XTH


@dataclass(frozen=True, slots=True)
class RoceFrame:
    """An Ethernet frame with a RoCEv2 packet. ``extended``: headers between BTH and payload, in order.

    ``pad`` are the BTH's pad bytes, ``icrc`` the four bytes behind them as a number, ``trailer`` what fills the frame
    up to Ethernet's minimum.
    """

    ethernet: Ethernet
    vlan: Vlan | None
    ip: Ipv4 | Ipv6
    udp: Udp
    bth: Bth
    extended: tuple[Header, ...]
    payload: bytes
    pad: bytes
    icrc: int
    trailer: bytes = b""

    def emit(self) -> bytes:
        """The bytes, exactly as the fields say.

        :raises WireError: a value does not fit its field.
        """
        outer: tuple[Header | None, ...] = (self.ethernet, self.vlan, self.ip, self.udp, self.bth)
        headers = b"".join(part.emit() for part in outer if part is not None)
        return headers + self._rest() + self.icrc.to_bytes(ICRC_BYTES, "little") + self.trailer

    def _rest(self) -> bytes:
        return b"".join(part.emit() for part in self.extended) + self.payload + self.pad

    @property
    def computed_icrc(self) -> int:
        """The ICRC that the packet should have."""
        return icrc((self.ip, self.udp, self.bth), self._rest())

    @property
    def is_icrc_right(self) -> bool:
        """Nothing that the ICRC covers was changed on the way."""
        return self.icrc == self.computed_icrc

    @property
    def is_checksum_right(self) -> bool:
        """The IPv4 header checksum; IPv6 has none."""
        return not isinstance(self.ip, Ipv4) or self.ip.checksum == ipv4_checksum(self.ip.emit())

    def text(self) -> str:
        """One line: who to whom, operation, every header, size and ICRC."""
        ends = {f.name: f.text(getattr(self.ip, f.name)).partition("=")[2] for f in self.ip.FIELDS}
        vlan = [self.vlan.text()] if self.vlan else []
        crc = f"icrc={self.icrc:#010x}" + ("" if self.is_icrc_right else f" expected={self.computed_icrc:#010x}")
        parts = [f"{ends['source']} > {ends['dest']} {name_of(self.bth.opcode)}", *vlan, self.bth.text(),
                 *(part.text() for part in self.extended), f"payload={len(self.payload)} {crc}"]  # fmt: skip
        return " | ".join(parts)


def parse(data: bytes) -> RoceFrame:
    """The frame in ``data`` (Ethernet header first, no FCS).

    :raises WireError: it is no RoCEv2 packet that this model knows; one line says which field is why.
    """
    ethernet = Ethernet.parse(data)
    at, ethertype, vlan = Ethernet.SIZE, ethernet.ethertype, None
    if ethertype == ETHERTYPE_VLAN:
        vlan = Vlan.parse(data, at)
        at, ethertype = at + Vlan.SIZE, vlan.ethertype
    ip = _parse_ip(data, at, ethertype)
    at += ip.SIZE
    udp = Udp.parse(data, at)
    end = at + (ip.total_length - ip.SIZE if isinstance(ip, Ipv4) else ip.payload_length)
    _expect("UDP.dest_port", ROCE_PORT, udp.dest_port)
    _expect("UDP.length", end - at, udp.length)
    if end > len(data):
        raise WireError(f"{ip.NAME}: expected {end - at} bytes behind the header, given {len(data) - at}")
    bth, extended, payload, pad = _parse_packet(data[at + Udp.SIZE : end])
    return RoceFrame(ethernet, vlan, ip, udp, bth, extended, payload, pad,
                     int.from_bytes(data[end - ICRC_BYTES : end], "little"), data[end:])  # fmt: skip


def _expect(field: str, expected: int, given: int) -> None:
    if given != expected:
        raise WireError(f"{field}: expected {expected}, given {given}")


def _parse_ip(data: bytes, at: int, ethertype: int) -> Ipv4 | Ipv6:
    if ethertype == ETHERTYPE_IPV4:
        ip4 = Ipv4.parse(data, at)
        _expect("IPV4.version", 4, ip4.version)
        _expect("IPV4.ihl", 5, ip4.ihl)
        _expect("IPV4.protocol", PROTOCOL_UDP, ip4.protocol)
        _expect("IPV4.more_fragments", 0, ip4.more_fragments)
        _expect("IPV4.fragment_offset", 0, ip4.fragment_offset)
        return ip4
    if ethertype == ETHERTYPE_IPV6:
        ip6 = Ipv6.parse(data, at)
        _expect("IPV6.version", 6, ip6.version)
        _expect("IPV6.next_header", PROTOCOL_UDP, ip6.next_header)
        return ip6
    raise WireError(f"ETHERNET.ethertype: expected 0x0800 or 0x86dd, given {ethertype:#06x}")


def _parse_packet(data: bytes) -> tuple[Bth, tuple[Header, ...], bytes, bytes]:
    """What UDP carries: (BTH, extended headers, payload, pad bytes) in front of the ICRC."""
    bth = Bth.parse(data)
    if bth.opcode not in CARRIES:
        raise WireError(f"BTH.opcode: expected a defined opcode, given {bth.opcode:#04x}")
    _expect("BTH.version", 0, bth.version)
    at, extended = Bth.SIZE, []
    for name in CARRIES[bth.opcode]:
        extended.append(XTH[name].parse(data, at))
        at += extended[-1].SIZE
    size = len(data) - at - ICRC_BYTES
    if size < bth.pad or size % 4:
        raise WireError(f"payload and pad: expected {bth.pad} bytes or more, a multiple of 4, given {size}")
    end = at + size - bth.pad
    if bth.opcode == CNP_OPCODE:
        _expect("CNP payload", CNP_BYTES, end - at)
    return bth, tuple(extended), data[at:end], data[end : at + size]


@dataclass(frozen=True, slots=True)
class Path:
    """How the packets of one flow are addressed. Addresses and MACs are numbers; ``version`` is IP's."""

    source_mac: int
    dest_mac: int
    source: int
    dest: int
    version: int = 4
    flow_label: int = 0
    traffic_class: int = 0
    hop_limit: int = 64
    source_port: int = 0xC000
    vlan: Vlan | None = None


def build(path: Path, bth: Bth, extended: tuple[Header, ...] = (), payload: bytes = b"") -> RoceFrame:
    """A frame with pad, lengths, IPv4 checksum and ICRC filled in.

    :raises WireError: the packet does not fit an IP packet.
    """
    pad = bytes(-len(payload) % 4)
    bth = replace(bth, pad=len(pad))
    length = Udp.SIZE + Bth.SIZE + sum(part.SIZE for part in extended) + len(payload) + len(pad) + ICRC_BYTES
    ip = _build_ip(path, length)
    ethertype = ETHERTYPE_IPV4 if path.version == 4 else ETHERTYPE_IPV6
    vlan = replace(path.vlan, ethertype=ethertype) if path.vlan else None
    ethernet = Ethernet(path.dest_mac, path.source_mac, ETHERTYPE_VLAN if vlan else ethertype)
    frame = RoceFrame(ethernet, vlan, ip, Udp(path.source_port, length=length), bth, extended, payload, pad, 0)
    return replace(frame, icrc=frame.computed_icrc)


def _build_ip(path: Path, length: int) -> Ipv4 | Ipv6:
    if path.version == 4:
        ip = Ipv4(tos=path.traffic_class, total_length=Ipv4.SIZE + length, ttl=path.hop_limit, source=path.source,
                  dest=path.dest)  # fmt: skip
        return replace(ip, checksum=ipv4_checksum(ip.emit()))
    return Ipv6(traffic_class=path.traffic_class, flow_label=path.flow_label, payload_length=length,
                hop_limit=path.hop_limit, source=path.source, dest=path.dest)  # fmt: skip
