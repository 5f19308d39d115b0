"""Firmware's say in page faults and translations: when to report, resume and retry, what to ask for, what to keep."""

import pytest

from nicemu.abi.command import Command
from nicemu.abi.rings import Eqn, FaultType
from nicemu.abi.verbs import QpAttrMask, QpState, WcStatus
from nicemu.config import NicProfile
from nicemu.config.nic_profile import IotlbProfile, NicCosts, SecondLevelProfile
from nicemu.config.types import Spread
from nicemu.tables.records import ViolationKind
from tests.nic.conftest import connected
from tests.nic.image_files import answering, bench_of, bench_with
from tests.nic.test_sanitizer import invalidate, violations
from tests.nic.testbench import Bench, WrOpcode


def reported_after(rc):
    """ns from the missing translation to the page-fault EQE, and the fault."""
    rc.bench.log()
    fault = rc.bench.fault()
    (seen,) = [time for kind, time, *_ in rc.bench.trace() if kind.name == "FAULT"]
    return rc.bench.world.now - seen, fault


def resumed_after(rc, fault):
    """ns from the completion of the resume command, which is when it was decoded, to going on."""
    rc.bench.submit(Command.PAGE_FAULT_RESUME, fault["token"], 0)
    rc.bench.step_until(lambda: rc.bench.events(Eqn.COMMAND))
    decoded = rc.bench.world.now
    rc.bench.step_until(lambda: rc.bench.device.row.resumes)
    return rc.bench.world.now - decoded


# Times ----------------------------------------------------------------------------------------------------------------


def test_by_default_a_fault_takes_what_the_profile_says(rc_cold_local):
    rc_cold_local.write(1, 8)
    ns, fault = reported_after(rc_cold_local)
    assert ns == rc_cold_local.bench.device.row.fault_detect_ns
    rc_cold_local.local.map()
    assert resumed_after(rc_cold_local, fault) == rc_cold_local.bench.device.row.resume_ns


def test_firmware_decides_how_long_detection_and_resume_take(tmp_path):
    rc = connected(answering(tmp_path, fault_detect="arg // 100", resume="arg + 7"), local=False)
    rc.write(1, 8)
    ns, fault = reported_after(rc)
    assert ns == rc.bench.device.row.fault_detect_ns // 100
    rc.local.map()
    assert resumed_after(rc, fault) == rc.bench.device.row.resume_ns + 7
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)]


@pytest.mark.parametrize(("length", "pages"), [(8, 1), (4096, 1), (4097, 2), (16384, 4)])
def test_detection_grows_with_the_pages_of_the_operation(length, pages):
    bench = Bench(NicProfile(costs=NicCosts(fault_detect_page_ns=1000)))
    rc = connected(bench, local=False)
    rc.write(1, length)
    ns, _ = reported_after(rc)
    assert ns == bench.device.row.fault_detect_ns + 1000 * (pages - 1)


def test_detection_of_one_page_takes_one_page_however_long_the_message_is(tmp_path):
    bench = bench_of(tmp_path, "def fault_pages(world, row, arg):\n    return 1\n",
                     costs=NicCosts(fault_detect_page_ns=1000))  # fmt: skip
    rc = connected(bench, local=False)
    rc.write(1, 16384)
    ns, fault = reported_after(rc)
    assert ns == bench.device.row.fault_detect_ns and fault["pages"] == 1


def test_one_draw_stretches_detection_and_resume_of_a_fault():
    double = Spread(p0=2.0, p50=2.0, p95=2.0, p99=2.0, p100=2.0)
    rc = connected(Bench(NicProfile(spread=double)), local=False)
    rc.write(1, 8)
    ns, fault = reported_after(rc)
    row = rc.bench.device.row
    rc.local.map()
    assert (ns, resumed_after(rc, fault)) == (2 * row.fault_detect_ns, 2 * row.resume_ns)


def test_each_fault_draws_anew_and_its_two_stages_agree():
    wide = Spread(p0=0.5, p50=1.0, p95=2.0, p99=3.0, p100=4.0)
    rc = connected(Bench(NicProfile(spread=wide)), local=False)
    row, factors = rc.bench.device.row, []
    for page in range(4):
        rc.write(page, 8, offset=4096 * page)
        ns, fault = reported_after(rc)
        rc.local.map(page, 1)
        resumed = rc.bench.device.row.resumes
        rc.bench.submit(Command.PAGE_FAULT_RESUME, fault["token"], 0)
        rc.bench.step_until(lambda: rc.bench.events(Eqn.COMMAND))
        decoded = rc.bench.world.now
        rc.bench.step_until(lambda before=resumed: rc.bench.device.row.resumes > before)
        factors.append(ns / row.fault_detect_ns)
        assert (rc.bench.world.now - decoded) / row.resume_ns == pytest.approx(factors[-1], abs=1e-4)
        rc.bench.run()
    assert len(set(factors)) == 4


