"""UD into receive buffers that the device has never seen: a transport that cannot ask its peer to wait.

The cold ring of Lesokhin et al., "Page Fault Support for Network Controllers", ASPLOS'17.
"""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.workloads import Row
from nicemu.workloads.bench import PAGE, Bench

GRH = 40
"""After so long without a completion none will come."""


def datagrams_into_cold_ring(bench: Bench, *, ring: int = 16, bursts: int = 40, drop_every: int = 20,
                             payload: int = 1000) -> Iterator[Row]:  # fmt: skip
    """Bursts of datagrams into a ring of as many receive buffers, cold at first and now and then.

    A buffer has a page; the system takes the ``ring`` of them away before every ``drop_every``-th burst. A row for each
    burst: the share that arrived, how many did not, and the time until the last one that did.
    """
    sender, receiver = bench.ud_pair(depth=ring)
    source, buffers = sender.pinned(payload), receiver.region(ring * PAGE)
    handle = sender.handle(receiver)
    posted = slot = 0
    for burst in range(bursts):
        if burst % drop_every == 0:
            buffers.drop()
        while posted < ring:
            receiver.recv(buffers.sge(PAGE, slot * PAGE))
            posted, slot = posted + 1, (slot + 1) % ring
        start = last = bench.now()
        for _ in range(ring):
            sender.send_datagram(handle, receiver, source.sge())
        arrived = 0
        while arrived < ring and (found := receiver.poll(ring)):
            arrived, last = arrived + len(found), bench.now()
        sender.wait(ring)
        posted -= arrived
        yield {"burst": burst, "arrived_share": arrived / ring, "lost": ring - arrived, "time_ns": last - start}
