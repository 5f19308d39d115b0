"""Addresses: GIDs, address vectors and address handles."""

from __future__ import annotations

import errno
from typing import Any

from nicemu.pyverbs import _kernel
from nicemu.pyverbs._facade import publish
from nicemu.pyverbs._fields import U8, U16, U32, U64, Field, Struct, expect
from nicemu.pyverbs._gid import GID, GidMember
from nicemu.pyverbs._grh import GRH_BYTES, Route, route_back
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs._text import lines
from nicemu.pyverbs._wc import WC
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import ibv_gid_type, ibv_wc_flags
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.utils import gid_str, gid_str_to_array
from nicemu.uverbs import messages

__all__ = [
    "AH",
    "GID",
    "GRH",
    "AHAttr",
    "GlobalRoute",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "PyverbsUserError",
    "gid_str",
    "gid_str_to_array",
]

publish(__name__)


class GRH(Struct):
    """`ibv_grh`: the 40 bytes in front of a received datagram. Multi-byte members are big-endian values."""

    __slots__ = ()
    sgid = GidMember(doc="The sender's GID, as text")
    dgid = GidMember(doc="The receiver's GID, as text")
    version_tclass_flow = Field(U32, doc="Version, traffic class and flow label, big-endian")
    paylen = Field(U16, doc="Bytes after the header, big-endian")
    next_hdr = Field(U8, doc="What follows: 27 is a transport header")
    hop_limit = Field(U8, doc="Hops that the packet may take")

    def __init__(
        self,
        sgid: GID | None = None,
        dgid: GID | None = None,
        version_tclass_flow: int = 0,
        paylen: int = 0,
        next_hdr: int = 0,
        hop_limit: int = 1,
    ) -> None:
        expect(sgid, GID, "sgid")
        expect(dgid, GID, "dgid")
        super().__init__(
            sgid=sgid,
            dgid=dgid,
            version_tclass_flow=version_tclass_flow,
            paylen=paylen,
            next_hdr=next_hdr,
            hop_limit=hop_limit,
        )

    def __str__(self) -> str:
        return lines(
            [
                ("DGID", self.dgid),
                ("SGID", self.sgid),
                ("version tclass flow", self.version_tclass_flow),
                ("paylen", self.paylen),
                ("next header", self.next_hdr),
                ("hop limit", self.hop_limit),
            ]
        )


class GlobalRoute(Struct):
    """`ibv_global_route`: what goes into the GRH of packets sent through an address vector."""

    __slots__ = ()
    dgid = GidMember(doc="The receiver's GID, as text")
    flow_label = Field(U32, doc="20 bits that tell flows apart")
    sgid_index = Field(U8, doc="Index of our GID in the port's table")
    hop_limit = Field(U8, doc="Hops that packets may take")
    traffic_class = Field(U8, doc="Priority of packets, 8 bits")

    def __init__(
        self,
        dgid: GID | None = None,
        flow_label: int = 0,
        sgid_index: int = 0,
        hop_limit: int = 1,
        traffic_class: int = 0,
    ) -> None:
        expect(dgid, GID, "dgid")
        super().__init__(
            dgid=dgid,
            flow_label=flow_label,
            sgid_index=sgid_index,
            hop_limit=hop_limit,
            traffic_class=traffic_class,
        )

    def __str__(self) -> str:
        return lines(
            [
                ("DGID", self.dgid),
                ("flow label", self.flow_label),
                ("sgid index", self.sgid_index),
                ("hop limit", self.hop_limit),
                ("traffic class", self.traffic_class),
            ]
        )


class _RouteField(Field):
    """A member of the route: None without one."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return super().__get__(instance, owner) if instance is None or instance.is_global else None


class _RouteGid(GidMember):
    """The destination GID: None without a route, and then setting it does nothing."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return super().__get__(instance, owner) if instance is None or instance.is_global else None

    def __set__(self, instance: Any, value: str | GID) -> None:
        if instance.is_global:
            super().__set__(instance, value)


