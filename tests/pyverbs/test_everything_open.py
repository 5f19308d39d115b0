"""A context that closes gives everything back, whatever is open and in flight, and whether its device lives or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from nicemu.abi.verbs import AsyncEvent
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.dmabuf import DmaBuf
from nicemu.pyverbs.mr import DmaBufMR
from nicemu.pyverbs.wr import SGE, SendWR
from nicemu.uverbs import session
from tests.pyverbs.test_parent_domain_on_the_nic import Domain, Memory
from tests.pyverbs.test_raw_on_the_nic import FRAME, End, rss
from tests.pyverbs.test_tag_matching import Tags

SENT = 2
"""``send_flags``: a completion."""


@pytest.fixture
def ctx(monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    session.reset()
    yield Context(name=get_device_list()[0].name.decode())
    session.reset()


def open_everything(ctx: Context) -> list[Any]:
    """Rings in the program's memory, a TM-SRQ with a tag and a request, RSS with a rule and frames, a dma-buf;
    doorbells rung and nothing polled."""
    domain = Domain(ctx, Memory(own=False))
    domain.recv(domain.srq, 1)
    domain.send(domain.left, 2, b"x" * 64)
    tags = Tags(ctx)
    tags.untagged(3)
    tags.add(4, 4)
    tags.send(bytes(64))
    raw, receiver = End(), End()
    raw.open()
    wqs, *_ = rss(receiver)
    receiver.flow()
    for wq in wqs:
        receiver.post(wq)
    raw.mr.write(FRAME, len(FRAME), 0)
    raw.qp.post_send(SendWR(5, num_sge=1, sg=[SGE(raw.mr.buf, len(FRAME), raw.mr.lkey)], send_flags=SENT))
    buffer = DmaBuf(8192)
    region = DmaBufMR(domain.pd, 8192, e.IBV_ACCESS_LOCAL_WRITE, buffer)
    return [domain, tags, raw, receiver, buffer, region]


def left(lab: Any) -> dict[str, int]:
    driver = lab.driver
    tables = ("qps", "cqs", "srqs", "mrs", "pds", "wqs", "ind_tables", "flows", "ahs", "mws", "dms", "contexts")
    counts = {name: len(getattr(driver, name)) for name in tables}
    control = lab.world.control[0]
    free, p = 0, int(control.packet_free)
    while p:
        free, p = free + 1, int(lab.world.packet[p].next)
    counts["packets"] = int(control.packet_next) - 1 - free
    counts["pinned"] = lab.endpoint.process.model.mm.memlock.pinned_vm
    counts["rx_waiting"] = int(lab.devices[0].row.rx_waiting)
    counts["attachments"] = sum(len(b.attachments) for b in lab.host.gpu.exported.values())
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("fatal", [False, True])
@pytest.mark.parametrize("wait_ns", [700, 1_000_000])
def test_it_gives_everything_back(ctx: Context, fatal: bool, wait_ns: int) -> None:
    kept = open_everything(ctx)
    lab = session.current()
    lab.endpoint.settle(lambda: False, wait_ns)
    if fatal:
        lab.devices[0].raise_event(AsyncEvent.DEVICE_FATAL)
        lab.endpoint.settle(lambda: False, 100_000)
    assert left(lab).keys() >= {"qps", "srqs", "wqs", "flows", "pinned", "attachments"}
    for context in (ctx, kept[2].ctx, kept[3].ctx):
        context.close()
    kept[4].close()
    lab.endpoint.settle(lambda: False, 10_000_000)
    assert left(lab) == {} and lab.violations == 0
