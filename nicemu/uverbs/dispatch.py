"""Commands to driver calls (``ib_uverbs_write``, ``uverbs_cmd.c``): one table, one host thread per command."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from nicemu.abi.command import Rereg
from nicemu.abi.verbs import AsyncEvent, QpType
from nicemu.driver import DriverError, advise_mr, ah, context, cq, dm, mcast, mr, mw, pd, qp, rereg, srq, xrcd
from nicemu.driver.attributes import device_attributes, gid, odp_caps, pkey, port_attributes
from nicemu.driver.core import Driver
from nicemu.driver.handles import Handles
from nicemu.driver.program_ring import Places
from nicemu.driver.raw_options import RawOptions
from nicemu.timeline.host import Steps
from nicemu.uverbs import absent, device_file, raw_dispatch
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from nicemu.uverbs import srq_messages as s
from nicemu.uverbs.channel import CompChannel, EventFile
from nicemu.uverbs.device_file import DeviceFile


class Dispatcher:
    """The commands of one process: its address space ``mm`` and its event files."""

    def __init__(self, driver: Driver, mm: Any) -> None:
        self.driver, self.mm = driver, mm
        self.handlers = absent.without(HANDLERS, driver)
        self.channels: Handles[CompChannel] = Handles("completion channel")
        self.channel_of: dict[int, CompChannel] = {}
        """By CQ handle."""
        self.async_files: dict[int, EventFile[m.AsyncEventResponse]] = {}
        """By context handle."""
        self.files: dict[int, DeviceFile] = {}
        """The open devices, by context handle."""
        self.orphans = 0
        """How many of them no context of the program uses."""

    def run(self, command: Any) -> Steps[Any]:
        """The command as a host thread. A failure is a :class:`VerbsError`."""
        yield self.driver.costs.syscall_ns
        if self.orphans:
            yield from device_file.release_unused(self)
        try:
            result = self.handlers[type(command)](self, command)
            if inspect.isgenerator(result):
                result = yield from result
            return result
        except OSError as error:
            raise m.VerbsError(error.errno, error.strerror) from error

    def event_file(self, command: Any) -> EventFile[Any] | None:
        """What a command that waits for an event waits for; None for other commands."""
        if isinstance(command, m.GetCqEvent):
            channel: CompChannel = self._look_up(self.channels.get, command.channel)
            return channel
        if isinstance(command, m.GetAsyncEvent):
            self._look_up(self.driver.contexts.get, command.context)
            return self.async_files[command.context]
        return None

    def event_files(self) -> list[EventFile[Any]]:
        """All that are open."""
        return [*self.channels, *self.async_files.values()]

    def close_files(self) -> None:
        """The run is over: give all descriptors back."""
        for events in self.event_files():
            events.close()
        for file in self.files.values():
            file.close()

    @staticmethod
    def _look_up(get: Callable[[int], Any], handle: int) -> Any:
        try:
            return get(handle)
        except DriverError as error:
            raise m.VerbsError(error.errno, error.strerror) from error


# Devices and contexts -------------------------------------------------------------------------------------------------


def list_devices(self: Dispatcher, _: m.ListDevices) -> tuple[m.DeviceInfo, ...]:
    devices = self.driver.devices
    return tuple(m.DeviceInfo(d.name, d.device.guid, index=d.index) for d in devices)


def open_device(self: Dispatcher, c: m.OpenDevice) -> int:
    opened = context.open_device(self.driver, c.name, self.mm)
    self.files[opened.handle] = DeviceFile(c.name)
    file = self.async_files[opened.handle] = EventFile[m.AsyncEventResponse]()

    def report(kind: int, what: str, handle: int) -> None:
        file.put(m.AsyncEventResponse(kind, what, handle))
        if kind == AsyncEvent.DEVICE_FATAL:
            file.broken = True
            for channel in self.channels:
                channel.broken |= channel.context == opened.handle

    opened.event_handler = report
    return opened.handle


def query_device(self: Dispatcher, c: m.QueryDevice) -> m.DeviceAttributes:
    device = self.driver.contexts.get(c.context).device
    return m.DeviceAttributes(device_attributes(device), **odp_caps(device))


def query_rt_values(self: Dispatcher, c: m.QueryRtValues) -> int:
    clock: int = self.driver.contexts.get(c.context).device.device.clock()
    return clock


def query_port(self: Dispatcher, c: m.QueryPort) -> m.PortAttributes:
    return m.PortAttributes(port_attributes(self.driver.contexts.get(c.context).device, c.port))


def query_gid(self: Dispatcher, c: m.QueryGid) -> m.GidEntry | None:
    entry = gid(self.driver.contexts.get(c.context).device, c.port, c.index)
    return None if entry is None else m.GidEntry(c.index, *entry)


def query_pkey(self: Dispatcher, c: m.QueryPkey) -> int:
    return pkey(self.driver.contexts.get(c.context).device, c.port, c.index)


# Protection domains, memory, addresses --------------------------------------------------------------------------------


def alloc_pd(self: Dispatcher, c: m.AllocPd) -> int:
    return pd.allocate(self.driver.contexts.get(c.context)).handle


def dealloc_pd(self: Dispatcher, c: m.DeallocPd) -> None:
    pd.deallocate(self.driver.pds.get(c.pd))


def reg_mr(self: Dispatcher, c: mem.RegMr) -> Steps[mem.MrResponse]:
    region = yield from mr.register(self.driver.pds.get(c.pd), c.address, c.length, c.access, c.iova)
    return mem.MrResponse(region.handle, region.key, region.key)


def rereg_mr(self: Dispatcher, c: mem.ReregMr) -> Steps[mem.MrResponse]:
    region = self.driver.mrs.get(c.mr)
    domain = self.driver.pds.get(c.pd) if c.flags & Rereg.PD else None
    yield from rereg.reregister(region, rereg.Wanted(c.flags, domain, c.address, c.length, c.iova, c.access))
    return mem.MrResponse(c.mr, region.key, region.key)


def reg_null_mr(self: Dispatcher, c: mem.RegNullMr) -> Steps[mem.MrResponse]:
    region = yield from mr.register_null(self.driver.pds.get(c.pd))
    return mem.MrResponse(region.handle, region.key, region.key)


def reg_dm_mr(self: Dispatcher, c: mem.RegDmMr) -> Steps[mem.MrResponse]:
    block = self.driver.dms.get(c.dm)
    region = yield from mr.register_dm(self.driver.pds.get(c.pd), block, c.offset, c.length, c.access)
    return mem.MrResponse(region.handle, region.key, region.key)


def reg_dmabuf_mr(self: Dispatcher, c: mem.RegDmabufMr) -> Steps[mem.MrResponse]:
    domain, buffer = self.driver.pds.get(c.pd), self.mm.host.gpu.get(c.fd)
    region = yield from mr.register_dmabuf(domain, buffer, c.offset, c.length, c.iova, c.access)
    return mem.MrResponse(region.handle, region.key, region.key)


def alloc_mw(self: Dispatcher, c: mem.AllocMw) -> Steps[mem.MwResponse]:
    window = yield from mw.allocate(self.driver.pds.get(c.pd), c.type)
    return mem.MwResponse(window.handle, window.key)


def dealloc_mw(self: Dispatcher, c: mem.DeallocMw) -> Steps[None]:
    yield from mw.deallocate(self.driver.mws.get(c.mw))


def alloc_dm(self: Dispatcher, c: mem.AllocDm) -> Steps[int]:
    block = yield from dm.allocate(self.driver.contexts.get(c.context), c.length, c.log_align)
    return block.handle


def free_dm(self: Dispatcher, c: mem.FreeDm) -> Steps[None]:
    yield from dm.free(self.driver.dms.get(c.dm))


def dm_copy(self: Dispatcher, c: mem.DmCopy) -> bytes:
    part = dm.window(self.driver.dms.get(c.dm), c.offset, c.length)
    if c.data is not None:
        part[:] = np.frombuffer(c.data[: c.length].ljust(c.length, b"\0"), np.uint8)
    return part.tobytes()


def dereg_mr(self: Dispatcher, c: mem.DeregMr) -> Steps[None]:
    yield from mr.deregister(self.driver.mrs.get(c.mr))


def advise(self: Dispatcher, c: mem.AdviseMr) -> Steps[None]:
    yield from advise_mr.advise(self.driver.pds.get(c.pd), c.advice, c.flags, c.sges)


def create_ah(self: Dispatcher, c: m.CreateAh) -> Steps[m.AhResponse]:
    handle = yield from ah.create(self.driver.pds.get(c.pd), c.vector)
    return m.AhResponse(handle.handle, handle.number)


def destroy_ah(self: Dispatcher, c: m.DestroyAh) -> Steps[None]:
    yield from ah.destroy(self.driver.ahs.get(c.ah))


# Completion channels and queues ---------------------------------------------------------------------------------------


def create_comp_channel(self: Dispatcher, c: m.CreateCompChannel) -> tuple[int, int]:
    self.driver.contexts.get(c.context)
    channel = CompChannel(c.context)
    channel.handle = self.channels.add(channel)
    return channel.handle, channel.fd


def destroy_comp_channel(self: Dispatcher, c: m.DestroyCompChannel) -> None:
    channel = self.channels.get(c.channel)
    if channel.users:
        raise DriverError(errno.EBUSY, f"completion channel: {channel.users} CQs still use it")
    self.channels.remove(c.channel).close()


def create_cq(self: Dispatcher, c: m.CreateCq) -> Steps[m.CqResponse]:
    channel = self.channels.get(c.channel) if c.channel else None
    handler = channel.put if channel else None
    owner = self.driver.contexts.get(c.context)
    home = (self.driver.pds.get(c.pd), Places(c.ring, c.record)) if c.pd else None
    queue = yield from cq.create(owner, c.cqe, c.comp_vector, handler, c.ignore_overrun, home)
    if channel:
        channel.users += 1
        self.channel_of[queue.handle] = channel
    return cq_response(queue)


def cq_response(queue: cq.Cq) -> m.CqResponse:
    return m.CqResponse(queue.handle, queue.number, queue.cqe, queue.slots, *cq.views(queue))


def resize_cq(self: Dispatcher, c: m.ResizeCq) -> Steps[m.CqResponse]:
    queue = self.driver.cqs.get(c.cq)
    yield from cq.resize(queue, c.cqe)
    return cq_response(queue)


def modify_cq(self: Dispatcher, c: m.ModifyCq) -> Steps[None]:
    yield from cq.moderate(self.driver.cqs.get(c.cq), c.count, c.period)


def destroy_cq(self: Dispatcher, c: m.DestroyCq) -> Steps[None]:
    yield from cq.destroy(self.driver.cqs.get(c.cq))
    channel = self.channel_of.pop(c.cq, None)
    if channel:
        channel.users -= 1
        channel.discard(c.cq)


def take_event(self: Dispatcher, c: m.GetCqEvent | m.GetAsyncEvent) -> Any:
    """The endpoint has waited already. EAGAIN: the fd does not block; EBADF: closed meanwhile; EIO: a dead device."""
    file = self.event_file(c)
    assert file is not None
    if file.events:
        return file.take()
    number = errno.EBADF if file.closed else errno.EIO if file.broken else errno.EAGAIN
    raise DriverError(number, "no event")


# Queue pairs ----------------------------------------------------------------------------------------------------------


def create_qp(self: Dispatcher, c: m.CreateQp) -> Steps[m.QpResponse]:
    driver = self.driver
    if c.type == QpType.RAW_PACKET:
        raw_dispatch.require_net_raw()
    parent = driver.xrcds.get(c.xrcd) if c.xrcd else driver.pds.get(c.pd)
    queues: tuple[Any, ...] = tuple(driver.cqs.get(handle) if handle else None for handle in (c.send_cq, c.recv_cq))
    if c.srq:
        queues += (driver.srqs.get(c.srq),)
    options, places = RawOptions(c.create_flags, c.max_tso_header), Places(c.ring, c.record)
    created = yield from qp.create(parent, c.type, queues, c.caps, c.sq_sig_all, options, places)
    return raw_dispatch.qp_response(created)


def modify_qp(self: Dispatcher, c: m.ModifyQp) -> Steps[None]:
    yield from qp.modify(self.driver.qps.get(c.qp), c.attributes, c.mask)


def query_qp(self: Dispatcher, c: m.QueryQp) -> Steps[m.QpAttributes]:
    pair = self.driver.qps.get(c.qp)
    values = yield from qp.query(pair)
    return m.QpAttributes(**values, caps=pair.caps)


def destroy_qp(self: Dispatcher, c: m.DestroyQp) -> Steps[None]:
    yield from qp.destroy(self.driver.qps.get(c.qp))


def attach_mcast(self: Dispatcher, c: s.AttachMcast) -> Steps[None]:
    yield from mcast.attach(self.driver.qps.get(c.qp), c.gid)


def detach_mcast(self: Dispatcher, c: s.DetachMcast) -> Steps[None]:
    yield from mcast.detach(self.driver.qps.get(c.qp), c.gid)


# Shared receive queues, XRC domains -----------------------------------------------------------------------------------


def create_srq(self: Dispatcher, c: s.CreateSrq) -> Steps[s.SrqResponse]:
    domain = self.driver.xrcds.get(c.xrcd) if c.xrcd else None
    queue = self.driver.cqs.get(c.cq) if c.cq else None
    size, matching, places = (c.max_wr, c.max_sge), (c.max_num_tags, c.max_ops), Places(c.ring, c.record)
    made = yield from srq.create(self.driver.pds.get(c.pd), c.type, size, domain, queue, matching, places)
    if c.srq_limit and made.context.device.profile.software.arms_new_srqs:
        yield from srq.modify(made, size, c.srq_limit, srq.LIMIT)
    return _srq_response(made)


def modify_srq(self: Dispatcher, c: s.ModifySrq) -> Steps[s.SrqResponse]:
    changed = self.driver.srqs.get(c.srq)
    yield from srq.modify(changed, (c.max_wr, c.max_sge), c.srq_limit, c.mask)
    return _srq_response(changed)


def _srq_response(q: srq.Srq) -> s.SrqResponse:
    return s.SrqResponse(q.handle, q.number, q.max_wr, q.max_sge, q.slots, q.stride, *srq.views(q), _tag_operations(q))


def _tag_operations(q: srq.Srq) -> s.TagOperations | None:
    if q.tags is None:
        return None
    most, tags = q.context.device.profile.tag_matching.max_sge, q.tags
    return s.TagOperations(tags.count, tags.max_ops, most, tags.slots, tags.ring.view, tags.record.view, tags.qpn)


def query_srq(self: Dispatcher, c: s.QuerySrq) -> Steps[s.SrqAttributes]:
    asked = self.driver.srqs.get(c.srq)
    limit = yield from srq.query(asked)
    return s.SrqAttributes(asked.max_wr, asked.max_sge, limit)


def destroy_srq(self: Dispatcher, c: s.DestroySrq) -> Steps[None]:
    yield from srq.destroy(self.driver.srqs.get(c.srq))


def open_xrcd(self: Dispatcher, c: s.OpenXrcd) -> int:
    """EBADF: no such descriptor."""
    status = os.fstat(c.fd) if c.fd != -1 else None
    inode = (status.st_dev, status.st_ino) if status else None
    return xrcd.open_domain(self.driver.contexts.get(c.context), inode, c.flags).handle


def close_xrcd(self: Dispatcher, c: s.CloseXrcd) -> None:
    xrcd.close(self.driver.xrcds.get(c.xrcd))


HANDLERS: dict[type, Callable[[Dispatcher, Any], Any]] = {
    m.ListDevices: list_devices, m.OpenDevice: open_device, **device_file.HANDLERS,
    m.QueryDevice: query_device, m.QueryRtValues: query_rt_values,
    m.QueryPort: query_port, m.QueryGid: query_gid, m.QueryPkey: query_pkey,
    m.AllocPd: alloc_pd, m.DeallocPd: dealloc_pd, mem.RegMr: reg_mr, mem.DeregMr: dereg_mr, mem.AdviseMr: advise,
    mem.ReregMr: rereg_mr, mem.RegNullMr: reg_null_mr, mem.RegDmMr: reg_dm_mr,
    mem.RegDmabufMr: reg_dmabuf_mr, mem.AllocMw: alloc_mw,
    mem.DeallocMw: dealloc_mw, mem.AllocDm: alloc_dm, mem.FreeDm: free_dm, mem.DmCopy: dm_copy,
    m.CreateAh: create_ah, m.DestroyAh: destroy_ah,
    m.CreateCompChannel: create_comp_channel, m.DestroyCompChannel: destroy_comp_channel,
    m.CreateCq: create_cq, m.ResizeCq: resize_cq, m.ModifyCq: modify_cq, m.DestroyCq: destroy_cq,
    m.GetCqEvent: take_event, m.GetAsyncEvent: take_event,
    m.CreateQp: create_qp, m.ModifyQp: modify_qp, m.QueryQp: query_qp, m.DestroyQp: destroy_qp,
    s.AttachMcast: attach_mcast, s.DetachMcast: detach_mcast,
    s.CreateSrq: create_srq, s.ModifySrq: modify_srq, s.QuerySrq: query_srq, s.DestroySrq: destroy_srq,
    s.OpenXrcd: open_xrcd, s.CloseXrcd: close_xrcd, **raw_dispatch.HANDLERS,
}  # fmt: skip
