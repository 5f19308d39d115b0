"""The data mover: length x offset x page end, gather and scatter lists, all sizes around packets and pages."""

import random

import pytest

from tests.nic.conftest import Rc, connected
from tests.nic.testbench import Bench, WrOpcode

LENGTHS = (0, 1, 7, 8, 63, 64, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097, 8191, 8192, 8193)
OFFSETS = (0, 1, 7, 4088, 4095, 4096, 4097, 8190)
WRITE, READ, SEND = WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ, WrOpcode.SEND


@pytest.fixture(scope="module")
def shared() -> Rc:
    """One pair for the whole grid: operations follow each other."""
    return connected(Bench(), pages=6, max_sge=8)


def move(rc: Rc, opcode: int, here: list[tuple[int, int]], there: list[tuple[int, int]], seed: int) -> None:
    """Move bytes between (offset, length) lists of the local and the remote region and check every byte of both."""
    local, remote = bytearray(rc.local.fill(2 * seed)), bytearray(rc.remote.fill(2 * seed + 1))
    sges = [rc.local.sge(length, offset) for offset, length in here]
    if opcode == SEND:
        rc.b.post_recv(seed, *[rc.remote.sge(length, offset) for offset, length in there])
    rc.a.post_send(seed, opcode, *sges, remote=rc.remote.va + there[0][0], rkey=rc.remote.key)
    rc.bench.run()
    source, target = (remote, local) if opcode == READ else (local, remote)
    pieces, places = (there, here) if opcode == READ else (here, there)
    data = b"".join(bytes(source[offset : offset + length]) for offset, length in pieces)
    for offset, length in places:
        chunk, data = data[:length], data[length:]
        target[offset : offset + len(chunk)] = chunk
    assert rc.a.statuses() == [(seed, 0)]
    assert opcode != SEND or rc.b.statuses() == [(seed, 0)]
    assert rc.local.data == local and rc.remote.data == remote


@pytest.mark.parametrize("opcode", [WRITE, READ, SEND])
@pytest.mark.parametrize("length", LENGTHS)
def test_length_by_offset_by_page_end(shared, opcode, length):
    for here in OFFSETS:
        for there in OFFSETS:
            move(shared, opcode, [(here, length)], [(there, length)], 7)


def split(rng: random.Random, total: int, parts: int, space: int) -> list[tuple[int, int]]:
    """``total`` bytes in ``parts`` pieces (some empty) at increasing offsets."""
    cuts = sorted(rng.choices(range(total + 1), k=parts - 1))
    lengths = [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
    gaps = sorted(rng.choices(range(space - total + 1), k=parts))
    used, found = 0, []
    for gap, length in zip(gaps, lengths, strict=True):
        found.append((gap + used, length))
        used += length
    return found


@pytest.mark.parametrize("seed", range(60))
def test_lists_of_pieces(shared, seed):
    rng = random.Random(seed)
    opcode = rng.choice([WRITE, READ, SEND])
    total = rng.choice([0, 1, 100, 1024, 4096, 5000, 12000])
    here = split(rng, total, rng.randint(1, 8), 6 * 4096)
    there = split(rng, total, rng.randint(1, 8) if opcode == SEND else 1, 6 * 4096)
    move(shared, opcode, here, there, seed)


@pytest.mark.parametrize("opcode", [WRITE, READ, SEND])
def test_many_pieces_that_each_straddle_a_page(opcode):
    """As many segments in a packet as a list of 32 elements can make."""
    bench = Bench()
    rc = connected(bench, pages=34, PATH_MTU=5, max_sge=32)
    pieces = [(4096 * (page + 1) - 64, 128) for page in range(32)]
    rc.b.post_recv(1, rc.remote.sge())
    rc.a.post_send(1, opcode, *[rc.local.sge(n, at) for at, n in pieces], remote=rc.remote.va, rkey=rc.remote.key)
    bench.run()
    assert rc.a.statuses() == [(1, 0)]
    gathered = b"".join(rc.local.data[at : at + n] for at, n in pieces)
    assert gathered == rc.remote.data[:4096]


@pytest.mark.parametrize("opcode", [WRITE, READ])
def test_a_mebibyte(opcode):
    bench = Bench()
    rc = connected(bench, pages=256, PATH_MTU=5)
    rc.a.post_send(1, opcode, rc.local.sge(), remote=rc.remote.va, rkey=rc.remote.key)
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.local.data == rc.remote.data
