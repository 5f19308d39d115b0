"""Copies between device buffers and frames, per memory kind: right bytes, poison, lost writes, pages taken away."""

import ctypes
import mmap
import os
import random
import signal
import subprocess
import sys

import pytest

from nicemu._jit import guard
from nicemu.memory import Frames
from nicemu.memory.copy import read_page, write_page
from nicemu.tables import World
from nicemu.tables.records import FrameKind
from nicemu.tables.world import Capacity, address_of, lazy_bytes

SMALL = Capacity(qps=1, cqs=1, mkeys=1, sq_entries=8, packets=8, frames=64, nodes=8, violations=8, trace=8)
ARENA, PROGRAM, MODEL = FrameKind.ARENA, FrameKind.PROGRAM, FrameKind.MODEL
NONE, READ_ONLY, READ_WRITE = 0, 1, 3
libc = ctypes.CDLL(None)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Machine:
    """A world, frames, one page of the process, a device buffer."""

    def __init__(self, way: str) -> None:
        self.world = World(SMALL)
        self.frames = Frames(self.world, 32, 16)
        control = self.world.control[0]
        control.graveyard, control.pid, control.epoch = self.frames.graveyard, os.getpid(), 1
        self.page = mmap.mmap(-1, 4096)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        self.buffer = lazy_bytes(4096)
        if way == "guard":
            control.copy_code, control.probe_code, control.watch_code = guard.codes()
        if way == "memfd":
            self.fd = os.memfd_create("copy")
            os.ftruncate(self.fd, 4096)
            self.shared = mmap.mmap(self.fd, 4096)
            control.scratch_fd = self.fd
            control.scratch_map = ctypes.addressof(ctypes.c_char.from_buffer(self.shared))

    def frame(self, kind: FrameKind) -> int:
        """A frame of this kind; real ones over the page."""
        return self.frames.allocate(kind, 0 if kind == MODEL else self.address)

    def read(self, frame: int, offset: int, length: int) -> bytes | None:
        """Bytes, or None if the page was taken away."""
        good = read_page(self.world.address, frame, offset, address_of(self.buffer), length)
        return self.buffer[:length].tobytes() if good else None

    def write(self, frame: int, offset: int, data: bytes) -> bool:
        """False if the page was taken away."""
        self.buffer[: len(data)] = memoryview(data)
        return bool(write_page(self.world.address, frame, offset, address_of(self.buffer), len(data)))

    def protect(self, prot: int) -> None:
        """mprotect, then the program's next entry."""
        assert libc.mprotect(self.address, 4096, prot) == 0
        self.world.control[0].epoch += 1

    def bytes_of(self, frame: int) -> bytes:
        """What is in memory."""
        if self.frames.table.kind[frame] == MODEL:
            return self.frames.bytes_of(frame).tobytes()
        return bytes(self.page[:])


@pytest.fixture(params=["guard", "process_vm", "memfd"])
def machine(request):
    """Each way of safe copies."""
    if request.param == "guard" and not guard.is_native():
        pytest.skip("there is none")
    made = Machine(request.param)
    yield made
    libc.mprotect(made.address, 4096, READ_WRITE)
    made.world.close()


every_kind = pytest.mark.parametrize("kind", [ARENA, PROGRAM, MODEL])
real = pytest.mark.parametrize("kind", [ARENA, PROGRAM])


@every_kind
@pytest.mark.parametrize("offset, length", [(0, 0), (0, 1), (0, 4096), (4095, 1), (100, 1000), (8, 8)])
def test_bytes_come_and_go(machine, kind, offset, length):
    frame = machine.frame(kind)
    data = bytes((7 * n + 1) % 256 for n in range(length))
    assert machine.write(frame, offset, data)
    expected = bytearray(4096)
    expected[offset : offset + length] = data
    assert machine.bytes_of(frame) == expected
    assert machine.read(frame, offset, length) == data


@every_kind
@pytest.mark.parametrize("offset", [0, 3])
def test_any_number_of_bytes_comes_and_goes(machine, kind, offset):
    """Some are copied in pieces of 128 and 32, and one by one."""
    frame = machine.frame(kind)
    for length in range(300):
        data = random.Random(length).randbytes(length)
        assert machine.write(frame, offset, data) and machine.read(frame, offset, length) == data


@every_kind
def test_a_retired_frame_reads_poison_and_loses_writes(machine, kind):
    frame = machine.frame(kind)
    machine.write(frame, 0, b"before")
    machine.frames.retire(frame)
    assert machine.write(frame, 0, b"after!")
    assert machine.bytes_of(frame)[:6] == b"before"
    assert machine.read(frame, 0, 6) == b"\xdb" * 6


@every_kind
def test_a_freed_frame_does_so_too(machine, kind):
    frame = machine.frame(kind)
    machine.frames.free(frame)
    assert machine.write(frame, 0, b"after!")
    assert machine.read(frame, 4090, 6) == b"\xdb" * 6


