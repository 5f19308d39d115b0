"""`nicemu devinfo`: the emulated devices as `ibv_devinfo` prints them, line by line (rdma-core 59, devinfo.c).

What it prints is data: a table of (label, value) pairs for each section. What `ibv_devinfo` has no line for goes to
stderr, where no parser of its output looks.
"""

import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nicemu.config.errors import ConfigError

TRANSPORTS = {0: "InfiniBand", 1: "iWARP", 2: "usNIC", 3: "usNIC UDP"}
PORT_STATES = {1: "PORT_DOWN", 2: "PORT_INIT", 3: "PORT_ARMED", 4: "PORT_ACTIVE"}
PHYSICAL_STATES = {
    1: "SLEEP", 2: "POLLING", 3: "DISABLED", 4: "PORT_CONFIGURATION TRAINNING", 5: "LINK_UP",
    6: "LINK_ERROR_RECOVERY", 7: "PHY TEST",
}  # fmt: skip
"""With the spelling that programs find there."""
LINK_LAYERS = {0: "InfiniBand", 1: "InfiniBand", 2: "Ethernet"}
MTUS = {1: "256", 2: "512", 3: "1024", 4: "2048", 5: "4096"}
VLS = {1: "1", 2: "2", 3: "4", 4: "8", 5: "15"}
WIDTHS = {1: "1", 2: "4", 4: "8", 8: "12", 16: "2"}
SPEEDS = {
    1: "2.5 Gbps", 2: "5.0 Gbps", 4: "10.0 Gbps", 8: "10.0 Gbps", 16: "14.0 Gbps", 32: "25.0 Gbps", 64: "50.0 Gbps",
    128: "100.0 Gbps", 256: "200.0 Gbps",
}  # fmt: skip
ATOMICS = {0: "ATOMIC_NONE", 1: "ATOMIC_HCA", 2: "ATOMIC_GLOB"}
ROCE_V2 = 2

LIMITS = (
    "max_sge", "max_sge_rd", "max_cq", "max_cqe", "max_mr", "max_pd", "max_qp_rd_atom", "max_ee_rd_atom",
    "max_res_rd_atom", "max_qp_init_rd_atom", "max_ee_init_rd_atom",
)  # fmt: skip
MORE_LIMITS = (
    "max_ee", "max_rdd", "max_mw", "max_raw_ipv6_qp", "max_raw_ethy_qp", "max_mcast_grp", "max_mcast_qp_attach",
    "max_total_mcast_qp_attach", "max_ah", "max_fmr",
)  # fmt: skip
DEVICE_FLAGS = {
    0: "RESIZE_MAX_WR", 1: "BAD_PKEY_CNTR", 2: "BAD_QKEY_CNTR", 3: "RAW_MULTI", 4: "AUTO_PATH_MIG",
    5: "CHANGE_PHY_PORT", 6: "UD_AV_PORT_ENFORCE", 7: "CURR_QP_STATE_MOD", 8: "SHUTDOWN_PORT", 9: "INIT_TYPE",
    10: "PORT_ACTIVE_EVENT", 11: "SYS_IMAGE_GUID", 12: "RC_RNR_NAK_GEN", 13: "SRQ_RESIZE", 14: "N_NOTIFY_CQ",
    17: "MEM_WINDOW", 18: "UD_IP_CSUM", 20: "XRC", 21: "MEM_MGT_EXTENSIONS", 23: "MEM_WINDOW_TYPE_2A",
    24: "MEM_WINDOW_TYPE_2B", 25: "RC_IP_CSUM", 26: "RAW_IP_CSUM", 29: "MANAGED_FLOW_STEERING",
}  # fmt: skip
DEVICE_FLAGS_EX = {34: "RAW_SCATTER_FCS", 36: "PCI_WRITE_END_PADDING"}
ODP_GENERAL = {0: "ODP_SUPPORT", 1: "ODP_SUPPORT_IMPLICIT"}
ODP_OPERATIONS = dict(enumerate(f"SUPPORT_{name}" for name in ("SEND", "RECV", "WRITE", "READ", "ATOMIC", "SRQ")))
QP_TYPES = {8: "SUPPORT_RAW_PACKET", 4: "SUPPORT_UD"}
"""By `ibv_qp_type`, in the order of the output."""
RAW_PACKET = {0: "C-VLAN stripping offload", 1: "Scatter FCS offload", 2: "IP csum offload", 3: "Delay drop"}
TAG_MATCHING = {0: "IBV_TM_CAP_RC"}
Rows = Sequence[tuple[str, object]]


