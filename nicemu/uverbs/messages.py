"""The user/kernel boundary: one frozen dataclass per uverbs command, one per response.

A command names objects by handle (int, device-global, never reused while alive). A failing command raises
:class:`VerbsError` with the errno the kernel gives; it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nicemu.uverbs.message import message


class VerbsError(OSError):
    """A verbs command failed: ``errno`` as the kernel gives it, ``strerror`` says which rule."""


# Responses ------------------------------------------------------------------------------------------------------------


@message
class DeviceInfo:
    """One entry of the device list."""

    name: str
    guid: int
    node_type: int = 1
    transport_type: int = 0
    index: int = 0


@message
class DeviceAttributes:
    """``ibv_device_attr`` and the parts of ``ibv_device_attr_ex`` that are modelled, by the same names."""

    values: dict[str, int | str]
    odp_general_caps: int = 0
    odp_rc_caps: int = 0
    odp_uc_caps: int = 0
    odp_ud_caps: int = 0
    odp_xrc_caps: int = 0


@message
class PortAttributes:
    """``ibv_port_attr`` by the same names."""

    values: dict[str, int]


@message
class GidEntry:
    """A used GID table entry. ``raw``: 16 bytes; ``type``: 0 IB, 1 RoCE v1, 2 RoCE v2."""

    index: int
    raw: bytes
    type: int
    ndev_ifindex: int = 1


@message
class CqResponse:
    """A CQ: its ring (``abi.rings.CQE``), doorbell record (consumer counter), and number for the CQ_ARM doorbell."""

    handle: int
    number: int
    cqe: int
    slots: int
    ring: memoryview
    record: memoryview


@message
class Capabilities:
    """``ibv_qp_cap``."""

    max_send_wr: int
    max_recv_wr: int
    max_send_sge: int
    max_recv_sge: int
    max_inline_data: int


@message
class QpResponse:
    """A QP: send and receive rings (``abi.rings``) and the doorbell record (send and receive producer counters)."""

    handle: int
    number: int
    caps: Capabilities
    send_ring: memoryview
    send_slots: int
    send_stride: int
    recv_ring: memoryview
    recv_slots: int
    recv_stride: int
    record: memoryview


@message
class AhResponse:
    """An address handle. ``number``: what a UD send WQE calls it."""

    handle: int
    number: int


@message
class AddressVector:
    """``ibv_ah_attr`` with its ``ibv_global_route``; ``dgid``: 16 bytes or None without GRH."""

    dlid: int = 0
    sl: int = 0
    src_path_bits: int = 0
    static_rate: int = 0
    is_global: int = 0
    port_num: int = 1
    dgid: bytes | None = None
    flow_label: int = 0
    sgid_index: int = 0
    hop_limit: int = 0
    traffic_class: int = 0


@dataclass(slots=True)
class QpAttributes:
    """``ibv_qp_attr`` by the same names, plus the address vector."""

    qp_state: int = 0
    cur_qp_state: int = 0
    path_mtu: int = 0
    path_mig_state: int = 0
    qkey: int = 0
    rq_psn: int = 0
    sq_psn: int = 0
    dest_qp_num: int = 0
    qp_access_flags: int = 0
    pkey_index: int = 0
    alt_pkey_index: int = 0
    en_sqd_async_notify: int = 0
    sq_draining: int = 0
    max_rd_atomic: int = 0
    max_dest_rd_atomic: int = 0
    min_rnr_timer: int = 0
    port_num: int = 0
    timeout: int = 0
    retry_cnt: int = 0
    rnr_retry: int = 0
    alt_port_num: int = 0
    alt_timeout: int = 0
    rate_limit: int = 0
    ah_attr: AddressVector = field(default_factory=AddressVector)
    alt_ah_attr: AddressVector = field(default_factory=AddressVector)
    caps: Capabilities | None = None


@message
class AsyncEventResponse:
    """An async event. ``object_kind``: 'qp', 'cq', 'srq', 'port', 'device'; ``handle``: its handle or port number."""

    event_type: int
    object_kind: str
    handle: int


# Commands. The comment names the response. ----------------------------------------------------------------------------


@message
class ListDevices:
    """-> tuple[DeviceInfo, ...]"""


@message
class OpenDevice:
    """-> context handle. ENODEV: no such device."""

    name: str


@message
class CloseDevice:
    """-> None. A descriptor is closed (-1: the one of opening); the last one takes what is left of objects along."""

    context: int
    fd: int = -1


@message
class QueryDevice:
    """-> DeviceAttributes"""

    context: int


@message
class QueryRtValues:
    """-> int: the device's clock, ns."""

    context: int


