"""What a test observed, and which observations pass."""

from __future__ import annotations

from typing import Any

import pytest

SAME = object()
"""rxe does what the specification asks."""


def accept(
    node: pytest.Item, on_rxe: bool, what: str, observed: Any, *, spec: Any, rxe: Any = SAME, why: str = ""
) -> None:
    """Assert that `observed` is `spec` (a set: one of them); on rxe `rxe` passes as well.

    `why` says who is right by which clause, or that the specification leaves it open. The observation becomes a user
    property of the test, whatever the verdict, so that devices can be compared by behaviour.
    """
    assert rxe is SAME or why, f"{what}: a difference needs a reason"
    by_spec = observed in _choices(spec)
    as_rxe = rxe is not SAME and observed in _choices(rxe)
    record = {"what": what, "observed": plain(observed), "spec": plain(spec), "why": why}
    record["rxe"] = plain(spec if rxe is SAME else rxe)
    record["verdict"] = "spec" if by_spec else "rxe" if as_rxe and on_rxe else "wrong"
    node.user_properties.append(("observation", record))
    if record["verdict"] == "wrong":
        allowed = f"{plain(spec)}" + (f", or {plain(rxe)} as rxe" if on_rxe and rxe is not SAME else "")
        pytest.fail(f"{what}: expected {allowed}, observed {plain(observed)}", pytrace=True)


def _choices(value: Any) -> Any:
    return value if isinstance(value, set | frozenset) else (value,)


def plain(value: Any) -> Any:
    """The same as JSON has it: sets sorted, bytes as hexadecimal digits (a digest of long ones), numbers as int."""
    if isinstance(value, set | frozenset):
        return {"one of": sorted((plain(each) for each in value), key=str)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex() if len(value) <= 64 else f"{len(value)} bytes, {_digest(value)}"
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    return str(value)


def _digest(value: bytes) -> str:
    import hashlib

    return "sha256 " + hashlib.sha256(value).hexdigest()[:16]
