"""The shipped scenarios: each reaches its call sites in every era it is in, and nothing is violated."""

import json

import pytest

from nicemu.check.campaign import Task, merged, unexpected_reports, work
from nicemu.check.hunt import SLEEPLESS, Hunt, Target, hunt, named
from nicemu.check.report import as_data, hunt_line
from nicemu.check.scenarios import ALL
from nicemu.mm.discipline import DISCIPLINES, SITES

EVERYWHERE = [(name, era) for name, scenario in ALL.items() for era in scenario.eras()]
NOT_HUNTED = {
    "hugetlb_unshare": "the model does not share page tables",
    "collapse_pte_mapped": "the model has no huge pages of files",
    "retract": "the model has no huge pages of files",
    "uffd_move_huge": "no scenario moves a huge page: tests/mm/test_uffd_move.py does",
}


@pytest.mark.parametrize(("name", "era"), EVERYWHERE)
def test_it_reaches_its_call_sites_and_violates_nothing(name: str, era: str) -> None:
    found = hunt(Target(ALL[name], era), 4, 1)
    assert found.outcome is None, found.outcome.violations
    assert unexpected_reports(found) == []
    assert set(ALL[name].sites) <= {site for _, site in found.sites}


def test_every_call_site_has_a_scenario_or_a_reason() -> None:
    hunted = {site for scenario in ALL.values() for site in scenario.sites}
    assert hunted | NOT_HUNTED.keys() == SITES.keys()
    assert not hunted & NOT_HUNTED.keys()


def test_every_scenario_is_somewhere() -> None:
    assert all(scenario.eras() for scenario in ALL.values())
    assert all(name == scenario.name for name, scenario in ALL.items())


def test_another_process_finds_a_target_by_its_names() -> None:
    target = Target(ALL["fork"], "v6.12", ("fork_not_notified",))
    rebuild, arguments = target.__reduce__()
    assert rebuild is named and json.dumps(arguments) and rebuild(*arguments) == target


# Reports of locks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("era", "site", "lock"),
    [
        ("v3.6", "zap", "rcu_read_lock"),
        ("v3.6", "cow", "page_table_lock"),
        ("v3.6+srcu", "zap", ""),
        ("v3.6+srcu", "unmap_one", "page_table_lock"),
        ("v3.7-seed", "unmap_one", ""),
        ("v3.7-seed", "ksm_replace", "page_table_lock"),
        ("v3.7", "cow", ""),
    ],
)
def test_the_lock_under_which_a_site_notifies(era: str, site: str, lock: str) -> None:
    assert DISCIPLINES[era].lock_held(site) == lock


@pytest.mark.parametrize("era", ["v3.7", "v6.12"])
def test_since_3_7_no_site_notifies_under_a_lock(era: str) -> None:
    assert not any(DISCIPLINES[era].lock_held(site) for site in DISCIPLINES[era].sites)
    assert era not in SLEEPLESS


def test_a_sleep_that_the_table_does_not_give_is_unexpected() -> None:
    found = Hunt(Target(ALL["dontneed"], "v3.6"), 1, sites={("dontneed", "zap")})
    assert unexpected_reports(found) == ["dontneed does not report rcu_read_lock"]
    found.reports = {("dontneed", "rcu_read_lock", "umem_odp")}
    assert unexpected_reports(found) == []
    found.reports |= {("dontneed", "page_table_lock", "umem_odp")}
    assert unexpected_reports(found) == ["dontneed sleeps under page_table_lock"]
    assert "dontneed sleeps under page_table_lock" in hunt_line(found)
    found.sites = set()
    assert "call site zap is not reached" in unexpected_reports(found)


# Chunks ---------------------------------------------------------------------------------------------------------------


def test_chunks_together_are_the_whole_hunt() -> None:
    target = Target(ALL["two-ranges"], "v6.12", ("end_of_one_is_end_of_all",))
    whole = hunt(target, 60, 1)
    parts = [work(Task(target, first, 15, 1)) for first in (0, 15, 30, 45)]
    (joined,) = merged(parts).values()
    assert (joined.number, joined.outcome) == (whole.number, whole.outcome)
    assert joined.reports >= whole.reports and joined.sites >= whole.sites


def test_the_data_of_a_hunt_is_json() -> None:
    data = json.loads(json.dumps(as_data([hunt(Target(ALL["fork"], "v6.12"), 2, 1)], [])))
    assert data["mutants"] == []
    assert set(data["hunts"][0]) == {
        "scenario", "era", "schedules", "steps", "violation", "schedule", "reports", "sites", "unexpected",
    }  # fmt: skip
    assert data["hunts"][0]["violation"] is None and data["hunts"][0]["schedule"] == -1
