"""What a program fills in for the connection manager."""

from __future__ import annotations

from nicemu.pyverbs._fields import U8, U32, Field, Struct, expect
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.base import PyverbsObject


class ConnParam(Struct):
    """`rdma_conn_param`: what a side offers when it connects or accepts. `data_len` reserves bytes for private data."""

    __slots__ = ("_private", "_reserved")
    qpn = Field(U32, doc="The number of a QP of the program's own")
    _resources = Field(U8)
    _depth = Field(U8)
    _flow_control = Field(U8)
    _retry = Field(U8)
    _rnr_retry = Field(U8)
    _srq = Field(U8)

    def __init__(
        self,
        resources: int = 1,
        depth: int = 1,
        flow_control: int = 0,
        retry: int = 5,
        rnr_retry: int = 5,
        srq: int = 0,
        qp_num: int = 0,
        data_len: int = 0,
    ) -> None:
        super().__init__(_resources=resources, _depth=depth, _flow_control=flow_control, _retry=retry)
        self._rnr_retry, self._srq, self.qpn = rnr_retry, srq, qp_num
        self._reserved = len(bytearray(data_len))
        self._private = b""

    @property
    def private_data(self) -> bytes:
        """What goes to the peer with the request or reply."""
        return self._private

    def set_private_data(self, data: bytes) -> None:
        """Send `data`, or as much of it as was reserved, to the peer; empty data changes nothing."""
        if data and self._reserved:
            self._private = bytes(data[: self._reserved])

    def __str__(self) -> str:
        rows = [
            ("responder resources", self._resources),
            ("initiator depth", self._depth),
            ("flow control", self._flow_control),
            ("retry count", self._retry),
            ("rnr retry count", self._rnr_retry),
            ("srq", self._srq),
            ("qp number", self.qpn),
        ]
        return "Connection parameters: \n" + lines(rows, "{:<4}: {:<4}\n")


class AddrInfo(PyverbsObject):
    """Addresses for a connection, as the program names them: nothing looks them up.

    Names, addresses and services are str or bytes; TypeError for anything else.
    """

    __slots__ = ("_flags", "_names", "_port_space")

    def __init__(
        self,
        src: str | bytes | None = None,
        dst: str | bytes | None = None,
        src_service: str | bytes | None = None,
        dst_service: str | bytes | None = None,
        port_space: int = 0,
        flags: int = 0,
    ) -> None:
        super().__init__()
        self._names = tuple(_as_bytes(each) for each in (src, dst, src_service, dst_service))
        self._port_space, self._flags = U32(port_space), U32(flags)

    def close(self) -> None:
        """Nothing to give up."""


def _as_bytes(name: str | bytes | None) -> bytes | None:
    if isinstance(name, str):
        return name.encode()
    if name is not None and not isinstance(name, bytes):
        raise TypeError(f"expected bytes, {type(name).__name__} found")
    return name


class JoinMCAttrEx(Struct):
    """`rdma_cm_join_mc_attr_ex`: which multicast group to join (`addr`) and how (one of `rdma_cm_mc_join_flags`)."""

    __slots__ = ("_addr",)
    comp_mask = Field(U32, doc="Which members count, as `rdma_cm_join_mc_attr_mask`")
    join_flags = Field(U32, doc="How to join, one of `rdma_cm_mc_join_flags`")

    def __init__(self, addr: AddrInfo, comp_mask: int = 0, join_flags: int = 0) -> None:
        expect(addr, AddrInfo, "addr")
        super().__init__(comp_mask=comp_mask, join_flags=join_flags)
        self._addr = addr