@message
class QueryPort:
    """-> PortAttributes. EINVAL: no such port."""

    context: int
    port: int


@message
class QueryGid:
    """-> GidEntry, or None for an empty entry. EINVAL: index out of the table."""

    context: int
    port: int
    index: int


@message
class QueryPkey:
    """-> int. EINVAL: index out of the table."""

    context: int
    port: int
    index: int


@message
class AllocPd:
    """-> pd handle"""

    context: int


@message
class DeallocPd:
    """-> None. EBUSY: still used."""

    pd: int


@message
class CreateCompChannel:
    """-> (channel handle, fd). The fd is readable while events wait."""

    context: int


@message
class DestroyCompChannel:
    """-> None"""

    channel: int


@message
class CreateCq:
    """-> CqResponse. EINVAL: cqe out of 1..max_cqe, comp_vector out of range. EFAULT: memory that cannot be held.
    ``pd``: of a parent domain, or 0; its allocator gave the addresses ``ring`` and ``record``, 0: shared memory."""

    context: int
    cqe: int
    channel: int = 0
    comp_vector: int = 0
    ignore_overrun: bool = False
    pd: int = 0
    ring: int = 0
    record: int = 0


@message
class ResizeCq:
    """-> CqResponse: another ring, the same record. EINVAL: cqe out of 1..max_cqe, or more entries wait."""

    cq: int
    cqe: int


@message
class ModifyCq:
    """``ibv_modify_cq``. -> None. EINVAL: over the device's moderation limits. ``period``: microseconds."""

    cq: int
    count: int
    period: int


@message
class DestroyCq:
    """-> None. EBUSY: a QP or XRC SRQ uses it."""

    cq: int


@message
class CreateQp:
    """-> QpResponse. EINVAL: a capability over the device's, missing or wrong objects; EOPNOTSUPP: no such transport or
    creation flag; EPERM: raw packets without CAP_NET_RAW.

    An XRC target has ``xrcd`` and 0 for ``pd`` and the CQs; an XRC initiator no ``recv_cq``. A ring that the QP does
    not have is empty, with 0 slots. ``ring`` (receive ring, then send ring) and ``record``: as of :class:`CreateCq`.
    """

    pd: int
    type: int
    send_cq: int
    recv_cq: int
    caps: Capabilities
    sq_sig_all: int = 0
    srq: int = 0
    xrcd: int = 0
    create_flags: int = 0
    max_tso_header: int = 0
    ring: int = 0
    record: int = 0


@message
class ModifyQp:
    """-> None. EINVAL: not a transition of the QP state table with this mask. ``mask``: ``QpAttrMask``."""

    qp: int
    attributes: QpAttributes
    mask: int


@message
class QueryQp:
    """-> QpAttributes with ``caps``: everything needed to drive a new QP to the same state."""

    qp: int


@message
class DestroyQp:
    """-> None. EBUSY: a member of multicast groups."""

    qp: int


@message
class CreateAh:
    """-> AhResponse. EINVAL: RoCE without GRH, bad sgid_index or port."""

    pd: int
    vector: AddressVector


@message
class DestroyAh:
    """-> None"""

    ah: int


@message
class GetCqEvent:
    """-> cq handle. Blocks until the channel has an event. EIO: the device died, no event will come."""

    channel: int


@message
class GetAsyncEvent:
    """-> AsyncEventResponse. Blocks until there is one. EIO: the device is dead and has nothing more to tell."""

    context: int
