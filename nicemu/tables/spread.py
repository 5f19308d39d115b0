"""How far the costs of a device or a host lie apart: one row of quantiles each."""

from nicemu.tables.record import record

SPREAD = record("p0", "p50", "p95", "p99", "p100")
"""Factors in 1/65536 at these percentiles; ``p50`` 0: no spread. Row of a NIC: its number; the row behind the last
NIC's is the host's."""
