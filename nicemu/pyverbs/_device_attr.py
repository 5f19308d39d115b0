"""What a device, a port and a GID table entry say about themselves."""

from __future__ import annotations

from typing import Any, TypeVar

from nicemu.pyverbs import _device_text as text
from nicemu.pyverbs._fields import U32, U64, Constant, Field, Struct
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.libibverbs_enums import (
    ibv_atomic_cap,
    ibv_mtu,
    ibv_odp_general_caps,
    ibv_odp_transport_cap_bits,
    ibv_port_state,
)
from nicemu.pyverbs.utils import gid_str


class DeviceAttr(Struct):
    """`ibv_device_attr`, read only. GUIDs are big-endian values as a little-endian host reads them."""

    __slots__ = ()
    node_guid = Constant(doc="GUID of the node")
    sys_image_guid = Constant(doc="GUID of the system that the node belongs to")
    max_mr_size = Constant(doc="Bytes of the largest MR")
    page_size_cap = Constant(doc="Page sizes in bytes, a bit for each")
    vendor_id = Constant(doc="The vendor's number")
    vendor_part_id = Constant(doc="The vendor's number of the part")
    hw_ver = Constant(doc="Version of the hardware")
    max_qp = Constant(doc="QPs of the device")
    max_qp_wr = Constant(doc="Outstanding requests of any one work queue")
    device_cap_flags = Constant(doc="`ibv_device_cap_flags`")
    max_sge = Constant(doc="SGEs of a request, RDMA reads aside")
    max_sge_rd = Constant(doc="SGEs of an RDMA read")
    max_cq = Constant(doc="CQs of the device")
    max_cqe = Constant(doc="Entries of a CQ")
    max_mr = Constant(doc="MRs of the device")
    max_pd = Constant(doc="PDs of the device")
    max_qp_rd_atom = Constant(doc="RDMA reads and atomics that a QP may have outstanding as responder")
    max_ee_rd_atom = Constant(doc="RDMA reads and atomics of an EE context; 0, there are none")
    max_res_rd_atom = Constant(doc="RDMA reads and atomics outstanding at the device as responder")
    max_qp_init_rd_atom = Constant(doc="RDMA reads and atomics that a QP may have outstanding as requester")
    max_ee_init_rd_atom = Constant(doc="The same of an EE context; 0")
    atomic_caps = Constant(member="atomic_cap", enum=ibv_atomic_cap, doc="How far atomics are atomic")
    max_ee = Constant(doc="EE contexts of the device; 0")
    max_rdd = Constant(doc="RD domains of the device; 0")
    max_mw = Constant(doc="Memory windows of the device")
    max_raw_ipv6_qps = Constant(member="max_raw_ipv6_qp", doc="Raw IPv6 QPs; 0")
    max_raw_ethy_qp = Constant(doc="Raw Ethertype QPs; 0")
    max_mcast_grp = Constant(doc="Multicast groups of the device")
    max_mcast_qp_attach = Constant(doc="QPs of one multicast group")
    max_ah = Constant(doc="Address handles of the device")
    max_fmr = Constant(doc="Fast MRs of the device; 0")
    max_map_per_fmr = Constant(doc="Mappings of a fast MR; 0")
    max_srq = Constant(doc="SRQs of the device")
    max_srq_wr = Constant(doc="Outstanding requests of an SRQ")
    max_srq_sge = Constant(doc="SGEs of a request of an SRQ")
    max_pkeys = Constant(doc="Entries of the P_Key table")
    local_ca_ack_delay = Constant(doc="Time to an acknowledgement, as 4.096 us * 2**value")
    phys_port_cnt = Constant(doc="Ports, which count from 1")

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
    _comp_mask = Field(U32)

    def __init__(self, comp_mask: int) -> None:
        super().__init__(_comp_mask=comp_mask)


