"""Lists of scatter/gather elements: where each byte comes from and goes to."""

from __future__ import annotations

import pytest

from .memory import PAGE, make_pattern
from .sides import RC, UC, pair, read, recv, refusal, send, write
from .waiting import successes

MTU = 1024
LISTS = {
    "two": [(0, 100), (200, 50)],
    "odd_lengths": [(1, 3), (10, 5), (31, 1), (77, 7)],
    "across_packets": [(0, MTU - 1), (3000, 2), (5000, 2 * MTU + 1)],
    "across_pages": [(PAGE - 1, 2), (2 * PAGE - 700, 1400), (3 * PAGE - 1, 3)],
    "one_byte_a_piece": [(9000 + 2 * index, 1) for index in range(4)],
    "backwards": [(8000, 600), (4000, 600), (0, 600)],
    "the_same_bytes_twice": [(64, 900), (64, 900)],
    "an_empty_one_in_the_middle": [(0, 1500), (4000, 0), (6000, 1500)],
    "an_empty_one_first": [(0, 0), (100, 300)],
    "an_empty_one_last": [(100, 300), (0, 0)],
    "only_empty_ones": [(5, 0), (7, 0)],
}
EVERY_LIST = pytest.mark.parametrize("pieces", LISTS.values(), ids=LISTS.keys())
ONCE_EACH = pytest.mark.parametrize(
    "pieces", [v for k, v in LISTS.items() if "twice" not in k], ids=[k for k in LISTS if "twice" not in k]
)


def elements(region, pieces):
    return [region.sge(offset, length) for offset, length in pieces]


def gathered(region, pieces):
    return b"".join(region.bytes(offset, length) for offset, length in pieces)


def scattered(region, pieces, data):
    """Pattern 2 of the region with `data` spread over the pieces."""
    whole = bytearray(make_pattern(2, region.length))
    for offset, length in pieces:
        part, data = data[:length], data[length:]
        whole[offset : offset + len(part)] = part
    return bytes(whole)


def regions(near, far):
    source, target = near.region(4), far.region(4)
    source.fill(1)
    target.fill(2)
    return source, target


@EVERY_LIST
@pytest.mark.parametrize("kind", [RC, UC], ids=["rc", "uc"])
def test_a_send_gathers(near, far, kind, pieces):
    a, b = pair(near, far, kind)
    source, target = regions(near, far)
    recv(b, target.sge())
    send(a, elements(source, pieces))
    successes(near.cq, 1)
    data = gathered(source, pieces)
    assert successes(far.cq, 1)[0].byte_len == len(data)
    assert target.bytes() == scattered(target, [(0, len(data))], data)


@ONCE_EACH
@pytest.mark.parametrize("kind", [RC, UC], ids=["rc", "uc"])
def test_a_receive_scatters(near, far, kind, pieces):
    a, b = pair(near, far, kind)
    source, target = regions(near, far)
    size = sum(length for _, length in pieces)
    recv(b, elements(target, pieces))
    send(a, source.sge(5, size))
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == size
    assert target.bytes() == scattered(target, pieces, source.bytes(5, size))


@EVERY_LIST
def test_a_write_gathers(near, far, pieces):
    a, _b = pair(near, far)
    source, target = regions(near, far)
    write(a, elements(source, pieces), target.remote(11))
    successes(near.cq, 1)
    data = gathered(source, pieces)
    assert target.bytes() == scattered(target, [(11, len(data))], data)


@ONCE_EACH
def test_a_read_scatters(near, far, pieces):
    a, _b = pair(near, far)
    source, target = regions(far, near)
    size = sum(length for _, length in pieces)
    read(a, elements(target, pieces), source.remote(13))
    successes(near.cq, 1)
    assert target.bytes() == scattered(target, pieces, source.bytes(13, size))


def test_a_message_that_ends_inside_the_list_leaves_the_rest_of_it(near, far):
    a, b = pair(near, far)
    source, target = regions(near, far)
    pieces = [(0, 100), (1000, 100), (2000, 100)]
    recv(b, elements(target, pieces))
    send(a, source.sge(0, 150))
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == 150
    assert target.bytes() == scattered(target, [(0, 100), (1000, 50)], source.bytes(0, 150))


def test_elements_of_different_regions_in_one_list(near, far):
    a, b = pair(near, far)
    sources, targets = [near.region() for _ in range(3)], [far.region() for _ in range(3)]
    for index, region in enumerate(sources):
        region.fill(10 + index)
    recv(b, [region.sge(0, 700) for region in targets])
    send(a, [region.sge(8 * index, 700) for index, region in enumerate(sources)])
    successes(near.cq, 1)
    successes(far.cq, 1)
    for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
        assert target.bytes(0, 700) == source.bytes(8 * index, 700)


def test_a_list_as_long_as_the_device_allows(near, far):
    count = min(side.context.query_device().max_sge for side in (near, far))
    caps = {"max_send_sge": count, "max_recv_sge": count, "max_send_wr": 2, "max_recv_wr": 2}
    a, b = pair(near, far, caps=caps)
    source, target = regions(near, far)
    pieces = [(301 * index, 97) for index in range(count)]
    recv(b, elements(target, pieces))
    send(a, elements(source, pieces))
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == 97 * count
    assert gathered(target, pieces) == gathered(source, pieces)


def test_more_elements_than_the_queue_has_are_refused(near, far):
    a, b = pair(near, far, caps={"max_send_sge": 1, "max_recv_sge": 1})
    source = near.region()
    caps = a.query(0)[1].cap
    sent, received = caps.max_send_sge + 1, caps.max_recv_sge + 1
    assert refusal(send, a, [source.sge(0, 1)] * sent) == "EINVAL"
    assert refusal(recv, b, [source.sge(0, 1)] * received) == "EINVAL"