def devinfo(
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Everything the device reports.")] = False,
    name: Annotated[str | None, typer.Option("-d", "--ib-dev", metavar="NAME", help="Only this device.")] = None,
    port: Annotated[int | None, typer.Option("-i", "--ib-port", metavar="PORT", min=1, help="Only this port.")] = None,
    listing: Annotated[bool, typer.Option("-l", "--list", help="Only the names of the devices.")] = False,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="A YAML file, or a shipped lab's name.")] = None,
    sysfs: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write what /sys would say.")] = None,
) -> None:
    """Print what ibv_devinfo prints, for the emulated devices."""
    from nicemu.config import load_config
    from nicemu.uverbs import session

    session.configure(load_config(config))

    from nicemu.pyverbs.device import Context, get_device_list

    devices = [device for device in get_device_list() if name is None or device.name.decode() == name]
    if not devices:
        raise ConfigError(f"IB device '{name}' wasn't found")
    if listing:
        typer.echo(f"{len(devices)} HCA{'s' if len(devices) != 1 else ''} found:")
        for device in devices:
            typer.echo(f"\t{device.name.decode()}")
        typer.echo("")
    for device in devices if not listing else ():
        with Context(name=device.name.decode()) as context:
            for line in device_lines(device, context, verbose, port):
                typer.echo(line)
    if verbose and not listing:
        print(f"nicemu: program memory is reached by {session.current().copy_method}", file=sys.stderr)
    if sysfs is not None:
        from nicemu.lab.sysfs import write_sysfs

        write_sysfs(session.current(), sysfs)


def device_lines(device: Any, context: Any, verbose: bool, only: int | None = None) -> Iterator[str]:
    """The lines about one device and its ports, or only one of them."""
    attributes = context.query_device_ex()
    ports = range(1, attributes.orig_attr.phys_port_cnt + 1)
    if only is not None and only not in ports:
        raise ConfigError("Invalid port requested for device")
    yield f"hca_id:\t{device.name.decode()}"
    yield from _rows(1, 4, _identity(device, attributes.orig_attr))
    if verbose:
        yield from _limits(attributes.orig_attr)
        yield from _odp(attributes.odp_caps)
        yield from _extended(attributes)
        yield from _rows(1, 4, [("num_comp_vectors", context.num_comp_vectors)])
    for port in ports:
        if only in (None, port):
            yield from _port(device, context, port, verbose)
            yield ""


def _identity(device: Any, attributes: Any) -> Rows:
    from nicemu.pyverbs.device import guid_format

    transport = device.transport_type
    firmware = [("fw_ver", attributes.fw_version)] if attributes.fw_version else []
    return [
        ("transport", f"{TRANSPORTS.get(transport, 'invalid transport')} ({transport})"),
        *firmware,
        ("node_guid", guid_format(attributes.node_guid)),
        ("sys_image_guid", guid_format(attributes.sys_image_guid)),
        ("vendor_id", f"0x{attributes.vendor_id:04x}"),
        ("vendor_part_id", attributes.vendor_part_id),
        ("hw_ver", f"0x{attributes.hw_ver:X}"),
        ("phys_port_cnt", attributes.phys_port_cnt),
    ]


def _limits(attributes: Any) -> Iterator[str]:
    """`ibv_device_attr`, by the names of its members: one of them has no attribute in pyverbs."""
    values, flags, atomics = attributes._values, int(attributes.device_cap_flags), int(attributes.atomic_caps)
    yield from _rows(1, 4, [
        ("max_mr_size", f"0x{attributes.max_mr_size:x}"), ("page_size_cap", f"0x{attributes.page_size_cap:x}"),
        ("max_qp", attributes.max_qp), ("max_qp_wr", attributes.max_qp_wr),
        ("device_cap_flags", f"0x{flags & 0xFFFFFFFF:08x}"),
    ])  # fmt: skip
    yield from _flags(flags & 0xFFFFFFFF, DEVICE_FLAGS)
    yield from _rows(1, 4, [(name, values[name]) for name in LIMITS])
    yield from _rows(1, 4, [("atomic_cap", f"{ATOMICS.get(atomics, 'invalid atomic capability')} ({atomics})")])
    yield from _rows(1, 4, [(name, values[name]) for name in MORE_LIMITS])
    names = ["max_map_per_fmr"] if attributes.max_fmr else []
    names += ["max_srq", *(("max_srq_wr", "max_srq_sge") if attributes.max_srq else ())]
    yield from _rows(1, 4, [(name, values[name]) for name in (*names, "max_pkeys", "local_ca_ack_delay")])