class ODPCaps(Struct):
    """Which operations may touch on-demand memory, per transport."""

    __slots__ = ()
    general_caps = Constant(doc="`ibv_odp_general_caps`")
    rc_odp_caps = Constant(doc="Of RC, as `ibv_odp_transport_cap_bits`")
    uc_odp_caps = Constant(doc="Of UC, as `ibv_odp_transport_cap_bits`")
    ud_odp_caps = Constant(doc="Of UD, as `ibv_odp_transport_cap_bits`")
    xrc_odp_caps = Field(U32, doc="Of XRC, as `ibv_odp_transport_cap_bits`")

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
    fetch_add = Constant(doc="Sizes of fetch-and-add in bytes, a bit for each")
    swap = Constant(doc="Sizes of swap in bytes, a bit for each")
    compare_swap = Constant(doc="Sizes of compare-and-swap in bytes, a bit for each")


class TSOCaps(Struct):
    """TCP segmentation offload."""

    __slots__ = ()
    max_tso = Constant(doc="Bytes of the largest message to segment")
    supported_qpts = Constant(doc="QP types with it, bit n for type n")


class RSSCaps(Struct):
    """Receive-side scaling."""

    __slots__ = ()
    supported_qpts = Constant(doc="QP types with it, bit n for type n")
    max_rwq_indirection_tables = Constant(doc="Indirection tables of the device")
    rx_hash_fields_mask = Constant(doc="`ibv_rx_hash_fields` that can be hashed")
    rx_hash_function = Constant(doc="`ibv_rx_hash_function_flags`")
    max_rwq_indirection_table_size = Constant(doc="Work queues of an indirection table")


class PacketPacingCaps(Struct):
    """Rate limits of raw packet QPs, in kbps."""

    __slots__ = ()
    qp_rate_limit_min = Constant(doc="Lowest rate limit in kbit/s")
    qp_rate_limit_max = Constant(doc="Highest rate limit in kbit/s")
    supported_qpts = Constant(doc="QP types with it, bit n for type n")


class TMCaps(Struct):
    """Tag matching."""

    __slots__ = ()
    max_rndv_hdr_size = Constant(doc="Bytes of the largest rendezvous header")
    max_num_tags = Constant(doc="Tags that a TM-SRQ may wait for")
    flags = Constant(doc="`ibv_tm_cap_flags`")
    max_ops = Constant(doc="Outstanding requests on the list of tags")
    max_sge = Constant(doc="SGEs of a tagged buffer")


class CQModerationCaps(Struct):
    """Completion moderation: `max_cq_period` in microseconds."""

    __slots__ = ()
    max_cq_count = Constant(doc="Completions that an event may wait for")
    max_cq_period = Constant(doc="Microseconds that an event may be held back")


_Caps = TypeVar("_Caps", bound=Struct)


