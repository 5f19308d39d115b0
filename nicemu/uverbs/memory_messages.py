"""Commands about memory: regions of every kind, advice about them, memory windows, device memory.

In :mod:`nicemu.uverbs.messages` is how commands and errors work.
"""

from __future__ import annotations

from nicemu.uverbs.message import message


@message
class MrResponse:
    """A registered region."""

    handle: int
    lkey: int
    rkey: int


@message
class MwResponse:
    """A memory window; binding changes the low eight bits of its R_Key."""

    handle: int
    rkey: int


@message
class RegMr:
    """-> MrResponse. EINVAL: remote write or atomic without local write, zero length; EFAULT: not mapped; ENOMEM."""

    pd: int
    address: int
    length: int
    access: int
    iova: int


@message
class DeregMr:
    """-> None"""

    mr: int


@message
class ReregMr:
    """-> MrResponse. ``flags``: ``abi.command.Rereg``; a field they do not name is ignored.

    EINVAL, EOPNOTSUPP: refused (windows are bound, for one), nothing has changed. EFAULT: the new memory is not there;
    the MR can only be deregistered.
    """

    mr: int
    flags: int
    pd: int = 0
    address: int = 0
    length: int = 0
    iova: int = 0
    access: int = 0


@message
class RegNullMr:
    """-> MrResponse. Its lkey takes any address: writes vanish, reads give zeros."""

    pd: int


@message
class AdviseMr:
    """-> None. ``sges``: (address, length, lkey)."""

    pd: int
    advice: int
    flags: int
    sges: tuple[tuple[int, int, int], ...]


@message
class AllocMw:
    """-> MwResponse. EINVAL: ``type`` is neither 1 nor 2; ENOMEM."""

    pd: int
    type: int


@message
class DeallocMw:
    """-> None"""

    mw: int


@message
class AllocDm:
    """-> dm handle. Device memory, zeroed. ENOMEM: not that much is left."""

    context: int
    length: int
    log_align: int = 0


@message
class FreeDm:
    """-> None. EBUSY: a region of it exists."""

    dm: int


@message
class DmCopy:
    """-> bytes at ``offset``, after ``data`` was put there. EFAULT: outside; EINVAL: not whole words."""

    dm: int
    offset: int
    length: int
    data: bytes | None = None


@message
class RegDmMr:
    """-> MrResponse. EINVAL: not zero-based, or outside of the device memory."""

    pd: int
    dm: int
    offset: int
    length: int
    access: int


@message
class RegDmabufMr:
    """-> MrResponse. EBADF: ``fd`` is not open; EINVAL: no dma-buf, outside of it, other flags than local and remote
    access; the iova must lie in its page where the offset does."""

    pd: int
    offset: int
    length: int
    iova: int
    fd: int
    access: int
