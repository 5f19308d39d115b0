"""The page-fault paper (Lesokhin et al., ASPLOS 2017) by the profiles and image `npf`: stages, percentiles, batching.

Fitted are the stages and percentiles of 4 KB and what a stage takes for each further page; the rest is predicted. The
full numbers of samples are those of configs/experiments/npf_latency.yaml; here are as many as a fast test may take.
"""

import numpy as np
import pytest

from nicemu.config import load_config
from nicemu.nic import spread
from nicemu.observe import stages as st
from nicemu.pyverbs.mem_alloc import madvise, munmap
from nicemu.tables import World
from nicemu.tables.world import Capacity
from tests.lab.gather import NPF, PAGE, gathering

US = 1000
MADV_PAGEOUT = 21
PERCENTILES = {1: (215, 250, 261), 1024: (352, 431, 440)}
STAGES = {1: (129.4, 5.6, 7.0, 78.4), 1024: (153.6, 106.0, 20.0, 77.5)}
INVALIDATION = {1: (2.8, 13.8, 0.5, 16.9), 1024: (4.2, 44.7, 12.1, 60.9)}
EXACT = {"nic": {"like": "npf", "spread": None}, "host": load_config(None, {"host": "npf"}).host.model_copy(
    update={"spread": None}), "firmware": "npf"}  # fmt: skip


def medians(taken):
    """Medians of lists of stages, us."""
    return np.median([list(stages.values()) for stages in taken], axis=0) / US


def totals(bench):
    return np.array([st.fault_total(fault) for fault in bench.faults]) / US


# Fitted ---------------------------------------------------------------------------------------------------------------


def test_latency_of_4_kb_messages_has_the_papers_percentiles():
    with gathering(1, **NPF) as bench:
        for _ in range(250):
            bench.cool()
            assert bench.send(1) == 0
        assert len(bench.faults) == 250 and all(map(st.complete, bench.faults))
        p50, p95 = np.percentile(totals(bench), [50, 95])
    assert p50 == pytest.approx(PERCENTILES[1][0], rel=0.05) and p95 == pytest.approx(PERCENTILES[1][1], rel=0.10)


@pytest.mark.parametrize("pages", [1, 1024])
def test_stages_are_the_papers(pages):
    with gathering(pages, **EXACT) as bench:
        for _ in range(2):
            bench.cool()
            assert bench.send(pages) == 0
        faults, (invalidation,) = bench.faults, bench.invalidations
    assert [fault["pages"] for fault in faults] == [pages, pages]
    assert medians(map(st.fault_stages, faults)).tolist() == pytest.approx(STAGES[pages], rel=0.10)
    *parts, total = INVALIDATION[pages]
    found = [ns / US for ns in st.invalidation_stages(invalidation).values()]
    assert found == pytest.approx(parts, rel=0.10)
    assert st.invalidation_total(invalidation) / US == pytest.approx(total, rel=0.10)


def test_latency_grows_with_the_pages_and_the_stages_sum_to_it():
    with gathering(1024, **EXACT) as bench:
        for pages in (1, 2, 3, 4, 8, 16, 64, 65, 256, 1024):
            bench.cool()
            assert bench.send(pages) == 0
        taken = totals(bench)
        assert all(sum(st.fault_stages(fault).values()) == st.fault_total(fault) for fault in bench.faults)
        invalidated = [st.invalidation_total(entry) for entry in bench.invalidations]
        for entry in bench.invalidations:
            assert sum(st.invalidation_stages(entry).values()) == st.invalidation_total(entry)
    assert len(taken) == 10 and (np.diff(taken) > 0).all() and (np.diff(invalidated) > 0).all()


# Predicted ------------------------------------------------------------------------------------------------------------


def latency(pages, device=1, command=1, kernel=1):
    """A fault of so many pages by the profiles' costs, us; what draws stretch times the factors."""
    nic, host = (getattr(load_config(None, {"nic": "npf", "host": "npf"}), side).costs for side in ("nic", "host"))
    ns = device * (nic.fault_detect_ns + (pages - 1) * nic.fault_detect_page_ns + nic.resume_ns)
    ns += command * (nic.mtt_update_ns + pages * nic.mtt_update_page_ns)
    ns += kernel * (host.driver_fault_ns + host.fault_ns + pages * host.driver_fault_page_ns)
    return (ns + 2 * (nic.doorbell_ns + nic.command_ns + nic.interrupt_ns + host.irq_ns)) / US


