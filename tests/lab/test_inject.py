"""`inject:`: port and device events on purpose, as a program sees them, each with a record that it fired."""

import errno

import pytest

from nicemu.abi.verbs import AsyncEvent, WcStatus
from nicemu.config import load_config
from nicemu.config.errors import ConfigError
from nicemu.lab import Lab
from nicemu.lab.report import print_stats
from nicemu.timeline import Quiescent
from nicemu.uverbs import messages as m
from tests.lab.pair import REMOTE, connected_pair
from tests.lab.test_watchdog import post

MS = 1_000_000
DOWN, ACTIVE, DISABLED, LINK_UP = 1, 4, 3, 5


@pytest.fixture
def build():
    """A lab with these injections."""
    labs = []

    def make(*inject, **config):
        lab = Lab(load_config(None, {"inject": list(inject), **config}))
        lab.timeline._others_may_act = lambda: False
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.close()


def statuses(lab, cq):
    """(wr_id, status) of the completions in a CQ's ring."""
    found = []
    for at in range(0, len(cq.ring), 64):
        if cq.ring[at + 60] == 1:
            found.append((int.from_bytes(cq.ring[at : at + 8], "little"), cq.ring[at + 24]))
    return found


def test_a_port_goes_down_and_comes_up_at_its_time(build, capsys):
    lab = build({"event": "port_down", "at_ns": 2 * MS}, {"event": "port_up", "at_ns": 4 * MS})
    run = lab.endpoint.execute
    context = run(m.OpenDevice("nicemu0"))
    assert run(m.QueryPort(context, 1)).values["state"] == ACTIVE
    event = run(m.GetAsyncEvent(context))
    assert (event.event_type, event.object_kind, event.handle) == (AsyncEvent.PORT_ERR, "port", 1)
    assert 2 * MS <= lab.world.now < 3 * MS
    values = run(m.QueryPort(context, 1)).values
    assert (values["state"], values["phys_state"]) == (DOWN, DISABLED)
    assert run(m.GetAsyncEvent(context)).event_type == AsyncEvent.PORT_ACTIVE
    values = run(m.QueryPort(context, 1)).values
    assert (values["state"], values["phys_state"]) == (ACTIVE, LINK_UP)
    print_stats(lab)
    text = capsys.readouterr().err
    assert "port_down nicemu0: fired at 2000000 ns" in text and "port_up nicemu0: fired at 4000000 ns" in text


def test_traffic_over_a_port_that_stays_down_fails(build):
    lab = build({"event": "port_down", "at_ns": 5 * MS})
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    lab.timeline.pass_time(6 * MS)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(10_000 * MS)
    assert statuses(lab, cq) == [(0, WcStatus.RETRY_EXC_ERR)]


def test_the_link_goes_with_the_port(build):
    lab = build({"event": "port_down", "nic": 1, "at_ns": MS}, {"event": "port_up", "nic": 1, "at_ns": 2 * MS}, nics=2)
    seen = []
    for _ in range(3):
        lab.timeline.pass_time(MS - 1)
        seen.append(int(lab.world.link[4].up))  # towards NIC 2
        lab.timeline.pass_time(1)
    assert seen == [1, 0, 1]


@pytest.mark.parametrize("gid, expected", [
    ("10.1.2.3", bytes(10) + b"\xff\xff\x0a\x01\x02\x03"), ("fe80::9", bytes.fromhex("fe80" + "00" * 13 + "09")),
])  # fmt: skip
def test_a_gid_changes_and_every_context_hears_of_it(build, gid, expected):
    lab = build({"event": "gid_change", "index": 3, "gid": gid, "at_ns": MS})
    run = lab.endpoint.execute
    contexts = [run(m.OpenDevice("nicemu0")) for _ in range(2)]
    for context in contexts:
        assert run(m.GetAsyncEvent(context)).event_type == AsyncEvent.GID_CHANGE
    assert run(m.QueryGid(contexts[0], 1, 3)).raw == expected
    assert lab.route(expected) == 1


def test_a_gid_without_an_address_gets_another_one(build):
    lab = build({"event": "gid_change", "index": 1, "at_ns": MS})
    old = lab.devices[0].gids[1]
    lab.timeline.pass_time(2 * MS)
    assert lab.devices[0].gids[1] != old and lab.injected[0].fired


