"""Counters as text, for Prometheus and for `nicemu top`: all from one snapshot of a lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nicemu.lab.counters import RXE_COUNTERS, snapshot
from nicemu.lab.sysfs import HW_COUNTERS
from nicemu.observe import top
from nicemu.observe.counters_text import flat, lines
from nicemu.observe.prometheus import TEXTS, exposition
from nicemu.observe.rnr_codes import RNR_CODE_NS, shortest_code
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, mmap
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.wr import SGE
from nicemu.uverbs import session
from tests.lab.worlds import ACCESS, ON_DEMAND, Ends
from tests.observe.exposition import parse

PAGE = 4096


@pytest.fixture(scope="module")
def counted() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Snapshots before and after a WRITE of 4 KiB of on-demand memory."""
    session.reset()
    ends = Ends()
    near, _ = ends.pair()
    address = mmap(length=PAGE, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
    region = MR(ends.pd, PAGE, ACCESS | ON_DEMAND, address=address)
    before = snapshot(session.current()) | {"wall_s": 10.0}
    ends.post(near, e.IBV_WR_RDMA_WRITE, SGE(address, PAGE, region.lkey))
    assert ends.statuses(ends.near) == [(1, "SUCCESS")]
    yield before, snapshot(session.current()) | {"wall_s": 12.0}
    region.close()
    ends.ctx.close()
    session.reset()


def test_a_snapshot_is_plain_json(counted):
    assert json.loads(json.dumps(counted[1])) == counted[1]


def test_counters_of_mrs_and_ports_have_the_kernels_names(counted):
    _, now = counted
    assert now["mr"]["3"] | {"device": ""} == {
        "device": "", "page_faults": 1, "page_invalidations": 0, "page_prefetch": 0, "page_faults_handled": 1,
        "page_invalidations_handled": 0,
    }  # fmt: skip
    assert set(now["port"]["nicemu0/1"]) == {*HW_COUNTERS, *RXE_COUNTERS}
    assert now["port"]["nicemu0/1"]["sent_pkts"] == now["nic"]["nicemu0"]["packets_sent"] == 5


def test_the_text_leaves_out_what_is_0(counted):
    text = list(lines(counted[1]))
    assert any(line.startswith("  mr 3       page_faults 1  page_faults_handled 1") for line in text)
    assert "  mr 1       nothing" in text
    assert text[-2].endswith("0 lock reports, 0 DMA violations")


def test_a_queue_pair_tells_its_state_and_what_it_retired(counted):
    near = next(iter(counted[1]["qp"].values()))
    assert (near["type"], near["state"], near["send_completed"], near["waits_for"]) == ("RC", "RTS", 1, "")


def test_prometheus_text_is_well_formed_and_labelled(counted):
    families = parse(exposition(counted[1]))
    faults = families["nicemu_mr_page_faults_total"]
    assert faults.samples[("device", "nicemu0"), ("mr", "3")] == 1
    assert families["nicemu_port_sent_pkts_total"].samples[("device", "nicemu0"), ("port", "1")] == 5
    assert families["nicemu_run_info"].samples == {(("seed", "1"), ("discipline", "v6.12"), ("firmware", "default")): 1}
    assert families["nicemu_host_frames_peak"].type == "gauge"


def test_counters_of_one_name_in_two_groups_have_texts_of_their_own(counted):
    lines = exposition(counted[1]).splitlines()
    assert "# HELP nicemu_mr_page_faults_total Pages of the MR that were faulted in (rdma stat mr)." in lines
    assert any(line.startswith("# HELP nicemu_nic_page_faults_total Page-fault events that the NIC ") for line in lines)


def test_every_text_is_of_a_counter_that_there_is(counted):
    names = {(kind, name) for kind in ("mr", "nic", "port") for row in counted[1][kind].values() for name in row}
    assert set(TEXTS) <= names


def test_prometheus_labels_are_escaped(counted):
    strange = 'C:\\images\\"my\nimage".py'
    families = parse(exposition(counted[1] | {"firmware": strange}))
    (labels,) = families["nicemu_run_info"].samples
    assert dict(labels)["firmware"] == strange


def test_prometheus_client_reads_it_too(counted):
    parser = pytest.importorskip("prometheus_client.parser")
    names = {family.name for family in parser.text_string_to_metric_families(exposition(counted[1]))}
    assert {"nicemu_mr_page_faults", "nicemu_run_info"} <= names


def test_top_shows_rates_by_virtual_time(counted):
    before, now = counted
    nic, qp, mr = top.tables(before, now)
    seconds = (now["virtual_ns"] - before["virtual_ns"]) / 1e9
    assert nic.rows[0][0] == "nicemu0"
    assert float(nic.rows[0][2]) == pytest.approx(4096 * 8 / seconds / 1e9, abs=0.005)
    assert qp.rows[0][1:4] == ("RTS", "+1", "0")
    assert (mr.rows[0][0], mr.rows[0][2]) == ("3", "+1")  # the busiest first
    events = now["device_events"] - before["device_events"]
    assert f"{events / 2:,.0f} events/s" in top.headline(before, now)


def test_flat_names_are_those_that_diff_compares(counted):
    names = flat(counted[1])
    assert names["mr.3.page_faults"] == 1
    assert names["nic.nicemu0.packets_sent"] == 5
    assert all(isinstance(value, int) for value in names.values())


def test_rnr_codes_are_those_of_the_device():
    from nicemu.nic.completer import rnr_timer_ns

    plain = getattr(rnr_timer_ns, "py_func", rnr_timer_ns)
    assert [int(plain(code)) for code in range(32)] == list(RNR_CODE_NS)


@pytest.mark.parametrize(("ns", "code"), [(0, 1), (220_000, 9), (240_000, 9), (240_001, 10), (10**10, 0)])
def test_the_shortest_rnr_code_that_is_long_enough(ns, code):
    assert shortest_code(ns) == code