def _odp(capabilities: Any) -> Iterator[str]:
    yield "\tgeneral_odp_caps:"
    yield from _flags(int(capabilities.general_caps), ODP_GENERAL)
    for transport in ("rc", "uc", "ud", "xrc"):
        yield f"\t{transport}_odp_caps:"
        caps = int(getattr(capabilities, f"{transport}_odp_caps"))
        yield from _flags(caps, ODP_OPERATIONS) if caps else ["\t\t\t\t\tNO SUPPORT"]


def _extended(attributes: Any) -> Iterator[str]:
    """`ibv_device_attr_ex` beyond on-demand paging."""
    mask, clock = int(attributes.completion_timestamp_mask), int(attributes.hca_core_clock)
    if mask:
        yield from _rows(1, 6, [("completion timestamp_mask", f"0x{mask:016x}")])
    else:
        yield "\tcompletion_timestamp_mask not supported"
    yield from _rows(1, 4, [("hca_core_clock", f"{clock}kHZ")]) if clock else ["\tcore clock not supported"]
    if attributes.raw_packet_caps:
        yield "\traw packet caps:"
        yield from _flags(int(attributes.raw_packet_caps), RAW_PACKET, unknown=False)
    flags = int(attributes.device_cap_flags_ex)
    yield from _rows(1, 4, [("device_cap_flags_ex", f"0x{flags:X}")])
    yield from _flags(flags >> 32 << 32, DEVICE_FLAGS_EX)
    yield from _offloads(attributes)
    yield from _tag_matching(attributes.tm_caps)
    moderation = attributes.cq_mod_caps
    if moderation.max_cq_count and moderation.max_cq_period:
        yield from ("", "\tcq moderation caps:")
        yield from _rows(2, 2, [("max_cq_count", moderation.max_cq_count),
                                ("max_cq_period", f"{moderation.max_cq_period} us")])  # fmt: skip
        yield ""
    if attributes.max_dm_size:
        yield f"\tmaximum available device memory:\t{attributes.max_dm_size}Bytes"
        yield ""


def _offloads(attributes: Any) -> Iterator[str]:
    tso, rss, pacing = attributes.tso_caps, attributes.rss_caps, attributes.packet_pacing_caps
    yield "\ttso_caps:"
    yield from _rows(2, 4, [("max_tso", tso.max_tso)])
    yield from _qp_types(tso.max_tso and tso.supported_qpts)
    yield "\trss_caps:"
    yield from _rows(2, 6, [
        ("max_rwq_indirection_tables", rss.max_rwq_indirection_tables),
        ("max_rwq_indirection_table_size", rss.max_rwq_indirection_table_size),
        ("rx_hash_function", f"0x{rss.rx_hash_function:x}"),
        ("rx_hash_fields_mask", f"0x{rss.rx_hash_fields_mask:X}"),
    ])  # fmt: skip
    yield from _qp_types(rss.supported_qpts)
    yield from _rows(1, 4, [("max_wq_type_rq", attributes.max_wq_type_rq)])
    yield "\tpacket_pacing_caps:"
    yield from _rows(2, 3, [("qp_rate_limit_min", f"{pacing.qp_rate_limit_min}kbps"),
                            ("qp_rate_limit_max", f"{pacing.qp_rate_limit_max}kbps")])  # fmt: skip
    yield from _qp_types(pacing.qp_rate_limit_max and pacing.supported_qpts)


