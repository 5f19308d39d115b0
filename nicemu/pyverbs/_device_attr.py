"""What a device, a port and a GID table entry say about themselves."""

from __future__ import annotations

from typing import Any

from nicemu.pyverbs import _device_text as text
from nicemu.pyverbs._fields import U32, U64, Constant, Field, Struct
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.libibverbs_enums import ibv_odp_general_caps, ibv_odp_transport_cap_bits
from nicemu.pyverbs.utils import gid_str


class DeviceAttr(Struct):
    """`ibv_device_attr`, read only. GUIDs are big-endian values as a little-endian host reads them."""

    __slots__ = ()
    node_guid = Constant()
    sys_image_guid = Constant()
    max_mr_size = Constant()
    page_size_cap = Constant()
    vendor_id = Constant()
    vendor_part_id = Constant()
    hw_ver = Constant()
    max_qp = Constant()
    max_qp_wr = Constant()
    device_cap_flags = Constant()
    max_sge = Constant()
    max_sge_rd = Constant()
    max_cq = Constant()
    max_cqe = Constant()
    max_mr = Constant()
    max_pd = Constant()
    max_qp_rd_atom = Constant()
    max_ee_rd_atom = Constant()
    max_res_rd_atom = Constant()
    max_qp_init_rd_atom = Constant()
    max_ee_init_rd_atom = Constant()
    atomic_caps = Constant(member="atomic_cap")
    max_ee = Constant()
    max_rdd = Constant()
    max_mw = Constant()
    max_raw_ipv6_qps = Constant(member="max_raw_ipv6_qp")
    max_raw_ethy_qp = Constant()
    max_mcast_grp = Constant()
    max_mcast_qp_attach = Constant()
    max_ah = Constant()
    max_fmr = Constant()
    max_map_per_fmr = Constant()
    max_srq = Constant()
    max_srq_wr = Constant()
    max_srq_sge = Constant()
    max_pkeys = Constant()
    local_ca_ack_delay = Constant()
    phys_port_cnt = Constant()

    @property
    def fw_version(self) -> str:
        """The firmware's version."""
        return str(self._values.get("fw_ver", ""))

    def __str__(self) -> str:
        return lines([(title, self._shown(name)) for title, name in _DEVICE_ROWS], "{:<22}: {:<20}\n")

    def _shown(self, name: str) -> Any:
        value = getattr(self, name)
        shown = _DEVICE_FORMS.get(name)
        return shown(value) if shown else value


_DEVICE_FORMS = {
    "node_guid": text.guid_format,
    "sys_image_guid": text.guid_format,
    "max_mr_size": hex,
    "page_size_cap": hex,
    "vendor_id": hex,
    "device_cap_flags": text.translate_device_caps,
}
_DEVICE_ROWS = (
    ("FW version", "fw_version"),
    ("Node guid", "node_guid"),
    ("Sys image GUID", "sys_image_guid"),
    ("Max MR size", "max_mr_size"),
    ("Page size cap", "page_size_cap"),
    ("Vendor ID", "vendor_id"),
    ("Vendor part ID", "vendor_part_id"),
    ("HW version", "hw_ver"),
    ("Max QP", "max_qp"),
    ("Max QP WR", "max_qp_wr"),
    ("Device cap flags", "device_cap_flags"),
    ("Max SGE", "max_sge"),
    ("Max SGE RD", "max_sge_rd"),
    ("MAX CQ", "max_cq"),
    ("Max CQE", "max_cqe"),
    ("Max MR", "max_mr"),
    ("Max PD", "max_pd"),
    ("Max QP RD atom", "max_qp_rd_atom"),
    ("Max EE RD atom", "max_ee_rd_atom"),
    ("Max res RD atom", "max_res_rd_atom"),
    ("Max QP init RD atom", "max_qp_init_rd_atom"),
    ("Max EE init RD atom", "max_ee_init_rd_atom"),
    ("Atomic caps", "atomic_caps"),
    ("Max EE", "max_ee"),
    ("Max RDD", "max_rdd"),
    ("Max MW", "max_mw"),
    ("Max raw IPv6 QPs", "max_raw_ipv6_qps"),
    ("Max raw ethy QP", "max_raw_ethy_qp"),
    ("Max mcast group", "max_mcast_grp"),
    ("Max mcast QP attach", "max_mcast_qp_attach"),
    ("Max AH", "max_ah"),
    ("Max FMR", "max_fmr"),
    ("Max map per FMR", "max_map_per_fmr"),
    ("Max SRQ", "max_srq"),
    ("Max SRQ WR", "max_srq_wr"),
    ("Max SRQ SGE", "max_srq_sge"),
    ("Max PKeys", "max_pkeys"),
    ("local CA ack delay", "local_ca_ack_delay"),
    ("Phys port count", "phys_port_cnt"),
)


