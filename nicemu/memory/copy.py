"""Copies between device buffers and frames. They survive whatever the program did to its memory behind our back.

Both ends go through the same guarded copy (:mod:`nicemu._jit.guard`), whoever owns the memory. Where there is none, one
``process_vm_*`` call on ourselves, or ``pwrite``/``pread`` through a memfd where that is forbidden.
"""

from nicemu._jit import call, cold, copy_bytes, entry, jit, pread, process_vm_readv, process_vm_writev, pwrite
from nicemu.tables.rows import control, frame


@jit
def watch(world):
    """After the program ran: the handler of bad addresses is still there."""
    c = control(world, 0)
    if c.watched != c.epoch:
        c.watched = c.epoch
        call(c.watch_code, 0, 0, 0)


@jit
def copy(world, destination, source, length, write):
    """Bytes to or (``write``) from an address that may be bad; the other one is the device's. True if all went."""
    code = control(world, 0).copy_code
    if code == 0:
        return ask_kernel(world, destination, source, length, write)
    watch(world)
    return call(code, destination, source, length) == length


@jit
def can_read(world, address):
    """An address is not bad, where there are guarded copies."""
    code = control(world, 0).probe_code
    if code == 0:
        return False
    watch(world)
    return call(code, address, 0, 0) != 0


@cold
def ask_kernel(world, destination, source, length, write):
    """A copy that the kernel checks."""
    c = control(world, 0)
    if c.scratch_fd > 0:
        if write:
            copy_bytes(c.scratch_map, source, length)
            return pread(c.scratch_fd, destination, length, 0) == length
        if pwrite(c.scratch_fd, source, length, 0) != length:
            return False
        copy_bytes(destination, c.scratch_map, length)
        return True
    if write:
        return process_vm_writev(c.pid, source, destination, length) == length
    return process_vm_readv(c.pid, destination, source, length) == length


@jit
def read_frame(world, f, offset, destination, length):
    """Bytes of a frame into a device buffer; False if the program took the page away."""
    row = frame(world, f)
    return row.pointer != 0 and copy(world, destination, row.pointer + offset, length, False)


@jit
def write_frame(world, f, offset, source, length):
    """A device buffer into a frame; a frame that is no longer current swallows it. False: the page was taken away."""
    row = frame(world, f)
    if row.pointer == control(world, 0).graveyard or row.pointer == 0:
        return True
    return copy(world, row.pointer + offset, source, length, True)


@entry("int64(int64, int64, int64, int64, int64)")
def read_page(world, f, offset, destination, length):
    """``read_frame`` for Python: 1 if all bytes came."""
    return 1 if read_frame(world, f, offset, destination, length) else 0


@entry("int64(int64, int64, int64, int64, int64)")
def write_page(world, f, offset, source, length):
    """``write_frame`` for Python: 1 if all bytes went."""
    return 1 if write_frame(world, f, offset, source, length) else 0
