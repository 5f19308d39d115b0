"""Flow specifications. Not there yet: EOPNOTSUPP."""

from nicemu.pyverbs._resource import Unsupported
from nicemu.pyverbs.pyverbs_error import PyverbsError

__all__ = ["U32_MASK", "EthSpec", "Ipv4ExtSpec", "Ipv6Spec", "PyverbsError", "Spec", "TcpUdpSpec"]

U32_MASK = 0xFFFFFFFF


class Spec(Unsupported):
    """What packets of a flow look like."""

    __slots__ = ()


class EthSpec(Spec):
    """Ethernet header."""

    __slots__ = ()


class Ipv4ExtSpec(Spec):
    """IPv4 header."""

    __slots__ = ()


class TcpUdpSpec(Spec):
    """TCP or UDP header."""

    __slots__ = ()


class Ipv6Spec(Spec):
    """IPv6 header."""

    __slots__ = ()
