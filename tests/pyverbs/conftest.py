"""Objects on a fake kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nicemu.abi.verbs import QpState
from nicemu.pyverbs import _kernel
from nicemu.pyverbs.addr import GID, AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from tests.pyverbs.fake_endpoint import FakeEndpoint


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeEndpoint:
    endpoint = FakeEndpoint()
    monkeypatch.setattr(_kernel, "endpoint", lambda: endpoint)
    return endpoint


@pytest.fixture
def ctx(kernel: FakeEndpoint) -> Iterator[Context]:
    with Context(name="nicemu0") as context:
        yield context


@pytest.fixture
def pd(ctx: Context) -> PD:
    return PD(ctx)


@pytest.fixture
def cq(ctx: Context) -> CQ:
    return CQ(ctx, 4)


@pytest.fixture
def qp(pd: PD, cq: CQ) -> QP:
    """An RC QP in RTS: 3 sends and 2 receives of 2 SGEs, 32 bytes inline."""
    cap = QPCap(max_send_wr=3, max_recv_wr=2, max_send_sge=2, max_recv_sge=2, max_inline_data=32)
    pair = QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=cq, cap=cap))
    pair.to_rts(rc_attr())
    assert pair.qp_state == QpState.RTS
    return pair


def rc_attr() -> QPAttr:
    attr = QPAttr()
    gid = GID("fe80:0000:0000:0000:0200:00ff:fe00:0001")
    attr.ah_attr = AHAttr(is_global=1, gr=GlobalRoute(dgid=gid, sgid_index=1))
    return attr


def fake_cq(kernel: FakeEndpoint, queue: Any) -> Any:
    return kernel.cqs[queue._handle]
