"""Record dtypes of addresses. Rules as in nicemu.tables.records."""

from nicemu.tables.record import record

AV = record(
    "valid", "pd", "dest_nic", "sgid_index", "dgid_high", "dgid_low", "flow_label", "traffic_class", "hop_limit",
    "sl", "multicast",
    "ipv6",                  # 1: the destination GID is no IPv4-mapped address
)  # fmt: skip
"""Address vectors: of address handles, and behind them one for each QP."""

MCAST = record("nic", "qpn", "mgid_high", "mgid_low")
"""Members of multicast groups; ``nic`` 0: a free row."""

GID = record("high", "low", "type")
"""GID table entries of the NICs: big-endian halves as int64; ``type``: 0 empty, 1 RoCE v1, 2 RoCE v2."""
