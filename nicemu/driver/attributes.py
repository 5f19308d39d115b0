"""What a device and its port report (``mlx5_ib_query_device``, ``..._port``): by the names of ``ibv_device_attr``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from nicemu.abi.verbs import QpType, RxHash
from nicemu.driver import cq, rss
from nicemu.driver.ah import PKEYS, PORTS
from nicemu.driver.errors import DriverError

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice

FROM_PROFILE = (
    "vendor_id", "vendor_part_id", "hw_ver", "fw_ver", "max_qp", "max_qp_wr", "max_sge", "max_sge_rd", "max_cq",
    "max_cqe", "max_mr", "max_mr_size", "page_size_cap", "max_pd", "max_ah", "max_mw", "max_srq", "max_srq_wr",
    "max_srq_sge", "max_mcast_grp", "max_mcast_qp_attach", "max_total_mcast_qp_attach", "max_qp_rd_atom",
    "max_qp_init_rd_atom", "max_res_rd_atom", "max_pkeys", "local_ca_ack_delay", "max_dm_size",
)  # fmt: skip
ABSENT = (
    "max_ee_rd_atom", "max_ee_init_rd_atom", "max_ee", "max_rdd", "max_raw_ipv6_qp", "max_raw_ethy_qp", "max_fmr",
    "max_map_per_fmr",
)  # fmt: skip
BAD_PKEY_CNTR, BAD_QKEY_CNTR, UD_AV_PORT_ENFORCE = 1 << 1, 1 << 2, 1 << 6
NAMED = {"AUTO_PATH_MIG": 1 << 4, "CHANGE_PHY_PORT": 1 << 5, "CURR_QP_STATE_MOD": 1 << 7}
"""Flags by their names in a profile's ``device_cap_flags``."""
PORT_ACTIVE_EVENT, SYS_IMAGE_GUID, RC_RNR_NAK_GEN, SRQ_RESIZE = (1 << bit for bit in range(10, 14))
MEM_WINDOW, XRC, MEM_MGT_EXTENSIONS, MEM_WINDOW_TYPE_2B = 1 << 17, 1 << 20, 1 << 21, 1 << 24
ALWAYS = (
    BAD_PKEY_CNTR | BAD_QKEY_CNTR | UD_AV_PORT_ENFORCE | PORT_ACTIVE_EVENT | SYS_IMAGE_GUID | RC_RNR_NAK_GEN
    | MEM_MGT_EXTENSIONS
)  # fmt: skip
FLUSH_GLOBAL, FLUSH_PERSISTENT, ATOMIC_WRITE = 1 << 38, 1 << 39, 1 << 40
"""``ib_device_cap_flags``: of ``device_cap_flags_ex`` only, above 32 bits."""
RAW_IP_CSUM, MANAGED_FLOW_STEERING, RAW_SCATTER_FCS, PCI_WRITE_END_PADDING = 1 << 26, 1 << 29, 1 << 34, 1 << 36
CAP_CVLAN_STRIPPING, CAP_SCATTER_FCS, CAP_IP_CSUM = 1, 2, 4
"""``ibv_raw_packet_caps``."""
RAW_QPT, LOW_32 = 1 << QpType.RAW_PACKET, (1 << 32) - 1
ATOMIC_HCA, TM_CAP_RC = 1, 1
ODP_SUPPORT, ODP_SUPPORT_IMPLICIT = 1, 2
ODP_OPERATIONS = {"send": 1, "recv": 2, "write": 4, "read": 8, "atomic": 16, "srq_recv": 32, "flush": 64,
                  "atomic_write": 128}  # fmt: skip
"""``ibv_odp_transport_cap_bits`` by their names in a profile; the last two have none in older headers."""
ODP_SRQ_RECV = ODP_OPERATIONS["srq_recv"]

