"""The connection manager. Not there yet: EOPNOTSUPP."""

from nicemu.pyverbs._resource import Unsupported
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError

__all__ = [
    "CMID",
    "AddrInfo",
    "CMEvent",
    "CMEventChannel",
    "ConnParam",
    "JoinMCAttrEx",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "PyverbsUserError",
    "UDParam",
]


class ConnParam(Unsupported):
    """Parameters of a connection."""

    __slots__ = ()


class JoinMCAttrEx(Unsupported):
    """How to join a multicast group."""

    __slots__ = ()


class UDParam(Unsupported):
    """Where a datagram peer is."""

    __slots__ = ()


class AddrInfo(Unsupported):
    """A resolved address."""

    __slots__ = ()


class CMEvent(Unsupported):
    """A connection event."""

    __slots__ = ()


class CMEventChannel(Unsupported):
    """Where connection events arrive."""

    __slots__ = ()


class CMID(Unsupported):
    """A connection identifier."""

    __slots__ = ()
