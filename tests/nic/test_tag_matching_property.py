"""Tag matching against simple references: the list by itself, and MPI matching by device and software together. What
peers send and programs post, whatever it is, breaks nothing.

MPI (one sender): messages and receives both come in order. A receive takes the earliest message that fits it, a message
the earliest receive: the outcome does not depend on how the two interleave.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu.abi.rings import SGE
from nicemu.abi.tag_matching import OP, OP_HEADER_BYTES, OP_STRIDE, RVH, TMH
from nicemu.abi.verbs import QpState, WcOpcode
from nicemu.nic.tag_list import TagState
from tests.nic.tags import DATA_VALID, MATCH, SYNC_REQ, Tagged, freed, header, received
from tests.nic.testbench import Bench

BOTH = MATCH | DATA_VALID
TAGS, MASKS = st.integers(0, 3), st.sampled_from((0, 1, 2, 3))
HANDLES = 6
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Reference:
    """The list as the document describes it."""

    posted: list[tuple[int, int, int]] = field(default_factory=list)
    inactive: set[int] = field(default_factory=set)
    unexpected: int = 0
    handled: int = 0
    untagged: int = 0

    def flag(self) -> int:
        return SYNC_REQ if self.handled != self.unexpected else 0

    def sync(self, handled: int) -> int:
        self.handled = handled
        if handled == self.unexpected:
            self.inactive.clear()
        return self.flag()

    def add(self, handle: int, tag: int, mask: int) -> int:
        self.posted.append((handle, tag & mask, mask))
        if self.flag():
            self.inactive.add(handle)
        return self.flag()

    def delete(self, handle: int) -> bool:
        before = len(self.posted)
        self.posted = [entry for entry in self.posted if entry[0] != handle]
        self.inactive.discard(handle)
        return len(self.posted) < before

    def arrive(self, tag: int) -> tuple[int, int]:
        """(wr_id, flags) of the completion."""
        for handle, wanted, mask in self.posted:
            if handle not in self.inactive and tag & mask == wanted:
                self.delete(handle)
                return 100 + handle, BOTH
        self.unexpected += 1
        self.untagged += 1
        return 999 + self.untagged, 0


STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, HANDLES - 1), TAGS, MASKS),
    st.tuples(st.just("delete"), st.integers(0, HANDLES - 1)),
    st.tuples(st.just("send"), TAGS, st.integers(0, 1)),
    st.tuples(st.just("sync"), st.integers(-1, 0)),
)


@QUICK
@given(st.lists(STEPS, min_size=5, max_size=25))
def test_the_device_does_what_the_list_says(steps):
    tagged, list_ = Tagged(Bench(), tags=HANDLES), Reference()
    for n in range(25):
        tagged.srq.post(1000 + n, tagged.remote.sge(100, 4096))
    for step in steps:
        match step:
            case ("add", handle, tag, mask):
                if any(handle == entry[0] for entry in list_.posted):
                    continue
                tagged.srq.add(handle, tag & mask, tagged.remote.sge(100, 128 * handle), mask=mask)
                expected = [(handle, list_.add(handle, tag, mask), 0)]
            case ("delete", handle):
                tagged.srq.delete(handle)
                status = 0 if list_.delete(handle) else 22
                expected = [(200, list_.flag(), status)]
            case ("send", tag, who):
                tagged.send(header(tag), 8, who=who)
                expected = [(*list_.arrive(tag), 0)]
            case ("sync", difference):
                handled = max(list_.unexpected + difference, 0)
                tagged.srq.sync(handled)
                expected = [(300, list_.sync(handled), 0)]
        assert [(c["wr_id"], c["flags"], c["status"]) for c in tagged.run()] == expected


class MpiEndpoint:
    """Software above the TM-SRQ: receives in post order, as many of the first of them as fit in the device's list."""

    def __init__(self, tagged: Tagged) -> None:
        self.tagged = tagged
        self.posted: list[tuple[int, int, int]] = []  # (receive, tag, mask), in order, not matched
        self.in_device: dict[int, int] = {}  # receive -> handle
        self.deleting: set[int] = set()
        self.free = list(range(HANDLES))
        self.receive_of: dict[int, int] = {}  # handle -> receive
        self.stored: list[tuple[int, int]] = []  # unexpected messages: (message, tag)
        self.handled = 0
        self.matched: dict[int, int] = {}  # receive -> message
        self.messages: list[int] = []  # tags in the order of sending
        self.arrived = 0

    def post(self, receive: int, tag: int, mask: int) -> None:
        for at, (message, have) in enumerate(self.stored):
            if have & mask == tag:
                del self.stored[at]
                self.matched[receive] = message
                return
        self.posted.append((receive, tag, mask))
        self.fill()

    def fill(self) -> None:
        """Hand the device the next receives, with the count of messages handled so far."""
        for receive, tag, mask in self.posted:
            if receive not in self.in_device and self.free:
                handle = self.free.pop(0)
                self.in_device[receive], self.receive_of[handle] = handle, receive
                self.tagged.srq.add(
                    handle, tag, self.tagged.remote.sge(64, 64 * handle), mask=mask, handled=self.handled
                )
            elif receive not in self.in_device:
                return

    def unexpected(self, message: int) -> None:
        """Match a message in software; if its receive is in the device's list, take it back from there."""
        self.handled += 1
        tag = self.messages[message]
        for receive, wanted, mask in list(self.posted):
            if tag & mask == wanted:
                self.posted.remove((receive, wanted, mask))
                self.matched[receive] = message
                if receive in self.in_device:
                    handle = self.in_device.pop(receive)
                    self.deleting.add(handle)
                    self.tagged.srq.delete(handle, 200 + handle)
                return
        self.stored.append((message, tag))

    def poll(self) -> None:
        """Handle the completions that are there. Messages are told in the order they arrived."""
        for cqe in self.tagged.cq.poll():
            if cqe["opcode"] == WcOpcode.TM_DEL:
                handle = cqe["wr_id"] - 200
                assert cqe["status"] == 0, "what software matched, the device must not have given away"
                self.deleting.remove(handle)
                self.free.append(handle)
            elif cqe["opcode"] == WcOpcode.TM_RECV:
                message = self.arrived
                self.arrived += 1
                handle = freed(cqe)
                if handle is None:
                    self.unexpected(message)
                else:
                    receive = self.receive_of[handle]
                    self.matched[receive] = message
                    self.in_device.pop(receive)
                    self.posted = [entry for entry in self.posted if entry[0] != receive]
                    self.free.append(handle)
        self.fill()


