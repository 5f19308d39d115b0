"""A lost or masked interrupt becomes a report that names who waits, never a silent hang."""

import struct

import pytest

from nicemu.abi import rings
from nicemu.abi.rings import SEND_WQE, SGE, Doorbell, Eqn
from nicemu.abi.verbs import Access, QpAttrMask, WrOpcode
from nicemu.config import load_config
from nicemu.lab import Lab
from nicemu.timeline import HungTask, Quiescent
from nicemu.uverbs import messages as m
from tests.lab.pair import REMOTE, connected_pair

ODP = REMOTE | Access.ON_DEMAND
DONTNEED = 4


@pytest.fixture
def build():
    """A lab of simulated RAM with one program thread."""
    labs = []

    def make(**config):
        lab = Lab(load_config(None, {"memory": "model", **config}))
        lab.timeline._others_may_act = lambda: False
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.close()


def post(lab, qp, address, mr, opcode=WrOpcode.RDMA_WRITE, sges=1):
    """WR 0 of a QP: 64 bytes of the region to its second page."""
    SEND_WQE.pack_into(qp.send_ring, 0, 0, opcode, 2, sges, 0, address + 4096, mr.rkey, 0, 0, 0, 0, 0)
    SGE.pack_into(qp.send_ring, rings.SEND_HEADER_BYTES, address, 64, mr.lkey)
    struct.pack_into("<q", qp.record, rings.DB_SEND, 1)
    lab.endpoint.ring_doorbell(0, Doorbell.SEND, qp.number, 0)


def said(lab, capsys, text):
    """It went to stderr once, and is kept."""
    assert text in lab.watchdog.reports
    assert capsys.readouterr().err.count(text) == 1


def test_a_masked_command_vector_during_an_invalidation(build, capsys):
    lab = build()
    _, qps, address, mr = connected_pair(lab, ODP)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(5_000_000)
    lab.devices[0].mask_vector(Eqn.COMMAND, True)
    began = lab.world.now
    with pytest.raises(Quiescent) as caught:
        lab.endpoint.process.madvise(address, 4096, DONTNEED)
    text = str(caught.value)
    assert "madvise waits for ZAP_MTT of nicemu0 since " in text
    assert int(text.split(" since ")[1].split()[0]) >= began
    assert "nicemu0 MSI-X vector 1 (commands): masked, message pending" in text
    assert "nicemu0 EQ 1 (commands): 1 not consumed" in text
    said(lab, capsys, text)


def test_a_masked_function_is_named(build):
    lab = build()
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    lab.devices[0].mask_function(True)
    with pytest.raises(Quiescent, match="function masked, message pending"):
        lab.endpoint.execute(m.CreateCq(context, 4))


def test_a_lost_completion_vector_with_a_program_in_get_cq_event(build, capsys):
    lab = build(inject=[{"event": "lose_interrupt", "vector": 4}])
    run = lab.endpoint.execute
    _, _, address, mr = connected_pair(lab, ODP)
    context = 1
    channel, _ = run(m.CreateCompChannel(context))
    armed = run(m.CreateCq(context, 8, channel))
    pd = run(m.AllocPd(context))
    qp = run(m.CreateQp(pd, 2, armed.handle, armed.handle, m.Capabilities(4, 4, 1, 1, 0), 1))
    lab.endpoint.ring_doorbell(0, Doorbell.CQ_ARM, armed.number, 1)
    run(m.ModifyQp(qp.handle, m.QpAttributes(qp_state=1, port_num=1), 1 | 8 | 16 | 32))
    run(m.ModifyQp(qp.handle, m.QpAttributes(qp_state=6), QpAttrMask.STATE))
    post(lab, qp, address, mr)
    with pytest.raises(Quiescent) as caught:
        run(m.GetCqEvent(channel))
    text = str(caught.value)
    assert "GetCqEvent: no event since " in text
    assert "nicemu0 MSI-X vector 4 (completions 0): message 1 lost" in text
    assert "nicemu0 EQ 4 (completions 0): 1 not consumed" in text
    assert f"nicemu0 CQ {armed.number}: 1 completions wait, its event was raised" in text
    assert lab.injected[0].fired and str(lab.injected[0]) == "lose_interrupt nicemu0 vector 4 message 1: fired"
    said(lab, capsys, text)


