"""Commands about raw Ethernet: flow rules, work queues, indirection tables, RSS QPs.

In :mod:`nicemu.uverbs.messages` is how commands and errors work. A process without CAP_NET_RAW (here: whose effective
user is not root) gets EPERM for raw packet QPs and flow rules.
"""

from __future__ import annotations

from nicemu.uverbs.message import message
from nicemu.uverbs.messages import Capabilities


@message
class CreateFlow:
    """``ibv_flow_attr``. -> flow handle. ``specs``: the C structs, one behind the other. EINVAL, EOPNOTSUPP, EPERM."""

    qp: int
    type: int
    priority: int
    num_of_specs: int
    port: int
    flags: int
    specs: bytes


@message
class DestroyFlow:
    """-> None"""

    flow: int


@message
class WqResponse:
    """A WQ: its ring of receive WQEs and the doorbell record (``abi.rings.DB_RECV``)."""

    handle: int
    number: int
    max_wr: int
    max_sge: int
    slots: int
    stride: int
    ring: memoryview
    record: memoryview


@message
class CreateWq:
    """-> WqResponse. EINVAL: depth, type; EOPNOTSUPP: a flag."""

    pd: int
    cq: int
    type: int
    max_wr: int
    max_sge: int
    flags: int = 0


@message
class ModifyWq:
    """``ibv_wq_attr``. -> None. EINVAL: no such step."""

    wq: int
    attr_mask: int
    wq_state: int
    curr_wq_state: int
    flags: int
    flags_mask: int


@message
class DestroyWq:
    """-> None. EBUSY: an indirection table uses it."""

    wq: int


@message
class CreateIndTable:
    """-> table handle. ``wqs``: a WQ handle for each of ``1 << log_size`` entries."""

    context: int
    log_size: int
    wqs: tuple[int, ...]


@message
class DestroyIndTable:
    """-> None. EBUSY: an RSS QP uses it."""

    table: int


@message
class CreateRssQp:
    """-> QpResponse with no rings. EINVAL: key, fields, creation flags; EOPNOTSUPP: hash function; EPERM."""

    pd: int
    table: int
    function: int
    key: bytes
    fields: int
    caps: Capabilities
    create_flags: int = 0
    max_tso_header: int = 0
