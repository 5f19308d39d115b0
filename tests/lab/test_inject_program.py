"""`inject:` at the program's side: verbs that fail, requests that change in their ring."""

import errno
import struct
from typing import get_args

import pytest

from nicemu.abi import rings
from nicemu.abi.rings import RECV_WQE, SGE, Doorbell
from nicemu.abi.verbs import Access, WcStatus, WrOpcode
from nicemu.config.injection.program import Call, ErrnoName
from nicemu.lab.inject.verbs import CALLS
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from tests.lab.pair import REMOTE, connected_pair
from tests.lab.test_inject import statuses
from tests.lab.test_watchdog import post

MS = 1_000_000


def failing(lab, command):
    """The errno that a command gives, 0 if it succeeds."""
    try:
        lab.endpoint.execute(command)
    except m.VerbsError as error:
        return error.errno
    return 0


def test_every_call_of_the_schema_is_a_message_and_every_errno_is_one():
    assert set(get_args(Call)) <= set(CALLS)
    assert all(hasattr(errno, name) for name in get_args(ErrnoName))


def test_the_nth_call_of_a_verb_fails_with_the_errno_and_has_no_effect(faulty):
    lab = faulty({"event": "verbs_error", "call": "alloc_pd", "errno": "ENOMEM", "nth": 2})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    assert [failing(lab, m.AllocPd(context)) for _ in range(3)] == [0, errno.ENOMEM, 0]
    assert len(lab.driver.pds) == 2
    assert str(lab.injected[0]).startswith("verbs_error alloc_pd ENOMEM: fired at ")


@pytest.mark.parametrize("how, expected", [
    ({}, "x....."), ({"nth": 2}, ".x...."), ({"nth": 2, "times": 3}, ".xxx.."), ({"every": 2}, ".x.x.x"),
    ({"every": 2, "times": 2}, ".x.x.."), ({"chance": 1.0}, "xxxxxx"), ({"chance": 1.0, "times": 1}, "x....."),
])  # fmt: skip
def test_which_occasions_an_entry_takes(faulty, how, expected):
    lab = faulty({"event": "verbs_error", "call": "alloc_pd", "errno": "EIO", **how})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    taken = [failing(lab, m.AllocPd(context)) for _ in range(6)]
    assert "".join(".x"[number == errno.EIO] for number in taken) == expected


def test_what_comes_before_after_ns_is_not_counted(faulty):
    lab = faulty({"event": "verbs_error", "call": "alloc_pd", "errno": "EIO", "after_ns": MS})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    assert failing(lab, m.AllocPd(context)) == 0
    lab.timeline.pass_time(MS)
    assert failing(lab, m.AllocPd(context)) == errno.EIO


def test_one_seed_draws_one_history_and_another_entry_does_not_change_it(faulty):
    def history(seed, *others):
        lab = faulty({"event": "verbs_error", "call": "alloc_pd", "errno": "EIO", "chance": 0.5}, *others, seed=seed)
        context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
        taken = [failing(lab, m.AllocPd(context)) for _ in range(24)]
        return [number == errno.EIO for number in taken]

    other = {"event": "verbs_error", "call": "create_cq", "errno": "EIO", "chance": 0.5, "must_fire": False}
    first = history(1)
    assert 4 < sum(first) < 20
    assert history(1) == history(1, other) == first != history(2)


@pytest.mark.parametrize("change, status", [
    ({"field": "lkey", "bit": 9}, WcStatus.LOC_PROT_ERR), ({"field": "opcode", "value": 77}, WcStatus.LOC_QP_OP_ERR),
    ({"field": "rkey", "value": 0}, WcStatus.REM_ACCESS_ERR),
    ({"field": "addr", "value": 1 << 40}, WcStatus.LOC_PROT_ERR),
    ({"field": "remote_addr", "bit": 40}, WcStatus.REM_ACCESS_ERR), ({"field": "length", "value": 8}, WcStatus.SUCCESS),
])  # fmt: skip
def test_a_send_request_changes_before_the_device_fetches_it(faulty, change, status):
    lab = faulty({"event": "wqe_corrupt", **change})
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    lab.endpoint.process.write(address, bytes(range(64)))
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    assert statuses(lab, cq) == [(0, status)] and lab.injected[0].fired
    if status == WcStatus.SUCCESS:
        assert lab.endpoint.process.read(address + 4096, 16) == bytes(range(8)) + bytes(8)


