"""System calls on files as host-thread steps, with errno as Linux gives it: the file part of a process.

All of it is model memory. Left out: file descriptors as numbers, offsets kept by the kernel, MAP_FIXED.
"""

from __future__ import annotations

import errno
import os

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.memory.arena import PROT_WRITE
from nicemu.mm.address_space import AddressSpace
from nicemu.mm.direct import get_block
from nicemu.mm.file import File, FileKind, OpenFile, link_vma
from nicemu.mm.host import Host
from nicemu.mm.nonlinear import remap_file_pages
from nicemu.mm.page import PAGE_SHIFT
from nicemu.mm.page_cache import read_mapping_page, set_page_dirty, unlock_page
from nicemu.mm.truncate import do_truncate, evict_inode, may_punch, punch_hole, zero_partial_page
from nicemu.mm.vma import VM_MAYNOTWRITE, VM_SHARED, VM_WRITE, VM_XIP, Region, Vma
from nicemu.mm.writeback import fsync, msync
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Steps

FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2
MAX_BYTES = (1 << 63) - 1


def error(number: int) -> OSError:
    """The exception of an errno."""
    return OSError(number, os.strerror(number))


def do_mmap_file(mm: AddressSpace, file: OpenFile, length: int, prot: int, shared: bool,
                 offset: int) -> Steps[int]:  # fmt: skip
    """``do_mmap`` of a file, which errors were checked for; gives the address."""
    inode = file.inode
    flags = prot | (VM_SHARED if shared else 0) | (VM_XIP if inode.kind == FileKind.XIP else 0)
    if shared and not file.writable:
        flags |= VM_MAYNOTWRITE
    host, thread, first = mm.host, mm.host.thread, offset >> PAGE_SHIFT
    thread.context.append("mmap")
    yield from mm.mmap_lock.acquire_write(thread)
    try:
        start = mm.unmapped_area(FrameKind.MODEL, length, prot)
        region = Region(inode.region if shared else host.next_region(), first)
        yield from link_vma(Vma(mm, start, start + length, flags, FrameKind.MODEL, region, host.new_anon_vma(), first,
                                inode))  # fmt: skip
        yield host.costs.syscall_ns
    finally:
        mm.mmap_lock.release(thread)
        thread.context.pop()
    return start


