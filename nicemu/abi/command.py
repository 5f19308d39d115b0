"""The command queue's format: 128-byte slots in host memory, one mailbox each.

The driver fills a slot, rings ``Doorbell.COMMAND`` with its number, and the device answers with an EQE of type CMD
after writing the status word. ``params`` are signed 64-bit; their meaning per opcode stands in :class:`Command`.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

COMMAND = struct.Struct("<II14qQ")
"""opcode, status, params[14], mailbox address."""
COMMANDS = tuple(struct.Struct(f"<II{given}q{8 * (14 - given)}xQ") for given in range(15))
"""The same with the first parameters only, by how many; the others are zero."""
COMMAND_BYTES = 128
COMMAND_STATUS, COMMAND_PARAMS, COMMAND_MAILBOX = 4, 8, 120
COMMAND_SLOTS = 64
ANSWER = 0x41_4E_00_00
"""Fault injection: a slot's status word of this plus an error has the device answer that error, and do nothing. No
driver writes it, and a device writes only errors themselves."""


class Status(IntEnum):
    """Command status."""

    OK, BAD_OPCODE, BAD_PARAM, BAD_RESOURCE, NO_MEMORY, BAD_STATE, INTERNAL_ERROR = range(7)


class Command(IntEnum):
    """Opcodes and their parameters (by index)."""

    NOP = 0
    CREATE_MKEY = 1
    """index, key, pd, base va, length, access, flags (``MkeyFlag``), number (log name), skew (bytes that the first
    byte's address lies behind the base va, within a page), page shift (0: 12), offset in device memory."""
    DESTROY_MKEY = 2
    """index. Flushes its translations and drains like ZAP_MTT; mailbox receives the last key (a window's program has
    changed it). BAD_STATE: windows are bound to it."""
    CREATE_CQ = 3
    """cqn, ring address, slots, doorbell record address, eqn, flags (``CqFlag``)."""
    DESTROY_CQ = 4
    """cqn."""
    CREATE_QP = 5
    """qpn, type, pd, send cqn, recv cqn, send ring, send slots, send stride, recv ring, recv slots, recv stride,
    doorbell record, flags (``QpFlag``), first row of its SQ_ENTRY slice. With an SRQ: recv slots 0 and the
    srqn in place of the ring. XRC target: send slots 0 and the XRC domain in place of the ring. RSS: type RAW_PACKET,
    no slots, the number of its indirection table in place of the receive ring, the fields that are hashed in place of
    the send ring; mailbox: the Toeplitz key. Raw packets: the send stride says how many bytes of TSO headers fit."""
    MODIFY_QP = 6
    """qpn, attribute mask, mailbox: ``QP_CONTEXT`` of int64 (order of ``QpField``)."""
    QUERY_QP = 7
    """qpn, mailbox receives ``QP_CONTEXT``."""
    DESTROY_QP = 8
    """qpn."""
    UPDATE_MTT = 9
    """mkey index, first page, pages; mailbox: MTT entries, int64 each. Of an implicit mkey: first child, children;
    mailbox: keys of the children, 0 for none."""
    ZAP_MTT = 10
    """mkey index, first page, pages. Completes when no DMA uses the old translations any more."""
    PAGE_FAULT_RESUME = 11
    """token, error (0 or 1)."""
    CREATE_SRQ = 12
    """srqn, pd, ring address, slots, stride, doorbell record, type (``SrqType``), XRC domain, cqn (XRC, TM); mailbox
    (TM): ``TAG_LIST`` of int64 (order of ``TagListField``)."""
    MODIFY_SRQ = 13
    """srqn, limit to arm (0: off)."""
    QUERY_SRQ = 14
    """srqn; mailbox receives the limit (int64): 0 once it fired."""
    DESTROY_SRQ = 15
    """srqn."""
    RESIZE_SRQ = 16
    """srqn, ring address, slots: the device copies the WQEs not taken yet. BAD_PARAM: they do not fit."""
    CREATE_AH = 17
    """ahn, pd; mailbox: ``ADDRESS_VECTOR`` of int64 (order of ``AvField``)."""
    DESTROY_AH = 18
    """ahn."""
    ATTACH_MCAST = 19
    """qpn, high and low half of the multicast GID (big-endian, signed). NO_MEMORY: the table is full."""
    DETACH_MCAST = 20
    """qpn, high and low half of the multicast GID."""
    SET_GID = 21
    """index, high and low half, type (0: clear the entry)."""
    RESIZE_CQ = 22
    """cqn, address and slots of a zeroed ring, entries: the device copies the CQEs that wait. BAD_PARAM: more than
    ``entries`` do. Number, counters, arming and moderation stay."""
    MODIFY_CQ = 23
    """Moderation: cqn, CQEs, microseconds: an armed CQ raises its event at the CQE of that number, or so long after the
    first, whichever comes first; 0: that rule is off. Counting begins anew."""
    MODIFY_MKEY = 24
    """Re-registration: index, mask (``Rereg``), key, pd, base va, length, access, flags, skew, page shift. With
    TRANSLATION all translations go. Drains like ZAP_MTT. BAD_STATE: windows are bound to it."""
    ALLOC_DM = 25
    """offset in device memory, bytes: cleared for a new owner. The driver keeps the books (mlx5's memic bitmap)."""
    FREE_DM = 26
    """offset in device memory, bytes: poisoned."""
    CREATE_FLOW = 40
    """number, qpn, type (``FlowType``), priority, dont_trap (0 or 1); mailbox: values, then masks, int64 each, in the
    order of ``MatchField``. NO_MEMORY: out of rules."""
    DESTROY_FLOW = 41
    """number."""
    CREATE_RQT = 42
    """Indirection table: number, entries (a power of two); mailbox: WQ numbers, int64 each."""
    DESTROY_RQT = 43
    """number."""
    PLACE_RINGS = 44
    """owner (``RingOwner``), its number, mkey indices of its ring memory and of its doorbell record, 0: as created.
    They lie in memory of the program now; the addresses given at creation are where the device keeps its copy."""


class RingOwner(IntEnum):
    """Whose rings PLACE_RINGS is about."""

    QP, CQ, SRQ = range(3)


WORK_QUEUE = 128
"""QP type of the device beside the verbs ones: a receive queue and nothing else (``ibv_wq``). States RESET, RTR (ready)
and ERR."""


class FlowType(IntEnum):
    """``ibv_flow_attr_type``."""

    NORMAL, ALL_DEFAULT, MC_DEFAULT, SNIFFER = range(4)


class QpFlag(IntFlag):
    """Flags of CREATE_QP."""

    SIGNAL_ALL = 1
    RENDEZVOUS = 2
    """The send queue is the device's own: it reads rendezvous payload through it (mlx5 ``QPC_OFFLOAD_TYPE_RNDV``)."""
    CVLAN_STRIPPING = 4
    """Raw packets and WQs: the outermost VLAN tag goes into the completion."""
    SCATTER_FCS = 8
    """Raw packets and WQs: the four bytes of the FCS are received too."""


class CqFlag(IntEnum):
    """Flags of CREATE_CQ."""

    IGNORE_OVERRUN = 1
    """A full ring is overwritten; no CQ_ERR."""


class MkeyFlag(IntEnum):
    """Flags of CREATE_MKEY."""

    ODP = 1
    IMPLICIT = 2
    """The whole address space: child mkeys of 1 GiB, given by UPDATE_MTT of the parent (mlx5: KSM)."""
    NULL = 4
    """Writes are discarded, reads give zeros."""
    DEVICE_MEMORY = 8
    MW_TYPE_1 = 16
    """A memory window: no access until a BIND_MW opens it."""
    MW_TYPE_2 = 32


class Rereg(IntFlag):
    """``ibv_rereg_mr_flags``: what a MODIFY_MKEY changes."""

    TRANSLATION, PD, ACCESS = 1, 2, 4


class QpField(IntEnum):
    """Words of a QP context in a MODIFY_QP or QUERY_QP mailbox."""

    (
        STATE,
        CUR_STATE,
        ACCESS,
        PKEY_INDEX,
        PORT,
        QKEY,
        PATH_MTU,
        TIMEOUT,
        RETRY_CNT,
        RNR_RETRY,
        RQ_PSN,
        MAX_RD_ATOMIC,
        MIN_RNR_TIMER,
        SQ_PSN,
        MAX_DEST_RD_ATOMIC,
        DEST_QPN,
        DEST_NIC,
        SQ_DRAINING,
        EN_SQD_ASYNC_NOTIFY,
        SGID_INDEX,
        DGID_HIGH,
        DGID_LOW,
        FLOW_LABEL,
        TRAFFIC_CLASS,
        HOP_LIMIT,
        SL,
        RX_FLAGS,
        RATE_KBPS,
    ) = range(28)


RX_FLAGS_MASK = 1 << 32
"""Bit of a MODIFY_QP mask beside ``ibv_qp_attr_mask``: RX_FLAGS counts."""


class AvField(IntEnum):
    """Words of an address vector in a CREATE_AH mailbox; ``DEST_NIC`` 0: nobody has that GID."""

    DEST_NIC, SGID_INDEX, DGID_HIGH, DGID_LOW, FLOW_LABEL, TRAFFIC_CLASS, HOP_LIMIT, SL, MULTICAST = range(9)


class TagListField(IntEnum):
    """Words of the tag list of a TM-SRQ in a CREATE_SRQ mailbox: first row and number of its TAG rows; ring, slots and
    doorbell record of its operations; the QP number that their completions carry."""

    FIRST, COUNT, RING, SLOTS, RECORD, QPN = range(6)


TAG_LIST = struct.Struct(f"<{len(TagListField)}q")
QP_CONTEXT = struct.Struct(f"<{len(QpField)}q")
ADDRESS_VECTOR = struct.Struct(f"<{len(AvField)}q")

IMPLICIT_SHIFT, IMPLICIT_BITS = 30, 47
"""Implicit mkeys: log2 of a child's bytes (MLX5_IMR_MTT_SHIFT), and of the address space covered (TASK_SIZE)."""
HUGE_SHIFT = 21

MTT_READ, MTT_WRITE = 1, 2
MTT_FRAME_SHIFT, MTT_FRAME_BITS, MTT_STAMP_SHIFT = 2, 30, 32


def mtt_entry(frame: int, write: bool, stamp: int) -> int:
    """An MTT entry: bit 0 read, bit 1 write, bits 2..31 bus frame, bits 32..62 the mm stamp it was made at."""
    return MTT_READ | (MTT_WRITE if write else 0) | frame << MTT_FRAME_SHIFT | stamp << MTT_STAMP_SHIFT
