"""DCQCN through a switch that marks: the queue drains, and senders share the link, where the default only fills it."""

from __future__ import annotations

import pytest

from nicemu import _jit
from tests.nic.image_files import image
from tests.nic.objects import Mr, Qp
from tests.nic.star import Star
from tests.nic.testbench import WrOpcode

pytestmark = pytest.mark.skipif(not _jit.JIT, reason="hundreds of thousands of packets")
LINK_KBPS = 10_000_000
ECN = {"kmin_bytes": 5000, "kmax_bytes": 200_000, "pmax": 0.01}
"""The shipped lab `congested`."""
FABRIC = {
    "links": [{"nics": [0], "rate_gbps": LINK_KBPS // 10**6}],
    "switch": {"queue_bytes": 400_000, "ecn": ECN},
}
MESSAGE, OUTSTANDING = 65536, 32
STEP_NS = 100_000


class Flow:
    """A sender that always has something to send to NIC 0."""

    def __init__(self, star: Star, nic: int) -> None:
        self.end = star.ends[nic]
        self.qp: Qp = star.connected(nic, 0, 10 + nic, TIMEOUT=8)[0]
        self.source: Mr = self.end.mr(MESSAGE // 4096)
        self.target: Mr = star.ends[0].mr(MESSAGE // 4096)
        self.posted = self.done = 0

    def feed(self) -> None:
        for _, status in self.qp.statuses():
            assert status == 0
            self.done += 1
        while self.posted - self.done < OUTSTANDING:
            place = dict(remote=self.target.va, rkey=self.target.key)
            self.qp.post_send(self.posted, WrOpcode.RDMA_WRITE, self.source.sge(MESSAGE), **place)
            self.posted += 1


class Incast:
    """``senders`` of one firmware send to one NIC for ``ms``; the first ``warm_ms`` are not looked at."""

    def __init__(self, name: str, senders: int, ms: int, warm_ms: int) -> None:
        star = Star(senders + 1, FABRIC, image(name) if name != "default" else None)
        flows = [Flow(star, nic) for nic in range(1, senders + 1)]
        self.queued: list[int] = []
        done = [0] * senders
        for step in range(ms * 10):
            for flow in flows:
                flow.feed()
            star.run_for(STEP_NS)
            if step == warm_ms * 10:
                done, self.drops_at_first = [flow.done for flow in flows], self._drops(star)
            if step >= warm_ms * 10:
                self.queued.append(star.queued(0))
        self.drops = self._drops(star) - self.drops_at_first
        bits = [8 * MESSAGE * (flow.done - before) for flow, before in zip(flows, done, strict=True)]
        self.kbps = [bit / (ms - warm_ms) for bit in bits]
        self.mean_queue = sum(self.queued) / len(self.queued)
        self.cnps = sum(int(flow.end.device.row.cnps_received) for flow in flows)
        self.limited = [int(flow.qp.row().cc_kbps) for flow in flows]
        star.world.close()

    @staticmethod
    def _drops(star: Star) -> int:
        return int(star.world.link[2].queue_drops)


def test_two_senders_share_the_link_and_the_queue_drains():
    plain, dcqcn = Incast("default", 2, 30, 10), Incast("dcqcn", 2, 30, 10)
    assert plain.mean_queue > 200_000 and plain.limited == [0, 0]
    assert dcqcn.mean_queue < plain.mean_queue / 2
    assert all(limit > 0 for limit in dcqcn.limited) and dcqcn.cnps < plain.cnps / 10
    assert sum(dcqcn.kbps) > 0.75 * LINK_KBPS
    assert all(abs(kbps - sum(dcqcn.kbps) / 2) < 0.15 * sum(dcqcn.kbps) / 2 for kbps in dcqcn.kbps)
    assert dcqcn.drops_at_first == dcqcn.drops == 0


def test_more_senders_than_the_queue_has_room_for_lose_packets_only_at_first():
    """The window of four fills the queue. By default that goes on for ever."""
    plain, dcqcn = Incast("default", 4, 30, 10), Incast("dcqcn", 4, 30, 10)
    assert plain.drops > 1000
    assert dcqcn.drops < plain.drops / 100


def test_a_limit_goes_when_the_congestion_is_over():
    star = Star(3, FABRIC, image("dcqcn"))
    first, second = Flow(star, 1), Flow(star, 2)
    for _ in range(30):
        first.feed()
        second.feed()
        star.run_for(STEP_NS)
    assert first.qp.row().cc_kbps > 0
    star.run_for(1_000_000_000)
    assert first.qp.row().cc_kbps == first.qp.row().cc_timer == 0
    star.world.close()
