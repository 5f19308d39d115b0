"""A kernel side without a device: it keeps what the library tells it, and lets tests play the NIC."""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import replace
from typing import Any

from nicemu.abi.rings import CQE, CQE_BYTES, DOORBELL_RECORD_BYTES, owner, power_of_two, recv_stride, send_stride
from nicemu.abi.verbs import QpType
from nicemu.config.software_profile import SoftwareProfile
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from nicemu.uverbs import srq_messages as s

GID0 = bytes.fromhex("fe80000000000000020000fffe000001")
NODE_GUID = 0x0200_00FF_FE00_0001
MAX_CQE = 1000
VALUES = {
    "node_guid": NODE_GUID,
    "sys_image_guid": NODE_GUID,
    "fw_ver": "1.2.3",
    "vendor_id": 0x1234,
    "max_cqe": MAX_CQE,
    "max_qp_wr": 1000,
    "max_sge": 32,
    "max_srq_wr": 1000,
    "max_srq_sge": 32,
    "phys_port_cnt": 1,
    "num_comp_vectors": 2,
    "atomic_cap": 1,
    "device_cap_flags": 1 << 12,
    "max_mr_size": 1 << 40,
    "max_dm_size": 1 << 16,
}


class FakeProcess:
    """A bump allocator over one bytearray."""

    BASE = 0x10000

    def __init__(self) -> None:
        self.memory = bytearray(1 << 20)
        self.next = self.BASE
        self.freed: list[int] = []
        self.calls: list[tuple[Any, ...]] = []

    def posix_memalign(self, size: int, alignment: int) -> int:
        address = -(-self.next // alignment) * alignment
        self.next = address + size
        return address

    def malloc(self, size: int) -> int:
        return self.posix_memalign(size, 16)

    def mmap(self, length: int, prot: int, flags: int, address: int = 0, fd: int = -1, offset: int = 0) -> int:
        self.calls.append(("mmap", length, prot, flags, address, fd, offset))
        if flags & 0x40000:
            raise OSError(errno.ENOMEM, "no huge pages")
        return self.posix_memalign(length, 4096)

    def munmap(self, address: int, length: int) -> None:
        self._place(address, length)

    def madvise(self, address: int, length: int, advice: int) -> None:
        self.calls.append(("madvise", address, length, advice))
        if address % 4096:
            raise OSError(errno.EINVAL, "not a page")

    def free(self, address: int) -> None:
        self.freed.append(address)

    def _place(self, address: int, length: int) -> slice:
        at = address - self.BASE
        if at < 0 or at + length > len(self.memory):
            raise OSError(errno.EFAULT, "not mapped")
        return slice(at, at + length)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.memory[self._place(address, length)])

    def write(self, address: int, data: bytes) -> None:
        self.memory[self._place(address, len(data))] = data


class FakeCq:
    """The device's side of a CQ."""

    def __init__(self, response: m.CqResponse) -> None:
        self.response = response
        self.produced = 0

    @property
    def consumed(self) -> int:
        return int.from_bytes(self.response.record[:8], "little")

    def complete(self, qpn: int, wr_id: int = 0, opcode: int = 0, status: int = 0, **members: int) -> None:
        slots = self.response.slots
        assert self.produced - self.consumed < slots, "overrun"
        at = (self.produced & slots - 1) * CQE_BYTES
        CQE.pack_into(
            self.response.ring, at, wr_id, qpn, members.get("src_qp", 0), members.get("byte_len", 0),
            members.get("imm", 0), status, opcode, members.get("flags", 0), 0, members.get("timestamp", 0),
            members.get("counter", 0), 0, 0, owner(self.produced, slots),
        )  # fmt: skip
        self.produced += 1


