"""Ways to post: inline data, fences, chains, solicited messages, and messages as long as memory allows."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from nicemu import _jit
from nicemu.abi.verbs import QpType, WrOpcode
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AH, AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ, CompChannel
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.wr import SGE, RecvWR
from nicemu.uverbs import session
from tests.lab.grid_ends import NAMES, PAGE, Ends, at
from tests.lab.transports import GRH, QKEY, End

SUCCESS, SIGNALED = e.IBV_WC_SUCCESS, e.IBV_SEND_SIGNALED


pytestmark = pytest.mark.usefixtures("default_lab", "closed_afterwards")


def small(transport: str) -> Ends:
    """A pair with sixteen pages on each side."""
    return Ends(NAMES[transport], 16 * PAGE)


@pytest.mark.parametrize("transport", ["RC", "UC", "UD", "XRC"])
def test_inline_data_is_taken_when_it_is_posted(transport) -> None:
    """The program may change the memory at once, needs no key for it, and may give several pieces."""
    pair = small(transport)
    for length in (1, 7, 255, 256):
        images = pair.fill(length)
        here, there, grh = 2 * PAGE - 100, 3 * PAGE - 50, GRH if transport == "UD" else 0
        (pair.right.srq or pair.right.qp).post_recv(RecvWR(1, 1, [at(pair.right, there - grh, length + grh)]))
        sges = [SGE(pair.left.memory.buf + here, 1, 0), SGE(pair.left.memory.buf + here + 1, length - 1, 0)]
        pair.left.qp.post_send(pair.request(1, WrOpcode.SEND, sges, send_flags=SIGNALED | e.IBV_SEND_INLINE))
        pair.left.memory.write(bytes(length), length, here)
        assert pair.left.poll()[0].status == pair.right.poll()[0].status == SUCCESS
        images[1][there : there + length] = images[0][here : here + length]
        images[0][here : here + length] = bytes(length)
        left, right = pair.memory()
        images[1][there - grh : there] = right[there - grh : there]
        assert left == images[0] and right == images[1]
    with pytest.raises(PyverbsRDMAError, match="Errno: 22"):
        sges = [at(pair.left, 0, 257)]
        pair.left.qp.post_send(pair.request(1, WrOpcode.SEND, sges, send_flags=SIGNALED | e.IBV_SEND_INLINE))


@pytest.mark.parametrize("transport", ["RC", "XRC"])
def test_a_fence_waits_for_the_reads_before_it(transport) -> None:
    """A WRITE sends what the READ before it brings: only the fence makes that so."""
    pair = small(transport)
    images = pair.fill(1)
    key, base, length = pair.right.memory.rkey, pair.right.memory.buf, 8 * pair.pmtu
    read = pair.request(1, WrOpcode.RDMA_READ, [at(pair.left, PAGE, length)], send_flags=0)
    read.set_wr_rdma(key, base + PAGE)
    write = pair.request(2, WrOpcode.RDMA_WRITE, [at(pair.left, PAGE, length)], send_flags=SIGNALED | e.IBV_SEND_FENCE)
    write.set_wr_rdma(key, base + 4 * PAGE)
    read.next_wr = write
    pair.left.qp.post_send(read)
    (wc,) = pair.left.poll()
    assert (wc.wr_id, wc.status) == (2, SUCCESS)
    images[0][PAGE : PAGE + length] = images[1][PAGE : PAGE + length]
    images[1][4 * PAGE : 4 * PAGE + length] = images[0][PAGE : PAGE + length]
    assert pair.memory() == images


@pytest.mark.parametrize("transport", ["RC", "UC", "XRC"])
def test_chained_and_unsignaled_requests_happen_in_order(transport) -> None:
    """One call posts twenty WRITEs to one place; only the last says that it is done, and its bytes are there."""
    pair = small(transport)
    images = pair.fill(2)
    qp = pair.left.qp
    first = last = None
    for n in range(20):
        wr = pair.request(n, WrOpcode.RDMA_WRITE, [at(pair.left, n * 64, 3000)], send_flags=SIGNALED if n == 19 else 0)
        wr.set_wr_rdma(pair.right.memory.rkey, pair.right.memory.buf + PAGE + 1)
        if last is not None:
            last.next_wr = wr
        first, last = first or wr, wr
    qp.post_send(first)
    (wc,) = pair.left.poll()
    assert (wc.wr_id, wc.status) == (19, SUCCESS) and pair.left.cq.poll()[0] == 0
    pair.settle()
    images[1][PAGE + 1 : PAGE + 3001] = images[0][19 * 64 : 19 * 64 + 3000]
    assert pair.memory() == images


@pytest.mark.parametrize("kind", [QpType.RC, QpType.UC, QpType.UD], ids=lambda kind: kind.name)
def test_a_solicited_message_wakes_who_waits_for_solicited_ones_only(kind) -> None:
    left, right = End(), End()
    channel = CompChannel(right.ctx)
    right.cq = CQ(right.ctx, 64, channel=channel)
    left.make(kind), right.make(kind)
    left.qp.to_rts(left.attr(right.qp)), right.qp.to_rts(right.attr(left.qp))
    ah = AH(left.pd, attr=AHAttr(is_global=1, gr=GlobalRoute(dgid=right.gid(), sgid_index=1)))
    woken = select.poll()
    woken.register(channel.fd, select.POLLIN)
    right.cq.req_notify(solicited_only=True)
    for flags, expected in ((SIGNALED, False), (SIGNALED | e.IBV_SEND_SOLICITED, True)):
        right.receive(100, 1)
        wr = left.send(8, send_flags=flags)
        if kind == QpType.UD:
            wr.set_wr_ud(ah, right.qp.qp_num, QKEY)
        left.qp.post_send(wr)
        assert left.poll()[0].status == SUCCESS
        session.endpoint().settle(lambda: False, 1_000_000)
        assert bool(woken.poll(0)) == expected
    channel.get_cq_event(right.cq)
    assert [wc.status for wc in right.poll(2)] == [SUCCESS] * 2
    right.cq.ack_events(1)


def test_an_xrc_send_with_invalidate_arrives_but_finds_no_key_to_invalidate() -> None:
    """A type 2 window belongs to the QP that bound it, and an XRC target has no send queue to bind one with."""
    pair = small("XRC")
    images = pair.fill(1)
    pair.right.srq.post_recv(RecvWR(9, 1, [at(pair.right, PAGE + 1, 3000)]))
    wr = pair.request(1, WrOpcode.SEND_WITH_INV, [at(pair.left, 5, 3000)], imm_data=pair.right.memory.rkey)
    pair.left.qp.post_send(wr)
    assert pair.left.poll()[0].status == SUCCESS
    assert pair.right.poll()[0].status == e.IBV_WC_REM_INV_REQ_ERR
    images[1][PAGE + 1 : PAGE + 3001] = images[0][5:3005]
    assert pair.memory() == images


@pytest.fixture
def huge() -> Iterator[Ends]:
    """A pair of its own with 64 MiB on each side."""
    yield Ends(QpType.RC, 1 << 26, e.IBV_MTU_4096)


@pytest.mark.slow
@pytest.mark.skipif(not _jit.JIT, reason="half a million packets")
def test_a_message_of_two_to_the_31_bytes(huge) -> None:
    """As many bytes as a message may have: 32 elements of 64 MiB that all name the same region, on both sides."""
    left, right = huge.fill(1)
    huge.right.qp.post_recv(RecvWR(5, 32, [at(huge.right, 0, 1 << 26)] * 32))
    huge.left.qp.post_send(huge.request(1, WrOpcode.SEND, [at(huge.left, 0, 1 << 26)] * 32))
    done = huge.left.poll(), huge.right.poll()
    assert [wc.status for (wc,) in done] == [SUCCESS, SUCCESS] and done[1][0].byte_len == 1 << 31
    assert huge.memory() == [left, left] != [left, right]


@pytest.mark.slow
@pytest.mark.skipif(not _jit.JIT, reason="a hundred thousand packets")
@pytest.mark.parametrize("opcode", [WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ], ids=lambda o: o.name)
def test_writes_and_reads_of_300_mib(opcode) -> None:
    """A remote range must have memory of its own, so no 2^31 bytes here."""
    size = 300 << 20
    pair = Ends(QpType.RC, size + 2 * PAGE, e.IBV_MTU_4096)
    images = pair.fill(1)
    wr = pair.request(1, opcode, [at(pair.left, PAGE - 5, size)])
    wr.set_wr_rdma(pair.right.memory.rkey, pair.right.memory.buf + PAGE + 7)
    pair.left.qp.post_send(wr)
    assert pair.left.poll()[0].status == SUCCESS
    near, far = slice(PAGE - 5, PAGE - 5 + size), slice(PAGE + 7, PAGE + 7 + size)
    if opcode == WrOpcode.RDMA_READ:
        images[0][near] = images[1][far]
    else:
        images[1][far] = images[0][near]
    assert pair.memory() == images