class DeviceAttrEx(Struct):
    """`ibv_device_attr_ex`, read only but for `comp_mask`. What the device does not have reads as 0."""

    __slots__ = ("_odp_caps", "_orig_attr")
    comp_mask = Field(U32, doc="Which members count")
    completion_timestamp_mask = Constant(doc="Bits of a completion's timestamp that count; 0 without timestamps")
    hca_core_clock = Constant(doc="Rate of the device's clock in kHz; 0 without timestamps")
    device_cap_flags_ex = Constant(doc="`ibv_device_cap_flags`, and those beyond 32 bits")
    max_wq_type_rq = Constant(doc="Receive work queues of the device")
    raw_packet_caps = Constant(doc="`ibv_raw_packet_caps`")
    max_dm_size = Constant(doc="Bytes of memory on the device that can be allocated")
    phys_port_cnt_ex = Constant(doc="Ports, which count from 1")

    def __init__(self) -> None:
        super().__init__()
        self._orig_attr, self._odp_caps = DeviceAttr(), ODPCaps()

    @property
    def orig_attr(self) -> DeviceAttr:
        """What `Context.query_device` tells."""
        return self._orig_attr

    @property
    def odp_caps(self) -> ODPCaps:
        """What may touch on-demand memory."""
        return self._odp_caps

    @property
    def tso_caps(self) -> TSOCaps:
        """TCP segmentation offload."""
        return self._nested(TSOCaps, "tso_caps.")

    @property
    def pci_atomic_caps(self) -> PCIAtomicCaps:
        """Atomics on PCIe: none."""
        return PCIAtomicCaps()

    @property
    def rss_caps(self) -> RSSCaps:
        """Receive-side scaling."""
        return self._nested(RSSCaps, "rss_caps.")

    @property
    def packet_pacing_caps(self) -> PacketPacingCaps:
        """Rate limits of a QP."""
        return self._nested(PacketPacingCaps, "packet_pacing_caps.")

    @property
    def tm_caps(self) -> TMCaps:
        """Tag matching."""
        return self._nested(TMCaps, "tm_")

    @property
    def cq_mod_caps(self) -> CQModerationCaps:
        """How far the events of a CQ can be held back."""
        caps = CQModerationCaps()
        caps._values = {name: self._values.get(name, 0) for name in ("max_cq_count", "max_cq_period")}
        return caps

    def _nested(self, kind: type[_Caps], prefix: str) -> _Caps:
        """A struct within this one: its members have `prefix` in front in what the kernel says."""
        caps, found = kind(), self._values.items()
        caps._values = {key.removeprefix(prefix): value for key, value in found if key.startswith(prefix)}
        return caps


class PortAttr(Struct):
    """`ibv_port_attr`, read only."""

    __slots__ = ()
    state = Constant(enum=ibv_port_state, doc="An `ibv_port_state`")
    max_mtu = Constant(enum=ibv_mtu, doc="The largest MTU, an `ibv_mtu`")
    active_mtu = Constant(enum=ibv_mtu, doc="The MTU in use, an `ibv_mtu`")
    gid_tbl_len = Constant(doc="Entries of the GID table")
    port_cap_flags = Constant(doc="`ibv_port_cap_flags`")
    max_msg_sz = Constant(doc="Bytes of the largest message")
    bad_pkey_cntr = Constant(doc="Packets refused for their P_Key")
    qkey_viol_cntr = Constant(doc="Packets refused for their Q_Key")
    pkey_tbl_len = Constant(doc="Entries of the P_Key table")
    lid = Constant(doc="Local identifier; 0 on Ethernet")
    sm_lid = Constant(doc="The subnet manager's LID; 0 on Ethernet")
    lmc = Constant(doc="LIDs of the port, as 2**value")
    max_vl_num = Constant(doc="Virtual lanes, coded")
    sm_sl = Constant(doc="The subnet manager's service level")
    subnet_timeout = Constant(doc="Delay of the subnet, as 4.096 us * 2**value")
    init_type_reply = Constant(doc="How the subnet manager has set the port up")
    active_width = Constant(doc="Lanes in use, coded (`width_to_str`)")
    active_speed = Constant(doc="Speed of a lane, coded (`speed_to_str`)")
    phys_state = Constant(doc="Physical state, coded (`phys_state_to_str`)")
    link_layer = Constant(doc="1 is InfiniBand, 2 Ethernet")
    flags = Constant(doc="IBV_QPF_GRH_REQUIRED: every packet needs a GRH")
    port_cap_flags2 = Constant(doc="`ibv_port_cap_flags2`")
    active_speed_ex = Constant(doc="As `active_speed`, for what does not fit there; 0 if that counts")

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
    gid_subnet_prefix = Constant(U64, doc="The GID's first half, big-endian as a little-endian host reads it")
    gid_interface_id = Constant(U64, doc="The GID's second half, likewise")
    gid_index = Constant(U32, doc="The entry's index, from 0")
    port_num = Constant(U32, doc="The port, from 1")
    gid_type = Constant(U32, doc="An `ibv_gid_type`")
    ndev_ifindex = Constant(U32, doc="Index of the network interface; 0 without")

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
