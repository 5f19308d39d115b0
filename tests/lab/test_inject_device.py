"""`inject:` between driver and device: doorbells, commands, translations, page faults, interrupts, packets."""

import errno
import struct
from functools import partial
from typing import get_args

import pytest

from nicemu.abi import rings
from nicemu.abi.command import COMMAND_SLOTS, Command, Status
from nicemu.abi.rings import Doorbell
from nicemu.abi.verbs import WcStatus, WrOpcode
from nicemu.config import load_config
from nicemu.config.injection.device import CommandName, DoorbellLoss, StatusName
from nicemu.driver import page_fault_work
from nicemu.driver.command import TIMEOUT_NS
from nicemu.lab.inject import idle, plant
from nicemu.tables.records import ViolationKind
from nicemu.timeline import Quiescent
from nicemu.uverbs import messages as m
from tests.lab.pair import REMOTE, connected_pair
from tests.lab.test_inject import statuses
from tests.lab.test_inject_program import failing
from tests.lab.test_watchdog import DONTNEED, ODP, post

MS = 1_000_000
SUCCESS = int(WcStatus.SUCCESS)


def written(lab, access=ODP):
    """A write of 64 bytes that has had time to finish: the completions."""
    cq, qps, address, mr = connected_pair(lab, access)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    return statuses(lab, cq)


def test_names_of_the_schema_are_names_of_the_device():
    assert set(get_args(CommandName)) == {command.name for command in Command} - {"NOP"}
    assert set(get_args(StatusName)) == {status.name for status in Status} - {"OK"}
    kinds = get_args(DoorbellLoss.model_fields["kind"].annotation)
    assert {kind.upper() for kind in kinds} == {bank.name for bank in Doorbell}


def test_a_lost_doorbell_leaves_the_request_in_the_ring_until_the_next_one(faulty):
    lab = faulty({"event": "doorbell_loss", "kind": "send"})
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    assert statuses(lab, cq) == [] and lab.injected[0].fired
    lab.endpoint.ring_doorbell(0, Doorbell.SEND, qps[0].number, 0)
    lab.timeline.pass_time(MS)
    assert statuses(lab, cq) == [(0, SUCCESS)]


@pytest.mark.parametrize("status, number", [
    ("NO_MEMORY", errno.ENOMEM), ("BAD_PARAM", errno.EINVAL), ("INTERNAL_ERROR", errno.EIO),
    ("BAD_OPCODE", errno.EOPNOTSUPP),
])  # fmt: skip
def test_a_command_that_the_device_refuses_fails_with_the_errno_of_its_status(faulty, status, number):
    lab = faulty({"event": "command_failure", "command": "CREATE_CQ", "status": status, "nth": 2})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    assert [failing(lab, m.CreateCq(context, 4)) for _ in range(3)] == [0, number, 0]
    assert len(lab.driver.cqs) == 2 and len(lab.driver.devices[0].cqs) == 2


def test_a_refused_command_had_no_effect_in_the_device(faulty):
    lab = faulty({"event": "command_failure", "command": "CREATE_CQ"})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    assert failing(lab, m.CreateCq(context, 4)) == errno.EIO
    assert not lab.world.cq[1 : lab.world.capacity.cqs].slots.any()


def test_a_command_without_an_answer_fails_after_the_driver_s_timeout_and_keeps_its_slot(faulty):
    lab = faulty({"event": "command_timeout", "command": "CREATE_CQ"})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    began = lab.world.now
    assert failing(lab, m.CreateCq(context, 4)) == errno.ETIMEDOUT
    assert TIMEOUT_NS <= lab.world.now - began < TIMEOUT_NS + MS
    assert lab.watchdog.reports == []
    queue = lab.driver.devices[0].commands
    assert len(queue.stalled) == 1 and queue.expected == {}
    assert failing(lab, m.CreateCq(context, 4)) == 0


def test_with_every_slot_stalled_no_command_is_tried(faulty):
    lab = faulty({"event": "command_timeout", "times": COMMAND_SLOTS})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    for _ in range(COMMAND_SLOTS):
        assert failing(lab, m.CreateCq(context, 4)) == errno.ETIMEDOUT
    before = lab.world.now
    assert failing(lab, m.CreateCq(context, 4)) == errno.EAGAIN
    assert lab.world.now - before < MS