class FileCalls:
    """What a process may ask the kernel for about files. An :class:`OpenFile` is what a file descriptor stands for."""

    host: Host
    mm: AddressSpace

    def open_file(self, name: str, size: int = 0, kind: FileKind = FileKind.REGULAR, writable: bool = True,
                  readable: bool = True) -> Steps[OpenFile]:  # fmt: skip
        """``open``: the file called ``name``, made with ``size`` bytes of zeros if there is none.

        :raises OSError: EINVAL. :raises NotInThisKernel: the era has no such kind of file.
        """
        if size < 0 or not name:
            raise error(errno.EINVAL)
        found = [file for file in self.host.files.values() if file.linked and file.name == name]
        inode = found[0] if found else self.host.new_file(name, kind, size)
        yield self.host.costs.syscall_ns
        inode.opens += 1
        return OpenFile(inode, readable, writable)

    def memfd_create(self, name: str) -> Steps[OpenFile]:
        """``memfd_create``: an empty shmem file without a name in any directory."""
        yield self.host.costs.syscall_ns
        inode = self.host.new_file(name, FileKind.SHMEM, linked=False)
        inode.opens += 1
        return OpenFile(inode)

    def close(self, file: OpenFile) -> Steps[None]:
        """``close``. :raises OSError: EBADF."""
        inode = _inode(file)
        file.closed = True
        inode.opens -= 1
        yield self.host.costs.syscall_ns
        yield from evict_inode(self.host, inode)

    def unlink(self, file: OpenFile) -> Steps[None]:
        """``unlink``: the file goes when nobody has it open or mapped any more."""
        file.inode.linked = False
        yield self.host.costs.syscall_ns
        yield from evict_inode(self.host, file.inode)

    def mmap_file(self, file: OpenFile, length: int, prot: int, shared: bool, offset: int = 0) -> Steps[int]:
        """``mmap`` of a file, in the model's window.

        :raises OSError: EINVAL, EBADF; EACCES, the file is not open for reading, or not for writing and the mapping is
            shared and writable; EOVERFLOW; ENOMEM.
        """
        _inode(file)
        if length <= 0 or offset % PAGE_SIZE or offset < 0:
            raise error(errno.EINVAL)
        length = -(-length // PAGE_SIZE) * PAGE_SIZE
        if offset + length > MAX_BYTES:
            raise error(errno.EOVERFLOW)
        if not file.readable or (shared and prot & PROT_WRITE and not file.writable):
            raise error(errno.EACCES)
        return (yield from do_mmap_file(self.mm, file, length, prot & 7, shared, offset))

    def mmap_shared(self, length: int, prot: int) -> Steps[int]:
        """``mmap(MAP_SHARED | MAP_ANONYMOUS)`` (``shmem_zero_setup``). :raises OSError: EINVAL, ENOMEM."""
        if length <= 0:
            raise error(errno.EINVAL)
        length = -(-length // PAGE_SIZE) * PAGE_SIZE
        inode = self.host.new_file("dev/zero", FileKind.SHMEM, length, linked=False)
        return (yield from do_mmap_file(self.mm, OpenFile(inode), length, prot & 7, True, 0))

    def msync(self, address: int, length: int, flags: int) -> Steps[None]:
        """``msync``. :raises OSError: EINVAL, ENOMEM."""
        yield from msync(self.mm, address, address + -(-length // PAGE_SIZE) * PAGE_SIZE, flags)

    def fsync(self, file: OpenFile) -> Steps[int]:
        """``fsync``; gives the number of pages written. :raises OSError: EBADF."""
        return (yield from fsync(self.host, _inode(file)))

    def ftruncate(self, file: OpenFile, size: int) -> Steps[None]:
        """``ftruncate``. :raises OSError: EBADF; EINVAL, a negative size or a file that is not open for writing."""
        inode = _inode(file)
        if size < 0 or not file.writable:
            raise error(errno.EINVAL)
        yield self.host.costs.syscall_ns
        context = self.host.thread.context
        context.append("truncate")
        try:
            yield from do_truncate(self.host, inode, size)
        finally:
            context.pop()

    def fallocate(self, file: OpenFile, mode: int, offset: int, length: int) -> Steps[None]:
        """``fallocate`` with PUNCH_HOLE | KEEP_SIZE, the only mode there is.

        :raises OSError: EINVAL; EBADF, also of a file that is not open for writing; EOPNOTSUPP.
        """
        inode = _inode(file)
        if offset < 0 or length <= 0:
            raise error(errno.EINVAL)
        if mode != FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE or not may_punch(inode):
            raise error(errno.EOPNOTSUPP)
        if not file.writable:
            raise error(errno.EBADF)
        yield self.host.costs.syscall_ns
        yield from self._punch(inode, offset, offset + length)

    def _punch(self, inode: File, start: int, end: int) -> Steps[None]:
        context = self.host.thread.context
        context.append("punch_hole")
        try:
            yield from punch_hole(self.host, inode, start, end)
        finally:
            context.pop()

    def madvise_remove(self, address: int, length: int) -> Steps[None]:
        """``madvise(MADV_REMOVE)``: punch the hole that this part of a shared mapping is.

        :raises OSError: EINVAL, not a file mapping; EACCES, not shared and writable; ENOMEM, a hole.
        """
        yield self.host.costs.syscall_ns
        yield from self.mm.mmap_lock.acquire_read(self.host.thread)
        vma = self.mm.vmas.find(address)
        self.mm.mmap_lock.release(self.host.thread)
        if vma is None or address + length > vma.end:
            raise error(errno.ENOMEM)
        if vma.file is None or address % PAGE_SIZE:
            raise error(errno.EINVAL)
        if vma.flags & (VM_SHARED | VM_WRITE) != VM_SHARED | VM_WRITE:
            raise error(errno.EACCES)
        offset = address - vma.start + (vma.pgoff << PAGE_SHIFT)
        yield from self._punch(vma.file, offset, offset + length)

    def remap_file_pages(self, address: int, length: int, pgoff: int, prot: int = 0) -> Steps[None]:
        """``remap_file_pages`` (3.x). :raises OSError: EINVAL. :raises NotInThisKernel: 6.12."""
        if prot or pgoff < 0:
            raise error(errno.EINVAL)
        start = address & -PAGE_SIZE
        yield from remap_file_pages(self.mm, start, length & -PAGE_SIZE, pgoff)

    def pread(self, file: OpenFile, length: int, offset: int) -> Steps[bytes]:
        """``pread``: through the page cache; short at the end of the file. :raises OSError: EBADF, EINVAL."""
        inode = _inode(file)
        if offset < 0 or length < 0:
            raise error(errno.EINVAL)
        if not file.readable:
            raise error(errno.EBADF)
        yield self.host.costs.syscall_ns
        parts = []
        while length > 0 and offset < inode.size:
            at = offset % PAGE_SIZE
            part = min(length, PAGE_SIZE - at, inode.size - offset)
            parts.append((yield from self._read_part(inode, offset // PAGE_SIZE, at, part)))
            offset, length = offset + part, length - part
        return b"".join(parts)

    def _read_part(self, inode: File, index: int, at: int, length: int) -> Steps[bytes]:
        if inode.direct:
            yield self.host.costs.copy_page_ns
            block = inode.pages.get(index)
            return self.host.frames.bytes_of(block)[at : at + length].tobytes() if block else bytes(length)
        frame = yield from read_mapping_page(self.host, inode, index, self.mm)
        data = self.host.frames.bytes_of(frame)[at : at + length].tobytes()
        unlock_page(self.host, frame)
        yield self.host.costs.copy_page_ns
        return data

    def pwrite(self, file: OpenFile, data: bytes, offset: int) -> Steps[int]:
        """``pwrite``: into the page cache, which grows the file. :raises OSError: EBADF, EINVAL."""
        inode = _inode(file)
        if offset < 0:
            raise error(errno.EINVAL)
        if not file.writable:
            raise error(errno.EBADF)
        yield self.host.costs.syscall_ns
        yield from inode.i_rwsem.acquire(self.host.thread)
        try:
            if offset > inode.size:
                yield from zero_partial_page(self.host, inode, inode.size, PAGE_SIZE)
            done = 0
            while done < len(data):
                at = (offset + done) % PAGE_SIZE
                part = data[done : done + PAGE_SIZE - at]
                yield from self._write_part(inode, (offset + done) // PAGE_SIZE, at, part)
                done += len(part)
                inode.size = max(inode.size, offset + done)
        finally:
            inode.i_rwsem.release(self.host.thread)
        return done

    def _write_part(self, inode: File, index: int, at: int, data: bytes) -> Steps[None]:
        if inode.direct:
            frame = yield from get_block(self.host, inode, index)
        else:
            frame = yield from read_mapping_page(self.host, inode, index, self.mm)
        if inode.stable_writes:
            yield from self.host.writebacks.wait(frame)
        self.host.frames.bytes_of(frame)[at : at + len(data)] = bytearray(data)
        set_page_dirty(self.host, frame)
        if not inode.direct:
            unlock_page(self.host, frame)
        yield self.host.costs.copy_page_ns


def _inode(file: OpenFile) -> File:
    if file.closed:
        raise error(errno.EBADF)
    return file.inode