# Retry ----------------------------------------------------------------------------------------------------------------


def test_firmware_lets_a_send_queue_try_again_until_the_page_is_there(tmp_path):
    rc = connected(answering(tmp_path, requester_fault="500_000"), local=False)
    rc.write(1, 8)
    fault = rc.bench.fault()
    rc.bench.run_for(2_000_000)
    assert rc.bench.device.row.fault_retries >= 4 and rc.bench.device.row.page_faults == 1
    assert rc.a.statuses() == [] and rc.bench.faults() == []
    rc.local.map()
    rc.bench.run_for(1_000_000)
    assert rc.a.statuses() == [(1, 0)]  # without a resume
    rc.bench.resume(fault["token"])
    rc.bench.run()
    assert rc.bench.device.row.page_faults_merged == rc.bench.device.row.fault_retries - 1


def test_firmware_lets_a_read_ask_again_every_half_millisecond(tmp_path):
    rc = connected(answering(tmp_path, requester_fault=f"500_000 if arg == {int(FaultType.REQUESTER_READ)} else 0"),
                   local=False)  # fmt: skip
    rc.read(1, 8)
    fault = rc.bench.fault()
    rc.bench.log()
    rc.bench.run_for(2_100_000)
    assert rc.bench.sent().count(12) == 4  # READ requests
    rc.local.map()
    rc.bench.resume(fault["token"])
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.local.data[:8] == rc.remote.data[:8]


def test_no_retry_outlives_its_qp(tmp_path):
    rc = connected(answering(tmp_path, requester_fault="500_000"), local=False)
    rc.write(1, 8)
    rc.bench.fault()
    rc.a.modify(QpAttrMask.STATE, STATE=QpState.RESET)
    rc.bench.run()
    assert rc.bench.device.row.fault_retries == 0


# Redirect -------------------------------------------------------------------------------------------------------------


def test_a_redirected_write_waits_in_order_and_nobody_is_told(tmp_path):
    rc = connected(bench_with("np_rdma"), remote=False)
    rc.bench.log()
    rc.write(1, 8, at=0)
    rc.write(2, 8, at=16)
    ns, fault = reported_after(rc)
    row = rc.bench.device.row
    assert ns == row.fault_detect_ns + row.pcie_latency_ns and row.redirects == 1
    rc.remote.map()
    rc.bench.resume(fault["token"])
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)] and row.rnr_naks_sent == row.retransmits == 0
    assert rc.remote.data[:8] == rc.local.data[:8]


def test_a_redirected_read_brings_the_pages_own_bytes():
    rc = connected(bench_with("np_rdma"), remote=False)
    rc.read(1, 4096)
    fault = rc.bench.fault()
    rc.remote.map()
    rc.bench.resume(fault["token"])
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.local.data[:4096] == rc.remote.data[:4096]
    assert rc.bench.device.row.redirects == 1


def test_firmware_hears_whether_the_missing_page_is_to_be_written(tmp_path):
    source = (
        "from nicemu.firmware import qp_state\nmine = qp_state('reads', 'writes')\n\n\n"
        "def missing_page(world, row, arg):\n"
        "    if arg:\n        mine(world, row).writes += 1\n    else:\n        mine(world, row).reads += 1\n"
        "    return 0\n"
    )
    rc = connected(bench_of(tmp_path, source), local=False)
    rc.write(1, 8)
    fault = rc.bench.fault()
    words = rc.bench.world.qp_state[int(rc.bench.device.row.qp_base) + rc.a.number]
    assert (int(words.word0), int(words.word1)) == (1, 0)
    rc.local.map(0, 1)
    rc.bench.resume(fault["token"])
    rc.read(2, 8, offset=4096)
    rc.bench.fault()
    assert (int(words.word0), int(words.word1)) == (1, 1)


# The NIC of the page-fault paper --------------------------------------------------------------------------------------


def test_npf_answers_a_missing_page_with_its_own_timer_and_a_missing_receive_with_the_qps():
    rc = connected(bench_with("npf"), remote=False, MIN_RNR_TIMER=5)
    rc.bench.log()
    rc.write(1, 8)
    rc.bench.fault()
    rc.bench.run_for(10_000)
    rc.b.post_send(1, WrOpcode.SEND, rc.local.sge(8))
    rc.bench.run_for(100_000)
    timers = [(a, c) for kind, _, a, _, c, _ in rc.bench.trace() if kind.name == "RNR_NAK"]
    assert timers[0] == (rc.b.number, 9) and (rc.a.number, 5) in timers


