"""Verbs that a device's driver or library does not have: EOPNOTSUPP, as libibverbs' empty operations answer."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NoReturn

from nicemu.driver import DriverError
from nicemu.driver.core import Driver
from nicemu.uverbs import import_messages as i
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from nicemu.uverbs import raw_messages as r
from nicemu.uverbs import srq_messages as s

COMMANDS: dict[str, tuple[type, ...]] = {
    "advise_mr": (mem.AdviseMr,), "alloc_dm": (mem.AllocDm,), "alloc_null_mr": (mem.RegNullMr,),
    "create_flow": (r.CreateFlow,), "create_wq": (r.CreateWq, r.CreateIndTable, r.CreateRssQp),
    "import_device": (i.ImportDevice, i.ImportPd, i.ImportMr, i.ImportDm), "modify_cq": (m.ModifyCq,),
    "open_xrcd": (s.OpenXrcd,), "query_rt_values": (m.QueryRtValues,), "reg_dmabuf_mr": (mem.RegDmabufMr,),
    "rereg_mr": (mem.ReregMr,),
}  # fmt: skip
"""By their names in a profile's ``software: lacks:``."""
Handlers = dict[type, Callable[[Any, Any], Any]]


def without(handlers: Handlers, driver: Driver) -> Handlers:
    """The handlers of what the devices have; all devices of a lab are alike."""
    lacking = {name for device in driver.devices for name in device.profile.software.lacks}
    return handlers | {command: refuse for name in lacking for command in COMMANDS.get(name, ())}


def refuse(_: Any, command: Any) -> NoReturn:
    """EOPNOTSUPP."""
    raise DriverError(errno.EOPNOTSUPP, f"{type(command).__name__}: the device does not have it")
