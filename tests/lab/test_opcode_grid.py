"""Every operation of every transport over lengths around the PMTU, aligned and across pages: the whole memory of both
sides, immediate data, lengths and opcodes of the completions are compared with a model of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from nicemu import _jit
from nicemu.abi.verbs import QpType, WrOpcode
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MW, MWBindInfo
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QPEx
from nicemu.pyverbs.wr import RecvWR, SendWR
from nicemu.uverbs import session
from tests.lab.grid_ends import ALL, NAMES, PAGE, Ends, at
from tests.lab.transports import GRH, close_all

SUCCESS, SIGNALED = e.IBV_WC_SUCCESS, e.IBV_SEND_SIGNALED
LONG = 1 << 20 if _jit.JIT else 1 << 15
"""1 MiB is 1,024 packets: too many for plain Python."""
SIZE = LONG + 8 * PAGE
SENDS = (WrOpcode.SEND, WrOpcode.SEND_WITH_IMM)
WRITES = (WrOpcode.RDMA_WRITE, WrOpcode.RDMA_WRITE_WITH_IMM)
GRID = [
    *[("RC", opcode) for opcode in (*SENDS, WrOpcode.SEND_WITH_INV, *WRITES, WrOpcode.RDMA_READ)],
    *[("UC", opcode) for opcode in (*SENDS, *WRITES)],
    *[("UD", opcode) for opcode in SENDS],
    *[("XRC", opcode) for opcode in (*SENDS, *WRITES, WrOpcode.RDMA_READ)],
]
PLAIN = [(transport, opcode) for transport, opcode in GRID if opcode != WrOpcode.SEND_WITH_INV]
WC_OF = {
    WrOpcode.SEND: e.IBV_WC_SEND, WrOpcode.SEND_WITH_IMM: e.IBV_WC_SEND, WrOpcode.SEND_WITH_INV: e.IBV_WC_SEND,
    WrOpcode.RDMA_WRITE: e.IBV_WC_RDMA_WRITE, WrOpcode.RDMA_WRITE_WITH_IMM: e.IBV_WC_RDMA_WRITE,
    WrOpcode.RDMA_READ: e.IBV_WC_RDMA_READ,
}  # fmt: skip
IMM = 0x01020304


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[None]:
    session.reset()
    yield
    session.reset()


@pytest.fixture(scope="module")
def ends() -> Iterator[Callable[..., Ends]]:
    """One pair of each transport for the whole file: a lab costs more than a thousand transfers."""
    made: dict[Any, Ends] = {}

    def get(transport: str, mtu: int = e.IBV_MTU_1024, psns: tuple[int, int] = (5, 5)) -> Ends:
        key = transport, mtu, psns
        if key not in made:
            made[key] = Ends(NAMES[transport], SIZE, mtu, psns)
        return made[key]

    yield get
    close_all()


@dataclass
class Case:
    """One transfer: ``here`` and ``there`` are offsets in the regions of both sides."""

    ends: Ends
    opcode: WrOpcode
    length: int
    here: int
    there: int
    seed: int = 0

    @property
    def takes(self) -> bool:
        """It consumes a receive request."""
        return self.opcode not in (WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ)

    @property
    def grh(self) -> int:
        """Bytes in front of received data."""
        return GRH if self.ends.kind == QpType.UD else 0


def lengths(pmtu: int, datagram: bool) -> list[int]:
    """Lengths around the packet size."""
    return [1, pmtu - 1, pmtu] if datagram else [1, pmtu - 1, pmtu, pmtu + 1, 3 * pmtu + 7, LONG]


def places(straddling: bool, length: int) -> tuple[int, int]:
    """Offsets of both sides: at the start of a page, or odd and so that a page ends inside the data."""
    if not straddling:
        return 2 * PAGE, 3 * PAGE
    return 2 * PAGE - min(length // 2 + 1, 511), 3 * PAGE - min(length // 3 + 1, 257)


def window(ends: Ends, key_side: Any) -> tuple[MW, int]:
    """A type 2 window over the whole region, bound through the right QP: (window, its key)."""
    mw = MW(key_side.pd, e.IBV_MW_TYPE_2)
    wr = SendWR(77, opcode=e.IBV_WR_BIND_MW, send_flags=SIGNALED)
    info = MWBindInfo(key_side.memory, key_side.memory.buf, ends.size, ALL & ~e.IBV_ACCESS_LOCAL_WRITE & 0xF)
    wr.set_bind_wr(mw, info)
    key_side.qp.post_send(wr)
    (wc,) = key_side.poll()
    assert (wc.wr_id, wc.status, wc.opcode) == (77, SUCCESS, e.IBV_WC_BIND_MW)
    return mw, wr.rkey


def check_received(case: Case, wc: Any, key: int) -> None:
    """The receiver's completion, field by field."""
    with_imm = case.opcode in (WrOpcode.SEND_WITH_IMM, WrOpcode.RDMA_WRITE_WITH_IMM)
    opcode = e.IBV_WC_RECV_RDMA_WITH_IMM if case.opcode == WrOpcode.RDMA_WRITE_WITH_IMM else e.IBV_WC_RECV
    flags = e.IBV_WC_WITH_IMM if with_imm else 0
    flags |= e.IBV_WC_WITH_INV if case.opcode == WrOpcode.SEND_WITH_INV else 0
    flags |= e.IBV_WC_GRH if case.grh else 0
    wanted = (9, SUCCESS, opcode, case.length + case.grh, flags)
    assert (wc.wr_id, wc.status, wc.opcode, wc.byte_len, wc.wc_flags) == wanted
    if with_imm:
        assert wc.imm_data == IMM
    if key:
        assert wc.imm_data == key


