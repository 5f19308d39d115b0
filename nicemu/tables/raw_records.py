"""Record dtypes of raw Ethernet: parsed headers, flow rules, indirection tables. Rules as in nicemu.tables.records."""

from enum import IntEnum

from nicemu.tables.record import record


class MatchField(IntEnum):
    """What a flow rule can look at: words of HEADERS, and of the value and the mask of a FLOW."""

    (
        DST_MAC, SRC_MAC, ETHER_TYPE, VLAN, L3, SRC_HIGH, SRC_LOW, DST_HIGH, DST_LOW, PROTO, TOS, TTL, IP_FLAGS,
        FLOW_LABEL, L4, SRC_PORT, DST_PORT,
    ) = range(17)  # fmt: skip


MATCH = (
    "dst_mac", "src_mac",
    "ether_type",            # behind the last VLAN tag
    "vlan",                  # outermost tag, VLAN_PRESENT added; 0: untagged
    "l3",                    # 4, 6, or 0: neither
    "src_high", "src_low", "dst_high", "dst_low",  # addresses, big-endian halves as int64; IPv4 in the low one
    "proto",                 # IPv4 protocol, or IPv6 next header
    "tos", "ttl",            # or traffic class and hop limit
    "ip_flags",              # the three bits of IPv4's fragment word
    "flow_label",
    "l4",                    # IP protocol whose ports were read: TCP or UDP; 0: no ports
    "src_port", "dst_port",
)  # fmt: skip
VLAN_PRESENT = 1 << 16

HEADERS = record(
    *MATCH,
    "l3_at", "l4_at",        # where those headers start in the frame
    "l4_end",                # where the IP packet ends, never behind the frame's end
    "whole",                 # IP and TCP or UDP headers are complete, and it is no fragment
)  # fmt: skip
"""One row: what was read of the frame in hand."""

FLOW = record(
    "valid",                 # 1; 2: chosen for the frame in hand
    "qp",                    # QP row
    "type",                  # FlowType
    "priority", "order",     # the lowest priority goes first, of equal ones the one made first
    "dont_trap",             # rules behind it see the frame too
    *MATCH,
    *(f"{name}_mask" for name in MATCH),
)  # fmt: skip
FLOW_MATCH_WORD = 6
"""Word of FLOW with which values and masks start."""

RQT = record("valid", "size")
"""Indirection tables: receive queue tables of the device."""
RQT_ENTRY = record("wq")
"""WQ rows, ``RQT_ENTRIES`` for each table."""
RQT_ENTRIES = 256
HASH_KEY_BYTES = 40
"""Toeplitz key of an RSS QP: the longest input is 36 bytes, and each bit looks at 32 bits of key."""
