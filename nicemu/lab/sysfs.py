"""The emulated devices as ``/sys`` shows RDMA devices, below a folder of the user's (``--sysfs DIR``).

Names, layout and formats are those of Linux: ``drivers/infiniband/core/sysfs.c`` (ports, GIDs, counters),
``uverbs_main.c`` (``class/infiniband_verbs``), and what network devices have in ``class/net``. As in ``/sys``, the
entries of ``class`` are links into ``devices``. Plain files do not change by themselves: they hold what was so when
:func:`write_sysfs` last ran.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicemu.config.errors import ConfigError
from nicemu.driver import attributes
from nicemu.driver.ah import PORTS

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.lab.lab import Lab

PORT_STATES = ("NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER")
PHYSICAL_STATES = {
    1: "Sleep", 2: "Polling", 3: "Disabled", 4: "PortConfigurationTraining", 5: "LinkUp", 6: "LinkErrorRecovery",
    7: "Phy Test",
}  # fmt: skip
WIDTHS = {1: 1, 2: 4, 4: 8, 8: 12, 16: 2}
SPEEDS = {
    1: (25, ""), 2: (50, " DDR"), 4: (100, " QDR"), 8: (100, " FDR10"), 16: (140, " FDR"), 32: (250, " EDR"),
    64: (500, " HDR"), 128: (1000, " NDR"), 256: (2000, " XDR"),
}  # fmt: skip
"""By ``ib_port_speed``: tenths of Gb/s a lane, name."""
GID_TYPES = {0: "IB/RoCE v1", 1: "IB/RoCE v1", 2: "RoCE v2"}
UVERBS_ABI, DRIVER_ABI, UVERBS_MAJOR, UVERBS_MINOR = 6, 1, 231, 192
LIFESPAN_MS = 10
"""How long Linux keeps hardware counters before it asks the device again."""
HW_COUNTERS = {
    "out_of_sequence": "out_of_sequence", "duplicate_request": "duplicates", "local_ack_timeout_err": "timeouts",
    "np_cnp_sent": "cnps_sent", "rp_cnp_handled": "cnps_received", "np_ecn_marked_roce_packets": "ecn_marked_packets",
    "rx_icrc_encapsulated": "icrc_errors",
}  # fmt: skip
"""mlx5's name of a counter, and ours."""
NO_SUCH_ERRORS = (
    "symbol_error", "link_error_recovery", "link_downed", "port_rcv_remote_physical_errors",
    "port_rcv_switch_relay_errors", "port_xmit_constraint_errors", "port_rcv_constraint_errors",
    "local_link_integrity_errors", "excessive_buffer_overrun_errors", "VL15_dropped", "port_xmit_wait",
    "multicast_xmit_packets", "multicast_rcv_packets",
)  # fmt: skip
Tree = Mapping[str, "str | Tree"]


