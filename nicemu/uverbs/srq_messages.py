"""Commands about what QPs share: shared receive queues, XRC domains, multicast groups.

In :mod:`nicemu.uverbs.messages` is how commands and errors work.
"""

from __future__ import annotations

from nicemu.uverbs.message import message


@message
class TagOperations:
    """Of a TM-SRQ: how many tags it holds; the ring of operations on them (``abi.tag_matching.OP``), at most
    ``max_ops`` of them, ``max_sge`` elements each, its doorbell record; the QP number of their completions."""

    max_num_tags: int
    max_ops: int
    max_sge: int
    slots: int
    ring: memoryview
    record: memoryview
    qp_number: int


@message
class SrqResponse:
    """An SRQ: its ring of receive WQEs and the doorbell record (``abi.rings.DB_SRQ_PRODUCER, DB_SRQ_CONSUMER``)."""

    handle: int
    number: int
    max_wr: int
    max_sge: int
    slots: int
    stride: int
    ring: memoryview
    record: memoryview
    tags: TagOperations | None = None


@message
class SrqAttributes:
    """``ibv_srq_attr``."""

    max_wr: int
    max_sge: int
    srq_limit: int


@message
class CreateSrq:
    """-> SrqResponse. ``type``: ``SrqType``; XRC has ``xrcd`` and ``cq``, TM ``cq`` and how many tags and operations.
    ``ring, record``: as of ``CreateCq``. EINVAL: depth, objects; EOPNOTSUPP."""

    pd: int
    max_wr: int
    max_sge: int
    type: int = 0
    xrcd: int = 0
    cq: int = 0
    max_num_tags: int = 0
    max_ops: int = 0
    ring: int = 0
    record: int = 0
    srq_limit: int = 0


@message
class ModifySrq:
    """-> SrqResponse: after a resize (mask 1) the ring may be another one. Mask 2 arms ``srq_limit``. EINVAL: both."""

    srq: int
    max_wr: int
    max_sge: int
    srq_limit: int
    mask: int


@message
class QuerySrq:
    """-> SrqAttributes. The limit is 0 when it fired."""

    srq: int


@message
class DestroySrq:
    """-> None. EBUSY: a QP uses it."""

    srq: int


@message
class OpenXrcd:
    """-> xrcd handle. ``fd`` -1: one of its own. EAGAIN: the file has none, no O_CREAT; EINVAL: it has, and O_EXCL."""

    context: int
    fd: int
    flags: int


@message
class CloseXrcd:
    """-> None. EBUSY: a QP or SRQ uses it."""

    xrcd: int


@message
class AttachMcast:
    """-> None. ``gid``: 16 bytes. EINVAL: not a UD QP, not a group's GID; ENOMEM: groups or members of the device."""

    qp: int
    gid: bytes


@message
class DetachMcast:
    """-> None. EINVAL: not a member."""

    qp: int
    gid: bytes
