"""What one NIC can do and how long its steps take (`configs/nic/*.yaml`)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nicemu.config.raw_packet_profile import RawPacketProfile
from nicemu.config.software_profile import Defect, DeviceFlag, OdpProfile, SoftwareProfile
from nicemu.config.types import Count, CountOrNone, Nanoseconds, Record, Spread, Word32

IbMtu = Literal[256, 512, 1024, 2048, 4096]

VENDORS_WITH_A_PROVIDER = (0x02C9, 0x1D0F, 0x8086)
"""Vendor ids for which verbs programs take vendor-specific paths that the emulator does not have."""


class IotlbProfile(Record):
    """The translation cache in front of the MTT."""

    sets: Count = 256  # a power of two
    ways: Annotated[int, Field(ge=1, le=64)] = 4

    @model_validator(mode="after")
    def _sets_are_indexable(self) -> Self:
        if self.sets & (self.sets - 1):
            raise ValueError("sets: expected a power of two")
        return self


class SecondLevelProfile(IotlbProfile):
    """A larger translation cache behind the IOTLB."""

    sets: Count = 1024
    ways: Annotated[int, Field(ge=1, le=64)] = 8
    latency_ns: Nanoseconds = 100  # a look-up, hit or miss


class QpCacheProfile(IotlbProfile):
    """The cache of QP contexts on the device."""

    sets: Count = 32
    miss_ns: Nanoseconds = 900  # a PCIe round trip


class NicCosts(Record):
    """Virtual nanoseconds per step of the device."""

    doorbell_ns: Nanoseconds = 150
    wqe_fetch_ns: Nanoseconds = 300
    pcie_latency_ns: Nanoseconds = 450  # between the translation of a DMA and its bytes moving
    iotlb_miss_ns: Nanoseconds = 500
    mtt_level_ns: Nanoseconds = 0  # more for each level of the MTT that a miss walks
    packet_ns: Nanoseconds = 40  # processing of one packet, each side
    command_ns: Nanoseconds = 2_000  # a command that touches no pages
    mtt_update_ns: Nanoseconds = 1_850
    mtt_update_page_ns: Nanoseconds = 13
    zap_ns: Nanoseconds = 8_650
    zap_page_ns: Nanoseconds = 30
    fault_detect_ns: Nanoseconds = 127_400  # absent translation seen -> page-fault EQE written
    fault_detect_page_ns: Nanoseconds = 0  # each further page that the driver is asked for
    interrupt_ns: Nanoseconds = 2_000  # MSI-X write -> handler entered
    resume_ns: Nanoseconds = 76_250  # resume command -> transmission goes on


class BackupRingProfile(Record):
    """Pinned memory for UD and UC packets and raw frames that wait for a page; firmware decides about its use."""

    entries: Annotated[int, Field(ge=0, le=4096)] = 1024  # packets; 0: no ring
    bytes: Annotated[int, Field(ge=0, le=2**30)] = 2**22  # a packet takes its payload and 64 bytes


class InterruptModeration(Record):
    """A message goes out at the event of number `count`, or `time_ns` after the first; 0 and 0: at each event."""

    count: Annotated[int, Field(ge=0, le=65535)] = 0
    time_ns: Nanoseconds = 0

    @model_validator(mode="after")
    def _every_event_is_told(self) -> Self:
        if self.count and not self.time_ns:
            raise ValueError("time_ns: expected at least 1 with a count, or the last events would wait for ever")
        return self


class TagMatchingProfile(Record):
    """Tag matching at TM-SRQs; 0 tags: the device does not have it."""

    max_num_tags: Annotated[int, Field(ge=0, le=65535)] = 127  # tags posted to one TM-SRQ
    max_ops: Annotated[int, Field(ge=0, le=2**20)] = 16384  # operations posted to one TM-SRQ and not executed yet
    max_sge: Annotated[int, Field(ge=1, le=4)] = 1  # elements of a tag's buffer
    max_rndv_hdr_size: Annotated[int, Field(ge=0, le=256)] = 64  # bytes; 0: software does all rendezvous


class LinkProfile(Record):
    """The cable."""

    rate_gbps: Annotated[int, Field(ge=1, le=3200)] = 100
    delay_ns: Nanoseconds = 1_000


class NicProfile(Record):
    """One device profile; the defaults are those of `configs/nic/connectib.yaml`."""

    name: str = "connectib"
    description: str = ""
    source: str = ""
    vendor_id: Annotated[int, Field(ge=0, le=2**24 - 1)] = 0xFFFFFF
    vendor_part_id: Word32 = 1
    hw_ver: Word32 = 0
    fw_ver: str = "0.1.0"

    max_qp: Annotated[int, Field(ge=1, le=2**24 - 2)] = 4096
    max_qp_wr: Annotated[int, Field(ge=1, le=2**20)] = 16384
    max_sge: Annotated[int, Field(ge=1, le=32)] = 32  # a packet holds the segments of 32 SGEs
    max_sge_rd: Annotated[int, Field(ge=1, le=32)] = 32
    max_cq: Annotated[int, Field(ge=1, le=2**24)] = 4096
    max_cqe: Annotated[int, Field(ge=1, le=2**22)] = 65535
    max_mr: Annotated[int, Field(ge=1, le=2**24 - 1)] = 65536
    max_mr_size: Annotated[int, Field(ge=4096, le=2**64 - 1)] = 2**63 - 1  # bytes
    page_size_cap: Annotated[int, Field(ge=4096, le=2**63 - 1)] = 0xFFFF_F000
    max_pd: Annotated[int, Field(ge=1, le=2**24)] = 4096
    max_ah: Count = 4096
    max_mw: Annotated[int, Field(ge=0, le=2**23)] = 16384
    max_dm_size: Annotated[int, Field(ge=0, le=2**30)] = 2**18  # bytes of device memory
    max_srq: Annotated[int, Field(ge=0, le=2**20)] = 1024
    max_srq_wr: Annotated[int, Field(ge=0, le=2**20)] = 16384
    max_srq_sge: Annotated[int, Field(ge=0, le=32)] = 32
    max_xrcd: CountOrNone = 1024
    max_mcast_grp: Annotated[int, Field(ge=0, le=2**16)] = 64
    max_mcast_qp_attach: Annotated[int, Field(ge=0, le=2**16)] = 64
    max_total_mcast_qp_attach: Annotated[int, Field(ge=0, le=2**20)] = 256  # a datagram to a group looks at all in use
    max_qp_rd_atom: Annotated[int, Field(ge=1, le=128)] = 16  # responder resources of a QP
    max_qp_init_rd_atom: Annotated[int, Field(ge=1, le=255)] = 16
    max_res_rd_atom: Count = 65536
    max_msg_sz: Annotated[int, Field(ge=4096, le=2**31)] = 2**31  # bytes
    max_inline_data: Annotated[int, Field(ge=0, le=4096)] = 256  # bytes
    num_comp_vectors: Annotated[int, Field(ge=1, le=64)] = 2
    max_pkeys: Annotated[int, Field(ge=1, le=2**16 - 1)] = 1  # what the device reports; the port's table has one
    gid_tbl_len: Annotated[int, Field(ge=1, le=1024)] = 8
    gid_types: Annotated[tuple[Literal[1, 2], ...], Field(strict=False)] = (1, 2)  # RoCE versions of each address
    first_guid: Annotated[int, Field(ge=1, le=2**64 - 2**16)] = 0x0216_3EFF_FE00_0001  # of the first device of a lab
    device_cap_flags: Annotated[tuple[DeviceFlag, ...], Field(strict=False)] = ("CURR_QP_STATE_MOD",)  # more of them
    reported_rate_gbps: Annotated[int, Field(ge=1, le=3200)] | None = None  # what the port says; None: the link's
    port_cap_flags: Word32 = 1 << 26  # IP_BASED_GIDS
    max_mtu: IbMtu = 4096  # bytes of payload in one packet
    active_mtu: IbMtu = 4096
    max_fault_per_qp: Annotated[int, Field(ge=1, le=4)] = 4  # page faults outstanding, one of each class
    page_fault_eq_depth: Annotated[int, Field(ge=1, le=2**20)] = 4096  # EQEs; the device holds reports beyond
    local_ca_ack_delay: Annotated[int, Field(ge=0, le=31)] = 15  # 4.096 us * 2**n
    retry_cnt_7_infinite: bool = False
    ack_timer_in_rnr_wait: bool = False  # the ACK timer goes on in an RNR wait, and its timeouts count as retries
    cq_spare_slot: bool = False  # one slot of a CQ's ring stays free: it holds as many entries as it reports
    ack_request_every: Annotated[int, Field(ge=1, le=128)] = 32  # packets of a long message until one asks for an ACK
    cnp_interval_ns: Nanoseconds = 4_000  # a QP answers ECN marks with at most one CNP in this time
    congestion_timer_ns: Nanoseconds = 55_000  # a QP whose rate firmware limits asks it so often; 0: never
    end_to_end_credits: bool = False  # ACKs tell how many receives are posted, and requesters keep to it
    ack_coalescing_ns: Nanoseconds = 0  # one ACK for all that are due within this time
    ack_timeout_floor_ns: Nanoseconds = 0  # the firmware waits at least this long before it retransmits

    defects: Annotated[tuple[Defect, ...], Field(strict=False)] = ()
    odp: OdpProfile = OdpProfile()
    software: SoftwareProfile = SoftwareProfile()
    raw_packet: RawPacketProfile | None = RawPacketProfile()  # None: it has no raw packet QPs and what goes with them
    iotlb: IotlbProfile = IotlbProfile()
    l2_iotlb: SecondLevelProfile | None = None
    qp_cache: QpCacheProfile | None = None
    backup_ring: BackupRingProfile = BackupRingProfile()
    interrupt_moderation: InterruptModeration = InterruptModeration()
    tag_matching: TagMatchingProfile = TagMatchingProfile()
    costs: NicCosts = NicCosts()
    spread: Spread | None = None  # of fault_detect, resume: a draw a fault; of mtt_update, zap: a draw a command
    link: LinkProfile = LinkProfile()

    @property
    def cache_lines(self) -> int:
        """Lines of all its caches."""
        caches = (self.iotlb, self.l2_iotlb, self.qp_cache)
        return sum(cache.sets * cache.ways for cache in caches if cache is not None)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.vendor_id in VENDORS_WITH_A_PROVIDER:
            raise ValueError("vendor_id: expected an id without a provider of its own")
        if self.max_mr + self.max_mw >= 2**24:
            raise ValueError("max_mr: expected less than 2**24 together with max_mw")
        if self.active_mtu > self.max_mtu:
            raise ValueError(f"active_mtu: expected at most max_mtu ({self.max_mtu})")
        return self
