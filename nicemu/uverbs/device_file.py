"""Open devices (``ib_uverbs_file``): the descriptor a program has of one, and who else has it.

The descriptor is the read end of a pipe that nobody writes to. Its inode says which open device it stands for, and the
kernel says when no process has it open any more: the write end, which only we have, then polls as broken. So a
duplicate keeps the device open, as does a forked child's copy, and the context with all its objects goes with the last
one (``ib_uverbs_release_file``). A duplicate that the program closes by itself is noticed at the next command.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nicemu.driver import DriverError, context
from nicemu.driver.handles import Handles
from nicemu.timeline.host import Steps
from nicemu.uverbs import import_messages as i
from nicemu.uverbs import messages as m

if TYPE_CHECKING:
    from nicemu.uverbs.dispatch import Dispatcher


class DeviceFile:
    """``contexts``: contexts of the program that use it (``ibv_open_device``, ``ibv_import_device``)."""

    def __init__(self, name: str) -> None:
        self.name, self.contexts = name, 1
        self.fd, self._ours = os.pipe()
        status = os.fstat(self.fd)
        self._inode = status.st_dev, status.st_ino

    def has(self, fd: int) -> bool:
        """``fd`` is a descriptor of it."""
        try:
            status = os.fstat(fd)
        except (OSError, OverflowError):
            return False
        return (status.st_dev, status.st_ino) == self._inode

    @property
    def open(self) -> bool:
        """Some process has a descriptor of it."""
        poll = select.poll()
        poll.register(self._ours, 0)
        return not poll.poll(0)

    def give_up(self, fd: int) -> None:
        """A context ends, with its descriptor (-1: the one that opening gave) unless the program closed that."""
        self.contexts -= 1
        fd = self.fd if fd < 0 else fd
        if self.has(fd):
            os.close(fd)

    def close(self) -> None:
        """It is over: our end goes, and the first descriptor if it is there still."""
        if self.has(self.fd):
            os.close(self.fd)
        with contextlib.suppress(OSError):
            os.close(self._ours)


def import_device(self: Dispatcher, c: i.ImportDevice) -> i.DeviceResponse:
    """``ibv_import_device``."""
    for handle, file in self.files.items():
        if file.has(c.fd):
            file.contexts += 1
            return i.DeviceResponse(handle, file.name)
    raise DriverError(errno.EINVAL, f"import: descriptor {c.fd} is not one of an open device")


def command_fd(self: Dispatcher, c: i.CommandFd) -> int:
    return _file(self, c.context).fd


def close_device(self: Dispatcher, c: m.CloseDevice) -> Steps[None]:
    give_up(self, c)
    yield from release_unused(self)


def give_up(self: Dispatcher, c: m.CloseDevice) -> None:
    """This process's part of closing."""
    file = _file(self, c.context)
    if not file.contexts:
        raise DriverError(errno.EBADF, "the device is open by descriptors only")
    file.give_up(c.fd)


def _file(self: Dispatcher, handle: int) -> DeviceFile:
    """EINVAL: no such context."""
    self.driver.contexts.get(handle)
    return self.files[handle]


def release_unused(self: Dispatcher) -> Steps[None]:
    """Destroy the contexts of devices that nobody has open any more; remember those kept open by a descriptor alone."""
    self.orphans = 0
    for handle, file in list(self.files.items()):
        if file.contexts:
            continue
        if file.open:
            self.orphans += 1
            continue
        del self.files[handle]
        file.close()
        yield from _destroy(self, handle)


def _destroy(self: Dispatcher, handle: int) -> Steps[None]:
    """``ib_uverbs_release_file``: what is left of the context's objects, then its event files."""
    yield from context.close(self.driver.contexts.get(handle))
    self.async_files.pop(handle).close()
    for channel in self.channels:
        if channel.context == handle:
            self.channels.remove(channel.handle).close()
    self.channel_of = {cq: channel for cq, channel in self.channel_of.items() if channel.context != handle}


# Objects by handle ----------------------------------------------------------------------------------------------------


def _imported(handles: Handles[Any], handle: int, owner: context.Context, owner_of: Callable[[Any], Any]) -> Any:
    """The object, if it is one of this context. ENOENT."""
    found = next((thing for thing in handles if thing.handle == handle and owner_of(thing) is owner), None)
    if found is None:
        raise DriverError(errno.ENOENT, f"no {handles.what} with handle {handle} in this context")
    return found


def import_pd(self: Dispatcher, c: i.ImportPd) -> None:
    _imported(self.driver.pds, c.pd, self.driver.contexts.get(c.context), lambda pd: pd.context)


def import_mr(self: Dispatcher, c: i.ImportMr) -> i.ImportedMr:
    """``UVERBS_METHOD_QUERY_MR``."""
    owner = self.driver.pds.get(c.pd).context
    region = _imported(self.driver.mrs, c.mr, owner, lambda mr: mr.pd.context)
    return i.ImportedMr(region.key, region.key, region.length)


def import_dm(self: Dispatcher, c: i.ImportDm) -> None:
    _imported(self.driver.dms, c.dm, self.driver.contexts.get(c.context), lambda dm: dm.context)


HANDLERS: dict[type, Callable[[Any, Any], Any]] = {
    m.CloseDevice: close_device, i.CommandFd: command_fd, i.ImportDevice: import_device, i.ImportPd: import_pd,
    i.ImportMr: import_mr, i.ImportDm: import_dm,
}  # fmt: skip
