"""The connection manager's classes. Connections are not emulated: what needs one raises EOPNOTSUPP and never waits.

Structures that a program fills in (ConnParam, AddrInfo, JoinMCAttrEx) are complete. A CMEventChannel, a CMEvent and a
CMID with something behind it cannot be made.
"""

from __future__ import annotations

from typing import Any, NoReturn

from nicemu.pyverbs._cm_attr import AddrInfo, ConnParam, JoinMCAttrEx
from nicemu.pyverbs._facade import publish
from nicemu.pyverbs._fields import expect
from nicemu.pyverbs._resource import unsupported
from nicemu.pyverbs.addr import AH, AHAttr
from nicemu.pyverbs.base import PyverbsCM, PyverbsObject, PyverbsRDMAErrno
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import ibv_access_flags, ibv_send_flags
from nicemu.pyverbs.librdmacm_enums import RDMA_OPTION_ID_ACK_TIMEOUT, rdma_cm_event_type, rdma_port_space
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.qp import ECE, QPAttr, QPInitAttr

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

publish(__name__)

_TCP = rdma_port_space.RDMA_PS_TCP
_SIGNALED = ibv_send_flags.IBV_SEND_SIGNALED


class CMEventChannel(PyverbsObject):
    """Where connection events arrive. PyverbsRDMAError EOPNOTSUPP: none do."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        raise unsupported("Failed to create CMEventChannel")

    def close(self) -> None:
        """Nothing to give up."""


class CMEvent(PyverbsObject):
    """The next event of a channel. PyverbsRDMAError EOPNOTSUPP: there is none."""

    __slots__ = ()

    def __init__(self, channel: CMEventChannel) -> None:
        expect(channel, CMEventChannel, "channel")
        super().__init__()
        raise unsupported("Failed to create CMEvent")

    def close(self) -> None:
        """Nothing to give up."""

    @property
    def event_type(self) -> rdma_cm_event_type:
        """What happened."""
        raise unsupported("Failed to create CMEvent")

    @property
    def private_data(self) -> bytes:
        """What the peer sent along."""
        raise unsupported("Failed to create CMEvent")

    def ack_cm_event(self) -> None:
        """Say that the event has been dealt with."""
        raise unsupported(f"Failed to Acknowledge Event - {self.event_str()}")

    def event_str(self) -> str:
        """The event's name; empty once it is acknowledged."""
        return ""


class UDParam(PyverbsObject):
    """Where the datagram peer of an event is. There are no events to make one from."""

    __slots__ = ()

    def __init__(self, cm_event: CMEvent) -> None:
        expect(cm_event, CMEvent, "cm_event")
        super().__init__()

    @property
    def qp_num(self) -> int:
        """The peer's QP number."""
        raise unsupported("Failed to create CMEvent")

    @property
    def qkey(self) -> int:
        """The peer's Q_Key."""
        raise unsupported("Failed to create CMEvent")

    @property
    def ah_attr(self) -> AHAttr:
        """The way to the peer."""
        raise unsupported("Failed to create CMEvent")


