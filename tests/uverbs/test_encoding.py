"""Messages as bytes: everything that may be said comes back as it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu.uverbs import messages as m
from nicemu.uverbs.encoding import TYPES, decode, encode

SIMPLE = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False)
DATA = st.recursive(
    SIMPLE, lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=5
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TYPES)), st.data())
def test_every_message(name: str, data: Any) -> None:
    kind = TYPES[name]
    message = kind(*(data.draw(DATA) for _ in dataclasses.fields(kind)))
    assert decode(encode(message)) == message and type(decode(encode(message))) is kind


@given(DATA)
def test_data(value: Any) -> None:
    assert decode(encode(value)) == value


def test_a_message_inside_another() -> None:
    attributes = m.QpAttributes(qp_state=3, ah_attr=m.AddressVector(dgid=bytes(16)), caps=m.Capabilities(1, 2, 3, 4, 5))
    assert decode(encode(m.ModifyQp(7, attributes, 1))) == m.ModifyQp(7, attributes, 1)


def test_rings_cannot_be_said() -> None:
    with pytest.raises(TypeError, match="memoryview"):
        encode(m.CqResponse(1, 1, 1, 1, memoryview(b""), memoryview(b"")))


@pytest.mark.parametrize("data", [
    b"", b"{", b"[]", b"[1]", b'{"Popen": ["ls"]}', b'{"VerbsError": [1]}', b'{"a": 1, "b": 2}', b'{"AllocPd": []}',
    b'{"AllocPd": [1, 2]}', b'{"bytes": "xy"}', b'{"bytes": 1}', b'{"dict": [1]}', b'{"tuple": 1}', b"\xff",
    b'{"tuple": ' * 100_000,
])  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)
