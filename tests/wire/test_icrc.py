"""CRC-32 three ways (zlib, tables, carry-less multiplication) and the ICRC two ways agree."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu import _jit
from nicemu._jit import entry
from nicemu.tables.world import address_of
from nicemu.wire import crc32
from nicemu.wire.icrc import icrc_at
from nicemu.wire.ip import Ethernet, Vlan
from tests.wire.frames import any_frame, typical_frames

ROOT = Path(__file__).parents[2]
LENGTHS = [*range(0, 200), 255, 256, 1024, 4095, 4096, 4097, 4200]


@entry("int64(int64, int64, int64)")
def chosen(crc, address, length):
    """What the engine gets on this machine."""
    return crc32.crc32(crc, address, length)


@entry("int64(int64, int64, int64)")
def sliced(crc, address, length):
    """By tables."""
    return crc32.crc32_sliced(crc, address, length)


@entry("int64(int64, int64, int64)")
def folded(crc, address, length):
    """By carry-less multiplication."""
    return crc32.crc32_folded(crc, address, length)


@entry("int64(int64, int64)")
def icrc_of(address, length):
    """ICRC of a packet in memory."""
    return icrc_at(address, length)


WAYS = [
    pytest.param(chosen, id="chosen"),
    pytest.param(sliced, id="sliced", marks=pytest.mark.skipif(not _jit.JIT, reason="compiled code only")),
    pytest.param(folded, id="folded", marks=pytest.mark.skipif(
        not crc32.CLMUL, reason="this CPU has no carry-less multiplication, or JIT is off")),
]  # fmt: skip


@pytest.mark.nojit
@pytest.mark.parametrize("way", WAYS)
def test_the_published_check_value(way):
    """CRC-32/ISO-HDLC of "123456789"."""
    data = np.frombuffer(b"123456789", np.uint8)
    assert way(0, address_of(data), 9) == 0xCBF43926


@pytest.mark.nojit
@pytest.mark.parametrize("way", WAYS)
def test_every_length_at_every_alignment(way):
    data = np.random.default_rng(5).integers(0, 256, 5000, np.uint8)
    for offset in range(17):
        for length in LENGTHS:
            crc = length * 0x9E3779B1 & 0xFFFFFFFF
            expected = zlib.crc32(data[offset : offset + length].tobytes(), crc)
            assert way(crc, address_of(data) + offset, length) == expected, (offset, length)


@pytest.mark.parametrize("way", WAYS)
@given(data=st.binary(max_size=600), cut=st.integers(0, 600))
@settings(deadline=None)
def test_any_bytes_in_two_parts(way, data, cut):
    memory, cut = np.frombuffer(data + b"\0", np.uint8), min(cut, len(data))
    first = way(0, address_of(memory), cut)
    assert way(first, address_of(memory) + cut, len(data) - cut) == zlib.crc32(data)


def in_memory(frame) -> int:
    """ICRC of the frame's bytes by ``icrc_at``."""
    start = Ethernet.SIZE + (Vlan.SIZE if frame.vlan else 0)
    memory = np.frombuffer(frame.emit(), np.uint8)
    return icrc_of(address_of(memory) + start, len(memory) - start - 4)


@given(any_frame())
@settings(deadline=None)
def test_icrc_in_memory_and_of_values_agree(frame):
    assert in_memory(frame) == frame.computed_icrc


@pytest.mark.nojit
def test_icrc_in_memory_of_every_opcode():
    frames = typical_frames()
    for *_, frame in frames if _jit.JIT else frames[::7]:
        assert in_memory(frame) == frame.icrc


def test_icrc_of_less_than_its_headers_reads_no_further():
    memory = np.full(64, 0x45, np.uint8)
    short = icrc_of(address_of(memory), 10)
    memory[10:] = 0
    assert icrc_of(address_of(memory), 10) == short


def test_a_cpu_without_carryless_multiplication_gets_tables():
    """Numba compiles for the features it is told; the choice follows them, and the result is the same."""
    program = (
        "from tests.wire.test_icrc import *\n"
        "assert not crc32.CLMUL and crc32.crc32 is crc32.crc32_sliced\n"
        "data = np.arange(256, dtype=np.uint8)\n"
        "print(chosen(0, address_of(data), 256) == zlib.crc32(data.tobytes()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_DISABLE_JIT": "0"},
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr


def test_the_chosen_way_is_the_fastest_there_is():
    if not _jit.JIT:
        assert crc32.crc32 is crc32.crc32_plain
    else:
        assert crc32.crc32 is (crc32.crc32_folded if crc32.CLMUL else crc32.crc32_sliced)
