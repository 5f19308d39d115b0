"""The device list, and the context of an opened device: its attributes, ports, GIDs and events."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from nicemu.pyverbs import _kernel
from nicemu.pyverbs._device_attr import (
    CQModerationCaps,
    DeviceAttr,
    DeviceAttrEx,
    GIDEntry,
    ODPCaps,
    PacketPacingCaps,
    PCIAtomicCaps,
    PortAttr,
    QueryDeviceExInput,
    RSSCaps,
    TMCaps,
    TSOCaps,
)
from nicemu.pyverbs._device_memory import DM, AllocDmAttr, FdArr
from nicemu.pyverbs._device_text import (
    guid_format,
    guid_to_hex,
    phys_state_to_str,
    port_state_to_str,
    speed_to_str,
    str_from_flags,
    translate_device_caps,
    translate_event_type,
    translate_gid_type,
    translate_link_layer,
    translate_mtu,
    translate_node_type,
    translate_port_cap_flags,
    translate_port_cap_flags2,
    translate_transport_type,
    width_to_str,
)
from nicemu.pyverbs._facade import publish
from nicemu.pyverbs._fields import I32, U32, U64, expect
from nicemu.pyverbs._gid import GID
from nicemu.pyverbs._resource import Resource, unsupported
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.base import PyverbsObject, PyverbsRDMAErrno
from nicemu.pyverbs.libibverbs_enums import ibv_event_type, ibv_gid_type, ibv_gid_type_sysfs, ibv_values_mask
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.utils import be64toh, gid_str
from nicemu.uverbs import import_messages, messages

__all__ = [
    "DM",
    "AllocDmAttr",
    "AsyncEvent",
    "CQModerationCaps",
    "Context",
    "Device",
    "DeviceAttr",
    "DeviceAttrEx",
    "FdArr",
    "GIDEntry",
    "ODPCaps",
    "PCIAtomicCaps",
    "PacketPacingCaps",
    "PortAttr",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "PyverbsUserError",
    "QueryDeviceExInput",
    "RSSCaps",
    "TMCaps",
    "TSOCaps",
    "get_device_list",
    "gid_str",
    "guid_format",
    "guid_to_hex",
    "phys_state_to_str",
    "port_state_to_str",
    "rdma_get_devices",
    "speed_to_str",
    "str_from_flags",
    "translate_device_caps",
    "translate_event_type",
    "translate_gid_type",
    "translate_link_layer",
    "translate_mtu",
    "translate_node_type",
    "translate_port_cap_flags",
    "translate_port_cap_flags2",
    "translate_transport_type",
    "width_to_str",
]

publish(__name__)


class Device(PyverbsObject):
    """An entry of the device list. `name` is bytes; `guid` is in host order."""

    def __init__(self, name: bytes, guid: int, node_type: int, transport_type: int, index: int) -> None:
        super().__init__()
        self._name, self._guid, self._index = name, guid, index
        self._node_type, self._transport_type = node_type, transport_type

    @property
    def name(self) -> bytes:
        """What `Context` opens it by."""
        return self._name

    @property
    def node_type(self) -> int:
        """An `ibv_node_type`."""
        return self._node_type

    @property
    def transport_type(self) -> int:
        """An `ibv_transport_type`."""
        return self._transport_type

    @property
    def guid(self) -> int:
        """The node's GUID, in host order."""
        return self._guid

    @property
    def index(self) -> int:
        """Where the kernel lists the device, from 0."""
        return self._index

    def __reduce__(self) -> Any:
        return type(self), (self._name, self._guid, self._node_type, self._transport_type, self._index)

    def __str__(self) -> str:
        return (
            f"Device {self.name.decode()}, node type {translate_node_type(self.node_type)}, "
            f"transport type {translate_transport_type(self.transport_type)}, "
            f"guid {guid_to_hex(self.guid)}, index {self.index}"
        )


def get_device_list() -> list[Device]:
    """The devices of this machine, as `Device`. PyverbsRDMAError if there is none."""
    return _devices("Failed to get devices list")


def rdma_get_devices() -> list[Device]:
    """The devices of this machine, as `Device`."""
    return _devices("Failed to get device list")


def _devices(failure: str) -> list[Device]:
    devices = _kernel.execute(_kernel.endpoint(), messages.ListDevices(), failure)
    if not devices:
        raise PyverbsRDMAError(failure)
    return [Device(info.name.encode(), info.guid, info.node_type, info.transport_type, info.index) for info in devices]


