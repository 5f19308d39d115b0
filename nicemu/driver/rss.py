"""RSS QPs: a raw packet QP that hashes frames into an indirection table (``create_rss_raw_qp_tir`` of mlx5)."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from nicemu.abi.command import Command
from nicemu.abi.verbs import QpState, QpType, RxHash
from nicemu.driver.errors import DriverError
from nicemu.driver.pd import Pd
from nicemu.driver.qp import NO_RING, Qp
from nicemu.driver.raw_options import RawOptions
from nicemu.driver.rwq_ind_table import IndTable
from nicemu.tables.raw_records import HASH_KEY_BYTES
from nicemu.timeline.host import Steps

TOEPLITZ = 1
EXCLUSIVE = (
    (RxHash.SRC_IPV4 | RxHash.DST_IPV4, RxHash.SRC_IPV6 | RxHash.DST_IPV6),
    (RxHash.SRC_PORT_TCP | RxHash.DST_PORT_TCP, RxHash.SRC_PORT_UDP | RxHash.DST_PORT_UDP),
)
"""Fields of which a hash has one sort at most."""


@dataclass(frozen=True, slots=True)
class Hash:
    """``ibv_rx_hash_conf``."""

    function: int
    key: bytes
    fields: int


def check(hashing: Hash, table: IndTable, raw: RawOptions) -> None:
    """EINVAL: creation flags, a key that has not 40 bytes, unknown fields, both IPv4 and IPv6 or both TCP and UDP, no
    fields with a table of several WQs. EOPNOTSUPP: another function than Toeplitz.
    """
    if raw.create_flags or raw.max_tso_header:
        raise DriverError(errno.EINVAL, "RSS QP: creation flags or TSO headers")
    if hashing.function != TOEPLITZ:
        raise DriverError(errno.EOPNOTSUPP, f"RSS QP: hash function {hashing.function}")
    if len(hashing.key) != HASH_KEY_BYTES:
        raise DriverError(errno.EINVAL, f"RSS QP: a key of {len(hashing.key)} bytes, not {HASH_KEY_BYTES}")
    if hashing.fields & ~sum(RxHash) or (not hashing.fields and len(table.wqs) > 1):
        raise DriverError(errno.EINVAL, f"RSS QP: fields {hashing.fields:#x}")
    for one, other in EXCLUSIVE:
        if hashing.fields & one and hashing.fields & other:
            raise DriverError(errno.EINVAL, f"RSS QP: fields {hashing.fields:#x} exclude each other")


def create(pd: Pd, table: IndTable, hashing: Hash, raw: RawOptions, caps: Any) -> Steps[Qp]:
    """An RSS QP: it receives at once, through the WQs of its table. Errors: as :func:`check`; ENOMEM: out of QPs."""
    context, device = pd.context, pd.context.device
    check(hashing, table, raw)
    if table.context is not context:
        raise DriverError(errno.EINVAL, "RSS QP: an indirection table of another context")
    made = Qp(context, QpType.RAW_PACKET, device.qp_numbers.take(), caps, NO_RING, pd, ind_table=table)
    try:
        yield from device.commands.execute(
            Command.CREATE_QP, made.number, QpType.RAW_PACKET, pd.number, 0, 0, hashing.fields, 0, 0, table.number, 0,
            0, 0, 0, 0, mailbox=hashing.key,
        )  # fmt: skip
    except DriverError:
        device.qp_numbers.give(made.number)
        raise
    made.record = device.records.take()
    for user in made.used:
        user.users += 1
    made.state = QpState.RESET
    made.handle = context.driver.qps.add(made)
    device.qps[made.number] = made
    return made
