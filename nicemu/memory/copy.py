"""Copies between device buffers and frames, one per memory kind.

Arena: plain copies, but the first touch of a page after the program ran is fault-safe, since the program may have
unmapped or protected it behind our back. Program-owned: always fault-safe, one ``process_vm_*`` call on ourselves (or
``pwrite``/``pread`` through a memfd where that is forbidden). Model frames and the graveyard: plain copies.
"""

from nicemu._jit import copy_bytes, entry, jit, pread, process_vm_readv, process_vm_writev, pwrite
from nicemu.tables.records import FrameKind
from nicemu.tables.rows import control, frame, frame_check

ARENA, PROGRAM = int(FrameKind.ARENA), int(FrameKind.PROGRAM)


@jit
def safe_read(world, destination, source, length):
    """Copy from an address that may be bad; True if all bytes came."""
    c = control(world, 0)
    if c.scratch_fd > 0:
        if pwrite(c.scratch_fd, source, length, 0) != length:
            return False
        copy_bytes(destination, c.scratch_map, length)
        return True
    return process_vm_readv(c.pid, destination, source, length) == length


@jit
def safe_write(world, destination, source, length):
    """Copy to an address that may be bad; True if all bytes went."""
    c = control(world, 0)
    if c.scratch_fd > 0:
        copy_bytes(c.scratch_map, source, length)
        return pread(c.scratch_fd, destination, length, 0) == length
    return process_vm_writev(c.pid, source, destination, length) == length


@jit
def read_frame(world, f, offset, destination, length):
    """Bytes of a frame into a device buffer; False if the program took the page away."""
    row = frame(world, f)
    c = control(world, 0)
    if row.pointer == 0:
        return False
    source = row.pointer + offset
    if row.kind == PROGRAM or (row.kind == ARENA and frame_check(world, f).read_epoch != c.epoch):
        if row.pointer == c.graveyard:
            copy_bytes(destination, source, length)
            return True
        if not safe_read(world, destination, source, length):
            return False
        frame_check(world, f).read_epoch = c.epoch
        return True
    copy_bytes(destination, source, length)
    return True


@jit
def write_frame(world, f, offset, source, length):
    """A device buffer into a frame; a frame that is no longer current swallows it. False: the page was taken away."""
    row = frame(world, f)
    c = control(world, 0)
    if row.pointer == c.graveyard or row.pointer == 0:
        return True
    destination = row.pointer + offset
    if row.kind == PROGRAM or (row.kind == ARENA and frame_check(world, f).write_epoch != c.epoch):
        if not safe_write(world, destination, source, length):
            return False
        frame_check(world, f).write_epoch = c.epoch
        return True
    copy_bytes(destination, source, length)
    return True


@entry("int64(int64, int64, int64, int64, int64)")
def read_page(world, f, offset, destination, length):
    """``read_frame`` for Python: 1 if all bytes came."""
    return 1 if read_frame(world, f, offset, destination, length) else 0


@entry("int64(int64, int64, int64, int64, int64)")
def write_page(world, f, offset, source, length):
    """``write_frame`` for Python: 1 if all bytes went."""
    return 1 if write_frame(world, f, offset, source, length) else 0