def test_an_invalidation_that_the_device_refuses_lets_the_pages_go_and_the_sanitizer_tells(faulty):
    lab = faulty({"event": "command_failure", "command": "ZAP_MTT"})
    _, qps, address, mr = connected_pair(lab, ODP)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    lab.endpoint.process.madvise(address, 8192, DONTNEED)
    post_again(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    assert lab.violations > 0 and lab.injected[0].count == 1


def post_again(lab, qp, address, mr):
    """The same write as WR 1: the ring's second slot."""
    stride = rings.send_stride(2, 0)
    qp.send_ring[stride : 2 * stride] = qp.send_ring[:stride]
    struct.pack_into("<q", qp.record, rings.DB_SEND, 2)
    lab.endpoint.ring_doorbell(0, Doorbell.SEND, qp.number, 0)


def test_a_foreign_translation_moves_the_wrong_bytes_and_the_sanitizer_tells(faulty):
    lab = faulty({"event": "iotlb_poison", "page": 0})
    _, qps, address, mr = connected_pair(lab, REMOTE)
    lab.endpoint.process.write(address, b"right" + bytes(4091) + bytes(64))
    lab.endpoint.process.write(address + 4096 + 64, b"wrong")
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    assert lab.endpoint.process.read(address + 4096, 5) != b"right"
    row = lab.world.violation[0]
    assert lab.violations and (row.kind, row.page) == (ViolationKind.MISTRANSLATED, 0)


def test_a_healthy_run_has_no_mistranslation_at_the_level_that_looks_for_it(faulty):
    lab = faulty({"event": "iotlb_poison", "mr": 77, "must_fire": False}, force_odp=True, evict_per_ms=2.0)
    cq, qps, address, mr = connected_pair(lab, ODP)
    assert lab.world.control[0].sanitizer == 2
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(20 * MS)
    post_again(lab, qps[0], address, mr)
    lab.timeline.pass_time(20 * MS)
    assert lab.violations == 0 and [status for _, status in statuses(lab, cq)] == [SUCCESS] * 2


def test_a_stale_translation_after_an_invalidation_is_a_violation(faulty):
    lab = faulty({"event": "iotlb_poison", "translation": "stale"})
    _, qps, address, mr = connected_pair(lab, ODP)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    assert lab.violations == 0
    lab.endpoint.process.madvise(address, 4096, DONTNEED)
    post_again(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    assert ViolationKind(int(lab.world.violation[0].kind)) == ViolationKind.INVALIDATED
    assert str(lab.injected[0]).startswith("iotlb_poison nicemu0 stale page 0 of any MR: fired at ")


def fault_ns(lab):
    """From detection to the resume of the first fault."""
    first = lab.driver.stages.faults[0]
    return first["resumed"] - first["detected"]


def test_a_slow_page_fault_takes_longer_by_what_was_asked_for(faulty):
    plain, slow = faulty(), faulty({"event": "page_fault_slow", "extra_ns": 700_000})
    assert written(plain) == written(slow) == [(0, SUCCESS)]
    assert fault_ns(slow) - fault_ns(plain) == 700_000


def test_a_page_fault_that_cannot_be_resolved_fails_the_request(faulty):
    lab = faulty({"event": "page_fault_fail"})
    assert written(lab) == [(0, WcStatus.LOC_PROT_ERR)]
    assert lab.driver.counters.num_failed_resolutions == 1


def test_a_late_interrupt_is_late_by_what_was_asked_for_and_counts_once(faulty):
    entry = {"event": "late_interrupt", "vector": 3, "delay_ns": 300_000}
    plain, late = faulty(), faulty(entry)
    assert written(plain) == written(late) == [(0, SUCCESS)]
    assert fault_ns(late) - fault_ns(plain) == 300_000
    assert late.devices[0].counters() == plain.devices[0].counters()


def test_each_message_of_a_vector_can_be_late(faulty):
    lab = faulty({"event": "late_interrupt", "vector": 1, "every": 1, "delay_ns": 1000})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    for _ in range(3):
        lab.endpoint.execute(m.CreateCq(context, 4))
    assert lab.injected[0].count == 3


def test_after_a_lost_message_the_queue_is_silent_and_nothing_else_is_lost(faulty):
    lab = faulty({"event": "lose_interrupt", "vector": 1, "nth": 2})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    lab.endpoint.execute(m.CreateCq(context, 4))
    with pytest.raises(Quiescent, match=r"vector 1 \(commands\): 1 messages lost"):
        lab.endpoint.execute(m.CreateCq(context, 4))
    counters = lab.devices[0].counters()
    assert (counters["interrupts"], counters["interrupts_lost"]) == (1, 1)


def test_packets_are_hit_by_the_same_rules_as_impairments(faulty):
    entry = {"kind": "loss", "name": "hole", "operations": ["WRITE_ONLY"], "packets": [1]}
    as_fault, as_rule = faulty({"event": "packet", **entry}), faulty(impairments=[entry])
    both = []
    for lab in (as_fault, as_rule):
        cq, qps, address, mr = connected_pair(lab, REMOTE)
        post(lab, qps[0], address, mr, WrOpcode.RDMA_WRITE)
        lab.timeline.pass_time(200 * MS)
        both.append((statuses(lab, cq), lab.devices[0].counters(), lab.fabric.firings()))
    assert both[0] == both[1] and both[0][2] == [("hole", 1)]
    assert as_fault.injected[0].fired and str(as_fault.injected[0]) == "packet hole: hit 1 packets"


def test_packets_that_no_rule_takes_are_said_so(faulty):
    lab = faulty({"event": "packet", "kind": "loss", "packets": [9]})
    written(lab, access=REMOTE)
    assert idle(lab) == ["inject.0: packet loss: did not fire: saw 2 packets that it concerns, and took none"]
    other = faulty({"event": "packet", "kind": "loss", "transport": "UD"})
    assert idle(other) == ["inject.0: packet loss: did not fire: never saw a packet that it concerns"]


def test_an_impairment_must_hit_something_only_where_it_says_so(faulty):
    rule = {"kind": "loss", "transport": "UD"}
    assert idle(faulty(impairments=[rule])) == []
    assert idle(faulty(impairments=[rule, {**rule, "must_fire": True}])) == ["impairments.1: loss: hit no packet"]


def test_what_need_not_fire_is_not_missed(faulty):
    entry = {"event": "command_failure", "command": "CREATE_QP"}
    lab = faulty(entry, {**entry, "must_fire": False})
    name = "inject.0: command_failure nicemu0 CREATE_QP INTERNAL_ERROR"
    assert idle(lab) == [f"{name}: did not fire: never saw a command CREATE_QP"]


def test_a_nic_is_hit_alone(faulty):
    lab = faulty({"event": "command_failure", "nic": 1}, nics=2)
    assert failing(lab, m.CreateCq(lab.endpoint.execute(m.OpenDevice("nicemu0")), 4)) == 0
    assert failing(lab, m.CreateCq(lab.endpoint.execute(m.OpenDevice("nicemu1")), 4)) == errno.EIO


def test_firings_are_rows_of_the_event_log(faulty, tmp_path):
    entries = [{"event": "doorbell_loss", "must_fire": False, "nth": 9}, {"event": "page_fault_slow", "extra_ns": 5}]
    lab = faulty(*entries, trace=str(tmp_path / "log"))
    written(lab)
    lab.flush()
    rows = [line.split()[1:] for line in (tmp_path / "log").read_text().splitlines() if "INJECT" in line]
    assert rows == [["host", "INJECT", "entry=1", "event=page_fault_slow", "count=1"]]


@pytest.mark.parametrize("fault, rows", [
    ({"event": "lose_interrupt"}, [["lost=1"]]),
    ({"event": "late_interrupt", "delay_ns": 5000}, [["lost=0"]]),
])  # fmt: skip
def test_the_log_says_that_a_message_was_lost_and_of_a_late_one_when_it_came(faulty, tmp_path, fault, rows):
    lab = faulty({**fault, "vector": 3}, trace=str(tmp_path / "log"))
    written(lab)
    lab.flush()
    found = [line.split() for line in (tmp_path / "log").read_text().splitlines() if "INTERRUPT vector=3" in line]
    assert [line[4:5] for line in found[:1]] == rows
    flight = int(found[0][5].removeprefix("flight_ns="))
    assert flight == lab.config.nic.costs.interrupt_ns + fault.get("delay_ns", 0)


def test_a_fault_planted_later_counts_from_then_on(faulty):
    lab = faulty()
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    lab.endpoint.execute(m.CreateCq(context, 4))
    what = load_config(None, {"inject": [{"event": "command_failure", "command": "CREATE_CQ"}]}).inject[0]
    entry = plant(lab, what)
    assert failing(lab, m.CreateCq(context, 4)) == errno.EIO
    assert lab.injected == [entry] and entry.count == 1


def test_without_faults_nothing_is_wrapped(faulty):
    lab = faulty()
    wrapped = {"post", "alloc_pages", "get_page_from_freelist", "read"}
    device = lab.driver.devices[0]
    assert not any(wrapped & set(vars(thing)) for thing in (device.commands, lab.host, lab.host.swap))
    assert isinstance(device.device.write_doorbell, partial)  # of the kernel
    assert device.faults.fault_in.func is page_fault_work.fault_in
    assert lab.timeline.deliver == lab.driver.deliver and lab.world.control[0].sanitizer == 1
