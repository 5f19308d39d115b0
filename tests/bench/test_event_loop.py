"""The bare loop moves the bytes, and counts what it did."""

import pytest

from nicemu.bench.event_loop import loop
from nicemu.bench.event_loop.loop import event_loop
from nicemu.bench.measure import Watch


@pytest.mark.nojit
@pytest.mark.parametrize(("size", "mtu", "qps"), [(64, 4096, 1), (64, 4096, 3), (10_000, 1024, 1), (8192, 4096, 2)])
def test_every_message_arrives(size: int, mtu: int, qps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "BATCH_MOST", 12)
    monkeypatch.setattr(loop, "ROWS", {slot: (dtype, min(rows, 256)) for slot, (dtype, rows) in loop.ROWS.items()})
    with event_loop(size, mtu, qps)() as batch:  # closing compares the bytes
        for _ in range(2):
            done = batch(Watch())
            packets = -(-size // mtu)
            assert done["messages"] == 12 and done["packets"] == 12 * packets and done["bytes"] == 12 * size
            assert done["events"] >= 2 * done["packets"]
            assert done["virtual_ns"] >= 12 * size * 8 / 100


@pytest.mark.nojit
def test_without_copies_no_bytes_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "BATCH_MOST", 12)
    made = loop.Loop(4096, 4096, copies=False)
    made.batch(Watch())
    assert not made.target.any()
    made.close()