def test_a_masked_page_fault_vector_with_the_qp_suspended_and_a_program_that_polls(build, capsys):
    lab = build()
    cq, qps, address, mr = connected_pair(lab, ODP)
    lab.devices[0].mask_vector(Eqn.PAGE_FAULT, True)
    post(lab, qps[0], address, mr)
    with pytest.raises(Quiescent) as caught:
        for _ in range(100_000):
            lab.endpoint.poll(cq.number, 0, lambda: False)
    text = str(caught.value)
    assert "nicemu0 MSI-X vector 3 (page faults): masked, message pending" in text
    assert "nicemu0 EQ 3 (page faults): 1 not consumed" in text
    assert f"nicemu0 QP {qps[0].number}: suspended by a page fault since " in text
    said(lab, capsys, text)


def test_a_poll_in_vain_of_a_healthy_lab_is_no_stall(build):
    lab = build()
    cq, *_ = connected_pair(lab, ODP)
    for _ in range(2000):
        assert lab.endpoint.poll(cq.number, 0, lambda: False) is False
    assert lab.watchdog.reports == []


def test_a_wait_longer_than_the_limit_is_reported_though_other_things_go_on(build, capsys):
    """The peer answers RNR for ever, so there is always something left to run."""
    lab = build(host={"name": "impatient", "hung_task_timeout_ns": 2_000_000})
    _, qps, address, mr = connected_pair(lab, ODP)
    run = lab.endpoint.execute
    pd = 1
    run(m.AdviseMr(pd, 1, 1, ((address, 8192, mr.lkey),)))
    post(lab, qps[0], address, mr, WrOpcode.SEND, sges=0)
    lab.timeline.pass_time(1_000_000)
    lab.devices[0].mask_vector(Eqn.COMMAND, True)
    with pytest.raises(HungTask) as caught:
        lab.endpoint.process.madvise(address, 4096, DONTNEED)
    text = str(caught.value)
    assert text.startswith("madvise blocked for more than 2000000 ns")
    assert "madvise waits for ZAP_MTT of nicemu0" in text and "vector 1 (commands): masked" in text
    said(lab, capsys, text)


def test_nobody_is_reported_within_the_limit(build):
    lab = build(host={"name": "patient", "hung_task_timeout_ns": 2_000_000})
    _, qps, address, mr = connected_pair(lab, ODP)
    post(lab, qps[0], address, mr, WrOpcode.SEND, sges=0)
    lab.timeline.pass_time(6_000_000)
    assert lab.watchdog.reports == []


def test_a_qp_is_not_destroyed_before_its_events_are_acknowledged_and_the_report_says_so(build):
    lab = build()
    _, qps, address, _ = connected_pair(lab, ODP)
    bad = m.MrResponse(0, 0x9999, 0x9999)
    run = lab.endpoint.execute
    mr = run(m.RegMr(1, address, 4096, int(Access.LOCAL_WRITE), address))
    post(lab, qps[0], address, m.MrResponse(0, mr.lkey, bad.rkey))
    lab.timeline.pass_time(1_000_000)
    event = run(m.GetAsyncEvent(1))
    assert (event.object_kind, event.handle) == ("qp", qps[1].handle)
    with pytest.raises(Quiescent, match="DestroyQp: 1 async events of the QP not acknowledged"):
        run(m.DestroyQp(qps[1].handle))
    lab.endpoint.acknowledge("qp", qps[1].handle)
    run(m.DestroyQp(qps[1].handle))


def test_the_report_does_not_repeat_every_qp_of_a_thousand(build):
    lab = build()
    connected_pair(lab, ODP)
    for number in range(3, 30):
        lab.driver.devices[0].qps[number] = None
        row = lab.world.fault[(int(lab.devices[0].row.qp_base) + number) * 4]
        row.open = 1
    assert len([line for line in lab.watchdog.lines() if "suspended" in line]) == 8
    assert lab.watchdog.lines()[-1] == "..."
    for number in range(3, 30):
        del lab.driver.devices[0].qps[number]
