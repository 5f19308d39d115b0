"""Every intrinsic of ``nicemu._jit`` and its Python twin do the same."""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu import _jit
from nicemu._jit import twins
from nicemu.tables import World, records
from nicemu.tables.records import Slot
from nicemu.tables.world import Capacity, address_of, lazy_bytes

pytestmark = pytest.mark.skipif(not _jit.JIT, reason="compares compiled code with Python")
SMALL = Capacity(qps=3, cqs=3, mkeys=3, sq_entries=8, packets=8, frames=8, nodes=8, violations=8, trace=8)
TRAP = records.CONTROL.fields["trap"][1]


def compiled(function, arguments: int):
    """A compiled function that calls an intrinsic."""
    names = ", ".join("abcd"[:arguments])
    scope = {"f": function}
    exec(f"def call({names}): return f({names})", scope)
    return _jit.jit(scope["call"])


def pair(names: str, arguments: int, python):
    """(compiled, Python) of an intrinsic."""
    return pytest.param(compiled(getattr(_jit, names), arguments), python, id=names)


LOADS = [(8, "load8", "store8"), (32, "load32", "store32"), (64, "load64", "store64")]
VALUES = [0, 1, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, -1, -(2**63), -255]


@pytest.mark.parametrize("bits, load, store", LOADS)
@pytest.mark.parametrize("value", VALUES)
def test_loads_and_stores(bits, load, store, value):
    memory = [lazy_bytes(64), lazy_bytes(64)]
    for area in memory:
        area[:] = 0xAA
    compiled(getattr(_jit, store), 2)(address_of(memory[0]) + 8, value)
    twins.store(bits)(address_of(memory[1]) + 8, value)
    assert memory[0].tobytes() == memory[1].tobytes()
    for area in memory:
        found = compiled(getattr(_jit, load), 1)(address_of(area) + 8)
        expected = value % 2**bits if bits < 64 else value
        assert found == twins.load(bits)(address_of(area) + 8) == expected