class CMID(PyverbsCM):
    """A connection identifier. Without a `creator` it is empty, as one that waits for `get_request` to fill it.

    PyverbsRDMAError EOPNOTSUPP: from an AddrInfo, CMEventChannel or CMEvent, and from every operation.
    PyverbsUserError: a CMEvent without `listen_id`.
    """

    __slots__ = ()

    def __init__(
        self,
        creator: AddrInfo | CMEventChannel | CMEvent | None = None,
        qp_init_attr: QPInitAttr | None = None,
        pd: PD | None = None,
        port_space: int = _TCP,
        listen_id: CMID | None = None,
    ) -> None:
        expect(qp_init_attr, QPInitAttr, "qp_init_attr", optional=True)
        expect(pd, PD, "pd", optional=True)
        expect(listen_id, CMID, "listen_id", optional=True)
        super().__init__()
        if creator is None:
            return
        if isinstance(creator, CMEvent) and listen_id is None:
            raise PyverbsUserError("listen ID not provided")
        if isinstance(creator, AddrInfo | CMEventChannel | CMEvent):
            raise unsupported("Failed to create CM ID")
        raise PyverbsRDMAErrno(f"Cannot create CM ID from {type(creator)}")

    @property
    def dev_name(self) -> str:
        """The device that the address led to. EOPNOTSUPP: none did."""
        raise unsupported("Failed to get the device of a CM ID")

    @property
    def port_num(self) -> int:
        """The device's port. EOPNOTSUPP: there is none."""
        raise unsupported("Failed to get the port of a CM ID")

    @property
    def event_channel(self) -> CMEventChannel | None:
        """The channel given at creation: none."""
        return None

    @property
    def context(self) -> Context | None:
        """The device's context: none."""
        return None

    @property
    def pd(self) -> PD | None:
        """The protection domain: none."""
        return None

    @property
    def qpn(self) -> int | None:
        """The number of the connection's QP: none."""
        return None

    def get_request(self) -> CMID:
        """The next connection request of a listening identifier. EOPNOTSUPP."""
        raise unsupported("Failed to get request, no connection established")

    def bind_addr(self, lai: AddrInfo) -> None:
        """Take a local address. EOPNOTSUPP."""
        expect(lai, AddrInfo, "lai")
        raise unsupported("Failed to Bind ID")

    def resolve_addr(self, rai: AddrInfo, timeout_ms: int = 2000) -> None:
        """Find the device that leads to an address, within `timeout_ms` milliseconds. EOPNOTSUPP."""
        expect(rai, AddrInfo, "rai")
        raise unsupported("Failed to Resolve Address")

    def resolve_route(self, timeout_ms: int = 2000) -> None:
        """Find the route to the resolved address, within `timeout_ms` milliseconds. EOPNOTSUPP."""
        raise unsupported("Failed to Resolve Route")

    def join_multicast(
        self, addr: AddrInfo | None = None, mc_attr: JoinMCAttrEx | None = None, context: int = 0
    ) -> None:
        """Join a multicast group. EOPNOTSUPP; PyverbsUserError: no group named."""
        expect(addr, AddrInfo, "addr", optional=True)
        expect(mc_attr, JoinMCAttrEx, "mc_attr", optional=True)
        if addr is None and mc_attr is None:
            raise PyverbsUserError("Join to multicast must have AddrInfo or JoinMCAttrEx arguments")
        raise unsupported("Failed to Join multicast")

    def leave_multicast(self, addr: AddrInfo) -> None:
        """Leave a multicast group. EOPNOTSUPP."""
        expect(addr, AddrInfo, "addr")
        raise unsupported("Failed to leave multicast")

    def listen(self, backlog: int = 0) -> None:
        """Wait for connection requests. EOPNOTSUPP."""
        raise unsupported("Listen Failed")

    def connect(self, param: ConnParam | None = None) -> None:
        """Ask the peer for a connection. EOPNOTSUPP."""
        expect(param, ConnParam, "param", optional=True)
        raise unsupported("Failed to Connect")

    def disconnect(self) -> None:
        """End the connection. EOPNOTSUPP."""
        raise unsupported("Failed to Disconnect")

    def accept(self, param: ConnParam | None = None) -> None:
        """Accept a connection request. EOPNOTSUPP."""
        expect(param, ConnParam, "param", optional=True)
        raise unsupported("Failed to Accept Connection")

    def reject(self, private_data: bytes | None = None) -> None:
        """Turn a connection request down. EOPNOTSUPP."""
        raise unsupported("Failed to Reject Connection")

    def establish(self) -> None:
        """Say that a QP of the program's own is connected. EOPNOTSUPP."""
        raise unsupported("Failed to Complete an active connection request")

    def set_local_ece(self, ece: ECE) -> None:
        """Offer connection enhancements. EOPNOTSUPP."""
        expect(ece, ECE, "ece", optional=True)
        raise unsupported("Failed to set local ECE")

    def get_remote_ece(self) -> ECE:
        """The connection enhancements that the peer offers. EOPNOTSUPP."""
        raise unsupported("Failed to get remote ECE")

    def create_qp(self, qp_init: QPInitAttr) -> None:
        """Make the connection's QP. EOPNOTSUPP."""
        expect(qp_init, QPInitAttr, "qp_init")
        raise unsupported("Failed to Create QP")

    def query_qp(self, attr_mask: int) -> tuple[QPAttr, QPInitAttr]:
        """The attributes of the connection's QP. EOPNOTSUPP."""
        raise unsupported("Failed to query QP")

    def init_qp_attr(self, qp_state: int) -> tuple[QPAttr, int]:
        """What a QP of the program's own needs to reach `qp_state`, and the mask for it. EOPNOTSUPP."""
        raise unsupported("Failed to get QP attributes")

    def reg_msgs(self, size: int) -> MR:
        """Register `size` bytes for messages. EOPNOTSUPP."""
        return _no_memory_region(size, ibv_access_flags.IBV_ACCESS_LOCAL_WRITE)

    def reg_read(self, size: int = 0) -> MR:
        """Register `size` bytes for the peer to read. EOPNOTSUPP."""
        return _no_memory_region(size, ibv_access_flags.IBV_ACCESS_REMOTE_READ)

    def reg_write(self, size: int = 0) -> MR:
        """Register `size` bytes for the peer to write. EOPNOTSUPP."""
        return _no_memory_region(size, ibv_access_flags.IBV_ACCESS_REMOTE_WRITE)

    def post_recv(self, mr: MR, length: int | None = None) -> None:
        """Post `length` bytes (None: all) of `mr` for a message. EOPNOTSUPP."""
        expect(mr, MR, "mr")
        raise unsupported("Failed to Post Receive")

    def post_send(self, mr: MR, flags: int = _SIGNALED, length: int | None = None) -> None:
        """Send `length` bytes (None: all) of `mr`. EOPNOTSUPP."""
        expect(mr, MR, "mr")
        raise unsupported("Failed to Post Send")

    def post_read(self, mr: MR, length: int, remote_addr: int, rkey: int, flags: int = 0) -> None:
        """Read `length` bytes of the peer's memory into `mr`. EOPNOTSUPP."""
        expect(mr, MR, "mr")
        raise unsupported("Failed to Post Read")

    def post_write(self, mr: MR, length: int, remote_addr: int, rkey: int, flags: int = 0) -> None:
        """Write `length` bytes of `mr` into the peer's memory. EOPNOTSUPP."""
        expect(mr, MR, "mr")
        raise unsupported("Failed to Post Write")

    def post_ud_send(self, mr: MR, ah: AH, rqpn: int = 0, flags: int = _SIGNALED, length: int | None = None) -> None:
        """Send `length` bytes (None: all) of `mr` as a datagram. EOPNOTSUPP."""
        expect(mr, MR, "mr")
        expect(ah, AH, "ah")
        raise unsupported("Failed to Post Send")

    def get_recv_comp(self) -> Any:
        """Wait for a receive to complete. EOPNOTSUPP."""
        raise unsupported("Failed to retrieve receive completion")

    def get_send_comp(self) -> Any:
        """Wait for a send to complete. EOPNOTSUPP."""
        raise unsupported("Failed to retrieve send completion")

    def set_option(self, level: int, optname: int, optval: int, optlen: int) -> None:
        """Set the acknowledgement timeout. EOPNOTSUPP; PyverbsUserError: another option."""
        if optname != RDMA_OPTION_ID_ACK_TIMEOUT:
            raise PyverbsUserError("Currently only RDMA_OPTION_ID_ACK_TIMEOUT is supported in Pyverbs.")
        raise unsupported("Failed to set option")


def _no_memory_region(size: int, access: int) -> NoReturn:
    raise unsupported(f"Failed to register a MR. length: {size}, access flags: {access}")
