"""Completion statuses of tag matching, as docs/errors.md tells them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nicemu.abi.tag_matching import RVH, TMH
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.mem_alloc import read
from nicemu.pyverbs.srq import OpsWr
from nicemu.uverbs import session
from tests.pyverbs.test_tag_matching import DATA_VALID, DEL, EAGER, MATCH, RECV, RNDV, Tags


@pytest.fixture
def tags() -> Iterator[Tags]:
    session.reset()
    with Context(name=get_device_list()[0].name.decode()) as context:
        yield Tags(context)
    session.reset()


def settle(tags: Tags) -> None:
    tags.ctx._kernel.settle(lambda: False, 10_000_000)


def states(tags: Tags) -> tuple[int, int]:
    """Of the client's QP and of the server's."""
    client, server = (qp.query(1)[0].qp_state for qp in (tags.client, tags.server))
    return client, server


def test_tm_err_of_deleting_a_tag_that_a_message_has_taken(tags: Tags) -> None:
    late = OpsWr(7, DEL)
    late.handle = tags.add(0, 5).handle
    tags.send(TMH.pack(EAGER, 0, 5) + b"data")
    settle(tags)
    tags.srq.post_srq_ops(late)
    settle(tags)
    assert tags.poll(3)[1:] == [(100, RECV, MATCH | DATA_VALID, 0), (7, 131, 0, int(e.IBV_WC_TM_ERR))]
    assert states(tags) == (e.IBV_QPS_RTS, e.IBV_QPS_RTS)


def test_tm_rndv_incomplete_of_a_payload_longer_than_the_tag_s_buffer(tags: Tags) -> None:
    tags.add(0, 5, length=100)
    request = TMH.pack(RNDV, 9, 5) + RVH.pack(tags.source.buf, tags.source.rkey, 101)
    tags.send(request, at=4096)
    assert tags.poll(2)[1] == (100, RECV, MATCH | DATA_VALID, int(e.IBV_WC_TM_RNDV_INCOMPLETE))
    assert read(tags.target.buf, 32) == request and (tags.last.tag, tags.last.priv) == (5, 9)
    settle(tags)
    assert states(tags) == (e.IBV_QPS_RTS, e.IBV_QPS_RTS)
