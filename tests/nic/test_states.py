"""What a QP does in each state, for every transport: which packets it hears, which work requests it executes.

The transitions themselves are the driver's table (tests/driver/test_qp_state_table.py).
"""

from __future__ import annotations

import pytest

from nicemu.abi.verbs import QpState, QpType, WcStatus
from tests.nic.objects import INIT_MASK, RTR_MASK, RTS_MASK
from tests.nic.packets import inject
from tests.nic.testbench import ALL, Bench, Cq, Qp, Srq, WrOpcode

RESET, INIT, RTR, RTS, SQD, SQE, ERR = QpState
HEARS = (RTR, RTS, SQD, SQE)
KINDS = {"RC": QpType.RC, "UC": QpType.UC, "UD": QpType.UD, "XRC": QpType.XRC_RECV}
OTHER = b"\xfe\x80" + bytes(13) + b"\x09"


class Link:
    """``a`` sends, ``b`` receives; ``b`` stays in RESET until ``take`` brings it on."""

    def __init__(self, kind: QpType) -> None:
        self.bench, self.kind = Bench(), kind
        self.xrc, self.ud = kind == QpType.XRC_RECV, kind == QpType.UD
        self.cq, self.srq = Cq(self.bench, 9), None
        if self.xrc:
            self.srq = Srq(self.bench, 2, xrcd=7, cq=self.cq)
            self.a = Qp(self.bench, 2, Cq(self.bench, 2), kind=QpType.XRC_SEND)
            self.b = Qp(self.bench, 3, Cq(self.bench, 3), kind=kind, xrcd=7)
        else:
            self.a, self.b = (Qp(self.bench, n, Cq(self.bench, n), kind=kind) for n in (2, 3))
        self.local, self.remote = self.bench.mr(2), self.bench.mr(2)
        self.local.fill(1), self.remote.fill(2)
        self.ah = self.bench.ah(1, OTHER) if self.ud else 0
        self.a.ready() if self.ud else self.a.connect(self.b, TIMEOUT=0)
        self.bench.run()

    def take(self, state: QpState) -> None:
        """Bring ``b`` from RESET into a state, as a driver does."""
        values = dict(PATH_MTU=3, TIMEOUT=0, RETRY_CNT=7, RNR_RETRY=7, RQ_PSN=Qp.psn, SQ_PSN=Qp.psn, DEST_QPN=2,
                      DEST_NIC=1, MAX_RD_ATOMIC=4, MAX_DEST_RD_ATOMIC=4, MIN_RNR_TIMER=1)  # fmt: skip
        steps = [(INIT_MASK | 64 if self.ud else INIT_MASK, INIT), (1 if self.ud else RTR_MASK, RTR),
                 (1 | 1 << 16 if self.ud else RTS_MASK, RTS)]  # fmt: skip
        wanted = [] if state == RESET else steps[: 1 if state in (INIT, ERR) else 2 if state == RTR else 3]
        for mask, new in wanted:
            self.b.modify(mask, **values | {"STATE": new, "ACCESS": ALL, "QKEY": 0x11})
        if state in (SQD, ERR):
            self.b.modify(1, STATE=state)
        if state == SQE:
            self.b.post_send(99, WrOpcode.SEND, (self.local.va, 8, 0xBAD), rkey=self.ah)
            self.bench.run()
            self.b.cq.poll()
        assert self.b.row().state == state

    def post_recv(self) -> None:
        """A receive for ``b``."""
        (self.srq.post if self.srq else self.b.post_recv)(7, self.remote.sge(4096))

    def send(self) -> None:
        """A SEND of 64 bytes from ``a``."""
        where = dict(qpn=3, qkey=0x11, rkey=self.ah) if self.ud else dict(qpn=2)
        self.a.post_send(1, WrOpcode.SEND, self.local.sge(64), **where)

    def received(self) -> list[int]:
        """Statuses of completed receives of ``b``."""
        return [cqe["status"] for cqe in (self.cq if self.xrc else self.b.cq).poll() if cqe["opcode"] >= 128]