@real
@pytest.mark.parametrize("times", [1, 3])
def test_a_page_without_access_is_gone_each_time(machine, kind, times):
    frame = machine.frame(kind)
    machine.protect(NONE)
    for _ in range(times):
        assert machine.read(frame, 0, 8) is None
        assert not machine.write(frame, 0, b"x")


@real
def test_a_read_only_page_reads_and_does_not_write(machine, kind):
    frame = machine.frame(kind)
    machine.write(frame, 0, b"kept")
    machine.protect(READ_ONLY)
    assert machine.read(frame, 0, 4) == b"kept"
    for _ in range(3):
        assert not machine.write(frame, 0, b"lost")
    assert bytes(machine.page[:4]) == b"kept"


@real
def test_a_page_given_back_is_there_again(machine, kind):
    frame = machine.frame(kind)
    machine.protect(NONE)
    assert machine.read(frame, 0, 8) is None
    machine.protect(READ_WRITE)
    assert machine.write(frame, 0, b"again") and machine.read(frame, 0, 5) == b"again"


@real
@pytest.mark.parametrize("length", [1, 6, 31, 32, 33, 96, 127, 128, 129, 161, 1000, 4096])
def test_a_copy_stops_where_memory_stops(machine, kind, length):
    """The pages behind the machine's own are somebody else's, so a pair of its own is made."""
    pages = mmap.mmap(-1, 8192)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    pages[:] = b"y" * 8192
    assert libc.mprotect(address + 4096, 4096, NONE) == 0
    frame = machine.frames.allocate(kind, address)
    assert machine.read(frame, 4096 - length, length) == b"y" * length
    assert machine.write(frame, 4096 - length, b"x" * length) and pages[4096 - length : 4096] == b"x" * length
    for beyond in {1, 32, length}:
        offset = 4096 - length + beyond
        assert machine.read(frame, offset, length) is None and not machine.write(frame, offset, b"z" * length)
    libc.mprotect(address + 4096, 4096, READ_WRITE)


GUARDED = """
import ctypes, faulthandler, os, sys
from nicemu._jit import guard
copy, probe, watch = (ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(code) for code in guard.codes())
watch(0, 0, 0)
buffer = ctypes.create_string_buffer(bytes(range(256)), 512)
assert copy(ctypes.addressof(buffer), 4096, 64) == 0
assert copy(ctypes.addressof(buffer) + 256, ctypes.addressof(buffer), 231) == 231
assert buffer.raw[256:487] == bytes(range(231)) and buffer.raw[487] == 0
assert probe(ctypes.addressof(buffer), 0, 0) == 1 and probe(4096, 0, 0) == 0
if "later" in sys.argv:
    faulthandler.enable()
    watch(0, 0, 0)
    assert copy(4096, ctypes.addressof(buffer), 64) == 0
if "kill" in sys.argv:
    os.kill(os.getpid(), 11)
else:
    ctypes.string_at(16)
print("lived")
"""


@pytest.mark.skipif(not guard.is_native(), reason="there is none")
@pytest.mark.parametrize("options", [(), ("later",), ("kill",)])
@pytest.mark.parametrize("cpu", ["host", "generic"])
def test_faults_of_others_are_theirs(options, cpu):
    """A crash of the program stays one, its traceback too, whoever installed a handler first, and however copies are
    made."""
    env = os.environ | {"NUMBA_CPU_NAME": cpu}
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, *options], capture_output=True, text=True, timeout=60, env=env
    )
    assert done.returncode == -signal.SIGSEGV and "lived" not in done.stdout
    assert ("Fatal Python error: Segmentation fault" in done.stderr) == ("later" in options)


REPAIRED = """
import ctypes, mmap
from nicemu._jit import guard
copy, probe, watch = (ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(code) for code in guard.codes())
libc, memory, faults = ctypes.PyDLL(None), mmap.mmap(-1, 4096), []
at = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
class Action(ctypes.Structure):
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_char * 128), ("flags", ctypes.c_int),
                ("restorer", ctypes.c_void_p)]
def repair(signal, info, context):
    faults.append(signal)
    libc.mprotect(at, 4096, 3)
handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(repair)
libc.sigaction(11, ctypes.byref(Action(ctypes.cast(handler, ctypes.c_void_p).value, b"", 0x40000004, None)), None)
watch(0, 0, 0)
buffer = ctypes.create_string_buffer(8)
for turn in range(20):
    libc.mprotect(at, 4096, 0)
    libc.memset(at, turn, 10)
    assert copy(ctypes.addressof(buffer), 4096, 8) == 0 and probe(4096, 0, 0) == 0
print(len(faults), memory[0])
"""


@pytest.mark.skipif(not guard.is_native(), reason="there is none")
def test_a_program_may_repair_its_own_faults():
    """As language runtimes do that find out about null pointers so."""
    done = subprocess.run([sys.executable, "-c", REPAIRED], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["20", "19"], done.stderr
