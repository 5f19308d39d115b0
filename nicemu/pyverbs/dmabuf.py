"""Memory shared through dma-buf. Not there yet: EOPNOTSUPP."""

from nicemu.pyverbs._resource import Unsupported


class DmaBuf(Unsupported):
    """A dma-buf of a graphics device."""

    __slots__ = ()
