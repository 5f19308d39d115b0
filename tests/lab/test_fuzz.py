"""`nicemu fuzz`: each oracle catches a bug planted for it, a failure replays from its number, one seed is one history.

A planted bug is a device that holds something other than what its driver asked for; a run must fail, and name the
first input after which it shows.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nicemu.abi.verbs import Access
from nicemu.lab.fuzz import campaign
from nicemu.lab.fuzz.bench import Bench
from nicemu.lab.fuzz.report import failure_lines, summary_lines
from nicemu.lab.fuzz.tables import STATUSES_AT, Outcome

ROOT = Path(__file__).parents[2]
ENOUGH = 30_000
"""Inputs within which a planted bug must be found."""


def mkey(bench: Bench, name: str) -> Any:
    """The device's row of a region of NIC 1."""
    region = next(region for region in bench.regions if region.name == name and region.nic == 1)
    return bench.world.mkey[int(bench.devices[0].row.mkey_base) + region.index]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Bench], None]], None]:
    """Make every episode start with a bug."""

    def planted(bug: Callable[[Bench], None]) -> None:
        class Buggy(campaign.Episode):
            def __init__(self, *args: object) -> None:
                super().__init__(*args)  # type: ignore[arg-type]
                bug(self.bench)

        monkeypatch.setattr(campaign, "Episode", Buggy)

    return planted


def widen(bench: Bench) -> None:
    """The range check of one region lets 1000 bytes too many through, on both sides."""
    row = mkey(bench, "odd")
    row["base"] -= 1000
    row["first"] -= 1000
    row["length"] += 2000


def other_domain(bench: Bench) -> None:
    """A region of another PD passes for one of ours."""
    mkey(bench, "foreign").pd = 1


def writable(bench: Bench) -> None:
    """A read-only region has every right."""
    mkey(bench, "read").access = int(Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ)


@pytest.mark.parametrize("bug", [widen, other_domain, writable], ids=lambda bug: bug.__name__)
@pytest.mark.parametrize("mode", ["wire", "wqe"])
def test_a_write_that_no_key_allows_is_found(plant, mode, bug):
    plant(bug)
    failure = campaign.fuzz(mode, ENOUGH, seed=1).failure
    assert failure is not None and failure.what.startswith("canary: NIC 1 region"), failure


@pytest.mark.parametrize("mutant", ["zap_without_flush", "zap_without_drain"])
@pytest.mark.parametrize("mode", ["wire", "wqe"])
def test_an_invalidation_that_does_not_wait_is_found(plant, mode, mutant):
    def bug(bench: Bench) -> None:
        for device in bench.devices:
            device.row[mutant] = 1

    plant(bug)
    failure = campaign.fuzz(mode, 10 * ENOUGH, seed=1).failure
    assert failure is not None and failure.what.startswith("DMA sanitizer: INVALIDATED"), failure


def test_an_honest_pair_that_stands_still_is_found(plant):
    def bug(bench: Bench) -> None:
        bench.world.qp[int(bench.tables.healthy[0].qp)].sq_suspended = 1

    plant(bug)
    failure = campaign.fuzz("wire", ENOUGH, seed=1).failure
    assert failure is not None and "healthy late" in failure.what


def test_a_packet_that_is_never_given_back_is_found(plant):
    def bug(bench: Bench) -> None:
        bench.world.control[0].packet_next += 1

    plant(bug)
    failure = campaign.fuzz("wire", ENOUGH, seed=1).failure
    assert failure is not None and "leak (1)" in failure.what


def test_the_number_of_a_failure_replays_it(plant):
    """So many inputs fail, one less does not."""
    plant(widen)
    found = campaign.fuzz("wire", ENOUGH, seed=3, first=campaign.EPISODE).failure
    assert found is not None and found.first == campaign.EPISODE < found.number
    again = campaign.fuzz("wire", found.number - found.first, seed=3, first=found.first).failure
    assert again == found
    assert campaign.fuzz("wire", found.number - found.first - 1, seed=3, first=found.first).failure is None


def test_packets_reach_every_outcome_and_wqes_most_statuses():
    wire = campaign.fuzz("wire", ENOUGH, seed=1)
    cells = wire.counts[:STATUSES_AT].reshape(-1, len(Outcome)).sum(axis=0)
    assert wire.failure is None and [Outcome(i).name for i, n in enumerate(cells) if n == 0] == []
    wqe = campaign.fuzz("wqe", ENOUGH, seed=1)
    missing = [n for n in (0, 1, 2, 4, 5, 6, 9, 10, 11, 12, 13) if wqe.counts[STATUSES_AT + n] == 0]
    assert wqe.failure is None and missing == []


def test_a_run_prints_rate_and_seed_and_a_failure_how_to_replay_it(plant):
    text = "\n".join(summary_lines(campaign.fuzz("wire", 500, seed=7)))
    assert "500 packets in" in text and "/s, seed 7:" in text and "RDMA" not in text and "WRITE_ONLY" in text
    plant(widen)
    result = campaign.fuzz("wire", ENOUGH, seed=7)
    lines = list(failure_lines(result))
    assert f"seed 7, number {result.failure.number}: canary" in lines[0]
    assert lines[-1].strip() == f"replay: nicemu fuzz wire --seed 7 --first 0 --n {result.failure.number}"


SHORT = "import json; from nicemu.lab.fuzz.campaign import fuzz; print(json.dumps([fuzz({!r}, {}, 5).history]))"


@pytest.mark.nojit
@pytest.mark.parametrize(("mode", "count"), [("wire", 600), ("wqe", 120)])
def test_one_seed_is_one_history_with_and_without_jit(mode, count):
    histories = []
    for disabled in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", SHORT.format(mode, count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"NUMBA_DISABLE_JIT": disabled},
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        histories += json.loads(done.stdout)
    assert len(histories[0]) == 16 and histories[0] == histories[1]


def test_another_seed_is_another_history():
    assert campaign.fuzz("wire", 200, 1).history != campaign.fuzz("wire", 200, 2).history