class QueryDeviceExInput(Struct):
    """`ibv_query_device_ex_input`."""

    __slots__ = ()
    comp_mask = Field(U32)

    def __init__(self, comp_mask: int) -> None:
        super().__init__(comp_mask=comp_mask)


class ODPCaps(Struct):
    """Which operations may touch on-demand memory, per transport."""

    __slots__ = ()
    general_caps = Constant()
    rc_odp_caps = Constant()
    uc_odp_caps = Constant()
    ud_odp_caps = Constant()
    xrc_odp_caps = Field(U32)

    def __str__(self) -> str:
        general = {int(cap): cap.name for cap in ibv_odp_general_caps}
        transport = {int(cap): cap.name for cap in ibv_odp_transport_cap_bits}
        rows = [("ODP General caps", text.str_from_flags(self.general_caps, general))]
        for kind in ("rc", "ud", "uc", "xrc"):
            caps = text.str_from_flags(getattr(self, f"{kind}_odp_caps"), transport)
            rows.append((f"{kind.upper()} ODP caps", caps))
        return lines(rows, "{}: {}\n")


class PCIAtomicCaps(Struct):
    """Atomic operations over PCIe."""

    __slots__ = ()
    fetch_add = Constant()
    swap = Constant()
    compare_swap = Constant()


class TSOCaps(Struct):
    """TCP segmentation offload."""

    __slots__ = ()
    max_tso = Constant()
    supported_qpts = Constant()


class RSSCaps(Struct):
    """Receive-side scaling."""

    __slots__ = ()
    supported_qpts = Constant()
    max_rwq_indirection_tables = Constant()
    rx_hash_fields_mask = Constant()
    rx_hash_function = Constant()
    max_rwq_indirection_table_size = Constant()


class PacketPacingCaps(Struct):
    """Rate limits of raw packet QPs, in kbps."""

    __slots__ = ()
    qp_rate_limit_min = Constant()
    qp_rate_limit_max = Constant()
    supported_qpts = Constant()


class TMCaps(Struct):
    """Tag matching."""

    __slots__ = ()
    max_rndv_hdr_size = Constant()
    max_num_tags = Constant()
    flags = Constant()
    max_ops = Constant()
    max_sge = Constant()


class CQModerationCaps(Struct):
    """Completion moderation: `max_cq_period` in microseconds."""

    __slots__ = ()
    max_cq_count = Constant()
    max_cq_period = Constant()


class DeviceAttrEx(Struct):
    """`ibv_device_attr_ex`, read only but for `comp_mask`. What the device does not have reads as 0."""

    __slots__ = ("odp_caps", "orig_attr")
    odp_caps: ODPCaps
    orig_attr: DeviceAttr
    comp_mask = Field(U32)
    completion_timestamp_mask = Constant()
    hca_core_clock = Constant()
    device_cap_flags_ex = Constant()
    max_wq_type_rq = Constant()
    raw_packet_caps = Constant()
    max_dm_size = Constant()
    phys_port_cnt_ex = Constant()
    tso_caps = property(lambda self: self._nested(TSOCaps, "tso_caps"))
    pci_atomic_caps = property(lambda self: PCIAtomicCaps())
    rss_caps = property(lambda self: self._nested(RSSCaps, "rss_caps"))
    packet_pacing_caps = property(lambda self: self._nested(PacketPacingCaps, "packet_pacing_caps"))
    tm_caps = property(lambda self: self._tm_caps())
    cq_mod_caps = property(lambda self: self._moderation_caps())

    def _nested(self, kind: type[Struct], name: str) -> Struct:
        """A struct within this one: its members have its name in front in what the kernel says."""
        caps, prefix = kind(), f"{name}."
        found = self._values.items()
        caps._values = {key.removeprefix(prefix): value for key, value in found if key.startswith(prefix)}
        return caps

    def _tm_caps(self) -> TMCaps:
        caps = TMCaps()
        caps._values = {name[3:]: value for name, value in self._values.items() if name.startswith("tm_")}
        return caps

    def _moderation_caps(self) -> CQModerationCaps:
        caps = CQModerationCaps()
        caps._values = {name: self._values.get(name, 0) for name in ("max_cq_count", "max_cq_period")}
        return caps


