"""What creation of a raw packet QP may ask for beside the rest (``process_create_flags`` of mlx5), and its pacing."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from nicemu.abi.command import QpFlag
from nicemu.abi.verbs import QpCreateFlag, QpType
from nicemu.driver.errors import DriverError

MAX_TSO_HEADER = 1024
"""Bytes. mlx5's limit follows from its WQE size; chosen: more than any chain of headers needs."""
DEVICE_FLAGS = {
    QpCreateFlag.CVLAN_STRIPPING: QpFlag.CVLAN_STRIPPING, QpCreateFlag.SCATTER_FCS: QpFlag.SCATTER_FCS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RawOptions:
    """``create_flags`` and ``max_tso_header`` of ``ibv_qp_init_attr_ex``."""

    create_flags: int = 0
    max_tso_header: int = 0

    @property
    def device_flags(self) -> int:
        """The flags that the device acts on."""
        return sum(device for flag, device in DEVICE_FLAGS.items() if self.create_flags & flag)


def checked_options(kind: QpType, profile: Any, raw: RawOptions) -> RawOptions:
    """EINVAL: unknown flags, TSO headers that are too long or of another type. EOPNOTSUPP: the device lacks it."""
    if raw.create_flags & ~sum(QpCreateFlag):
        raise DriverError(errno.EINVAL, f"QP: creation flags {raw.create_flags:#x}")
    if kind != QpType.RAW_PACKET:
        if raw.create_flags:
            raise DriverError(errno.EOPNOTSUPP, f"QP: creation flags {raw.create_flags:#x} for {kind.name}")
        if raw.max_tso_header:
            raise DriverError(errno.EINVAL, f"QP: TSO headers for {kind.name}")
        return raw
    able = {QpCreateFlag.CVLAN_STRIPPING: profile.cvlan_stripping, QpCreateFlag.SCATTER_FCS: profile.scatter_fcs,
            QpCreateFlag.PCI_WRITE_END_PADDING: profile.end_padding}  # fmt: skip
    for flag in QpCreateFlag:
        if raw.create_flags & flag and not able.get(flag, False):
            raise DriverError(errno.EOPNOTSUPP, f"QP: no {flag.name} on this device")
    if raw.max_tso_header and not profile.max_tso:
        raise DriverError(errno.EOPNOTSUPP, "QP: no TSO on this device")
    if raw.max_tso_header > MAX_TSO_HEADER:
        raise DriverError(errno.EINVAL, f"QP: TSO headers of {raw.max_tso_header} bytes, at most {MAX_TSO_HEADER}")
    return raw


def check_rate(profile: Any, kbps: int) -> None:
    """EINVAL: packet pacing to a rate the device does not have (``mlx5_rl_add_rate``); 0 turns it off."""
    low, high = (profile.qp_rate_limit_min_kbps, profile.qp_rate_limit_max_kbps) if profile else (0, 0)
    if kbps and not low <= kbps <= high:
        raise DriverError(errno.EINVAL, f"modify QP: a rate of {kbps} kb/s")
