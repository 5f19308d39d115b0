"""What Python costs on the way to the device: posting, polling, a ping-pong and a stream of a program in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat

from nicemu.bench import labs, limits
from nicemu.bench.measure import Batch, Case, Counts, Opener, Watch
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.wr import RecvWR, SendWR
from nicemu.workloads.bench import Bench, End, Region

COUNT, CHAIN = 2048, 64
PINGS, STREAMED, WINDOW = 500, 256, 16
POLLS = 20_000


def cases() -> Iterator[Case]:
    """Posting, polling, and both with the device in between."""
    us = limits.python_calls()
    rows: tuple[tuple[str, Opener, str], ...] = (
        ("post_send, one WRITE", _posts(1), "a doorbell each; the work requests are made before"),
        (f"post_send, a WRITE of a chain of {CHAIN}", _posts(CHAIN), "a doorbell each chain"),
        ("making a WRITE work request", _made, "SGE, SendWR, set_wr_rdma"),
        ("post_recv, one", _receives, "a doorbell each"),
        ("poll_cq, one completion", _polls(1), "completions that wait, each poll takes one"),
        ("poll_cq, a completion of 16", _polls(16), "completions that wait, each poll takes 16"),
        ("poll_cq, empty, nothing pending", _empty, ""),
    )
    for name, opener, note in rows:
        yield Case(name, "shim", "us", opener, (us,), (), note)
    loop = limits.python_loop()
    yield Case("ping-pong 64 B through pyverbs", "shim", "round trips/s", _ping_pong, (loop,), ("us", "events/s"),
               "SEND and receive both ways, both sides in one Python program", short=True)  # fmt: skip
    bare = limits.bare(65536, unit="messages/s")
    yield Case(f"RC WRITE 64 KiB through pyverbs, {WINDOW} under way", "shim", "messages/s", _stream, (bare,),
               ("GB/s", "x real time"), "a program posts one request for each that completes")  # fmt: skip


@contextmanager
def _pair(size: int = 64, depth: int = COUNT) -> Iterator[tuple[Bench, End, End, Region, Region]]:
    with labs.opened() as bench:
        a, b = bench.rc_pair(depth=depth)
        yield bench, a, b, a.pinned(size), b.pinned(size)


def _write(source: Region, target: Region, following: SendWR | None = None, signal: bool = False) -> SendWR:
    flags = e.IBV_SEND_SIGNALED if signal else 0
    wr = SendWR(num_sge=1, sg=[source.sge()], opcode=e.IBV_WR_RDMA_WRITE, send_flags=flags, next_wr=following)
    wr.set_wr_rdma(target.mr.rkey, target.address)
    return wr


def _chain(source: Region, target: Region, length: int, signal: bool = False) -> SendWR:
    wr = _write(source, target, None, True)
    for _ in range(length - 1):
        wr = _write(source, target, wr, signal)
    return wr


def _posts(length: int) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        with _pair() as (_, a, _b, source, target):
            chain, times = _chain(source, target, length), COUNT // length

            def batch(watch: Watch) -> Counts:
                post = a.qp.post_send
                with watch:
                    for wr in repeat(chain, times):
                        post(wr)
                a.wait(times)
                return {"calls": COUNT}

            yield batch

    return opener


@contextmanager
def _made() -> Iterator[Batch]:
    with _pair() as (_, _a, _b, source, target):

        def batch(watch: Watch) -> Counts:
            with watch:
                for _ in repeat(None, COUNT):
                    _write(source, target)
            return {"calls": COUNT}

        yield batch


@contextmanager
def _receives() -> Iterator[Batch]:
    with _pair() as (_, a, b, source, target):
        wr = RecvWR(num_sge=1, sg=[target.sge()])

        def batch(watch: Watch) -> Counts:
            post = b.qp.post_recv
            with watch:
                for each in repeat(wr, COUNT):
                    post(each)
            for _ in range(COUNT):
                a.send(source.sge())
            a.wait(COUNT)
            b.wait(COUNT)
            return {"calls": COUNT}

        yield batch


def _polls(most: int) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        with _pair() as (bench, a, _b, source, target):
            chain = _chain(source, target, COUNT, signal=True)

            def batch(watch: Watch) -> Counts:
                a.qp.post_send(chain)
                bench.settle()
                poll = a.cq.poll
                with watch:
                    for _ in repeat(None, COUNT // most):
                        poll(most)
                return {"calls": COUNT}

            yield batch

    return opener


@contextmanager
def _empty() -> Iterator[Batch]:
    with _pair() as (bench, a, _b, _source, _target):
        bench.settle()

        def batch(watch: Watch) -> Counts:
            poll = a.cq.poll
            with watch:
                for _ in repeat(None, POLLS):
                    poll()
            return {"calls": POLLS}

        yield batch


def _awaited(end: End, receives: int) -> None:
    """Poll until so many receives have completed; sends complete on the way."""
    while receives:
        for completion in end.cq.poll(16)[1]:
            assert completion.status == e.IBV_WC_SUCCESS
            receives -= completion.opcode == e.IBV_WC_RECV


@contextmanager
def _ping_pong() -> Iterator[Batch]:
    with _pair(depth=16) as (bench, a, b, source, target):
        sends = [SendWR(num_sge=1, sg=[region.sge()]) for region in (source, target)]
        receives = [RecvWR(num_sge=1, sg=[region.sge()]) for region in (source, target)]
        for end, receive in zip((a, b), receives, strict=True):
            end.qp.post_recv(receive)
        rally = _rally(a, b, sends, receives)

        def batch(watch: Watch) -> Counts:
            ran = bench.events()
            with watch:
                rally()
            return {"calls": PINGS, "events": bench.events() - ran}

        yield batch


def _rally(a: End, b: End, sends: list[SendWR], receives: list[RecvWR]) -> Callable[[], None]:
    def rally() -> None:
        for _ in repeat(None, PINGS):
            a.qp.post_send(sends[0])
            _awaited(b, 1)
            b.qp.post_recv(receives[1])
            b.qp.post_send(sends[1])
            _awaited(a, 1)
            a.qp.post_recv(receives[0])

    return rally


@contextmanager
def _stream() -> Iterator[Batch]:
    with _pair(65536, WINDOW) as (bench, a, _b, source, target):
        wr = _write(source, target, signal=True)

        def batch(watch: Watch) -> Counts:
            began, posted, done = bench.now(), WINDOW, 0
            with watch:
                for _ in repeat(None, WINDOW):
                    a.qp.post_send(wr)
                while done < STREAMED:
                    found = len(a.cq.poll(WINDOW)[1])
                    done += found
                    for _ in repeat(None, min(found, STREAMED - posted)):
                        a.qp.post_send(wr)
                        posted += 1
            return {"messages": STREAMED, "bytes": STREAMED * source.length, "virtual_ns": bench.now() - began}

        yield batch