class PortAttr(Struct):
    """`ibv_port_attr`, read only."""

    __slots__ = ()
    state = Constant()
    max_mtu = Constant()
    active_mtu = Constant()
    gid_tbl_len = Constant()
    port_cap_flags = Constant()
    max_msg_sz = Constant()
    bad_pkey_cntr = Constant()
    qkey_viol_cntr = Constant()
    pkey_tbl_len = Constant()
    lid = Constant()
    sm_lid = Constant()
    lmc = Constant()
    max_vl_num = Constant()
    sm_sl = Constant()
    subnet_timeout = Constant()
    init_type_reply = Constant()
    active_width = Constant()
    active_speed = Constant()
    phys_state = Constant()
    link_layer = Constant()
    flags = Constant()
    port_cap_flags2 = Constant()
    active_speed_ex = Constant()

    def __str__(self) -> str:
        rows: list[tuple[str, object]] = [
            ("Port state", text.port_state_to_str(self.state)),
            ("Max MTU", text.translate_mtu(self.max_mtu)),
            ("Active MTU", text.translate_mtu(self.active_mtu)),
            ("SM lid", self.sm_lid),
            ("Port lid", self.lid),
            ("lmc", hex(self.lmc)),
            ("Link layer", text.translate_link_layer(self.link_layer)),
            ("Max message size", hex(self.max_msg_sz)),
            ("Port cap flags", text.translate_port_cap_flags(self.port_cap_flags)),
            ("Port cap flags 2", text.translate_port_cap_flags2(self.port_cap_flags2)),
            ("max VL num", self.max_vl_num),
            ("Bad Pkey counter", self.bad_pkey_cntr),
            ("Qkey violations counter", self.qkey_viol_cntr),
            ("GID table len", self.gid_tbl_len),
            ("Pkey table len", self.pkey_tbl_len),
            ("SM sl", self.sm_sl),
            ("Subnet timeout", self.subnet_timeout),
            ("Init type reply", self.init_type_reply),
            ("Active width", text.width_to_str(self.active_width)),
            ("Active speed", text.speed_to_str(self.active_speed, self.active_speed_ex)),
            ("Phys state", text.phys_state_to_str(self.phys_state)),
            ("Flags", self.flags),
        ]
        return lines(rows, "{:<24}: {:<20}\n")


class GIDEntry(Struct):
    """`ibv_gid_entry`. The two halves of the GID are big-endian values as a little-endian host reads them."""

    __slots__ = ()
    gid_subnet_prefix = Constant(U64)
    gid_interface_id = Constant(U64)
    gid_index = Constant(U32)
    port_num = Constant(U32)
    gid_type = Constant(U32)
    ndev_ifindex = Constant(U32)

    def __init__(
        self,
        subnet_prefix: int = 0,
        interface_id: int = 0,
        gid_index: int = 0,
        port_num: int = 0,
        gid_type: int = 0,
        ndev_ifindex: int = 0,
    ) -> None:
        super().__init__()
        self._values = {
            "gid_subnet_prefix": U64(subnet_prefix),
            "gid_interface_id": U64(interface_id),
            "gid_index": U32(gid_index),
            "port_num": U32(port_num),
            "gid_type": U32(gid_type),
            "ndev_ifindex": U32(ndev_ifindex),
        }

    def gid_str(self) -> str:
        """The GID as 8 groups of 4 hex digits."""
        return gid_str(self.gid_subnet_prefix, self.gid_interface_id)

    def __str__(self) -> str:
        rows: list[tuple[str, object]] = [
            ("GID", self.gid_str()),
            ("GID Index", self.gid_index),
            ("Port number", self.port_num),
            ("GID type", text.translate_gid_type(self.gid_type)),
            ("Ndev ifindex", self.ndev_ifindex),
        ]
        return lines(rows, "{:<24}: {:<20}\n")