class Context(Resource):
    """An opened device: `Context(name='nicemu0')`.

    `Context(cmd_fd=fd)` imports one that is open, by a duplicate (`os.dup`) of its `cmd_fd`, which the new context
    closes: both are the same to the kernel, and the device stays open until the last descriptor is closed.
    PyverbsRDMAError: EINVAL, `fd` is no such descriptor. EOPNOTSUPP: from a `cmid`, there are no connections.
    """

    __slots__ = ("_attributes", "_cmd_fd", "_device_index", "_name", "_software")
    KIND = "contexts"
    CHILDREN = ("qps", "rwq_ind_tbls", "wqs", "ccs", "cqs", "dms", "pds", "xrcds")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self._name: str | None = kwargs.get("name")
        self._cmd_fd = -1
        self._attributes: dict[str, Any] = {}
        if kwargs.get("cmid") is not None:
            raise unsupported("Failed to import device")
        if kwargs.get("cmd_fd") is not None:
            self._import(I32(kwargs["cmd_fd"]))
        elif self._name is None:
            raise PyverbsUserError("Device name must be provided")
        else:
            self._open(self._name)
        self._device_index: int = self._kernel.device_index(self._handle)
        self._software: Any = self._kernel.software(self._handle)

    def _open(self, name: str) -> None:
        self._kernel = _kernel.endpoint()
        known = self._execute(messages.ListDevices(), "Failed to get devices list")
        names = [info.name for info in known]
        if name not in names:
            error = PyverbsRDMAError(f"Failed to find device {name}")
            there = ", ".join(names)
            error.add_note(f"The emulated devices: {there}. `nicemu run --name {name}` gives the first one that name.")
            raise error
        self._handle = self._execute(messages.OpenDevice(name), f"Failed to open device {name}")

    def _import(self, fd: int) -> None:
        self._kernel = _kernel.endpoint()
        response = self._execute(import_messages.ImportDevice(fd), "Failed to import device")
        self._handle, self._name, self._cmd_fd = response.handle, response.name, fd

    def _destroy(self, handle: int) -> None:
        self._execute(messages.CloseDevice(handle, self._cmd_fd), f"Failed to close device {self._name}")

    @property
    def name(self) -> str | None:
        """The device's name."""
        return self._name

    @property
    def context(self) -> int:
        """A number that stands for the open context; 0 when closed."""
        return self._handle or 0

    @property
    def cmd_fd(self) -> int:
        """The descriptor of the open device; a duplicate of it can be imported."""
        handle = self._opened()
        if self._cmd_fd < 0:
            self._cmd_fd = self._execute(import_messages.CommandFd(handle), "Failed to get the command fd")
        return self._cmd_fd

    @property
    def num_comp_vectors(self) -> int:
        """How many completion vectors a CQ can choose from."""
        if not self._attributes:
            self._attributes = self._query_device(f"Failed to query device {self._name}").values
        return int(self._attributes.get("num_comp_vectors", 1))

    def _query_device(self, failure: str) -> Any:
        return self._execute(messages.QueryDevice(self._opened()), failure)

    def query_device(self) -> DeviceAttr:
        """The device's attributes."""
        return _device_attr(self._query_device(f"Failed to query device {self._name}").values)

    def query_device_ex(self, ex_input: QueryDeviceExInput | None = None) -> DeviceAttrEx:
        """The device's extended attributes."""
        expect(ex_input, QueryDeviceExInput, "ex_input", optional=True)
        response = self._query_device(f"Failed to query EX device {self._name}")
        attr = DeviceAttrEx()
        attr._orig_attr = _device_attr(response.values)
        attr._values = {
            "device_cap_flags_ex": response.values.get("device_cap_flags", 0),
            "phys_port_cnt_ex": response.values.get("phys_port_cnt", 0),
            **response.values,
        }
        attr._odp_caps = ODPCaps(xrc_odp_caps=response.odp_xrc_caps)
        attr._odp_caps._values.update(
            general_caps=response.odp_general_caps,
            rc_odp_caps=response.odp_rc_caps,
            uc_odp_caps=response.odp_uc_caps,
            ud_odp_caps=response.odp_ud_caps,
        )
        return attr

    def query_port(self, port_num: int) -> PortAttr:
        """A port's attributes; ports count from 1."""
        command = messages.QueryPort(self._opened(), U32(port_num))
        attr = PortAttr()
        attr._values = dict(self._execute(command, f"Failed to query port {port_num}").values)
        return attr

    def query_pkey(self, port_num: int, index: int) -> int:
        """An entry of the P_Key table, in network order. PyverbsRDMAError, without errno: no such entry."""
        command = messages.QueryPkey(self._opened(), U32(port_num), I32(index))
        pkey: int = self._without_errno(command, f"Failed to query pkey {index} of port {port_num}")
        return (pkey & 0xFF) << 8 | pkey >> 8

    def get_pkey_index(self, port_num: int, pkey: int) -> int:
        """Where the P_Key table has `pkey`, 16 bits in network order. PyverbsRDMAError, without errno: nowhere."""
        wanted, failure = I32(pkey) & 0xFFFF, f"Failed to get pkey index of pkey = {pkey} of port {port_num}"
        port = self._without_errno(messages.QueryPort(self._opened(), U32(port_num)), failure)
        for index in range(port.values.get("pkey_tbl_len", 0)):
            if self.query_pkey(port_num, index) == wanted:
                return index
        raise PyverbsRDMAError(failure)

    def query_gid(self, port_num: int, index: int) -> GID:
        """An entry of the GID table; zero if empty. PyverbsRDMAError, without errno: no such port or index."""
        command = messages.QueryGid(self._opened(), U32(port_num), I32(index))
        entry = self._without_errno(command, f"Failed to query gid {index} of port {port_num}")
        return GID() if entry is None else GID._from_bytes(entry.raw)

    def _gid_entry(self, port_num: int, index: int) -> messages.GidEntry | None:
        """An entry of the GID table as the kernel tells it; None if empty. May raise any OSError of the kernel side."""
        entry: messages.GidEntry | None = self._kernel.execute(messages.QueryGid(self._opened(), port_num, index))
        return entry

    def query_gid_type(self, port_num: int, index: int) -> ibv_gid_type_sysfs:
        """The type of a GID table entry, as sysfs tells it."""
        command = messages.QueryGid(self._opened(), U32(port_num), U32(index))
        entry = self._execute(command, f"Failed to query gid type of port {port_num} and gid index {index}")
        if entry is not None and entry.type == ibv_gid_type.IBV_GID_TYPE_ROCE_V2:
            return ibv_gid_type_sysfs.IBV_GID_TYPE_SYSFS_ROCE_V2
        return ibv_gid_type_sysfs.IBV_GID_TYPE_SYSFS_IB_ROCE_V1

    def query_gid_ex(self, port_num: int, gid_index: int, flags: int = 0) -> GIDEntry:
        """A GID table entry with its type. PyverbsRDMAError: ENODATA if it is empty, EINVAL if there is none, or for
        any `flags`.
        """
        command = messages.QueryGid(self._opened(), U32(port_num), U32(gid_index))
        failure = f"Failed to query gid table of port {port_num} in index {gid_index}"
        if U32(flags):
            raise PyverbsRDMAError(failure, errno.EINVAL)
        entry = self._execute(command, failure)
        if entry is None:
            raise PyverbsRDMAError(failure, errno.ENODATA)
        return _gid_entry(entry, port_num)

    def query_gid_table(self, max_entries: int, flags: int = 0) -> list[GIDEntry]:
        """The used GID table entries of all ports.

        PyverbsRDMAError, `-EINVAL` (negative): there are more than `max_entries`, that is 0, or any `flags`.
        """
        limit, failure = U64(max_entries), "Failed to query gid tables of the device"
        if U32(flags) or not limit:
            raise PyverbsRDMAError(failure, -errno.EINVAL)
        entries = []
        for port in range(1, self.query_device().phys_port_cnt + 1):
            for index in range(self.query_port(port).gid_tbl_len):
                entry = self._execute(messages.QueryGid(self._opened(), port, index), failure)
                if entry is not None:
                    entries.append(_gid_entry(entry, port))
        if len(entries) > limit:
            raise PyverbsRDMAError(failure, -errno.EINVAL)
        return entries

    def query_rt_values_ex(self, comp_mask: int = ibv_values_mask.IBV_VALUES_MASK_RAW_CLOCK) -> tuple[int, int]:
        """The device's free-running clock as (0, ticks): the clock of `read_timestamp`, of `hca_core_clock` kHz.

        PyverbsRDMAError, EINVAL: a value other than the raw clock.
        """
        failure = "Failed to query real time values"
        if U32(comp_mask) & ~ibv_values_mask.IBV_VALUES_MASK_RAW_CLOCK:
            raise PyverbsRDMAError(failure, errno.EINVAL)
        clock: int = self._execute(messages.QueryRtValues(self._opened()), failure)
        return (0, clock) if comp_mask else (0, 0)

    def get_async_event(self) -> AsyncEvent:
        """The next asynchronous event of this context; waits for one."""
        response = self._execute(messages.GetAsyncEvent(self._opened()), "Failed to get async event")
        event = AsyncEvent(response.event_type)
        event._acknowledge = lambda: self._kernel.acknowledge(response.object_kind, response.handle)
        return event

    def _without_errno(self, command: object, failure: str) -> Any:
        """Run a command whose failure carries no errno."""
        try:
            return self._execute(command, failure)
        except PyverbsRDMAError as error:
            raise PyverbsRDMAError(failure) from error


def _device_attr(values: dict[str, Any]) -> DeviceAttr:
    attr = DeviceAttr()
    attr._values = dict(values)
    for name in ("node_guid", "sys_image_guid"):
        attr._values[name] = be64toh(values.get(name, 0))
    return attr


def _gid_entry(entry: messages.GidEntry, port: int) -> GIDEntry:
    prefix, interface = (int.from_bytes(half, "little") for half in (entry.raw[:8], entry.raw[8:]))
    return GIDEntry(prefix, interface, entry.index, port, entry.type, entry.ndev_ifindex)


class AsyncEvent(PyverbsObject):
    """An asynchronous event."""

    __slots__ = ("_acknowledge", "_event_type")

    def __init__(self, event_type: int = 0) -> None:
        super().__init__()
        self._acknowledge: Callable[[], None] = lambda: None
        self._event_type = ibv_event_type(U32(event_type))

    @property
    def event_type(self) -> ibv_event_type:
        """What happened."""
        return self._event_type

    def ack(self) -> None:
        """Say that the event has been dealt with; its QP, CQ or SRQ cannot be destroyed before."""
        self._acknowledge()

    def __str__(self) -> str:
        return lines([("Event Type", translate_event_type(self.event_type))], "{:<24}: {:<20}\n")
