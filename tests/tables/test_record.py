"""Narrow fields: int64 to kernels, compiled and as plain Python, whatever they are stored as."""

import numpy as np
import pytest

from nicemu._jit import JIT, WORLDS, jit, row_accessor
from nicemu.tables import records
from nicemu.tables.record import WIDTHS, record

ROW = record("wide", "u:u32", "s:i32", "flags:u16", "small:i8", "kind:u8")
row = row_accessor(ROW, 1, records.CONTROL.fields["trap"][1])


@jit
def differences(world):
    """Of unsigned fields: below zero, as of int64."""
    r = row(world, 1)
    return r.flags - r.u


@jit
def shift(world):
    """Beyond the width of the field."""
    return row(world, 1).kind << 40


@jit
def clear_flag(world, flag):
    """Stored through the complement, which has 64 bits."""
    r = row(world, 1)
    r.flags &= ~flag
    r.s -= 1
    r.wide = r.s * r.u
    return r.flags


@jit
def store(world, value):
    """Into a field of 8 bits."""
    row(world, 1).small = value


@pytest.fixture
def world():
    control, table = np.zeros(1, records.CONTROL).view(np.recarray), np.zeros(2, ROW).view(np.recarray)
    vector = np.array([[control.ctypes.data, 1], [table.ctypes.data, 2]])
    WORLDS[vector.ctypes.data] = [control, table]
    yield vector.ctypes.data, table[1]
    del WORLDS[vector.ctypes.data], vector


def test_reading_widens(world):
    address, values = world
    values.flags, values.u, values.kind = 0xFFFF, 0xFFFFFFFF, 255
    assert differences(address) == 0xFFFF - 0xFFFFFFFF and shift(address) == 255 << 40


def test_storing_narrows(world):
    address, values = world
    values.flags, values.u, values.s = 0xFFFF, 0xFFFFFFFF, -2
    assert clear_flag(address, 4) == 0xFFFB
    assert (values.s, values.wide) == (-3, -3 * 0xFFFFFFFF)


@pytest.mark.skipif(JIT, reason="compiled stores are cut off")
def test_a_value_that_does_not_fit_is_an_error_without_jit(world):
    address, values = world
    store(address, -128)
    assert values.small == -128
    with pytest.raises(OverflowError):
        store(address, 128)


def test_a_field_says_its_width():
    widths = record("wide", *(f"of_{width}:{width}" for width in WIDTHS))
    assert [widths[name].name for name in widths.names] == ["int64", *(np.dtype(kind).name for kind in WIDTHS.values())]


@pytest.mark.parametrize("table", ["FRAME", "FRAME_STAMP", "QP", "SQ_ENTRY"])
def test_narrow_rows_have_no_holes_within(table):
    dtype = getattr(records, table)
    ends = [dtype.fields[name][1] + dtype[name].itemsize for name in dtype.names]
    assert [dtype.fields[name][1] for name in dtype.names[1:]] == ends[:-1] or table == "QP"


def test_a_line_of_a_qp_serves_one_direction():
    """No field of the requester's lines 1 to 3 lies in the responder's 4 to 7."""
    line = {name: at // 64 for name, (_, at) in records.QP.fields.items()}
    assert {line[name] for name in ("sq_next", "una_psn", "timer_event", "retries", "rnr_until")} <= {1, 2, 3}
    assert {line[name] for name in ("epsn", "message_va", "rq_next", "rx_head", "resource_head")} <= {4, 5, 6, 7}
    assert all(at % 64 + records.QP[name].itemsize <= 64 for name, (_, at) in records.QP.fields.items())
