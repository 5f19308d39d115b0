"""Flow specifications: the C structs of ``verbs.h`` that a program gives, as values and masks of the device.

The bytes are the program's: every length is checked before it is believed. A spec of a layer also says that the frame
has this layer. Left out (EOPNOTSUPP): inner specs, ESP, tunnels, GRE, MPLS, actions.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from nicemu.abi.flow import ETH, HEAD, INNER, IPV4, IPV4_EXT, IPV6, LAYOUTS, OTHERS, TCP, UDP
from nicemu.driver.errors import DriverError
from nicemu.tables.raw_records import VLAN_PRESENT, MatchField

F = MatchField
Match = dict[MatchField, tuple[int, int]]
"""Field -> (value, mask)."""

LAYERS = {ETH: 2, IPV4: 3, IPV4_EXT: 3, IPV6: 3, TCP: 4, UDP: 4}
FIELDS: dict[int, tuple[MatchField, ...]] = {
    ETH: (F.DST_MAC, F.SRC_MAC, F.ETHER_TYPE, F.VLAN),
    IPV4: (F.SRC_LOW, F.DST_LOW),
    IPV4_EXT: (F.SRC_LOW, F.DST_LOW, F.PROTO, F.TOS, F.TTL, F.IP_FLAGS),
    IPV6: (F.SRC_HIGH, F.SRC_LOW, F.DST_HIGH, F.DST_LOW, F.FLOW_LABEL, F.PROTO, F.TOS, F.TTL),
    TCP: (F.DST_PORT, F.SRC_PORT),
    UDP: (F.DST_PORT, F.SRC_PORT),
}
IMPLIED: dict[int, tuple[MatchField, int, int]] = {
    IPV4: (F.L3, 4, 0xF), IPV4_EXT: (F.L3, 4, 0xF), IPV6: (F.L3, 6, 0xF), TCP: (F.L4, 6, 0xFF), UDP: (F.L4, 17, 0xFF),
}  # fmt: skip
ETHER_TYPES = {4: 0x0800, 6: 0x86DD}


def refuse(what: str) -> DriverError:
    """EINVAL."""
    return DriverError(errno.EINVAL, f"flow: {what}")


def split(data: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each of ``count`` specs that stand one behind the other."""
    at = 0
    for _ in range(count):
        if at + HEAD.size > len(data):
            raise refuse(f"{count} specs, but bytes for fewer")
        kind, size = HEAD.unpack_from(data, at)
        if kind & INNER or kind in OTHERS:
            raise DriverError(errno.EOPNOTSUPP, f"flow: specs of type {kind:#x} are not supported")
        if kind not in LAYOUTS:
            raise refuse(f"no spec of type {kind:#x}")
        if size != LAYOUTS[kind].size or at + size > len(data):
            raise refuse(f"a spec of type {kind:#x} has {LAYOUTS[kind].size} bytes, not {size}")
        yield kind, data[at : at + size]
        at += size


def parse(data: bytes, count: int) -> Match:
    """What ``count`` specs in ``data`` ask for. EINVAL: two of one layer, or layers that contradict each other."""
    match: Match = {}
    layers: set[int] = set()
    for kind, spec in split(data, count):
        if LAYERS[kind] in layers:
            raise refuse(f"two specs of layer {LAYERS[kind]}")
        layers.add(LAYERS[kind])
        _, at, form = LAYOUTS[kind]
        values, masks = (_numbers(form.unpack_from(spec, at + n * form.size)) for n in range(2))
        match.update(zip(FIELDS[kind], zip(values, masks, strict=True), strict=True))
        if kind in IMPLIED:
            name, *said = IMPLIED[kind]
            match[name] = said[0], said[1]
    if match.get(F.VLAN, (0, 0))[1]:
        value, mask = match[F.VLAN]
        match[F.VLAN] = value | VLAN_PRESENT, mask | VLAN_PRESENT
    _check_layers(match)
    return match


def _numbers(values: tuple[int | bytes, ...]) -> list[int]:
    """A filter's members as numbers: MAC addresses whole, IPv6 addresses in two halves as the device has them."""
    found: list[int] = []
    for value in values:
        if not isinstance(value, bytes):
            found.append(value)
        elif len(value) == 6:
            found.append(int.from_bytes(value, "big"))
        else:
            found += (int.from_bytes(half, "big", signed=True) for half in (value[:8], value[8:]))
    return found


def _check_layers(match: Match) -> None:
    """``is_valid_attr`` of mlx5: an EtherType and an IP spec that cannot both be."""
    version = match.get(F.L3, (0, 0))[0]
    value, mask = match.get(F.ETHER_TYPE, (0, 0))
    if version and (value ^ ETHER_TYPES[version]) & mask:
        raise refuse(f"EtherType {value:#06x} and an IPv{version} spec")


def words(match: Match) -> bytes:
    """Values, then masks, as the device's mailbox has them."""
    pairs = [match.get(name, (0, 0)) for name in F]
    count = len(pairs)
    return struct.pack(f"<{2 * count}q", *(value & mask for value, mask in pairs), *(mask for _, mask in pairs))
