"""Pyverbs programs as workloads."""

import json

import pytest

from nicemu.experiment.script import EXIT_STATUS, latencies
from nicemu.observe.run_folder import COUNTERS
from tests.experiment.files import SENDS, done

PROGRAM = """
import sys
from pyverbs.device import Context
from pyverbs.pd import PD

PD(Context(name="nicemu0"))
print("leaving", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
LOG = """\
         100 host doorbell thread=0 nic=0 bank=SEND number=2 producer=1
         100 host doorbell thread=0 nic=0 bank=RECV number=2 producer=9
         250 nic0 DOORBELL qpn=2 bank=SEND producer=1
         400 host doorbell thread=0 nic=0 bank=SEND number=2 producer=3
         900 nic0 WQE_DONE qpn=2 index=0 status=SUCCESS opcode=SEND signaled=1
        1000 nic0 WQE_DONE qpn=2 index=1 status=SUCCESS opcode=RDMA_READ signaled=0
        1500 nic0 WQE_DONE qpn=2 index=2 status=SUCCESS opcode=RDMA_WRITE signaled=1
"""


def ran(tmp_path, status, metrics, **more):
    (tmp_path / "program.py").write_text(PROGRAM)
    changes = {"workload": {"script": "program.py", "arguments": [status]}, "sweep": {}, "expect": [],
               "metrics": metrics} | more  # fmt: skip
    return done(tmp_path, SENDS, changes)


def test_a_requests_latency_is_from_the_doorbell_that_announced_it_to_its_completion(tmp_path):
    (tmp_path / "log").write_text(LOG)
    assert [(row["request"], row["opcode"], row["latency_ns"]) for row in latencies(tmp_path / "log")] == [
        (0, "SEND", 800), (2, "RDMA_WRITE", 1100)]  # fmt: skip


def test_a_program_is_run_to_its_end_and_its_lab_counted(tmp_path):
    outcome = ran(tmp_path, 0, {"commands": {"of": "nic0.commands", "aggregate": "sum"}})
    (point,) = outcome.measured
    assert point.values["commands"] is not None
    assert point.results[0].virtual_ns > 0


def test_a_shown_program_leaves_its_counters(tmp_path):
    _, result = ran(tmp_path, 0, {}, show={}).shown
    assert json.loads(result.files[COUNTERS])["virtual_ns"] == result.virtual_ns > 0


def test_a_fault_that_never_happened_fails_the_run_whatever_its_exit_status(tmp_path):
    never = {"inject": [{"event": "verbs_error", "call": "reg_mr", "errno": "ENOMEM", "nth": 1000}]}
    outcome = ran(tmp_path, 3, {"status": {"of": EXIT_STATUS, "aggregate": "max"}}, lab=never)
    assert outcome.failures[0].error.startswith("faults that never happened: inject.0: ")


@pytest.mark.parametrize("looked_at", [True, False])
def test_a_status_that_is_not_0_is_a_failure_unless_it_is_what_one_looks_at(tmp_path, looked_at):
    outcome = ran(tmp_path, 3, {"status": {"of": EXIT_STATUS, "aggregate": "max"}} if looked_at else {})
    if looked_at:
        assert outcome.measured[0].values["status"] == 3
    else:
        assert outcome.failures[0].error == "program.py: exit status 3: leaving"
