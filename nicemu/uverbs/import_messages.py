"""Commands about what several contexts share: descriptors of an open device, and what is imported by handle.

In :mod:`nicemu.uverbs.messages` is how commands and errors work. ENOENT: the handle stands for nothing of that kind in
the context (``rdma_lookup_get_uobject``: handles are looked up among the objects of one open device).
"""

from __future__ import annotations

from nicemu.uverbs.message import message


@message
class DeviceResponse:
    """The open device that a descriptor stands for: its context handle and the device's name."""

    handle: int
    name: str


@message
class ImportedMr:
    """A region of somebody else. ``length``: bytes."""

    lkey: int
    rkey: int
    length: int


@message
class CommandFd:
    """-> int: the descriptor that opening the device gave."""

    context: int


@message
class ImportDevice:
    """-> DeviceResponse; ``fd`` is closed with the new context. EINVAL: no descriptor of an open device."""

    fd: int


@message
class ImportPd:
    """-> None. ENOENT."""

    context: int
    pd: int


@message
class ImportMr:
    """-> ImportedMr. ENOENT: no region of the PD's context; its own PD may be another one."""

    pd: int
    mr: int


@message
class ImportDm:
    """-> None. ENOENT."""

    context: int
    dm: int
