"""A server's region that may be larger than its memory: pinned, on demand, on demand with prefetch."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from nicemu.pyverbs.mr import PyverbsRDMAError
from nicemu.workloads import Row
from nicemu.workloads.bench import Bench
from nicemu.workloads.prefetch import ask
from nicemu.workloads.stream import gbps, grown, keep_posted

MIB = 1 << 20


def working_set(bench: Bench, *, mebibytes: int = 32, memory: str = "odp", message_bytes: int = 65536,
                messages: int = 500, depth: int = 8, code: int = 8) -> Iterator[Row]:  # fmt: skip
    """WRITEs to random places of a region, after one pass from end to end.

    ``memory``: pinned, odp, or prefetch: the region's owner knows ``2 * depth`` messages before what comes, and
    asks for the pages. ``registered`` 0: the host does not let it be pinned.
    """
    sender, receiver = bench.rc_pair(min_rnr_timer=code, depth=depth)
    source = sender.pinned(message_bytes)
    try:
        target = receiver.region(mebibytes * MIB, on_demand=memory != "pinned")
    except PyverbsRDMAError:
        yield {"registered": 0, "goodput_gbps": 0.0, "pswpin": 0, "pswpout": 0, "page_faults": 0}
        return
    slots = mebibytes * MIB // message_bytes
    keep_posted(sender, lambda slot: sender.write(target, source.sge(), offset=slot * message_bytes), slots, depth)
    order = Random(bench.seed)
    places = [order.randrange(slots) * message_bytes for _ in range(messages)]

    def post(number: int) -> None:
        known = number + 2 * depth
        for place in places[:known] if number == 0 else places[known - 1 : known]:
            if memory == "prefetch":
                ask(receiver, target, message_bytes, place)
        sender.write(target, source.sge(), offset=places[number])

    before, start = bench.counters(), bench.now()
    keep_posted(sender, post, messages, depth)
    goodput = gbps(messages * message_bytes, bench.now() - start)
    more = grown(bench, before, "host.pswpin", "host.pswpout", "page_faults")
    yield {"registered": 1, "goodput_gbps": goodput, **more}
