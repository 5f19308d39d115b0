"""Commands, responses and errors as bytes, for a forked child and its parent: JSON, and nothing but data.

A message is a value of the classes in the message modules, or made of numbers, text, bytes, tuples and dicts. Rings and
records (memoryviews) cannot be said. ``decode(encode(value)) == value``.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from nicemu.uverbs import import_messages, memory_messages, messages, raw_messages, srq_messages

TYPES: dict[str, Any] = {
    name: kind
    for module in (messages, memory_messages, srq_messages, raw_messages, import_messages)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
}
"""What may be said, by name."""


def encode(value: Any) -> bytes:
    """:raises TypeError: the value has something in it that is no data."""
    return json.dumps(_plain(value)).encode()


def decode(data: bytes) -> Any:
    """:raises ValueError: not what :func:`encode` gives."""
    try:
        return _value(json.loads(data))
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a message: {error}") from error


def _plain(value: Any) -> Any:
    """What JSON has: numbers, text and None as they are, the rest as an object with one member, its kind."""
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, tuple | list):
        return {"tuple": [_plain(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_plain(key), _plain(item)] for key, item in value.items()]}
    name = type(value).__name__
    kind = TYPES.get(name)
    if kind is type(value):
        return {name: [_plain(getattr(value, field.name)) for field in dataclasses.fields(kind)]}
    raise TypeError(f"{name} cannot be sent to another process")


def _value(plain: Any) -> Any:
    if not isinstance(plain, dict):
        if isinstance(plain, list):
            raise ValueError("not a message: a list")
        return plain
    ((kind, content),) = plain.items()
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "tuple":
        return tuple(_value(item) for item in content)
    if kind == "dict":
        return {_value(key): _value(item) for key, item in content}
    return TYPES[kind](*(_value(item) for item in content))
