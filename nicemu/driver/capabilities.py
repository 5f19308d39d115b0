"""Sizes of queues: what a device has, and what a program is granted of it (``rxe_qp_chk_cap, rxe_init_sq``)."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

from nicemu.abi.rings import SGE_BYTES, power_of_two
from nicemu.driver.errors import DriverError


def check_capabilities(profile: Any, caps: Any) -> None:
    """EINVAL: more than the device has."""
    limits = {"max_send_wr": profile.max_qp_wr, "max_recv_wr": profile.max_qp_wr, "max_send_sge": profile.max_sge,
              "max_recv_sge": profile.max_sge, "max_inline_data": profile.max_inline_data}  # fmt: skip
    for name, limit in limits.items():
        if not 0 <= getattr(caps, name) <= limit:
            raise DriverError(errno.EINVAL, f"QP: {name} {getattr(caps, name)}, the device has {limit}")


def granted_capabilities(profile: Any, caps: Any) -> Any:
    """What a QP has for ``caps``: as asked, or more, as the device's driver lays out queues."""
    software = profile.software
    if software.power_of_two_queues:
        sends, receives = granted_depth(profile, caps.max_send_wr), granted_depth(profile, caps.max_recv_wr)
        caps = replace(caps, max_send_wr=sends, max_recv_wr=receives)
    if software.inline_shares_sges:
        room = max(caps.max_send_sge * SGE_BYTES, caps.max_inline_data)
        caps = replace(caps, max_send_sge=room // SGE_BYTES, max_inline_data=room)
    return caps


def granted_depth(profile: Any, asked: int) -> int:
    """Requests that a queue has room for, when ``asked`` were wanted."""
    return power_of_two(asked + 1) - 1 if profile.software.power_of_two_queues else asked


def fitting_attributes(attributes: Any) -> Any:
    """Values that fit their fields, of what a driver takes that does not look (``rxe_qp_from_attr``)."""
    most = attributes.max_dest_rd_atomic
    return replace(
        attributes, retry_cnt=attributes.retry_cnt & 7, rnr_retry=attributes.rnr_retry & 7, pkey_index=0,
        min_rnr_timer=attributes.min_rnr_timer & 31, path_mtu=attributes.path_mtu or 1,
        dest_qp_num=attributes.dest_qp_num & 0xFFFFFF, max_dest_rd_atomic=most if most <= 128 else 0,
    )  # fmt: skip