def model(case: Case, left: bytearray, right: bytearray) -> None:
    """What the operation does to the two memories."""
    here, there = slice(case.here, case.here + case.length), slice(case.there, case.there + case.length)
    if case.opcode == WrOpcode.RDMA_READ:
        left[here] = right[there]
    else:
        right[there] = left[here]


def run(case: Case) -> None:
    """Do it, and compare everything."""
    ends = case.ends
    images = ends.fill(case.seed)
    mw, key = window(ends, ends.right) if case.opcode == WrOpcode.SEND_WITH_INV else (None, 0)
    if case.takes:
        place = case.there - case.grh
        sges = [at(ends.right, place, case.length + case.grh)]
        (ends.right.srq or ends.right.qp).post_recv(RecvWR(9, 1, sges))
    wr = ends.request(3, case.opcode, [at(ends.left, case.here, case.length)], imm_data=key or IMM)
    if case.opcode in (*WRITES, WrOpcode.RDMA_READ):
        wr.set_wr_rdma(ends.right.memory.rkey, ends.right.memory.buf + case.there)
    ends.left.qp.post_send(wr)
    (wc,) = ends.left.poll()
    assert (wc.wr_id, wc.status, wc.opcode, wc.qp_num) == (3, SUCCESS, WC_OF[case.opcode], ends.left.qp.qp_num)
    if case.opcode == WrOpcode.RDMA_READ:
        assert wc.byte_len == case.length
    if case.takes:
        check_received(case, ends.right.poll()[0], key)
    elif ends.kind == QpType.UC:
        ends.settle()
    model(case, *images)
    left, right = ends.memory()
    if case.grh:
        images[1][case.there - GRH : case.there] = right[case.there - GRH : case.there]
    assert left == images[0] and right == images[1], f"{case.length} bytes from {case.here} to {case.there}"
    if mw is not None:
        mw.close()


@pytest.mark.parametrize("straddling", [False, True], ids=["aligned", "straddling"])
@pytest.mark.parametrize(("transport", "opcode"), GRID, ids=lambda value: getattr(value, "name", value))
def test_every_length_arrives_whole_and_nothing_else_changes(ends, transport, opcode, straddling) -> None:
    pair = ends(transport)
    for seed, length in enumerate(lengths(pair.pmtu, transport == "UD")):
        run(Case(pair, opcode, length, *places(straddling, length), seed))