PORT_DOWN, PORT_ACTIVE, DISABLED, LINK_UP, ETHERNET = 1, 4, 3, 5, 2
CORE_CLOCK_KHZ = 1_000_000
"""The clock that completions are stamped with ticks once per virtual nanosecond, in 64 bits."""
TIMESTAMP_MASK = (1 << 64) - 1
MTU_ENUM = {256: 1, 512: 2, 1024: 3, 2048: 4, 4096: 5}
SPEEDS = ((400, 2, 128), (200, 2, 64), (100, 2, 32), (56, 2, 16), (40, 2, 4), (25, 1, 32), (10, 1, 4), (0, 1, 1))
"""(at least Gb/s, active_width, active_speed), fastest first: 4X NDR, HDR, EDR, FDR, QDR; 1X EDR, QDR, SDR."""
PKEY_DEFAULT = 0xFFFF


def device_attributes(device: IbDevice) -> dict[str, int | str]:
    """``ibv_device_attr``, and ``num_comp_vectors`` of the context."""
    profile = device.profile
    values: dict[str, int | str] = {name: getattr(profile, name) for name in FROM_PROFILE}
    values |= dict.fromkeys(ABSENT, 0)
    flags = ALWAYS | sum(NAMED[name] for name in profile.device_cap_flags)
    flags |= (SRQ_RESIZE if profile.max_srq else 0) | (XRC if profile.max_xrcd else 0)
    flags |= MEM_WINDOW | MEM_WINDOW_TYPE_2B if profile.max_mw else 0
    raw_flags, raw_values = raw_packet_caps(profile.raw_packet)
    flags |= raw_flags & LOW_32
    values |= raw_values | {
        "node_guid": device.device.guid, "sys_image_guid": device.device.guid, "phys_port_cnt": PORTS,
        "atomic_cap": ATOMIC_HCA,
        "device_cap_flags": flags,
        "device_cap_flags_ex": flags | raw_flags | FLUSH_GLOBAL | FLUSH_PERSISTENT | ATOMIC_WRITE,
        "num_comp_vectors": profile.num_comp_vectors,
        **tag_matching_caps(device),
    }  # fmt: skip
    lacks = profile.software.lacks
    if "wc_extensions" not in lacks:
        values |= {"completion_timestamp_mask": TIMESTAMP_MASK, "hca_core_clock": CORE_CLOCK_KHZ}
    if "modify_cq" not in lacks:
        values |= {"max_cq_count": cq.MAX_MODERATION_COUNT, "max_cq_period": cq.MAX_MODERATION_US}
    return values


def raw_packet_caps(raw: Any) -> tuple[int, dict[str, int | str]]:
    """Capability flags, and what ``ibv_query_device_ex`` says of raw packets; nested members have their struct's name
    in front. Nothing for a device without."""
    if raw is None:
        return 0, {}
    flags = MANAGED_FLOW_STEERING if raw.max_flows else 0
    flags |= RAW_IP_CSUM if raw.ip_csum else 0
    flags |= RAW_SCATTER_FCS if raw.scatter_fcs else 0
    flags |= PCI_WRITE_END_PADDING if raw.end_padding else 0
    caps = CAP_CVLAN_STRIPPING if raw.cvlan_stripping else 0
    caps |= (CAP_SCATTER_FCS if raw.scatter_fcs else 0) | (CAP_IP_CSUM if raw.ip_csum else 0)
    values: dict[str, int | str] = {"raw_packet_caps": caps, "max_wq_type_rq": raw.max_wq_type_rq}
    if raw.max_tso:
        values |= {"tso_caps.max_tso": raw.max_tso, "tso_caps.supported_qpts": RAW_QPT}
    if raw.max_wq_type_rq and raw.max_rwq_indirection_tables:
        values |= {
            "rss_caps.supported_qpts": RAW_QPT, "rss_caps.rx_hash_function": rss.TOEPLITZ,
            "rss_caps.rx_hash_fields_mask": int(sum(RxHash)),
            "rss_caps.max_rwq_indirection_tables": raw.max_rwq_indirection_tables,
            "rss_caps.max_rwq_indirection_table_size": raw.max_rwq_indirection_table_size,
        }  # fmt: skip
    if raw.qp_rate_limit_max_kbps:
        values |= {
            "packet_pacing_caps.qp_rate_limit_min": raw.qp_rate_limit_min_kbps,
            "packet_pacing_caps.qp_rate_limit_max": raw.qp_rate_limit_max_kbps,
            "packet_pacing_caps.supported_qpts": RAW_QPT,
        }  # fmt: skip
    return flags, values


