"""Flow specifications as C has them (``verbs.h``): what a program hands to the kernel, one struct behind the other.

A spec is ``type`` and ``size`` in host order, then a filter of values and a filter of masks, both in network order.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

ETH, IPV4, IPV6, IPV4_EXT, TCP, UDP, INNER = 0x20, 0x30, 0x31, 0x32, 0x40, 0x41, 0x100
"""``ibv_flow_spec_type``: those that a device of ours has; INNER is a flag."""
OTHERS = (0x34, 0x50, 0x51, 0x60, 0x1000, 0x1001, 0x1002, 0x1003)
"""ESP, VXLAN, GRE, MPLS, and actions: tag, drop, handle, count."""
HEAD = struct.Struct("<IH")
"""``type``, ``size``."""


class Layout(NamedTuple):
    """Bytes of a spec, where its values start, and the format of a filter."""

    size: int
    at: int
    filter: struct.Struct


LAYOUTS = {
    ETH: Layout(40, 6, struct.Struct(">6s6sHH")),  # dst_mac, src_mac, ether_type, vlan_tag
    IPV4: Layout(24, 8, struct.Struct(">II")),  # src_ip, dst_ip
    IPV4_EXT: Layout(32, 8, struct.Struct(">IIBBBB")),  # src_ip, dst_ip, proto, tos, ttl, flags
    IPV6: Layout(88, 8, struct.Struct(">16s16sIBBBx")),  # src_ip, dst_ip, flow_label, next_hdr, tclass, hop_limit
    TCP: Layout(16, 6, struct.Struct(">HH")),  # dst_port, src_port
    UDP: Layout(16, 6, struct.Struct(">HH")),
}


def emit(kind: int, values: tuple[int | bytes, ...], masks: tuple[int | bytes, ...]) -> bytes:
    """The bytes of a spec; ``kind`` may have INNER set."""
    size, at, form = LAYOUTS[kind & ~INNER]
    return (HEAD.pack(kind, size).ljust(at, b"\0") + form.pack(*values) + form.pack(*masks)).ljust(size, b"\0")