@pytest.mark.parametrize("transport", ["RC", "XRC"])
@pytest.mark.parametrize("opcode", [WrOpcode.ATOMIC_CMP_AND_SWP, WrOpcode.ATOMIC_FETCH_AND_ADD], ids=lambda o: o.name)
@pytest.mark.parametrize("hits", [True, False], ids=["equal", "other"])
def test_atomics_change_eight_bytes_and_return_what_was_there(ends, transport, opcode, hits) -> None:
    pair = ends(transport)
    for seed, there in enumerate((3 * PAGE, 3 * PAGE - 8)):
        left, right = pair.fill(seed)
        here = 2 * PAGE - 3
        old = int.from_bytes(right[there : there + 8], "little")
        operand = (old if hits else old ^ 1) if opcode == WrOpcode.ATOMIC_CMP_AND_SWP else (1 << 64) - 5
        wr = pair.request(1, opcode, [at(pair.left, here, 8)])
        wr.set_wr_atomic(pair.right.memory.rkey, pair.right.memory.buf + there, operand, 0x1122334455667788)
        pair.left.qp.post_send(wr)
        (wc,) = pair.left.poll()
        code = e.IBV_WC_COMP_SWAP if opcode == WrOpcode.ATOMIC_CMP_AND_SWP else e.IBV_WC_FETCH_ADD
        assert (wc.status, wc.opcode, wc.byte_len) == (SUCCESS, code, 8)
        new = (old + operand) % (1 << 64)
        if opcode == WrOpcode.ATOMIC_CMP_AND_SWP:
            new = 0x1122334455667788 if hits else old
        left[here : here + 8] = right[there : there + 8]
        right[there : there + 8] = new.to_bytes(8, "little")
        assert pair.memory() == [left, right]


@pytest.mark.parametrize("transport", ["RC", "XRC"])
def test_an_atomic_write_changes_eight_bytes(ends, transport) -> None:
    pair = ends(transport)
    for seed, there in enumerate((3 * PAGE, 3 * PAGE - 8)):
        left, right = pair.fill(seed)
        address = pair.right.memory.buf + there

        def build(qp: QPEx, address: int = address) -> None:
            qp.wr_atomic_write(pair.right.memory.rkey, address, b"8 bytes!")

        pair.call(build)
        (wc,) = pair.left.poll()
        assert (wc.status, wc.opcode) == (SUCCESS, e.IBV_WC_ATOMIC_WRITE)
        right[there : there + 8] = b"8 bytes!"
        assert pair.memory() == [left, right]


PLACEMENTS = {"global": e.IBV_FLUSH_GLOBAL, "persistent": e.IBV_FLUSH_PERSISTENT}
PLACEMENTS["both"] = PLACEMENTS["global"] | PLACEMENTS["persistent"]


@pytest.mark.parametrize("transport", ["RC", "XRC"])
@pytest.mark.parametrize("level", [e.IBV_FLUSH_RANGE, e.IBV_FLUSH_MR], ids=["range", "MR"])
@pytest.mark.parametrize("placement", list(PLACEMENTS))
def test_a_flush_behind_a_write_finds_its_bytes_and_changes_none(ends, transport, level, placement) -> None:
    pair = ends(transport)
    key, base = pair.right.memory.rkey, pair.right.memory.buf
    for straddling in (False, True):
        for seed, length in enumerate(lengths(pair.pmtu, False)):
            case = Case(pair, WrOpcode.RDMA_WRITE, length, *places(straddling, length))
            images = pair.fill(seed)
            wr = pair.request(1, case.opcode, [at(pair.left, case.here, length)], send_flags=0)
            wr.set_wr_rdma(key, base + case.there)
            pair.left.qp.post_send(wr)

            def build(qp: QPEx, case: Case = case) -> None:
                qp.wr_flush(key, base + case.there, case.length, PLACEMENTS[placement], level)

            pair.call(build, 2)
            (wc,) = pair.left.poll()
            assert (wc.wr_id, wc.status, wc.opcode) == (2, SUCCESS, e.IBV_WC_FLUSH)
            model(case, *images)
            assert pair.memory() == images


@pytest.mark.parametrize("transport", ["RC", "UC"])
def test_a_window_is_bound_written_through_and_invalidated(ends, transport) -> None:
    pair = ends(transport)
    for straddling in (False, True):
        for seed, length in enumerate(lengths(pair.pmtu, False)):
            mw, key = window(pair, pair.right)
            case = Case(pair, WrOpcode.RDMA_WRITE, length, *places(straddling, length))
            images = pair.fill(seed)
            wr = pair.request(1, case.opcode, [at(pair.left, case.here, length)])
            wr.set_wr_rdma(key, pair.right.memory.buf + case.there)
            pair.left.qp.post_send(wr)
            assert pair.left.poll()[0].status == SUCCESS
            pair.settle()
            model(case, *images)
            assert pair.memory() == images
            gone = SendWR(5, opcode=e.IBV_WR_LOCAL_INV, imm_data=key, send_flags=SIGNALED)
            pair.right.qp.post_send(gone)
            (wc,) = pair.right.poll()
            assert (wc.wr_id, wc.status, wc.opcode) == (5, SUCCESS, e.IBV_WC_LOCAL_INV)
            mw.close()


