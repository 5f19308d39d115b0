"""A lost or masked interrupt becomes a report that names who waits, never a silent hang."""

import struct
import subprocess
import sys

import pytest

from nicemu.abi import rings
from nicemu.abi.rings import SEND_WQE, SGE, Doorbell, Eqn
from nicemu.abi.verbs import Access, QpAttrMask, WrOpcode
from nicemu.config import ConfigError, load_config
from nicemu.lab import Lab
from nicemu.timeline import HungTask, Quiescent
from nicemu.timeline.loop import VAIN_POLLS
from nicemu.uverbs import memory_messages as mem
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


def test_who_is_interrupted_hears_which_requests_are_not_done(build):
    lab = build()
    _, qps, address, mr = connected_pair(lab)
    lab.timeline.pass_time(5_000_000)
    assert "\n  nothing is left to run" in lab.watchdog.interrupted()
    post(lab, qps[0], address, mr, WrOpcode.SEND)  # and nobody has posted a receive request
    lab.timeline.pass_time(5_000_000)
    text = lab.watchdog.interrupted()
    assert f"nicemu0 QP {qps[0].number} (RTS): 1 requests not done, waits after an RNR NAK: the peer" in text
    assert "nothing is left" not in text


@pytest.mark.parametrize("option", ["trace", "pcap"])
def test_a_log_that_cannot_be_written_is_refused_in_one_line(build, option):
    with pytest.raises(
        ConfigError, match=f"{option}: expected a file that can be written, given '/proc/nowhere': No such"
    ):
        build(**{option: "/proc/nowhere"}).close()


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
    assert "nicemu0 MSI-X vector 4 (completions 0): 1 messages lost" in text
    assert "nicemu0 EQ 4 (completions 0): 1 not consumed" in text
    assert f"nicemu0 CQ {armed.number}: 1 completions wait, its event was raised" in text
    assert lab.injected[0].fired and "inject.0: lose_interrupt nicemu0 vector 4: fired at " in text
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


def test_a_program_that_polls_for_ever_with_nothing_left_to_run_hears_so_once(build, capsys):
    """It is no failure: the program may mean it, and goes on."""
    lab = build()
    cq, *_ = connected_pair(lab, ODP)
    for _ in range(3 * VAIN_POLLS):
        lab.endpoint.poll(cq.number, 0, lambda: False)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "in vain" in line]
    assert "10,000 polls in vain and nothing left to run at " in line
    assert not lab.watchdog.reports


def test_a_wait_longer_than_the_limit_is_reported_though_other_things_go_on(build, capsys):
    """The peer answers RNR for ever, so there is always something left to run."""
    lab = build(host={"name": "impatient", "hung_task_timeout_ns": 2_000_000})
    _, qps, address, mr = connected_pair(lab, ODP)
    run = lab.endpoint.execute
    pd = 1
    run(mem.AdviseMr(pd, 1, 1, ((address, 8192, mr.lkey),)))
    post(lab, qps[0], address, mr, WrOpcode.SEND, sges=0)
    lab.timeline.pass_time(1_000_000)
    lab.devices[0].mask_vector(Eqn.COMMAND, True)
    with pytest.raises(HungTask) as caught:
        lab.endpoint.process.madvise(address, 4096, DONTNEED)
    text = str(caught.value)
    assert text.startswith("INFO: task madvise blocked for more than 0.002 seconds")
    assert "madvise waits for ZAP_MTT of nicemu0" in text and "vector 1 (commands): masked" in text
    assert "task madvise, dontneed > notifier:umem_odp; call trace:\n    take_back\n    invalidate\n" in text
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
    bad = mem.MrResponse(0, 0x9999, 0x9999)
    run = lab.endpoint.execute
    mr = run(mem.RegMr(1, address, 4096, int(Access.LOCAL_WRITE), address))
    post(lab, qps[0], address, mem.MrResponse(0, mr.lkey, bad.rkey))
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
    for number in range(4, 30):
        lab.driver.devices[0].qps[number] = None
        row = lab.world.fault[(int(lab.devices[0].row.qp_base) + number) * 4]
        row.open = 1
    assert len([line for line in lab.watchdog.lines() if "suspended" in line]) == 8
    assert lab.watchdog.lines()[-1] == "..."
    for number in range(4, 30):
        del lab.driver.devices[0].qps[number]


STUCK = """
import sys
from pyverbs.cq import CQ, CompChannel
from pyverbs.device import Context
from pyverbs.pd import PD
from pyverbs.qp import QP, QPCap, QPInitAttr, QPAttr
import pyverbs.enums as e
from pyverbs.wr import SendWR, SGE
from pyverbs.mr import MR

ctx = Context(name="nicemu0")
channel = CompChannel(ctx)
cq = CQ(ctx, 8, None, channel)
pd = PD(ctx)
qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap()))
qp.modify(QPAttr(), e.IBV_QP_STATE | e.IBV_QP_PKEY_INDEX | e.IBV_QP_PORT | e.IBV_QP_ACCESS_FLAGS)
cq.req_notify()
mr = MR(pd, 64, e.IBV_ACCESS_LOCAL_WRITE)
qp.modify(QPAttr(qp_state=e.IBV_QPS_ERR), e.IBV_QP_STATE)
qp.post_send(SendWR(num_sge=1, sg=[SGE(mr.buf, 8, mr.lkey)]))
try:
    channel.get_cq_event(cq)
    print("woken")
except Exception as error:
    if "--brave" not in sys.argv:
        raise
    print("went on")
"""


def run_stuck(tmp_path, config, *arguments):
    """``nicemu run`` of a program that waits for a completion event."""
    (tmp_path / "lab.yaml").write_text(config)
    (tmp_path / "stuck.py").write_text(STUCK)
    command = [sys.executable, "-m", "nicemu", "run", "--stats", "--config", "lab.yaml", "stuck.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=900)


def test_the_command_line_says_who_waits_and_fails(tmp_path):
    done = run_stuck(tmp_path, "inject: [{event: lose_interrupt, vector: 4}]\n")
    assert done.returncode == 1
    assert done.stderr.count("nicemu: watchdog: nothing left to run") == 1
    assert "Quiescent: nothing left to run" in done.stderr and "GetCqEvent: no event" in done.stderr
    assert "MSI-X vector 4 (completions 0): 1 messages lost" in done.stderr
    assert "lose_interrupt nicemu0 vector 4: fired at " in done.stderr


def test_the_command_line_fails_though_the_program_went_on(tmp_path):
    done = run_stuck(tmp_path, "inject: [{event: lose_interrupt, vector: 4}]\n", "--brave")
    assert done.returncode == 1 and done.stdout == "went on\n"


def test_the_same_program_ends_well_without_the_fault(tmp_path):
    done = run_stuck(tmp_path, "seed: 1\n")
    assert (done.returncode, done.stdout) == (0, "woken\n"), done.stderr
    assert "watchdog" not in done.stderr