def _tag_matching(capabilities: Any) -> Iterator[str]:
    if not capabilities.max_num_tags:
        yield "\ttag matching not supported"
        return
    names = ("max_rndv_hdr_size", "max_num_tags", "max_ops", "max_sge")
    yield from _rows(1, 4, [(name, getattr(capabilities, name)) for name in names])
    yield "\tflags:"
    yield from _flags(int(capabilities.flags), TAG_MATCHING, unknown=False)


def _port(device: Any, context: Any, port: int, verbose: bool) -> Iterator[str]:
    attributes = context.query_port(port)
    yield f"\t\tport:\t{port}"
    yield from _rows(3, 3, [
        ("state", _named(PORT_STATES, attributes.state, "invalid state")),
        ("max_mtu", _named(MTUS, attributes.max_mtu, "invalid MTU")),
        ("active_mtu", _named(MTUS, attributes.active_mtu, "invalid MTU")),
        ("sm_lid", attributes.sm_lid), ("port_lid", attributes.lid), ("port_lmc", f"0x{attributes.lmc:02x}"),
        ("link_layer", LINK_LAYERS.get(int(attributes.link_layer), "Unknown")),
    ])  # fmt: skip
    if verbose:
        yield from _port_details(device, attributes)
        for entry in context.query_gid_table(attributes.gid_tbl_len):
            if entry.port_num == port:
                yield from _gid(entry, int(attributes.link_layer))


def _port_details(device: Any, port: Any) -> Iterator[str]:
    width = _named(WIDTHS, port.active_width, "invalid width").replace(" (", "X (")
    yield from _rows(3, 3, [
        ("max_msg_sz", f"0x{port.max_msg_sz:x}"), ("port_cap_flags", f"0x{port.port_cap_flags:08x}"),
        ("port_cap_flags2", f"0x{port.port_cap_flags2:04x}"),
        ("max_vl_num", _named(VLS, port.max_vl_num, "invalid value")),
        ("bad_pkey_cntr", f"0x{port.bad_pkey_cntr:x}"), ("qkey_viol_cntr", f"0x{port.qkey_viol_cntr:x}"),
        ("sm_sl", port.sm_sl), ("pkey_tbl_len", port.pkey_tbl_len), ("gid_tbl_len", port.gid_tbl_len),
        ("subnet_timeout", port.subnet_timeout), ("init_type_reply", port.init_type_reply),
        ("active_width", width),
        ("active_speed", _named(SPEEDS, port.active_speed_ex or port.active_speed, "invalid speed")),
    ])  # fmt: skip
    if device.transport_type == 0:
        yield from _rows(3, 3, [("phys_state", _named(PHYSICAL_STATES, port.phys_state, "invalid physical state"))])


def _gid(entry: Any, link_layer: int) -> Iterator[str]:
    """A GID, unless its interface identifier is 0: RoCE v2 as an IPv6 address, the others in full."""
    raw = bytes.fromhex(entry.gid_str().replace(":", ""))
    if not any(raw[8:]):
        return
    text = socket.inet_ntop(socket.AF_INET6, raw) if entry.gid_type == ROCE_V2 else entry.gid_str()
    kind = f", RoCE v{2 if entry.gid_type == ROCE_V2 else 1}" if LINK_LAYERS.get(link_layer) == "Ethernet" else ""
    yield f"\t\t\tGID[{entry.gid_index:3d}]:\t\t{text}{kind}"


def _named(names: dict[int, str], value: int, otherwise: str) -> str:
    return f"{names.get(int(value), otherwise)} ({int(value)})"


def _flags(value: int, names: dict[int, str], unknown: bool = True) -> Iterator[str]:
    """A line for each bit that is set, by the bits' names; one more for those that have none."""
    for position, name in names.items():
        if value >> position & 1:
            yield "\t" * 5 + name
            value &= ~(1 << position)
    if value and unknown:
        yield "\t" * 5 + f"Unknown flags: 0x{value:X}"


def _qp_types(supported: int) -> Iterator[str]:
    if supported:
        yield "\t\tsupported_qp:"
        yield from _flags(int(supported), QP_TYPES)


def _rows(depth: int, columns: int, rows: Rows) -> Iterator[str]:
    """Labels and values; the values start `columns` tab stops after the labels do, or as soon as they can."""
    for name, value in rows:
        yield "\t" * depth + f"{name}:" + "\t" * max(1, columns - len(name + ":") // 8) + str(value)
