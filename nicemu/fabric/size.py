"""The one answer to "how long is this packet", for ports, links and queues."""

from nicemu._jit import jit
from nicemu.tables.rows import av, packet
from nicemu.wire.size import FRAMING, ip_bytes


@jit
def is_ipv6(high, low):
    """A destination GID that is no IPv4-mapped address; no GID at all counts as IPv4."""
    return (high != 0 or low != 0) and (high != 0 or low >> 32 != 0xFFFF)


@jit
def ip_packet_bytes(world, p):
    """Bytes of the IP packet: what a link's MTU limits."""
    row = packet(world, p)
    six = av(world, row.av).ipv6 != 0 if row.av != 0 else is_ipv6(row.dgid_high, row.dgid_low)
    return ip_bytes(row.transport, row.opcode, row.payload, six)


@jit
def wire_bytes(world, p):
    """Bytes of the wire's time: preamble, Ethernet, IP packet, FCS and gap."""
    return ip_packet_bytes(world, p) + FRAMING
