"""Receive-side scaling's hash: Microsoft's published vectors, and what follows from its definition."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu import _jit
from nicemu.wire import toeplitz as kernels

KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)  # fmt: skip
VECTORS = [  # source, source port, destination, destination port, hash of the addresses, hash with ports
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2CC18CD5, 0x40207D3D),
    ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0F0C461C, 0xDDE51BBF),
    ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4B61E985, 0x02D1FEEF),
]
_key = np.frombuffer(KEY, np.uint8).copy()


@_jit.entry("int64(int64, int64, int64, int64)")
def field_hash(key, position, value, bits):
    return kernels.toeplitz(key, position, value, bits)


def hash_of(data: bytes) -> int:
    """Byte by byte."""
    value = 0
    for at, byte in enumerate(data):
        value ^= int(field_hash(_key.ctypes.data, 8 * at, byte, 8))
    return value


@pytest.mark.parametrize(("source", "source_port", "dest", "dest_port", "addresses", "all_four"), VECTORS)
def test_microsofts_vectors(source, source_port, dest, dest_port, addresses, all_four):
    data = ipaddress.ip_address(source).packed + ipaddress.ip_address(dest).packed
    assert hash_of(data) == addresses
    assert hash_of(data + source_port.to_bytes(2, "big") + dest_port.to_bytes(2, "big")) == all_four


@given(st.binary(min_size=8, max_size=8), st.integers(0, 28))
def test_eight_bytes_at_once_are_the_same_as_each_for_itself(data, at):
    one = 0
    for i, byte in enumerate(data):
        one ^= int(field_hash(_key.ctypes.data, 8 * (at + i), byte, 8))
    assert int(field_hash(_key.ctypes.data, 8 * at, int.from_bytes(data, "big", signed=True), 64)) == one


@given(st.binary(min_size=1, max_size=36), st.binary(min_size=1, max_size=36))
def test_the_hash_is_linear(one, other):
    size = min(len(one), len(other))
    both = bytes(a ^ b for a, b in zip(one[:size], other[:size], strict=True))
    assert hash_of(both) == hash_of(one[:size]) ^ hash_of(other[:size])
