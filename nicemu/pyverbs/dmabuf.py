"""Memory shared through dma-buf. Not there yet: EOPNOTSUPP."""

from nicemu.pyverbs._resource import Unsupported
from nicemu.pyverbs.base import PyverbsRDMAErrno

__all__ = ["DmaBuf", "PyverbsRDMAErrno"]


class DmaBuf(Unsupported):
    """A dma-buf of a graphics device."""

    __slots__ = ()