def test_a_receive_request_changes_too(faulty):
    lab = faulty({"event": "wqe_corrupt", "queue": "recv", "field": "length", "value": 8, "nth": 2})
    _, qps, address, mr = connected_pair(lab, REMOTE)
    for count in range(2):
        at = count * rings.recv_stride(2)
        RECV_WQE.pack_into(qps[1].recv_ring, at, 7 + count, 1, 0)
        SGE.pack_into(qps[1].recv_ring, at + rings.RECV_HEADER_BYTES, address, 64, mr.lkey)
    struct.pack_into("<q", qps[1].record, rings.DB_RECV, 2)
    lab.endpoint.ring_doorbell(0, Doorbell.RECV, qps[1].number, 0)
    assert lab.injected[0].count == 1
    elements = [SGE.unpack_from(qps[1].recv_ring, i * rings.recv_stride(2) + 16) for i in range(2)]
    assert [element[1] for element in elements] == [64, 8]


def test_only_the_named_queue_pair_is_touched(faulty):
    lab = faulty({"event": "wqe_corrupt", "qpn": 3, "field": "lkey", "value": 0})
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    assert [qp.number for qp in qps] == [2, 3]
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    assert statuses(lab, cq) == [(0, WcStatus.SUCCESS)]
    assert str(lab.injected[0]).endswith("did not fire: never saw a posted send request of QP 3")
    post(lab, qps[1], address, mr)
    lab.timeline.pass_time(MS)
    assert statuses(lab, cq)[1:] == [(0, WcStatus.LOC_PROT_ERR)]


def test_an_element_that_no_request_has_room_for_is_never_written(faulty):
    lab = faulty({"event": "wqe_corrupt", "field": "addr", "sge": 31, "value": 1})
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    assert statuses(lab, cq) == [(0, WcStatus.SUCCESS)]
    assert str(lab.injected[0]).endswith("did not fire: requests of QP 2 have no element 31")


def test_a_producer_counter_gone_mad_is_looked_at_for_one_ring(faulty):
    lab = faulty({"event": "wqe_corrupt", "field": "lkey", "value": 0, "every": 1})
    _, qps, _, _ = connected_pair(lab, REMOTE)
    struct.pack_into("<q", qps[0].record, rings.DB_SEND, 1 << 50)
    lab.endpoint.ring_doorbell(0, Doorbell.SEND, qps[0].number, 0)
    assert 0 < lab.injected[0].count <= 64


def test_rings_in_memory_of_the_program_change_too(faulty):
    lab = faulty({"event": "wqe_corrupt", "field": "lkey", "value": 0})
    run = lab.endpoint.execute
    context = run(m.OpenDevice("nicemu0"))
    pd, cq = run(m.AllocPd(context)), run(m.CreateCq(context, 8))
    ring = lab.endpoint.process.posix_memalign(8192, 4096)
    caps = m.Capabilities(4, 4, 1, 1, 0)
    qp = run(m.CreateQp(pd, 2, cq.handle, cq.handle, caps, 1, ring=ring, record=ring + 4096))
    address = lab.endpoint.process.posix_memalign(4096, 4096)
    mr = run(mem.RegMr(pd, address, 4096, int(Access.LOCAL_WRITE), address))
    at = rings.recv_ring_bytes(caps)
    wqe = rings.SEND_WQE.pack(0, WrOpcode.SEND, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0) + SGE.pack(address, 8, mr.lkey)
    lab.endpoint.process.write(ring + at, wqe)
    lab.endpoint.process.write(ring + 4096, struct.pack("<q", 1))
    lab.endpoint.ring_doorbell(0, Doorbell.SEND, qp.number, 0)
    after = lab.endpoint.process.read(ring + at + rings.SEND_HEADER_BYTES, 16)
    assert SGE.unpack(after) == (address, 8, 0)