def test_a_fatal_error_is_told_once_and_then_everything_fails_with_eio(build):
    lab = build({"event": "device_fatal", "at_ns": 5 * MS})
    run = lab.endpoint.execute
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    channel, _ = run(m.CreateCompChannel(1))
    assert run(m.GetAsyncEvent(1)).event_type == AsyncEvent.DEVICE_FATAL
    for command in (m.CreateCq(1, 4), m.GetAsyncEvent(1), m.GetCqEvent(channel), m.OpenDevice("nicemu0"),
                    m.QueryQp(qps[0].handle), m.ResizeCq(cq.handle, 9), m.ModifyCq(cq.handle, 1, 1)):  # fmt: skip
        with pytest.raises(m.VerbsError) as caught:
            run(command)
        assert caught.value.errno == errno.EIO, command
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    assert statuses(lab, cq) == [(0, WcStatus.WR_FLUSH_ERR)]
    run(m.CloseDevice(1))


def test_a_program_in_get_cq_event_wakes_up_when_the_device_dies(build):
    lab = build({"event": "device_fatal", "at_ns": 5 * MS})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    channel, _ = lab.endpoint.execute(m.CreateCompChannel(context))
    with pytest.raises(m.VerbsError) as caught:
        lab.endpoint.execute(m.GetCqEvent(channel))
    assert caught.value.errno == errno.EIO


def test_on_demand_memory_of_a_dead_device_can_be_unmapped(build):
    lab = build({"event": "device_fatal", "at_ns": 5 * MS}, memory="model", force_odp=True)
    _, qps, address, mr = connected_pair(lab, REMOTE)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(10 * MS)
    lab.endpoint.process.munmap(address, 8192)
    lab.endpoint.execute(m.CloseDevice(1))


def test_masking_and_unmasking_a_vector_delays_and_loses_nothing(build):
    lab = build({"event": "mask_vector", "vector": 1, "at_ns": 0}, {"event": "unmask_vector", "vector": 1, "at_ns": MS})
    lab.timeline.pass_time(1000)
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    lab.endpoint.execute(m.CreateCq(context, 4))
    assert lab.world.now > MS


def test_an_injection_that_did_not_fire_is_said_so(build, capsys):
    lab = build({"event": "lose_interrupt", "vector": 4, "nth": 9}, {"event": "device_fatal", "at_ns": 10**12})
    print_stats(lab)
    text = capsys.readouterr().err
    assert "lose_interrupt nicemu0 vector 4: did not fire: never saw a message of vector 4" in text
    assert "device_fatal nicemu0: did not fire: its time, 1000000000000 ns, never came: it is 0 ns" in text


def test_a_program_that_waits_for_nothing_is_told(build):
    lab = build()
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    with pytest.raises(Quiescent, match="GetAsyncEvent: no event since"):
        lab.endpoint.execute(m.GetAsyncEvent(context))


@pytest.mark.parametrize("entry, said", [
    ({"event": "meteor"}, "inject.0.event: expected one of verbs_error"),
    ({}, "inject.0.event: expected one of verbs_error, wqe_corrupt"),
    ({"event": "lose_interrupt"}, "inject.0.vector: expected int 1..67"),
    ({"event": "doorbell_loss", "nth": "x"}, "inject.0.nth: expected int >= 1"),
    ({"event": "doorbell_loss", "nth": 1, "every": 2}, "inject.0.every: expected only one of nth, every and chance"),
    ({"event": "port_down", "nth": 3}, "inject.0.nth: expected one of at_ns"),
    ({"event": "port_down", "at": 3}, "inject.0.at: expected one of at_ns"),
    ({"event": "verbs_error", "call": "reg_mrs", "errno": "EIO"}, "inject.0.call: expected one of open_device"),
    ({"event": "verbs_error", "call": "reg_mr", "errno": "EWHAT"}, "inject.0.errno: expected one of EPERM"),
    ({"event": "wqe_corrupt", "field": "lkey"}, "inject.0.value: expected this or bit, one of them"),
    ({"event": "wqe_corrupt", "queue": "recv", "field": "rkey", "bit": 1}, "inject.0.field: expected one of num_sge"),
    ({"event": "packet", "kind": "delay"}, "inject.0.delay_ns: expected int >= 1 for delay"),
    ({"event": "packet", "kind": "loss", "nics": [3]}, "NIC 0..0"),
    ({"event": "port_down", "nic": 1}, "NIC 0..0"),
    ({"event": "mask_vector", "vector": 9}, "vector 1..5"),
    ({"event": "gid_change", "gid": "moon"}, "inject.0.gid: expected an IPv6 or IPv4 address"),
    ({"event": "gid_change", "index": 9}, "GID index 0..7"),
    (3, "inject.0: expected a mapping of fields"),
])  # fmt: skip
def test_bad_injections_are_one_line(entry, said):
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"inject": [entry]})
    assert said in str(caught.value) and "\n" not in str(caught.value)
