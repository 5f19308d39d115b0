"""Record dtypes of the fabric: links, impairments, injected faults. Rules as in nicemu.tables.records."""

from enum import IntEnum

from nicemu.tables.record import record

FABRIC = record(
    "nics", "seed",
    "switched",              # 1: all links end at one switch; 0: every NIC has a wire to every other
    "latency_ns",            # of the switch: packet received -> at its output port
    "ecn_min", "ecn_max",    # bytes queued at an output: no mark up to ecn_min, always from ecn_max on; 0: never
    "ecn_chance",            # of a mark just below ecn_max, of 2^32
    "xoff", "xon",           # bytes held of one ingress port: pause from xoff on, go on at xon; xoff 0: never pause
    "fired",                 # faults injected so far: the number of the last row written in FIRED
    "impairments", "taps", "numbers",  # rows used
)  # fmt: skip
"""One row: the whole fabric."""

LINK = record(
    "plain",                 # fast path: up, no impairment, no switch, at least as fast as the port
    "up",
    "captured",              # a capture sees this link: each that a NIC sends into, and others that can change a packet
    "ps_per_byte", "delay_ns",
    "mtu",                   # largest IP packet, bytes
    "number", "nic",
    "queue_packets", "queue_bytes",  # limits; 0: none
    "free_at",               # when the packet on the wire has left, ns
    "in_order_at",           # arrival of the last packet that was not reordered, ns
    "paused",                # the far end sent XOFF: packets are held
    "event",                 # a LINK_FREE event is in the wheel
    "head", "tail", "queued", "bytes_queued",
    "ingress_bytes",         # bytes that came in over this link and wait in the switch
    "xoff_sent",
    "first_tap",             # impairments: chain of TAP rows, in the order of the configuration
    "extra_ns", "late_ns", "copies", "copy_ns",  # what the impairments decided about the packet in hand
    "arrivals",              # packets that came to this output of the switch: the count of its mark draws
    # counters
    "packets", "bytes", "mtu_drops", "queue_drops", "down_drops", "losses", "duplicated", "ecn_marks", "pauses",
)  # fmt: skip
"""Directed links: row 2i-1 is what NIC i sends into, 2i what leads to it (nicemu.fabric.link)."""

IMPAIR = record(
    "kind",                  # ImpairKind
    "transport", "qpn",      # filter; -1: any
    "operations",            # filter: a bit for each operation
    "from_ns", "until_ns",   # window
    "chance",                # of 2^32; -1: no draw
    "every",                 # each so-manieth packet; 0: not by count
    "numbers", "number_count",  # rows of NUMBER with packet numbers, counted per link from 1
    "psns", "psn_count",     # rows of NUMBER with PSNs
    "limit",                 # firings at most; -1: no limit
    "delay_ns", "jitter_ns", # REORDER, DUPLICATE, DELAY
    "bit",                   # CORRUPT: bit to flip; -1: drawn
    "field", "value", "add", # REWRITE: PacketField; its new value, or (add 1) what is added to it
    "fired",
)  # fmt: skip
TAP = record("impairment", "next", "seen")
"""An impairment on one link; ``seen``: packets that passed its filter there."""

NUMBER = record("value")
"""Lists of packet numbers and PSNs."""

FIRED = record(
    "number", "impairment", "time", "link", "transport", "operation", "psn", "qpn", "did",
    "previous",              # number of the fault that had hit the same packet before, 0: none
)  # fmt: skip
"""A ring of injected faults: number k is row 1 + (k - 1) % (rows - 1)."""

FIRED_ROWS = 1 << 16
"""Row 0 and the ring of injected faults."""


class ImpairKind(IntEnum):
    """What a link can do to a packet."""

    LOSS, REORDER, DUPLICATE, CORRUPT, DELAY, PARTITION, REWRITE = range(1, 8)


class PacketField(IntEnum):
    """Fields that REWRITE can change."""

    (
        TRANSPORT, OPERATION, PSN, DEST_QPN, PAYLOAD, LENGTH, VA, RKEY, SYNDROME, MSN, IMM, PKEY, QKEY, ACK_REQUEST,
        SOLICITED, SRQN,
    ) = range(1, 17)  # fmt: skip


class LinkDrop(IntEnum):
    """Why a link or switch lost a packet that no impairment hit."""

    DOWN, MTU, QUEUE, NO_DESTINATION = range(1, 5)
