"""Forked children: a child's commands on what it inherited go to its parent, which has the device.

On Linux a child inherits the open device and may send commands on it. Here it sends them over a pair of sockets that
was made before the fork, so nobody else can connect, and a thread of the parent runs each as any caller would. What
needs the child's own memory, or rings that the device reads in the parent's, is refused (EOPNOTSUPP). With the parent
gone everything is (ENODEV). What a child leaves behind belongs to the context, as on Linux.

Left out: events, and commands of a child's own children (ENODEV).
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from nicemu.memory import arena, safe_copy
from nicemu.memory.arena import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE
from nicemu.uverbs import device_file
from nicemu.uverbs import import_messages as i
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from nicemu.uverbs import raw_messages as raw
from nicemu.uverbs import srq_messages as s
from nicemu.uverbs.encoding import decode, encode
from nicemu.uverbs.messages import VerbsError

if TYPE_CHECKING:
    from nicemu.uverbs.endpoint import Endpoint

COMMANDS = frozenset((
    m.ListDevices, m.QueryDevice, m.QueryRtValues, m.QueryPort, m.QueryGid, m.QueryPkey, m.AllocPd, m.DeallocPd,
    mem.DeregMr, mem.AdviseMr, m.ModifyCq, m.DestroyCq, m.DestroyCompChannel, m.ModifyQp, m.QueryQp, m.DestroyQp,
    m.CreateAh, m.DestroyAh, mem.RegNullMr, mem.RegDmMr, mem.AllocMw, mem.DeallocMw, mem.AllocDm, mem.FreeDm,
    mem.DmCopy, s.QuerySrq, s.DestroySrq, s.CloseXrcd, s.AttachMcast, s.DetachMcast, i.ImportPd, i.ImportMr, i.ImportDm,
    raw.CreateFlow, raw.DestroyFlow, raw.ModifyWq, raw.DestroyWq, raw.CreateIndTable, raw.DestroyIndTable,
))  # fmt: skip
"""What a child may ask for: it names objects by handle and gives or gets nothing but numbers and bytes."""
LENGTH = struct.Struct("<I")
PAGE = 4096


def send(end: socket.socket, data: bytes) -> None:
    """One message. :raises OSError: the other side is gone."""
    end.sendall(LENGTH.pack(len(data)) + data, socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> bytes | None:
    """The next message; None: the other side is gone."""
    header = _exactly(end, LENGTH.size)
    return None if header is None else _exactly(end, *LENGTH.unpack(header))


def _exactly(end: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        try:
            part = end.recv(min(count - len(data), 1 << 20))
        except OSError:
            return None
        if not part:
            return None
        data += part
    return bytes(data)


# The parent -----------------------------------------------------------------------------------------------------------


class Children:
    """The parent's ends, one for each child that lives, and a thread behind each."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.ends: set[socket.socket] = set()
        self.stopped = False

    def serve(self, end: socket.socket) -> None:
        """Run the commands that come from ``end`` in a thread of their own."""
        self.ends.add(end)
        _thread.start_new_thread(self._serve, (end,))  # no program thread: nothing waits for its start or its end

    def _serve(self, end: socket.socket) -> None:
        while (request := receive(end)) is not None:
            reply = self._run(request)
            with contextlib.suppress(OSError):
                send(end, reply)
        self.ends.discard(end)
        end.close()

    def _run(self, request: bytes) -> bytes:
        """The reply: (0, response), or (errno, text)."""
        try:
            command = decode(request)
            if type(command) not in COMMANDS:
                raise VerbsError(errno.EOPNOTSUPP, f"{type(command).__name__} of a forked child")
            with self.endpoint.timeline.lock:
                if self.stopped:
                    raise VerbsError(errno.ENODEV, "the run is over")
                return encode((0, self.endpoint.execute(command)))
        except OSError as error:
            return encode((error.errno or errno.EIO, error.strerror or str(error)))
        except Exception as error:
            return encode((errno.EIO, f"{type(error).__name__}: {error}"))

    def stop(self) -> None:
        """The run is over: from now on children find nobody."""
        with self.endpoint.timeline.lock:
            self.stopped = True
        for end in list(self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """In a new child: the ends belong to the parent, whose death must not go unnoticed by our siblings."""
        for end in self.ends:
            end.close()
        self.ends.clear()


# The child ------------------------------------------------------------------------------------------------------------


class Parent:
    """A child's end: None if it has none, as a child of a child."""

    def __init__(self, end: socket.socket | None, endpoint: Endpoint) -> None:
        self._end, self._dispatcher = end, endpoint.dispatcher
        self._lock = threading.Lock()

    def execute(self, command: Any) -> Any:
        """Run a command in the parent, or here if it is about descriptors of this process.

        :raises VerbsError: it failed; EOPNOTSUPP: children cannot send it; ENODEV: there is no parent any more.
        """
        if isinstance(command, m.CloseDevice | i.CommandFd | i.ImportDevice):
            return self._descriptor(command)
        if type(command) not in COMMANDS:
            self.refuse(type(command).__name__)
        number, answer = self._ask(encode(command))
        if number:
            raise VerbsError(number, answer)
        return answer

    def _ask(self, request: bytes) -> tuple[int, Any]:
        with self._lock:
            if self._end is None:
                raise _gone()
            reply = None
            try:
                send(self._end, request)
                reply = receive(self._end)
            except OSError:
                pass
            finally:
                if reply is None:  # gone, or interrupted between question and answer
                    self.close()
            if reply is None:
                raise _gone()
        answer: tuple[int, Any] = decode(reply)
        return answer

    def _descriptor(self, command: Any) -> Any:
        """Our own descriptors: closing one ends nothing of the parent's."""
        try:
            if isinstance(command, i.ImportDevice):
                return device_file.import_device(self._dispatcher, command)
            if isinstance(command, i.CommandFd):
                return device_file.command_fd(self._dispatcher, command)
            return device_file.give_up(self._dispatcher, command)
        except OSError as error:
            raise VerbsError(error.errno, error.strerror) from error

    def refuse(self, what: str) -> NoReturn:
        """What a child cannot do. :raises VerbsError: EOPNOTSUPP, or ENODEV without a parent."""
        if not self._lives():
            raise _gone()
        raise VerbsError(errno.EOPNOTSUPP, f"{what}: a forked child cannot, rings and memory are its parent's")

    def _lives(self) -> bool:
        if self._end is None:
            return False
        poll = select.poll()
        poll.register(self._end, select.POLLHUP)
        return not poll.poll(0)

    def close(self) -> None:
        """Nobody answers any more."""
        if self._end is not None:
            self._end.close()
            self._end = None


def _gone() -> VerbsError:
    return VerbsError(errno.ENODEV, "the process that opened the device is gone")


class ChildMemory:
    """Memory system calls of a child: the real ones, on its own memory. ``allocated``: as of the parent's process."""

    def __init__(self, parent: Parent, allocated: dict[int, int]) -> None:
        self._parent, self.allocated = parent, dict(allocated)
        self.mmap, self.munmap = self._mmap, arena.munmap
        self.madvise, self.mprotect = arena.madvise, arena.mprotect

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self._parent.refuse(name)

    @staticmethod
    def _mmap(length: int, prot: int = PROT_READ | PROT_WRITE, flags: int = MAP_PRIVATE | MAP_ANONYMOUS,
              address: int = 0, fd: int = -1, offset: int = 0) -> int:  # fmt: skip
        return arena.mmap(address, length, prot, flags, fd, offset)

    def posix_memalign(self, size: int, alignment: int) -> int:
        """In whole pages, zeroed. EINVAL: an alignment that is no power of two, or above a page's."""
        if alignment < 8 or alignment & (alignment - 1) or alignment > PAGE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        length = -(-max(size, 1) // PAGE) * PAGE
        address = self._mmap(length)
        self.allocated[address] = length
        return address

    def malloc(self, size: int) -> int:
        """In whole pages."""
        return self.posix_memalign(size, 16)

    def free(self, address: int) -> None:
        """What we or, before the fork, the parent allocated: our copy goes."""
        if address:
            if address not in self.allocated:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            arena.munmap(address, self.allocated.pop(address))

    @staticmethod
    def read(address: int, length: int) -> bytes:
        """EFAULT where it may not."""
        data = safe_copy.read(address, length)
        if len(data) < length:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return data

    @staticmethod
    def write(address: int, data: bytes) -> None:
        """EFAULT where it may not."""
        if safe_copy.write(address, data) < len(data):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
