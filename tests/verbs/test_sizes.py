"""Messages of every size around the MTU arrive whole, and touch nothing else."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .memory import make_pattern
from .sides import RC, UC, pair, read, recv, send, write
from .waiting import successes

MTU = 1024
SIZES = (0, 1, MTU - 1, MTU, MTU + 1, 3 * MTU + 7, 64 * 1024)
PAGES = 17


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [RC, UC], ids=["rc", "uc"])
def test_a_send_arrives_whole(near, far, kind, size):
    a, b = pair(near, far, kind)
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    target.fill(2)
    recv(b, target.sge(), wr_id=7)
    send(a, source.sge(0, size), wr_id=3)
    (sent,), (received,) = successes(near.cq, 1), successes(far.cq, 1)
    assert (sent.wr_id, sent.opcode) == (3, e.IBV_WC_SEND)
    assert (received.wr_id, received.opcode, received.byte_len) == (7, e.IBV_WC_RECV, size)
    assert target.bytes() == source.bytes(0, size) + make_pattern(2, target.length)[size:]


@pytest.mark.parametrize("size", SIZES)
def test_a_write_arrives_whole(near, far, size):
    a, _b = pair(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    target.fill(2)
    write(a, source.sge(8, size), target.remote(24))
    assert successes(near.cq, 1)[0].opcode == e.IBV_WC_RDMA_WRITE
    before = make_pattern(2, target.length)
    assert target.bytes() == before[:24] + source.bytes(8, size) + before[24 + size :]


@pytest.mark.parametrize("size", SIZES)
def test_a_read_arrives_whole(near, far, size):
    a, _b = pair(near, far)
    target, source = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    target.fill(2)
    read(a, target.sge(40, size), source.remote(16))
    completion = successes(near.cq, 1)[0]
    assert (completion.opcode, completion.byte_len) == (e.IBV_WC_RDMA_READ, size)
    before = make_pattern(2, target.length)
    assert target.bytes() == before[:40] + source.bytes(16, size) + before[40 + size :]
