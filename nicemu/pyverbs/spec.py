"""Flow specifications: what the frames of a flow look like, header by header.

A value without a mask is matched exactly; a mask without a value counts for nothing.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from nicemu.abi import flow
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._fields import U8, U64, CInt
from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.libibverbs_enums import ibv_flow_spec_type
from nicemu.pyverbs.pyverbs_error import PyverbsError

U32_MASK = 0xFFFFFFFF
_ETH, _IPV4_EXT = ibv_flow_spec_type.IBV_FLOW_SPEC_ETH, ibv_flow_spec_type.IBV_FLOW_SPEC_IPV4_EXT
_IPV6, _INNER = ibv_flow_spec_type.IBV_FLOW_SPEC_IPV6, ibv_flow_spec_type.IBV_FLOW_SPEC_INNER
_TCP, _UDP = ibv_flow_spec_type.IBV_FLOW_SPEC_TCP, ibv_flow_spec_type.IBV_FLOW_SPEC_UDP
_ROW = "{:<16}: {:<20} {:<20}\n"


def _same(value: Any) -> Any:
    return value


class _Member:
    """A member of a filter or of its mask: `keep` checks and converts what is set, `show` is how it reads."""

    def __init__(self, keep: Callable[[Any], Any], show: Callable[[Any], Any] = _same, empty: Any = 0) -> None:
        self.keep, self.show, self.empty = keep, show, empty

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else self.show(instance._values.get(self.name, self.empty))

    def __set__(self, instance: Any, value: Any) -> None:
        instance._values[self.name] = self.keep(value)


def _word(swap: Callable[[int], int]) -> _Member:
    """A number in network order: too large a one is refused as `socket` does."""

    def keep(value: int) -> int:
        swap(value)
        return value

    return _Member(keep)


def _byte(ctype: CInt = U8) -> _Member:
    return _Member(ctype)


class Spec(PyverbsObject):
    """What a header looks like. Abstract: NotImplementedError."""

    __slots__ = ("_spec_type", "_values")
    _spec_type: int
    _values: dict[str, Any]
    _MEMBERS: ClassVar[tuple[str, ...]] = ()
    """In the order of the C struct."""

    def __init__(self) -> None:
        raise NotImplementedError("This class is abstract.")

    def _begin(self, spec_type: int, is_inner: Any) -> None:
        self._values, self._spec_type = {}, int(spec_type | _INNER if is_inner else spec_type)

    def _set(self, **members: tuple[Any, Any]) -> None:
        """Set members and their masks."""
        for name, (value, mask) in members.items():
            setattr(self, name, value)
            setattr(self, f"{name}_mask", mask)

    @property
    def size(self) -> int:
        """Bytes of the C struct."""
        return flow.LAYOUTS[self._spec_type & ~_INNER].size

    def _filter(self, suffix: str) -> tuple[Any, ...]:
        members = (f"{name}{suffix}" for name in self._MEMBERS)
        return tuple(self._values.get(name, getattr(type(self), name).empty) for name in members)

    def _image(self) -> bytes:
        """The C struct."""
        return flow.emit(self._spec_type, self._filter(""), self._filter("_mask"))

    def _copy_data(self, ptr: int) -> None:
        """Write the C struct to memory at `ptr`."""
        _kernel.endpoint().process.write(U64(ptr), self._image())

    @staticmethod
    def type_to_str(spec_type: int) -> str:
        """The name of a type, INNER in front if it is. KeyError: a type that pyverbs has no class for."""
        names = {int(kind): kind.name for kind in (_ETH, _IPV4_EXT, _IPV6, _TCP, _UDP)}
        return ("IBV_FLOW_SPEC_INNER " if spec_type & _INNER else "") + names[int(spec_type & ~_INNER)]

    @staticmethod
    def _set_val_mask(default_mask: Any, val: Any = None, val_mask: Any = None) -> tuple[Any, Any]:
        """(value, mask): without a mask `default_mask`; without a value neither, which is 0."""
        if val is None:
            return 0, 0
        return val, default_mask if val_mask is None else val_mask

    def __str__(self) -> str:
        return f"{'Spec type':<16}: {self.type_to_str(self._spec_type):<20}\n{'Size':<16}: {self.size:<20}\n"

    def _rows(self, rows: Iterable[tuple[str, str]]) -> str:
        return "".join(_ROW.format(title, getattr(self, name), getattr(self, f"{name}_mask")) for title, name in rows)


def _mac(val: str | None) -> bytes:
    mac = EthSpec._set_mac(val)
    return bytes(U8(part) for part in mac)


def _mac_member() -> _Member:
    return _Member(_mac, lambda mac: ":".join(f"{part:02x}" for part in mac), bytes(6))


class EthSpec(Spec):
    """Ethernet: addresses as `aa:bb:cc:dd:ee:ff`; `ether_type` is the one behind the VLAN tag, `vlan_tag` all of it."""

    __slots__ = ()
    MAC_LEN = 6
    MAC_MASK = "ff:ff:ff:ff:ff:ff"
    ZERO_MAC = [0] * MAC_LEN
    _MEMBERS = ("dst_mac", "src_mac", "ether_type", "vlan_tag")
    dst_mac, dst_mac_mask = _mac_member(), _mac_member()
    src_mac, src_mac_mask = _mac_member(), _mac_member()
    ether_type, ether_type_mask = _word(socket.htons), _word(socket.htons)
    vlan_tag, vlan_tag_mask = _word(socket.htons), _word(socket.htons)

    def __init__(
        self,
        dst_mac: str | None = None,
        dst_mac_mask: str | None = None,
        src_mac: str | None = None,
        src_mac_mask: str | None = None,
        ether_type: int | None = None,
        ether_type_mask: int | None = None,
        vlan_tag: int | None = None,
        vlan_tag_mask: int | None = None,
        is_inner: int = 0,
    ) -> None:
        self._begin(_ETH, is_inner)
        self._set(
            dst_mac=self._set_val_mask(self.MAC_MASK, dst_mac, dst_mac_mask),
            src_mac=self._set_val_mask(self.MAC_MASK, src_mac, src_mac_mask),
            ether_type=self._set_val_mask(0xFFFF, ether_type, ether_type_mask),
            vlan_tag=self._set_val_mask(0xFFFF, vlan_tag, vlan_tag_mask),
        )

    @staticmethod
    def _set_mac(val: str | None) -> list[int]:
        """The parts of an address; all 0 for none."""
        if not val:
            return EthSpec.ZERO_MAC[:]
        parts = val.split(":")
        return [int(parts[index], 16) for index in range(EthSpec.MAC_LEN)]

    def __str__(self) -> str:
        text = super().__str__() + self._rows((("Src mac", "src_mac"), ("Dst mac", "dst_mac")))
        for title, name in (("Ether type", "ether_type"), ("Vlan tag", "vlan_tag")):  # in network order, as in pyverbs
            text += _ROW.format(title, *(socket.htons(getattr(self, name + suffix)) for suffix in ("", "_mask")))
        return text


def _ipv4(val: Any) -> Any:
    number = Ipv4ExtSpec._str_to_ip(val)
    return socket.ntohl(socket.htonl(number))  # type: ignore[arg-type]  # None gets its TypeError


def _ipv4_member() -> _Member:
    return _Member(_ipv4, lambda number: Ipv4ExtSpec._ip_to_str(number))


class Ipv4ExtSpec(Spec):
    """IPv4: addresses as `1.2.3.4`; `flags` are the three bits of the fragment word (2: do not fragment)."""

    __slots__ = ()
    _MEMBERS = ("src_ip", "dst_ip", "proto", "tos", "ttl", "flags")
    dst_ip, dst_ip_mask = _ipv4_member(), _ipv4_member()
    src_ip, src_ip_mask = _ipv4_member(), _ipv4_member()
    proto, proto_mask = _byte(), _byte()
    tos, tos_mask = _byte(), _byte()
    ttl, ttl_mask = _byte(), _byte()
    flags, flags_mask = _byte(), _byte()

    def __init__(
        self,
        dst_ip: str | None = None,
        dst_ip_mask: str | None = None,
        src_ip: str | None = None,
        src_ip_mask: str | None = None,
        proto: int | None = None,
        proto_mask: int | None = None,
        tos: int | None = None,
        tos_mask: int | None = None,
        ttl: int | None = None,
        ttl_mask: int | None = None,
        flags: int | None = None,
        flags_mask: int | None = None,
        is_inner: bool = False,
    ) -> None:
        self._begin(_IPV4_EXT, is_inner)
        addresses = {"dst_ip": (dst_ip, dst_ip_mask), "src_ip": (src_ip, src_ip_mask)}
        for name, pair in addresses.items():
            value, mask = self._set_val_mask(U32_MASK, *(self._str_to_ip(text) for text in pair))
            self._set(**{name: (self._ip_to_str(value), self._ip_to_str(mask))})
        self._set(
            proto=self._set_val_mask(0xFF, proto, proto_mask),
            tos=self._set_val_mask(0xFF, tos, tos_mask),
            ttl=self._set_val_mask(0xFF, ttl, ttl_mask),
            flags=self._set_val_mask(0xFF, flags, flags_mask),
        )

    @staticmethod
    def _str_to_ip(ip_str: str | None) -> int | None:
        """An address as a number; None for None. OSError: it is none."""
        return None if ip_str is None else int(struct.unpack("!L", socket.inet_aton(ip_str))[0])

    @staticmethod
    def _ip_to_str(ip: int) -> str:
        """The address of a number."""
        return socket.inet_ntoa(struct.pack("!L", ip))

    def __str__(self) -> str:
        rows = ("Src IP", "src_ip"), ("Dst IP", "dst_ip"), ("Proto", "proto"), ("ToS", "tos"), ("TTL", "ttl")
        return super().__str__() + self._rows((*rows, ("Flags", "flags")))


class TcpUdpSpec(Spec):
    """TCP or UDP, as `spec_type` says: ports. PyverbsError: another type."""

    __slots__ = ()
    _MEMBERS = ("dst_port", "src_port")
    dst_port, dst_port_mask = _word(socket.htons), _word(socket.htons)
    src_port, src_port_mask = _word(socket.htons), _word(socket.htons)

    def __init__(
        self,
        spec_type: int,
        dst_port: int | None = None,
        dst_port_mask: int | None = None,
        src_port: int | None = None,
        src_port_mask: int | None = None,
        is_inner: bool = False,
    ) -> None:
        if spec_type not in (_TCP, _UDP):
            raise PyverbsError("Spec type must be IBV_FLOW_SPEC_TCP or IBV_FLOW_SPEC_UDP")
        self._begin(spec_type, is_inner)
        self._set(
            dst_port=self._set_val_mask(0xFFFF, dst_port, dst_port_mask),
            src_port=self._set_val_mask(0xFFFF, src_port, src_port_mask),
        )

    def __str__(self) -> str:
        return super().__str__() + self._rows((("Src port", "src_port"), ("Dst port", "dst_port")))


def _ipv6_member() -> _Member:
    return _Member(
        lambda text: socket.inet_pton(socket.AF_INET6, text),
        lambda raw: socket.inet_ntop(socket.AF_INET6, raw),
        bytes(16),
    )


class Ipv6Spec(Spec):
    """IPv6: addresses as text, the flow label with 20 bits."""

    __slots__ = ()
    EMPTY_IPV6 = "::"
    IPV6_MASK = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    FLOW_LABEL_MASK = 0xFFFFF
    _MEMBERS = ("src_ip", "dst_ip", "flow_label", "next_hdr", "traffic_class", "hop_limit")
    dst_ip, dst_ip_mask = _ipv6_member(), _ipv6_member()
    src_ip, src_ip_mask = _ipv6_member(), _ipv6_member()
    flow_label, flow_label_mask = _word(socket.htonl), _word(socket.htonl)
    next_hdr, next_hdr_mask = _byte(), _byte()
    traffic_class, traffic_class_mask = _byte(), _byte()
    hop_limit, hop_limit_mask = _byte(), _byte()

    def __init__(
        self,
        dst_ip: str | None = None,
        dst_ip_mask: str | None = None,
        src_ip: str | None = None,
        src_ip_mask: str | None = None,
        flow_label: int | None = None,
        flow_label_mask: int | None = None,
        next_hdr: int | None = None,
        next_hdr_mask: int | None = None,
        traffic_class: int | None = None,
        traffic_class_mask: int | None = None,
        hop_limit: int | None = None,
        hop_limit_mask: int | None = None,
        is_inner: bool = False,
    ) -> None:
        self._begin(_IPV6, is_inner)
        self._set(
            dst_ip=self._address(dst_ip, dst_ip_mask),
            src_ip=self._address(src_ip, src_ip_mask),
            flow_label=self._set_val_mask(self.FLOW_LABEL_MASK, flow_label, flow_label_mask),
            next_hdr=self._set_val_mask(0xFF, next_hdr, next_hdr_mask),
            traffic_class=self._set_val_mask(0xFF, traffic_class, traffic_class_mask),
            hop_limit=self._set_val_mask(0xFF, hop_limit, hop_limit_mask),
        )

    @classmethod
    def _address(cls, address: str | None, mask: str | None) -> tuple[str, str]:
        """An address and its mask. Unlike the other members it keeps a mask that comes without an address."""
        value, default = (cls.EMPTY_IPV6, cls.EMPTY_IPV6) if address is None else (address, cls.IPV6_MASK)
        return value, default if mask is None else mask

    def __str__(self) -> str:
        rows = ("Src IP", "src_ip"), ("Dst IP", "dst_ip"), ("Flow label", "flow_label"), ("Next header", "next_hdr")
        more = ("Traffic class", "traffic_class"), ("Hop limit", "hop_limit")
        return super().__str__() + self._rows((*rows, *more))