class AHAttr(Struct):
    """`ibv_ah_attr`: an address vector. `gr` is needed, and looked at, only with `is_global`."""

    __slots__ = ()
    port_num = Field(U8, doc="The port, from 1")
    sl = Field(U8, doc="Service level, 0..15")
    src_path_bits = Field(U8, doc="Low bits of our LID")
    dlid = Field(U16, doc="The receiver's LID")
    static_rate = Field(U8, doc="Rate limit, an encoded one")
    is_global = Field(U8, doc="Whether packets have a GRH; RoCE needs one")
    dgid = _RouteGid(doc="The receiver's GID, as text; None without a route")
    flow_label = _RouteField(U32, doc="20 bits that tell flows apart; None without a route")
    sgid_index = _RouteField(U8, doc="Index of our GID in the port's table; None without a route")
    hop_limit = _RouteField(U8, doc="Hops that packets may take; None without a route")
    traffic_class = _RouteField(U8, doc="Priority of packets, 8 bits; None without a route")

    def __init__(
        self,
        dlid: int = 0,
        sl: int = 0,
        src_path_bits: int = 0,
        static_rate: int = 0,
        is_global: int = 0,
        port_num: int = 1,
        gr: GlobalRoute | None = None,
    ) -> None:
        expect(gr, GlobalRoute, "gr", optional=True)
        super().__init__(
            port_num=port_num,
            sl=sl,
            src_path_bits=src_path_bits,
            dlid=dlid,
            static_rate=static_rate,
            is_global=is_global,
        )
        if is_global:
            if gr is None:
                raise PyverbsUserError("Global AH Attr is created but gr parameter is None")
            self._values.update(gr._values)

    @classmethod
    def _from_message(cls, vector: messages.AddressVector) -> AHAttr:
        attr = cls(port_num=vector.port_num)
        attr._values.update({name: getattr(vector, name) for name in messages.AddressVector.__slots__})  # type: ignore[attr-defined]
        attr._values["dgid"] = vector.dgid or bytes(16)
        return attr

    def _message(self) -> messages.AddressVector:
        members = {"dgid": bytes(16), **self._values}
        if not self.is_global:
            members["dgid"] = None
        return messages.AddressVector(**members)

    def _copy(self) -> AHAttr:
        copy = AHAttr()
        copy._values = dict(self._values)
        return copy

    def __str__(self) -> str:
        rows: list[tuple[str, object]] = [
            ("port num", self.port_num),
            ("sl", self.sl),
            ("source path bits", self.src_path_bits),
            ("dlid", self.dlid),
            ("static rate", self.static_rate),
            ("is global", self.is_global),
        ]
        return lines(rows + self._route_rows(), "  {:22}: {:<20}\n")

    def _route_rows(self) -> list[tuple[str, object]]:
        if not self.is_global:
            return []
        return [
            ("dgid", self.dgid),
            ("flow label", self.flow_label),
            ("sgid index", self.sgid_index),
            ("hop limit", self.hop_limit),
            ("traffic_class", self.traffic_class),
        ]


class AH(Resource):
    """An address handle: to `attr` (AHAttr), or back to the sender of a received datagram.

    The latter from its completion `wc`, the address `grh` of the 40 bytes in front of its data, and `port_num`.
    PyverbsRDMAError: EINVAL for a RoCE port without GRH, a bad sgid_index or port, a GRH that is none or was for a GID
    that is not ours.
    """

    __slots__ = ("_number", "_pd")
    KIND = "ahs"

    def __init__(self, pd: PD, **kwargs: Any) -> None:
        expect(pd, PD, "pd")
        super().__init__()
        self._kernel = pd._kernel
        failure = "Failed to create AH"
        if len(kwargs) == 1:
            attr = kwargs["attr"]
            expect(attr, AHAttr, "attr")
        else:
            attr = self._reply(pd, kwargs["wc"], kwargs["grh"], U8(kwargs["port_num"]))
        response = self._execute(messages.CreateAh(pd._opened(), attr._message()), failure)
        self._handle, self._number = response.handle, int(response.number)
        self._pd: PD | None = pd
        self._attach(pd)

    def _reply(self, pd: PD, wc: WC, grh: int, port: int) -> AHAttr:
        """`ibv_init_ah_from_wc`."""
        expect(wc, WC, "wc")
        attr = AHAttr(wc.slid, wc.sl, wc.dlid_path_bits, port_num=port)
        if not wc.wc_flags & ibv_wc_flags.IBV_WC_GRH:
            return attr
        assert pd._ctx is not None
        try:
            route = route_back(self._kernel.process.read(U64(grh), GRH_BYTES))
            index = self._index_of(pd._ctx, port, route)
        except OSError as error:
            raise _kernel.failed("Failed to create AH", error) from error
        gid = GID._from_bytes(route.source)
        return AHAttr(
            wc.slid, wc.sl, wc.dlid_path_bits, 0, 1, port,
            GlobalRoute(gid, route.flow_label, index, route.hop_limit, route.traffic_class),
        )  # fmt: skip

    @staticmethod
    def _index_of(context: Context, port: int, route: Route) -> int:
        """Where our GID table has the address that the datagram was for, preferably as RoCE v2."""
        found = [
            (entry.type != ibv_gid_type.IBV_GID_TYPE_ROCE_V2, index)
            for index in range(context.query_port(port).gid_tbl_len)
            if (entry := context._gid_entry(port, index)) is not None and entry.raw == route.destination
        ]
        if not found:
            raise OSError(errno.EINVAL, "the datagram was for no GID of ours")
        return min(found)[1]

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DestroyAh(handle), "Failed to destroy AH")

    def _release(self) -> None:
        self._pd = None