def draws(count, row, profile, stream):
    """So many factors by a profile's spread."""
    world = World(Capacity(nics=1))
    world.fabric[0].seed = 5
    spread.configure(world.spread[row], profile.spread)
    return np.array([int(spread.host_factor(world.address, row, stream, n)) for n in range(count)]) / spread.ONE


@pytest.mark.parametrize("pages", [1, 1024])
def test_percentiles_of_many_faults_are_the_papers(pages):
    config, count = load_config(None, {"nic": "npf", "host": "npf"}), 4000
    device, command = (draws(count, 1, config.nic, stream) for stream in (spread.FAULTS, spread.COMMANDS))
    found = latency(pages, device, command, draws(count, 2, config.host, spread.HOST_FAULTS))
    p50, p95, p99 = np.percentile(found, [50, 95, 99])
    assert p50 == pytest.approx(PERCENTILES[pages][0], rel=0.05)
    assert (p95, p99) == pytest.approx(PERCENTILES[pages][1:], rel=0.10)


def test_a_fault_of_the_lab_takes_what_the_costs_add_up_to():
    with gathering(16, **EXACT) as bench:
        bench.cool()
        bench.send(16)
        assert totals(bench).tolist() == [latency(16)]


def test_one_page_a_fault_takes_more_than_220_ms_for_4_mb():
    with gathering(1024, **NPF | {"firmware": "unbatched"}) as bench:
        bench.cool()
        before = bench.lab.world.now
        assert bench.send(1024) == 0
        taken = bench.lab.world.now - before
        assert [fault["pages"] for fault in bench.faults] == [1] * 1024
    assert 220 * US * US < taken < 260 * US * US


# Seeds ----------------------------------------------------------------------------------------------------------------


def history(seed):
    with gathering(4, **NPF, seed=seed) as bench:
        for _ in range(5):
            bench.cool()
            bench.send(4)
        return bench.faults, bench.invalidations


def test_one_seed_one_history_and_another_seed_another():
    assert history(3) == history(3)
    assert history(3) != history(4)


# Other images ---------------------------------------------------------------------------------------------------------


def walk(firmware, step, count=64):
    """Page faults of a walk of small WRITEs up a cold region."""
    with gathering(1024, firmware=firmware) as bench:
        for number in range(count):
            assert bench.write(number * step * PAGE) == 0
        return int(bench.lab.devices[0].row.page_faults)


@pytest.mark.parametrize(("step", "at_most"), [(1, 8), (3, 8), (4, 8)])
def test_prefetch_in_strides_saves_faults_of_a_walk_in_equal_steps(step, at_most):
    assert walk("prefetch_stride", step) <= at_most
    assert walk("default", step) == 64


def test_prefetch_asks_for_no_more_when_the_steps_differ():
    with gathering(1024, firmware="prefetch_stride") as bench:
        for page in (0, 1, 3, 6, 10, 15, 21):
            assert bench.write(page * PAGE) == 0
        assert [fault["pages"] for fault in bench.faults] == [1] * 7


def test_pages_ahead_that_cannot_be_had_cost_nothing_but_the_prefetch():
    with gathering(64, firmware="prefetch_stride") as bench:
        munmap(bench.cold + 4 * PAGE, 60 * PAGE)
        assert [bench.write(page * PAGE) for page in range(4)] == [0] * 4
        assert bench.write(4 * PAGE) != 0
        assert all(not fault["error"] for fault in bench.faults[:4])


@pytest.mark.parametrize("major", [False, True])
def test_np_rdma_faults_take_microseconds(major):
    config = {"nic": "np_rdma", "host": "np_rdma", "firmware": "np_rdma", "memory": "model"}
    with gathering(8, **config) as bench:
        bench.cool()
        if major:
            madvise(bench.cold, 8 * PAGE, MADV_PAGEOUT)
        before = bench.lab.world.now
        assert bench.write(0) == 0
        cold = bench.lab.world.now - before
        before = bench.lab.world.now
        assert bench.write(0) == 0
        warm = bench.lab.world.now - before
        row = bench.lab.devices[0].row
        assert (row.redirects, row.rnr_naks_sent) == (1, 0)
    low, high = (55, 65) if major else (3.5, 5.7)
    assert low < (cold - warm) / US < high


def test_a_fault_that_fails_fails_the_request_with_any_number_of_pages():
    with gathering(8, firmware="unbatched") as bench:
        munmap(bench.cold, 8 * PAGE)
        assert bench.write(0) != 0
        assert bench.faults[-1]["error"] == 1