class FakeEndpoint:
    """Records every command in `log`; `fail[type]` makes commands of that type fail with the errno."""

    def __init__(self) -> None:
        self.process = FakeProcess()
        self.log: list[Any] = []
        self.fail: dict[type, int] = {}
        self.doorbells: list[tuple[int, int, int, int]] = []
        self.handles = itertools.count(1)
        self.cqs: dict[int, FakeCq] = {}
        self.qps: dict[int, m.QpResponse] = {}
        self.srqs: dict[int, s.SrqResponse] = {}
        self.attributes: dict[int, m.QpAttributes] = {}
        self.files: dict[int, int] = {}
        self.polls = 0
        self.acknowledged: list[tuple[str, int, int]] = []
        self.on_poll: Any = lambda: None

    def device_index(self, context: int) -> int:
        return 0

    def software(self, context: int) -> SoftwareProfile:
        return SoftwareProfile()

    def ring_doorbell(self, device_index: int, bank: int, number: int, value: int = 0) -> None:
        self.doorbells.append((device_index, int(bank), number, value))

    def poll(self, cq_number: int, device_index: int, nonempty: Any) -> bool:
        self.polls += 1
        self.on_poll()
        return bool(nonempty())

    def acknowledge(self, kind: str, handle: int, count: int = 1) -> None:
        self.acknowledged.append((kind, handle, count))

    def execute(self, command: Any) -> Any:
        self.log.append(command)
        if type(command) in self.fail:
            raise m.VerbsError(self.fail[type(command)], "told to fail")
        handler = getattr(self, "do_" + type(command).__name__, None)
        return handler(command) if handler else None

    def commands(self, kind: type) -> list[Any]:
        return [command for command in self.log if type(command) is kind]

    def new_handle(self, command: Any) -> int:
        return next(self.handles)

    do_OpenDevice = do_AllocPd = do_OpenXrcd = do_AllocDm = new_handle

    def do_CreateAh(self, command: Any) -> Any:
        handle = next(self.handles)
        return m.AhResponse(handle, 3000 + handle)

    def do_CommandFd(self, command: Any) -> Any:
        if command.context not in self.files:
            self.files[command.context] = os.open(os.devnull, os.O_RDONLY)
        return self.files[command.context]

    def do_CloseDevice(self, command: Any) -> None:
        fd = self.files.pop(command.context, command.fd)
        if fd >= 0:
            os.close(fd)

    def do_ListDevices(self, command: Any) -> Any:
        return (m.DeviceInfo("nicemu0", NODE_GUID),)

    def do_QueryDevice(self, command: Any) -> Any:
        return m.DeviceAttributes(VALUES, odp_general_caps=1, odp_rc_caps=31)

    def do_QueryPort(self, command: Any) -> Any:
        if command.port != 1:
            raise m.VerbsError(errno.EINVAL, "no such port")
        return m.PortAttributes({"state": 4, "gid_tbl_len": 4, "pkey_tbl_len": 1, "link_layer": 2, "active_mtu": 5})

    def do_QueryGid(self, command: Any) -> Any:
        if command.index > 3:
            raise m.VerbsError(errno.EINVAL, "no such entry")
        return m.GidEntry(command.index, GID0, 1 + command.index) if command.index < 2 else None

    def do_QueryPkey(self, command: Any) -> Any:
        return 0xFFFF

    def do_RegMr(self, command: Any) -> Any:
        handle = next(self.handles)
        return mem.MrResponse(handle, handle << 8, handle << 8)

    do_RegDmMr = do_RegMr

    def do_ReregMr(self, command: Any) -> Any:
        return mem.MrResponse(command.mr, command.mr << 8, command.mr << 8)

    def do_AllocMw(self, command: Any) -> Any:
        if command.type not in (1, 2):
            raise m.VerbsError(errno.EINVAL, "no such type")
        handle = next(self.handles)
        return mem.MwResponse(handle, handle << 8 | 0xFF)

    def do_DmCopy(self, command: Any) -> Any:
        if command.offset % 4 or command.length % 4:
            raise m.VerbsError(errno.EINVAL, "not whole words")
        return command.data or bytes(command.length)

    def do_CreateCompChannel(self, command: Any) -> Any:
        return next(self.handles), 99

    def do_CreateCq(self, command: Any) -> Any:
        if not 0 < command.cqe <= MAX_CQE:
            raise m.VerbsError(errno.EINVAL, "cqe")
        handle, slots = next(self.handles), power_of_two(command.cqe)
        memory = memoryview(bytearray(slots * CQE_BYTES)), memoryview(bytearray(DOORBELL_RECORD_BYTES))
        response = m.CqResponse(handle, 1000 + handle, command.cqe, slots, *memory)
        self.cqs[handle] = FakeCq(response)
        return response

    def do_CreateQp(self, command: Any) -> Any:
        handle, caps = next(self.handles), command.caps
        send = 0 if command.type == QpType.XRC_RECV else power_of_two(caps.max_send_wr)
        shared = command.srq or command.type in (QpType.XRC_RECV, QpType.XRC_SEND)
        recv = 0 if shared else power_of_two(caps.max_recv_wr)
        strides = send_stride(caps.max_send_sge, caps.max_inline_data), recv_stride(caps.max_recv_sge)
        rings = memoryview(bytearray(send * strides[0])), memoryview(bytearray(recv * strides[1]))
        record = memoryview(bytearray(DOORBELL_RECORD_BYTES))
        self.qps[handle] = m.QpResponse(
            handle, 2000 + handle, caps, rings[0], send, strides[0], rings[1], recv, strides[1], record
        )
        self.attributes[handle] = m.QpAttributes(caps=caps)
        return self.qps[handle]

    def do_CreateSrq(self, command: Any) -> Any:
        handle, slots, stride = next(self.handles), power_of_two(command.max_wr), recv_stride(command.max_sge)
        ring, record = memoryview(bytearray(slots * stride)), memoryview(bytearray(DOORBELL_RECORD_BYTES))
        self.srqs[handle] = s.SrqResponse(
            handle, 4000 + handle, command.max_wr, command.max_sge, slots, stride, ring, record
        )
        return self.srqs[handle]

    def do_ModifySrq(self, command: Any) -> Any:
        old = self.srqs[command.srq]
        if command.mask & 1:
            slots = power_of_two(command.max_wr)
            ring = memoryview(bytearray(slots * old.stride))
            self.srqs[command.srq] = replace(old, max_wr=command.max_wr, slots=slots, ring=ring)
        return self.srqs[command.srq]

    def do_QuerySrq(self, command: Any) -> Any:
        return s.SrqAttributes(self.srqs[command.srq].max_wr, self.srqs[command.srq].max_sge, 3)

    def do_ModifyQp(self, command: Any) -> None:
        self.attributes[command.qp] = replace(command.attributes, caps=self.qps[command.qp].caps)

    def do_QueryQp(self, command: Any) -> Any:
        return self.attributes[command.qp]
