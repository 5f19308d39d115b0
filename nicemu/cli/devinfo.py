"""`nicemu devinfo`: the emulated devices in the shape of `ibv_devinfo`."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

PHYSICAL_STATES = {1: "SLEEP", 2: "POLLING", 3: "DISABLED", 4: "PORT_CONFIGURATION_TRAINING", 5: "LINK_UP"}
PORT_STATES = {0: "PORT_NOP", 1: "PORT_DOWN", 2: "PORT_INIT", 3: "PORT_ARMED", 4: "PORT_ACTIVE"}
LINK_LAYERS = {0: "Unspecified", 1: "InfiniBand", 2: "Ethernet"}
WIDTHS = {1: "1X", 2: "4X", 4: "8X", 8: "12X", 16: "2X"}
SPEEDS = {1: "2.5 Gbps", 2: "5.0 Gbps", 4: "10.0 Gbps", 8: "10.0 Gbps", 16: "14.0 Gbps", 32: "25.0 Gbps"}
SPEEDS |= {64: "50.0 Gbps", 128: "100.0 Gbps", 256: "200.0 Gbps"}
ATOMICS = {0: "ATOMIC_NONE", 1: "ATOMIC_HCA", 2: "ATOMIC_GLOB"}
TRANSPORTS = {0: "InfiniBand", 1: "iWARP"}
ODP_BITS = ("SEND", "RECV", "WRITE", "READ", "ATOMIC", "SRQ", "FLUSH", "ATOMIC_WRITE")

DEVICE_LIMITS = (
    *("max_sge", "max_sge_rd", "max_cq", "max_cqe", "max_mr", "max_pd"),
    *("max_qp_rd_atom", "max_ee_rd_atom", "max_res_rd_atom", "max_qp_init_rd_atom", "max_ee_init_rd_atom"),
)
MORE_LIMITS = (
    *("max_ee", "max_rdd", "max_mw", "max_mcast_grp", "max_mcast_qp_attach", "max_ah", "max_fmr"),
    *("max_srq", "max_srq_wr", "max_srq_sge", "max_pkeys", "local_ca_ack_delay"),
)
PORT_DETAILS = (
    *("max_vl_num", "bad_pkey_cntr", "qkey_viol_cntr", "sm_sl", "pkey_tbl_len", "gid_tbl_len", "subnet_timeout"),
)


def devinfo(
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Everything the device reports.")] = False,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="A YAML file, or a shipped lab's name.")] = None,
) -> None:
    """Print what ibv_devinfo prints, for the emulated devices."""
    from nicemu.config import load_config
    from nicemu.uverbs import session

    session.configure(load_config(config))

    from nicemu.pyverbs.device import Context, get_device_list

    for device in get_device_list():
        with Context(name=device.name.decode()) as context:
            for line in device_lines(device, context, verbose):
                typer.echo(line)
            if verbose:
                typer.echo(_row(1, "program_memory", session.current().copy_method))
            typer.echo("")


def device_lines(device: Any, context: Any, verbose: bool) -> Iterator[str]:
    """The lines about one device and its ports."""
    from nicemu.pyverbs.device import guid_format

    attributes = context.query_device()
    yield f"hca_id:\t{device.name.decode()}"
    yield _row(1, "transport", f"{TRANSPORTS.get(device.transport_type, 'unknown')} ({device.transport_type})")
    yield _row(1, "fw_ver", _text(attributes.fw_version))
    yield _row(1, "node_guid", guid_format(attributes.node_guid))
    yield _row(1, "sys_image_guid", guid_format(attributes.sys_image_guid))
    yield _row(1, "vendor_id", f"0x{attributes.vendor_id:04x}")
    yield _row(1, "vendor_part_id", attributes.vendor_part_id)
    yield _row(1, "hw_ver", f"0x{attributes.hw_ver:X}")
    yield _row(1, "phys_port_cnt", attributes.phys_port_cnt)
    if verbose:
        yield from _device_details(attributes)
        yield from _odp_lines(context.query_device_ex().odp_caps)
        yield _row(1, "num_comp_vectors", context.num_comp_vectors)
    for port in range(1, attributes.phys_port_cnt + 1):
        yield from _port_lines(context, port, verbose)


def _device_details(attributes: Any) -> Iterator[str]:
    yield _row(1, "max_mr_size", f"0x{attributes.max_mr_size:x}")
    yield _row(1, "page_size_cap", f"0x{attributes.page_size_cap:x}")
    yield _row(1, "max_qp", attributes.max_qp)
    yield _row(1, "max_qp_wr", attributes.max_qp_wr)
    yield _row(1, "device_cap_flags", f"0x{int(attributes.device_cap_flags):08x}")
    for name in DEVICE_LIMITS:
        yield _row(1, name, getattr(attributes, name))
    atomics = int(attributes.atomic_caps)
    yield _row(1, "atomic_cap", f"{ATOMICS.get(atomics, 'unknown')} ({atomics})")
    for name in MORE_LIMITS:
        yield _row(1, name, getattr(attributes, name))


def _odp_lines(capabilities: Any) -> Iterator[str]:
    general = int(capabilities.general_caps)
    yield _row(1, "general_odp_caps", "")
    yield from _bits(general, ("ODP_SUPPORT", "ODP_SUPPORT_IMPLICIT"))
    for transport in ("rc", "uc", "ud", "xrc"):
        value = getattr(capabilities, f"{transport}_odp_caps")
        yield _row(1, f"{transport}_odp_caps", "")
        yield from _bits(int(value), tuple(f"SUPPORT_{bit}" for bit in ODP_BITS))


def _bits(value: int, names: tuple[str, ...]) -> Iterator[str]:
    if value == 0:
        yield "\t" * 5 + "NO SUPPORT"
    for position, name in enumerate(names):
        if value >> position & 1:
            yield "\t" * 5 + name
    if value >> len(names):
        yield "\t" * 5 + f"Unknown flags: 0x{value >> len(names) << len(names):X}"


def _port_lines(context: Any, port: int, verbose: bool) -> Iterator[str]:
    attributes = context.query_port(port)
    yield f"\t\tport:\t{port}"
    yield _row(3, "state", f"{PORT_STATES.get(attributes.state, 'unknown')} ({int(attributes.state)})")
    for name in ("max_mtu", "active_mtu"):
        code = int(getattr(attributes, name))
        yield _row(3, name, f"{128 << code} ({code})")
    yield _row(3, "sm_lid", attributes.sm_lid)
    yield _row(3, "port_lid", attributes.lid)
    yield _row(3, "port_lmc", f"0x{attributes.lmc:02x}")
    yield _row(3, "link_layer", LINK_LAYERS.get(int(attributes.link_layer), "Unknown"))
    if verbose:
        yield from _port_details(context, port, attributes)


def _port_details(context: Any, port: int, attributes: Any) -> Iterator[str]:
    yield _row(3, "max_msg_sz", f"0x{attributes.max_msg_sz:x}")
    yield _row(3, "port_cap_flags", f"0x{int(attributes.port_cap_flags):08x}")
    for name in PORT_DETAILS:
        yield _row(3, name, getattr(attributes, name))
    width, speed = int(attributes.active_width), int(attributes.active_speed)
    yield _row(3, "active_width", f"{WIDTHS.get(width, 'invalid')} ({width})")
    yield _row(3, "active_speed", f"{SPEEDS.get(speed, 'invalid')} ({speed})")
    physical = int(attributes.phys_state)
    yield _row(3, "phys_state", f"{PHYSICAL_STATES.get(physical, 'invalid')} ({physical})")
    for index in range(attributes.gid_tbl_len):
        gid = _text(context.query_gid(port, index))
        if gid.replace("0", "").strip(":"):
            yield f"\t\t\tGID[{index:3d}]:\t\t{gid}, RoCE v2"


def _row(depth: int, name: str, value: object) -> str:
    """`name:` and its value in the columns of ibv_devinfo."""
    label = f"{name}:"
    tabs = "\t" * max(1, 4 - len(label) // 8)
    return ("\t" * depth + label + tabs + str(value)).rstrip()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