@given(st.binary(min_size=1, max_size=300), st.integers(0, 50), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_copy(data, source, target):
    results = []
    for copy in (COPY, twins.copy_bytes):
        area = lazy_bytes(1024)
        area[source : source + len(data)] = np.frombuffer(data, np.uint8)
        copy(address_of(area) + 512 + target, address_of(area) + source, len(data))
        results.append(area.tobytes())
    assert results[0] == results[1]


@given(st.integers(-300, 300), st.integers(0, 200), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_fill(value, length, at):
    results = []
    for fill in (FILL, twins.fill_bytes):
        area = lazy_bytes(256)
        fill(address_of(area) + at, value, length)
        results.append(area.tobytes())
    assert results[0] == results[1]


COPY, FILL = compiled(_jit.copy_bytes, 3), compiled(_jit.fill_bytes, 3)


def add_up(a, b, c):
    """A unit."""
    return a + 2 * b + 3 * c


@pytest.mark.parametrize("arguments", [(1, 2, 3), (-1, 0, 2**40), (0, -5, 7)])
def test_call(arguments, monkeypatch):
    address = _jit.install(add_up, "twins")
    monkeypatch.setattr(twins, "PYTHON_UNITS", [add_up])
    assert compiled(_jit.call, 4)(address, *arguments) == twins.call(0, *arguments) == add_up(*arguments)


def hole() -> tuple[int, mmap.mmap]:
    """Two pages, the second without access."""
    area = mmap.mmap(-1, 8192)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert libc.mprotect(address + 4096, 4096, 0) == 0
    return address, area


READV = compiled(_jit.process_vm_readv, 4), twins.process_vm("process_vm_readv")
WRITEV = compiled(_jit.process_vm_writev, 4), twins.process_vm("process_vm_writev")


@pytest.mark.parametrize(
    "offset, length, expected", [(0, 100, 100), (4000, 96, 96), (4000, 200, 96), (4096, 8, -1), (8192 * 1000000, 8, -1)]
)
@pytest.mark.parametrize("direction", ["read", "write"])
def test_process_vm(offset, length, expected, direction):
    """A short count is a fault at that byte."""
    address, area = hole()
    area[:4096] = bytes(range(256)) * 16
    results = []
    for read, write in zip(READV, WRITEV, strict=True):
        local = lazy_bytes(512)
        local[:] = 7
        function = read if direction == "read" else write
        count = function(os.getpid(), address_of(local), address + offset, length)
        results.append((count, local.tobytes(), ctypes.string_at(address, 4096)))
    assert results[0] == results[1]
    if results[0][0] != -1 or expected == -1:  # -1 for all: forbidden here
        assert results[0][0] == expected


@pytest.mark.parametrize("offset, length", [(0, 100), (4000, 96), (4096, 8)])
def test_file_copies(offset, length):
    address, _area = hole()
    fd = os.memfd_create("twins")
    os.ftruncate(fd, 4096)
    found = []
    for pwrite, pread in ((compiled(_jit.pwrite, 4), compiled(_jit.pread, 4)), (twins._libc.pwrite, twins._libc.pread)):
        wrote = pwrite(fd, address + offset, length, 0)
        found.append((wrote, pread(fd, address + offset, length, 0)))
    os.close(fd)
    assert found[0] == found[1]
    assert found[0] == ((length, length) if offset + length <= 4096 else (-1, -1))


@pytest.fixture
def world():
    """A small world."""
    made = World(SMALL)
    yield made
    made.close()


def accessors(monkeypatch, slot: Slot):
    """(compiled function that writes and reads a row's first field, the same in Python)."""
    dtype = getattr(records, slot.name)
    field = dtype.names[-1]
    native = _jit.row_accessor(dtype, int(slot), TRAP)
    monkeypatch.setattr(_jit, "JIT", False)
    python = _jit.row_accessor(dtype, int(slot), TRAP)
    monkeypatch.undo()
    scope = {"native": native, "python": python, "jit": _jit.jit}
    exec(
        f"""
@jit
def compiled(world, index, value):
    row = native(world, index)
    old = row.{field}
    row.{field} = value
    return old
def interpreted(world, index, value):
    row = python(world, index)
    old = row.{field}
    row.{field} = value
    return old
""",
        scope,
    )
    return scope["compiled"], scope["interpreted"], field


@pytest.mark.parametrize("slot", [Slot.QP, Slot.CQ, Slot.MKEY, Slot.NIC, Slot.PACKET, Slot.FRAME, Slot.TRACE])
def test_rows_are_written_in_place(monkeypatch, world, slot):
    native, python, field = accessors(monkeypatch, slot)
    table = getattr(world, slot.name.lower())
    for index in range(len(table)):
        table[field][index] = 10 + index
        assert native(world.address, index, 100 + index) == 10 + index
        assert python(world.address, index, index) == 100 + index
        assert table[field][index] == index
    assert world.control[0].trap == 0


@pytest.mark.parametrize("index", [-1, 1 << 20, 2**63 - 1, -(2**63)])
def test_a_row_out_of_range_is_a_trap_and_the_end_of_the_kernel(monkeypatch, world, index):
    native, python, field = accessors(monkeypatch, Slot.CQ)
    control = world.control[0]
    for access, ends in ((native, SystemError), (python, twins.OutOfRangeError)):
        control.trap = control.trap_row = 0
        world.cq[field][0] = 55
        with pytest.raises(ends):
            access(world.address, index, 66)
        assert (world.cq[field][0], control.trap, control.trap_row) == (55, int(Slot.CQ) + 1, index)
    assert "CQ" in str(world.trap_error())


def test_fields_that_numpy_names_too(monkeypatch, world):
    """``base`` and ``flags`` are attributes of every numpy scalar."""
    monkeypatch.setattr(_jit, "JIT", False)
    mkey = _jit.row_accessor(records.MKEY, int(Slot.MKEY), TRAP)
    monkeypatch.undo()
    for name in records.MKEY.names:
        setattr(mkey(world.address, 1), name, 17)
        assert getattr(mkey(world.address, 1), name) == 17
        assert world.mkey[name][1] == 17


def test_bulk_tables_have_a_base_address(monkeypatch, world):
    native = compiled(_jit.base_accessor(int(Slot.NODE)), 1)
    monkeypatch.setattr(_jit, "JIT", False)
    python = _jit.base_accessor(int(Slot.NODE))
    assert native(world.address) == python(world.address) == world.node.ctypes.data