def mpi(messages: list[int], receives: list[tuple[int, int]]) -> dict[int, int]:
    """Receive -> message, by the rules of MPI for one sender."""
    left, found = list(enumerate(messages)), {}
    for receive, (tag, mask) in enumerate(receives):
        for at, (message, have) in enumerate(left):
            if have & mask == tag:
                found[receive] = message
                del left[at]
                break
    return found


MPI_STEPS = st.one_of(
    st.tuples(st.just("send"), TAGS),
    st.tuples(st.just("receive"), TAGS, MASKS),
    st.tuples(st.just("poll")),
    st.tuples(st.just("wait"), st.sampled_from((200, 700, 1500, 5000))),
    st.tuples(st.just("sync")),
)


@QUICK
@given(st.lists(MPI_STEPS, min_size=8, max_size=40))
def test_device_and_software_together_match_as_mpi_does(steps):
    tagged = Tagged(Bench(), tags=HANDLES)
    for n in range(40):
        tagged.srq.post(1000 + n, tagged.remote.sge(100, 4096))
    software, receives = MpiEndpoint(tagged), []
    for step in steps:
        match step:
            case ("send", tag):
                tagged.send(header(tag), 8, at=4096 + 32 * len(software.messages))
                software.messages.append(tag)
            case ("receive", tag, mask):
                receives.append((tag & mask, mask))
                software.post(len(receives) - 1, *receives[-1])
            case ("poll",):
                software.poll()
            case ("wait", ns):
                tagged.bench.run_for(ns)
            case ("sync",):
                tagged.srq.sync(software.handled)
    for _ in range(len(steps)):
        tagged.bench.run()
        software.poll()
    assert software.arrived == len(software.messages)
    assert software.matched == mpi(software.messages, receives)
    assert received(tagged.run()) == []