def write_sysfs(lab: Lab, folder: Path) -> None:
    """Write the tree, or bring it up to now.

    :raises ConfigError: ``folder`` holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted({entry.name for entry in folder.iterdir()} - {"class", "devices"})
        if foreign:
            raise ConfigError(f"{folder}: expected an empty folder or an earlier tree, given one with {foreign[0]!r}")
        for device in lab.driver.devices:
            _write_tree(folder / _place(device), _pci_device(lab, device))
            for link, target in _links(device):
                _link(folder / link, target)
        _write_tree(folder / "class/infiniband_verbs", {"abi_version": f"{UVERBS_ABI}"})
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: cannot write the sysfs tree: {error.strerror}") from error


def netdev_name(device: IbDevice) -> str:
    """The network device under an RDMA device."""
    return f"{device.name}_eth"


def _place(device: IbDevice) -> str:
    """Where the device lies, as if on PCI: bus 1, a slot each."""
    return f"devices/pci0000:00/0000:01:{device.index:02x}.0"


def _links(device: IbDevice) -> Iterator[tuple[str, str]]:
    """(path, what it leads to) of the symbolic links."""
    place, uverbs, netdev = _place(device), f"uverbs{device.index}", netdev_name(device)
    for kind, name in (("infiniband", device.name), ("infiniband_verbs", uverbs), ("net", netdev)):
        yield f"class/{kind}/{name}", f"../../{place}/{kind}/{name}"
        yield f"{place}/{kind}/{name}/device", "../.."


def _pci_device(lab: Lab, device: IbDevice) -> Tree:
    values = attributes.device_attributes(device)
    return {
        "vendor": f"0x{values['vendor_id']:04x}",
        "device": f"0x{values['vendor_part_id']:04x}",
        "numa_node": "0",
        "infiniband": {device.name: _rdma_device(lab, device, values)},
        "infiniband_verbs": {f"uverbs{device.index}": _uverbs(device)},
        "net": {netdev_name(device): _netdev(device)},
    }


def _rdma_device(lab: Lab, device: IbDevice, values: dict[str, Any]) -> Tree:
    return {
        "node_type": "1: CA",
        "node_guid": _guid(int(values["node_guid"])),
        "sys_image_guid": _guid(int(values["sys_image_guid"])),
        "node_desc": f"{device.name} (emulated)",
        "fw_ver": str(values["fw_ver"]),
        "hca_type": f"MT{values['vendor_part_id']}" if values["vendor_id"] == 0x02C9 else "nicemu",
        "hw_rev": f"0x{values['hw_ver']:x}",
        "board_id": "NICEMU0000000",
        "ports": {str(port): _port(lab, device, port) for port in range(1, PORTS + 1)},
    }


def _uverbs(device: IbDevice) -> Tree:
    number = f"{UVERBS_MAJOR}:{UVERBS_MINOR + device.index}"
    return {"ibdev": device.name, "abi_version": f"{DRIVER_ABI}", "dev": number}


def _port(lab: Lab, device: IbDevice, port: int) -> Tree:
    values = attributes.port_attributes(device, port)
    state, physical = values["state"], values["phys_state"]
    gids = [attributes.gid(device, port, index) for index in range(values["gid_tbl_len"])]
    used = {str(index): entry for index, entry in enumerate(gids) if entry is not None}
    return {
        "state": f"{state}: {PORT_STATES[state]}",
        "phys_state": f"{physical}: {PHYSICAL_STATES.get(physical, '<unknown>')}",
        "rate": _rate(values["active_width"], values["active_speed"]),
        "lid": f"0x{values['lid']:x}",
        "lid_mask_count": f"{values['lmc']}",
        "sm_lid": f"0x{values['sm_lid']:x}",
        "sm_sl": f"{values['sm_sl']}",
        "cap_mask": f"0x{values['port_cap_flags']:08x}",
        "link_layer": "Ethernet",
        "gids": {str(index): _gid(entry[0] if entry else bytes(16)) for index, entry in enumerate(gids)},
        "gid_attrs": {
            "types": {index: GID_TYPES[entry[1]] for index, entry in used.items()},
            "ndevs": dict.fromkeys(used, netdev_name(device)),
        },
        "pkeys": {str(i): f"0x{attributes.pkey(device, port, i):04x}" for i in range(values["pkey_tbl_len"])},
        "counters": _counters(lab, device),
        "hw_counters": _hw_counters(device),
    }


def _counters(lab: Lab, device: IbDevice) -> Tree:
    """``PortCounters`` and their extension; data count in units of four bytes (IBA 16.1.3.5)."""
    nic = device.device.counters()
    out, back = (int(lab.world.link[2 * device.index + way].bytes) for way in (1, 2))
    values = dict.fromkeys(NO_SUCH_ERRORS, 0) | {
        "port_xmit_data": out // 4, "port_rcv_data": back // 4,
        "port_xmit_packets": nic["packets_sent"], "port_rcv_packets": nic["packets_received"],
        "unicast_xmit_packets": nic["packets_sent"], "unicast_rcv_packets": nic["packets_received"],
        "port_rcv_errors": nic["malformed"] + nic["icrc_errors"], "port_xmit_discards": nic["port_down_drops"],
    }  # fmt: skip
    return {name: str(value) for name, value in values.items()}


def _hw_counters(device: IbDevice) -> Tree:
    """Every counter of the NIC, those that mlx5 has under its names."""
    nic = device.device.counters()
    renamed = {ours: theirs for theirs, ours in HW_COUNTERS.items()}
    return {"lifespan": f"{LIFESPAN_MS}"} | {renamed.get(name, name): str(value) for name, value in nic.items()}


def _netdev(device: IbDevice) -> Tree:
    """The Ethernet side: MAC address from the GUID (modified EUI-64), speed in Mb/s."""
    eui = device.device.guid.to_bytes(8, "big")
    mac = bytes((eui[0] ^ 2, *eui[1:3], *eui[5:]))
    up = device.device.port_active
    return {
        "address": mac.hex(":"), "addr_len": "6", "type": "1", "dev_port": "0", "dev_id": "0x0",
        "ifindex": f"{IFINDEX}", "flags": "0x1003" if up else "0x1002", "mtu": f"{device.profile.max_mtu + 104}",
        "operstate": "up" if up else "down", "carrier": "1" if up else "0",
        "speed": f"{round(device.profile.link.rate_gbps * 1000)}", "duplex": "full",
    }  # fmt: skip


IFINDEX = 1
"""What ``ibv_gid_entry.ndev_ifindex`` says too."""


def _guid(value: int) -> str:
    digits = f"{value:016x}"
    return ":".join(digits[i : i + 4] for i in range(0, 16, 4))


def _gid(raw: bytes) -> str:
    digits = raw.hex()
    return ":".join(digits[i : i + 4] for i in range(0, 32, 4))


def _rate(width: int, speed: int) -> str:
    """``rate_show``: tenths of Gb/s become "", or ".5"."""
    tenths, name = SPEEDS.get(speed, SPEEDS[1])
    lanes = WIDTHS.get(width, 1)
    whole, part = divmod(tenths * lanes, 10)
    return f"{whole}{'.5' if part else ''} Gb/sec ({lanes}X{name})"


def _write_tree(folder: Path, tree: Tree) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = folder / name
        if isinstance(content, str):
            path.write_text(f"{content}\n", encoding="ascii")
        else:
            _write_tree(path, content)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        os.symlink(target, path)