def tag_matching_caps(device: IbDevice) -> dict[str, int]:
    """``ibv_tm_caps``, each name after ``tm_``: RC, if the device handles rendezvous (``mlx5_ib_query_device``)."""
    limits = device.profile.tag_matching
    if not (limits.max_num_tags and device.profile.max_srq):
        return {}
    caps = {f"tm_{name}": getattr(limits, name) for name in ("max_num_tags", "max_ops", "max_sge", "max_rndv_hdr_size")}
    return caps | {"tm_flags": TM_CAP_RC if limits.max_rndv_hdr_size else 0}


def odp_caps(device: IbDevice) -> dict[str, int]:
    """On-demand paging by transport (``mlx5_ib_internal_fill_odp_caps``): none for UC, as in mlx5 and rxe."""
    profile, odp = device.profile, device.profile.odp

    def caps(operations: tuple[str, ...]) -> int:
        return sum(ODP_OPERATIONS[name] for name in operations if profile.max_srq or name != "srq_recv")

    return {
        "odp_general_caps": ODP_SUPPORT | (ODP_SUPPORT_IMPLICIT if odp.implicit else 0),
        "odp_rc_caps": caps(odp.rc), "odp_ud_caps": caps(odp.ud),
        "odp_xrc_caps": caps(odp.xrc) if profile.max_xrcd else 0,
    }  # fmt: skip


def check_port(port: int) -> None:
    """EINVAL: no such port."""
    if not 1 <= port <= PORTS:
        raise DriverError(errno.EINVAL, f"port {port} does not exist")


def port_attributes(device: IbDevice, port: int) -> dict[str, int]:
    """``ibv_port_attr``. EINVAL: no such port."""
    check_port(port)
    profile = device.profile
    up = device.device.port_active
    rate = profile.reported_rate_gbps or profile.link.rate_gbps
    width, speed = next(pair[1:] for pair in SPEEDS if rate >= pair[0])
    return {
        "state": PORT_ACTIVE if up else PORT_DOWN, "phys_state": LINK_UP if up else DISABLED,
        "max_mtu": MTU_ENUM[profile.max_mtu], "active_mtu": MTU_ENUM[profile.active_mtu],
        "gid_tbl_len": len(device.device.gids), "port_cap_flags": profile.port_cap_flags,
        "max_msg_sz": profile.max_msg_sz,
        "bad_pkey_cntr": 0, "qkey_viol_cntr": 0, "pkey_tbl_len": PKEYS, "lid": 0, "sm_lid": 0, "lmc": 0,
        "max_vl_num": 1, "sm_sl": 0, "subnet_timeout": 0, "init_type_reply": 0, "active_width": width,
        "active_speed": speed, "link_layer": ETHERNET, "flags": 0, "port_cap_flags2": 0,
        "active_speed_ex": 0,
    }  # fmt: skip


def gid(device: IbDevice, port: int, index: int) -> tuple[bytes, int] | None:
    """(16 bytes, type) of a GID table entry; None if it is empty. EINVAL: out of the table."""
    check_port(port)
    gids = device.device.gids
    if not 0 <= index < len(gids):
        raise DriverError(errno.EINVAL, f"the GID table has {len(gids)} entries, not {index}")
    raw = gids[index]
    return None if raw is None else (bytes(raw), device.device.gid_types[index])


def pkey(device: IbDevice, port: int, index: int) -> int:
    """A P_Key. EINVAL: out of the table."""
    check_port(port)
    if not 0 <= index < PKEYS:
        raise DriverError(errno.EINVAL, f"the P_Key table has {PKEYS} entries, not {index}")
    return PKEY_DEFAULT