def test_npf_drops_read_responses_on_a_missing_page_and_goes_back_after_the_resume():
    rc = connected(bench_with("npf"), local=False)
    rc.bench.log()
    rc.read(1, 3 * 4096)
    fault = rc.bench.fault()
    rc.bench.run_for(1_000_000)
    assert fault["type"] == FaultType.REQUESTER_READ and rc.bench.sent().count(12) == 1
    rc.local.map()
    rc.bench.resume(fault["token"])
    rc.bench.run()
    assert rc.bench.sent().count(12) == 2 and rc.bench.device.row.timeouts == 0
    assert rc.a.statuses() == [(1, 0)] and rc.local.data[: 3 * 4096] == rc.remote.data[: 3 * 4096]


def test_npf_merges_repeated_faults_of_a_class():
    rc = connected(bench_with("npf"), remote=False, MIN_RNR_TIMER=1)
    rc.write(1, 8)
    rc.bench.fault()
    rc.bench.run_for(1_000_000)
    row = rc.bench.device.row
    assert row.page_faults == 1 and row.page_faults_merged == row.rnr_naks_sent - 1 >= 3
    assert rc.bench.faults() == []


# IOTLB ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l2", [None, SecondLevelProfile(sets=4, ways=2)])
def test_what_firmware_does_not_keep_is_looked_up_each_time(tmp_path, l2):
    bench = bench_of(tmp_path, "def iotlb_fill(world, row, arg):\n    return 0\n",
                     iotlb=IotlbProfile(sets=4, ways=2), l2_iotlb=l2)  # fmt: skip
    rc = connected(bench)
    for number in range(3):
        rc.write(number, 8)
    bench.run()
    row = bench.device.row
    assert (int(row.iotlb_hits), int(row.iotlb_misses), int(row.iotlb_bypasses)) == (0, 6, 6)
    assert not bench.world.iotlb.mkey.any() and rc.remote.data[:8] == rc.local.data[:8]


def test_firmware_keeps_translations_of_one_region_only(tmp_path):
    bench = answering(tmp_path, iotlb_fill="arg == 2")
    rc = connected(bench)
    for number in range(3):
        rc.write(number, 8)
    bench.run()
    assert set(bench.world.iotlb.mkey.tolist()) == {0, 2}
    assert (int(bench.device.row.iotlb_hits), int(bench.device.row.iotlb_bypasses)) == (2, 3)


# Invalidation ---------------------------------------------------------------------------------------------------------


def warmed(tmp_path, how):
    """A pair whose regions are in the IOTLB; invalidations are done so."""
    rc = connected(answering(tmp_path, invalidation=how))
    rc.write(1, 8)
    rc.bench.run()
    return rc


def kept(rc):
    """Mkeys that have lines in the IOTLB."""
    return set(rc.bench.world.iotlb.mkey.tolist()) - {0}


def test_a_full_flush_takes_the_lines_of_all_regions(tmp_path):
    rc = warmed(tmp_path, "1")
    assert len(kept(rc)) == 2
    invalidate(rc, rc.remote)
    assert kept(rc) == set() and rc.bench.device.row.iotlb_full_flushes == 1
    assert violations(rc.bench) == set()


def test_a_selective_flush_takes_those_of_the_region(tmp_path):
    rc = warmed(tmp_path, "0")
    invalidate(rc, rc.remote)
    assert len(kept(rc)) == 1 and rc.bench.device.row.iotlb_full_flushes == 0


def test_the_sanitizer_catches_a_lazy_invalidation(tmp_path):
    rc = warmed(tmp_path, "2")
    invalidate(rc, rc.remote)
    assert len(kept(rc)) == 2 and rc.bench.device.row.lazy_invalidations == 1
    rc.write(2, 8)
    rc.bench.run()
    assert ViolationKind.INVALIDATED in violations(rc.bench)


def test_a_lazy_invalidation_is_harmless_if_the_next_is_full(tmp_path):
    source = (
        "from nicemu.firmware import nic_state\nmine = nic_state('zaps')\n\n\n"
        "def invalidation(world, row, arg):\n    mine(world, row).zaps += 1\n"
        "    return 2 if mine(world, row).zaps % 2 else 1\n"
    )
    rc = connected(bench_of(tmp_path, source))
    rc.write(1, 8)
    rc.bench.run()
    rc.bench.command(Command.ZAP_MTT, rc.local.index, 0, 1)
    invalidate(rc, rc.remote)
    assert kept(rc) == set()
    rc.write(2, 8, offset=4096)
    rc.bench.fault()
    assert violations(rc.bench) == set() and rc.a.statuses() == [(1, WcStatus.SUCCESS)]