def there(names: list[str], states: list[QpState]) -> list[tuple[str, QpState]]:
    """Types and states that a QP of the type can be in: SQE is for unreliable ones."""
    return [(name, state) for name in names for state in states if state != SQE or name in ("UC", "UD")]


def named(value: object) -> str:
    """Test ids."""
    return getattr(value, "name", str(value))


@pytest.mark.parametrize(("name", "state"), there(list(KINDS), list(QpState)), ids=named)
def test_packets_are_heard_from_rtr_on_and_dropped_in_reset_init_and_err(name: str, state: QpState) -> None:
    link = Link(KINDS[name])
    link.take(state)
    if state != RESET:
        link.post_recv()
        link.bench.run()
    flushed = link.received()
    assert flushed == ([WcStatus.WR_FLUSH_ERR] if state == ERR and name != "XRC" else [])
    before, dropped = link.remote.data, int(link.bench.device.row.packets_dropped)
    link.send()
    link.bench.run_for(1_000_000)
    if state in HEARS:
        assert link.received() == [0]
    else:
        assert link.received() == [] and link.remote.data == before
        assert link.bench.device.row.packets_dropped == dropped + 1
    assert link.b.row().state == state


@pytest.mark.parametrize(("name", "state"), there(["RC", "UC", "UD"], list(QpState)[1:]), ids=named)
def test_requests_are_executed_in_rts_flushed_in_sqe_and_err_and_wait_otherwise(name: str, state: QpState) -> None:
    """Posting to RESET is refused by the library."""
    link = Link(KINDS[name])
    link.take(state)
    link.a.post_recv(5, link.local.sge(4096))
    link.bench.log()
    where = dict(qpn=2, qkey=0x11, rkey=link.ah) if link.ud else {}
    link.b.post_send(1, WrOpcode.SEND, link.remote.sge(64), **where)
    link.bench.run_for(1_000_000)
    done = {RTS: [(1, 0)], SQE: [(1, WcStatus.WR_FLUSH_ERR)], ERR: [(1, WcStatus.WR_FLUSH_ERR)]}.get(state, [])
    assert link.b.statuses() == done
    assert bool(link.bench.sent()) == (state == RTS)
    if state == SQD:
        link.b.modify(1, STATE=RTS)
        link.bench.run_for(1_000_000)
        assert link.b.statuses() == [(1, 0)]


@pytest.mark.parametrize("state", [RESET, INIT, RTR, ERR], ids=lambda state: state.name)
def test_a_response_to_a_qp_that_sent_nothing_is_dropped(state: QpState) -> None:
    link = Link(QpType.RC)
    link.take(state)
    for opcode in (13, 14, 15, 16, 17, 18):
        inject(link.bench, link.a, link.b, opcode=opcode, syndrome=0x1F)
    link.bench.run_for(1_000_000)
    assert link.b.statuses() == [] and link.b.row().state == state


@pytest.mark.parametrize("state", [RESET, ERR], ids=lambda state: state.name)
@pytest.mark.parametrize("name", list(KINDS))
def test_what_was_under_way_when_the_state_changed_moves_no_byte(name: str, state: QpState) -> None:
    """The packet arrived before RESET or ERR and has not been executed, or arrives after it."""
    for wait in (1400, 1600, 1900, 2300):
        link = Link(KINDS[name])
        link.take(RTS)
        link.post_recv()
        before = link.remote.data
        link.send()
        link.bench.run_for(wait)
        link.b.modify(1, STATE=state)
        after = link.remote.data
        link.bench.run_for(1_000_000)
        assert link.remote.data == after and after[64 + 40 :] == before[64 + 40 :]
        assert len(link.received()) <= (0 if state == RESET and after == before else 1)
