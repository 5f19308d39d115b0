"""Names of device, port and event values."""

from __future__ import annotations

from collections.abc import Mapping

from nicemu.pyverbs._enum import VerbsEnum
from nicemu.pyverbs.libibverbs_enums import (
    ibv_device_cap_flags,
    ibv_event_type,
    ibv_port_cap_flags,
    ibv_port_cap_flags2,
)
from nicemu.pyverbs.utils import be64toh

_NODE_TYPES = {1: "CA", 2: "Switch", 3: "Router", 4: "RNIC", 5: "USNIC", 6: "USNIC UDP"}
_TRANSPORTS = {0: "IB", 1: "IWARP", 2: "USNIC", 3: "USNIC UDP"}
_GID_TYPES = {0: "IB", 1: "RoCEv1", 2: "RoCEv2"}
_LINK_LAYERS = {0: "Unspecified", 1: "InfiniBand", 2: "Ethernet"}
_PORT_STATES = {0: "NOP", 1: "Down", 2: "Init", 3: "Armed", 4: "Active", 5: "Defer"}
_PHYSICAL_STATES = {
    1: "Sleep",
    2: "Polling",
    3: "Disabled",
    4: "Port configuration training",
    5: "Link up",
    6: "Link error recovery",
    7: "Phy test",
}
_MTUS = {1: 256, 2: 512, 3: 1024, 4: 2048, 5: 4096}
_WIDTHS = {1: "1X", 2: "4X", 4: "8X", 8: "12X", 16: "2X"}
_SPEEDS = {0: 0.0, 1: 2.5, 2: 5.0, 4: 5.0, 8: 10.0, 16: 14.0, 32: 25.0, 64: 50.0, 128: 100.0, 256: 200.0}  # Gbps


def _names(flags: type[VerbsEnum]) -> dict[int, str]:
    return {int(flag): flag.name for flag in flags}


_PORT_CAPS = _names(ibv_port_cap_flags)
_PORT_CAPS2 = _names(ibv_port_cap_flags2)
_DEVICE_CAPS = _names(ibv_device_cap_flags)


def str_from_flags(flags: int, dictionary: Mapping[int, str]) -> str:
    """The names of the flags that are set, each on an indented line."""
    return "\n  " + "".join(f"{name}\n  " for flag, name in dictionary.items() if flags & flag)


def translate_port_cap_flags(flags: int) -> str:
    """Names of `ibv_port_cap_flags`, a line each."""
    return str_from_flags(flags, _PORT_CAPS)


def translate_port_cap_flags2(flags: int) -> str:
    """Names of `ibv_port_cap_flags2`, a line each."""
    return str_from_flags(flags, _PORT_CAPS2)


def translate_device_caps(flags: int) -> str:
    """Names of `ibv_device_cap_flags`, a line each."""
    return str_from_flags(flags, _DEVICE_CAPS)


def translate_event_type(event_type: int) -> str:
    """The C name of an `ibv_event_type`."""
    return ibv_event_type(event_type).name or f"Unknown event_type ({event_type})"


def translate_gid_type(gid_type: int) -> str:
    """'IB', 'RoCEv1' or 'RoCEv2'."""
    return _GID_TYPES.get(gid_type, f"Unknown gid_type ({gid_type})")


def translate_transport_type(transport_type: int) -> str:
    """The name of an `ibv_transport_type`."""
    return _TRANSPORTS.get(transport_type, "Unknown")


def translate_node_type(node_type: int) -> str:
    """The name of an `ibv_node_type`."""
    return _NODE_TYPES.get(node_type, "Unknown")


def translate_link_layer(ll: int) -> str:
    """The name of a link layer."""
    return _LINK_LAYERS.get(ll, f"Invalid link layer ({ll})")


def translate_mtu(mtu: int) -> str:
    """Bytes and value of an `ibv_mtu`."""
    return f"{_MTUS[mtu]} ({mtu})" if mtu in _MTUS else f"Invalid MTU ({mtu})"


def port_state_to_str(port_state: int) -> str:
    """Name and value of an `ibv_port_state`."""
    if port_state not in _PORT_STATES:
        return f"Invalid state ({port_state})"
    return f"{_PORT_STATES[port_state]} ({port_state})"


def phys_state_to_str(phys: int) -> str:
    """Name and value of a physical port state."""
    return f"{_PHYSICAL_STATES[phys]} ({phys})" if phys in _PHYSICAL_STATES else "Invalid physical state"


def width_to_str(width: int) -> str:
    """Lanes and value of a link width."""
    return f"{_WIDTHS[width]} ({width})" if width in _WIDTHS else "Invalid width"


def speed_to_str(active_speed: int, active_speed_ex: int = 0) -> str:
    """Gbps per lane and value of a link speed; the extended value, which release 44 does not have, counts if set."""
    speed = active_speed_ex or active_speed
    return f"{_SPEEDS[speed]} Gbps ({speed})" if speed in _SPEEDS else "Invalid speed"


def guid_format(num: int) -> str:
    """A big-endian GUID, as a little-endian host reads it, in 4 groups of 4 hex digits."""
    digits = f"{be64toh(num):016x}"
    return ":".join(digits[i : i + 4] for i in range(0, 16, 4))


def guid_to_hex(node_guid: int) -> str:
    """A GUID in host order as hex digits."""
    return f"{node_guid:x}"