MTUS = [e.IBV_MTU_256, e.IBV_MTU_512, e.IBV_MTU_1024, e.IBV_MTU_2048, e.IBV_MTU_4096]


@pytest.mark.parametrize("transport", ["RC", "UC", "XRC"])
@pytest.mark.parametrize("mtu", MTUS)
def test_every_mtu_and_the_psn_wrap(ends, transport, mtu) -> None:
    """24-bit PSNs wrap in the middle of a message, in both directions."""
    pair = ends(transport, mtu, (0xFFFFFE, 0xFFFFFD))
    assert pair.left.qp.query(e.IBV_QP_PATH_MTU)[0].path_mtu == mtu
    opcodes = [WrOpcode.SEND_WITH_IMM, WrOpcode.RDMA_WRITE] + ([WrOpcode.RDMA_READ] if transport != "UC" else [])
    for opcode in opcodes:
        for seed, length in enumerate(lengths(pair.pmtu, False)[:-1]):
            run(Case(pair, opcode, length, *places(True, length), seed))


@pytest.mark.parametrize(("transport", "opcode"), PLAIN, ids=lambda value: getattr(value, "name", value))
def test_thirty_two_elements_on_both_sides(ends, transport, opcode) -> None:
    """Elements of 1..7 and 0 bytes, at odd places, in falling order of address, one behind the other in the message."""
    pair = ends(transport)
    images = pair.fill(opcode)
    parts = [n % 8 for n in range(32)]
    total = sum(parts)
    scattered = [(3 * PAGE - 64 * n + 1, size) for n, size in enumerate(parts)]
    there = 3 * PAGE - total // 2
    sges = [at(pair.left, *part) for part in scattered]
    if opcode not in (WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ):
        grh = [at(pair.right, PAGE, GRH)] if transport == "UD" else []
        targets = [at(pair.right, there, 3), at(pair.right, there + 3, total - 3)]
        (pair.right.srq or pair.right.qp).post_recv(RecvWR(1, len(grh + targets), grh + targets))
    wr = pair.request(1, opcode, sges, imm_data=IMM)
    if opcode in (*WRITES, WrOpcode.RDMA_READ):
        wr.set_wr_rdma(pair.right.memory.rkey, pair.right.memory.buf + there)
    pair.left.qp.post_send(wr)
    assert pair.left.poll()[0].status == SUCCESS
    if opcode not in (WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ):
        assert pair.right.poll()[0].status == SUCCESS
    pair.settle()
    done = 0
    for place, size in scattered:
        near, far = slice(place, place + size), slice(there + done, there + done + size)
        if opcode == WrOpcode.RDMA_READ:
            images[0][near] = images[1][far]
        else:
            images[1][far] = images[0][near]
        done += size
    left, right = pair.memory()
    if transport == "UD":
        images[1][PAGE : PAGE + GRH] = right[PAGE : PAGE + GRH]
    assert left == images[0] and right == images[1]


def test_a_thirty_third_element_is_refused(ends) -> None:
    pair = ends("RC")
    with pytest.raises(PyverbsRDMAError, match="Errno: 22"):
        pair.left.qp.post_send(pair.request(1, WrOpcode.SEND, [at(pair.left, n, 1) for n in range(33)]))


@pytest.mark.parametrize(("transport", "opcode"), PLAIN, ids=lambda value: getattr(value, "name", value))
def test_a_message_of_no_bytes_is_a_message(ends, transport, opcode) -> None:
    pair = ends(transport)
    images = pair.fill(opcode)
    case = Case(pair, opcode, 0, PAGE, PAGE)
    if case.takes:
        (pair.right.srq or pair.right.qp).post_recv(RecvWR(9, 1, [at(pair.right, PAGE - case.grh, 100)]))
    wr = pair.request(1, opcode, [at(pair.left, 0, 0)], imm_data=IMM)
    wr.set_wr_rdma(0, 0) if opcode in (*WRITES, WrOpcode.RDMA_READ) else None
    pair.left.qp.post_send(wr)
    (wc,) = pair.left.poll()
    assert (wc.status, wc.opcode) == (SUCCESS, WC_OF[opcode])
    if case.takes:
        check_received(case, pair.right.poll()[0], 0)
    pair.settle()
    left, right = pair.memory()
    if case.grh:
        images[1][PAGE - GRH : PAGE] = right[PAGE - GRH : PAGE]
    assert left == images[0] and right == images[1]