# Hostile peers and programs -------------------------------------------------------------------------------------------

WORDS32 = st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1))
WORDS64 = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
MESSAGES = st.builds(
    lambda head, rest: (head + rest)[: len(head) + len(rest)],
    st.builds(TMH.pack, st.integers(0, 4), WORDS32, WORDS64),
    st.one_of(st.builds(RVH.pack, WORDS64, WORDS32, WORDS32), st.binary(max_size=40)),
) | st.binary(min_size=1, max_size=33)
OPERATIONS = st.tuples(WORDS64, WORDS64, WORDS64, WORDS64, st.integers(0, 4), WORDS32, WORDS32, WORDS32, WORDS32)
SGES = st.lists(st.tuples(WORDS64, WORDS32, WORDS32), min_size=4, max_size=4)


def check_list(tagged: Tagged) -> None:
    """Every posted tag is in the order of matching once, and nothing else is."""
    world = tagged.bench.world
    head = world.tag_list[int(tagged.bench.device.row.srq_base) + tagged.srq.number].head
    found, before = [], 0
    while head:
        row = world.tag[int(head)]
        assert row.state == TagState.POSTED and row.previous == before
        found.append(int(head))
        before, head = head, row.next
    assert len(found) == len(set(found))
    assert found == sorted(found, key=found.index)
    posted = {tagged.srq.first + n for n in range(HANDLES) if tagged.srq.state(n) == TagState.POSTED}
    assert set(found) == posted


@QUICK
@given(st.lists(MESSAGES, min_size=1, max_size=12), st.data())
def test_whatever_a_peer_sends_every_message_completes_and_every_tag_comes_back(messages, data):
    tagged = Tagged(Bench(), tags=HANDLES)
    for n in range(HANDLES):
        mask = data.draw(st.sampled_from((0, 3, (1 << 64) - 1)))
        tagged.srq.add(n, n & mask, tagged.remote.sge(data.draw(st.sampled_from((0, 10, 64))), 64 * n), mask=mask)
        tagged.clients[0].post_recv(n, tagged.local.sge(64, 7 * 4096))
    for n in range(12):
        tagged.srq.post(1000 + n, tagged.remote.sge(100, 4096))
    tagged.run()
    for at, message in enumerate(messages):
        tagged.send(message, at=4096 + 64 * at)
    done = [cqe for cqe in tagged.run() if cqe["flags"] & BOTH != MATCH]
    dead = tagged.servers[0].row().state == QpState.ERR
    assert len(done) == len(messages) or (dead and len(done) <= len(messages))
    check_list(tagged)
    assert not any(tagged.srq.state(n) == TagState.CONSUMED for n in range(HANDLES))
    assert int(tagged.servers[0].row().rndv_open) == 0 and tagged.bench.world.control[0].violations == 0


@QUICK
@given(st.lists(st.tuples(OPERATIONS, SGES), min_size=1, max_size=20), st.integers(-1, 3))
def test_whatever_a_program_writes_into_the_ring_of_operations_the_list_stays_sound(operations, excess):
    tagged = Tagged(Bench(), tags=HANDLES)
    tagged.srq.post(1000, tagged.remote.sge(100, 4096))
    for number, (words, sges) in enumerate(operations):
        at = number * OP_STRIDE
        OP.pack_into(tagged.srq.ops.view, at, *words, 0, 0)
        for index, sge in enumerate(sges):
            SGE.pack_into(tagged.srq.ops.view, at + OP_HEADER_BYTES + 16 * index, *sge)
    tagged.srq.ops_record.word(0, len(operations) - 1 + excess)
    tagged.srq.sync(0)
    tagged.bench.run()
    check_list(tagged)
    tagged.send(header(1), 8)
    tagged.bench.run()
    check_list(tagged)
    assert tagged.bench.world.control[0].violations == 0
