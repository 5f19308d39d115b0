"""Deliberate bugs: each has a place where it shows, some are shown here, and what was shown is made short."""

import subprocess
import sys

import pytest

from nicemu.check.campaign import BUDGET, Caught
from nicemu.check.hunt import Hunt, hunt, run
from nicemu.check.mutants import WHERE, target_of
from nicemu.check.policy import Follow
from nicemu.check.report import mutant_line, mutant_summary, violation_lines
from nicemu.check.scenarios import ALL
from nicemu.check.shrink import deviations, shrink
from nicemu.config.mutants import MUTANTS, of_layer
from nicemu.lab.plant import SITES, planted
from nicemu.mm import discipline

QUICK = {
    "skip_device_wait": "freed",
    "mremap_not_notified": "dma",
    "cow_under_lock": "lock",
    "no_resume_on_error": "livelock",
    "end_of_one_is_end_of_all": "memory",
}
"""Mutants that show within a few schedules, and as what."""


def test_every_mutant_has_a_place_to_show() -> None:
    assert list(WHERE) == list(MUTANTS)


@pytest.mark.parametrize("name", WHERE)
def test_the_place_of_a_mutant_exists(name: str) -> None:
    target = target_of(name)
    assert target.era in target.scenario.eras()
    assert target.mutants == (name,)


def test_an_unknown_mutant_is_refused() -> None:
    with pytest.raises(ValueError, match="mutant 'cat' is unknown: one of zap_without_flush"):
        target_of("cat")
    with pytest.raises(ValueError, match="mutant 'cat' is unknown"):
        of_layer("mm", ("cat",))


def test_mutants_of_the_table_change_one_site_each_and_only_that() -> None:
    assert set(SITES) == set(of_layer("sites", tuple(MUTANTS)))
    for name, (site, form) in SITES.items():
        era = discipline.DISCIPLINES[target_of(name).era]
        changed = planted(era, (name,))
        assert era.sites[site] != form == changed.sites[site]
        assert all(changed.sites[other] == era.sites[other] for other in era.sites if other != site)
    assert planted(era, ()) is era


@pytest.fixture(scope="module")
def caught() -> dict[str, Hunt]:
    return {name: hunt(target_of(name), 60, 1) for name in QUICK}


@pytest.mark.parametrize(("name", "kind"), QUICK.items())
def test_it_is_caught(caught: dict[str, Hunt], name: str, kind: str) -> None:
    found = caught[name]
    assert found.outcome is not None and found.outcome.violations[0].kind == kind
    assert f"caught: {kind} in schedule {found.number}" in mutant_line(Caught(name, found))


@pytest.mark.parametrize("name", QUICK)
def test_its_schedule_alone_shows_it_again(caught: dict[str, Hunt], name: str) -> None:
    found = caught[name]
    again = hunt(target_of(name), 1, 1, first=found.number)
    assert again.outcome == found.outcome and again.number == found.number


def test_a_shrunk_schedule_violates_in_the_same_way_and_is_no_longer(caught: dict[str, Hunt]) -> None:
    found = caught["end_of_one_is_end_of_all"]
    assert found.outcome is not None
    some, outcome = shrink(found.target, found.outcome)
    assert 0 < len(some) <= len(deviations(found.outcome))
    assert some.items() <= deviations(found.outcome).items()
    again = run(found.target, Follow(some))
    assert again.answers == outcome.answers and again.violations[0].kind == found.outcome.violations[0].kind


def test_a_long_random_schedule_becomes_shorter() -> None:
    target, number = target_of("drop_mutex_before_mtt_write"), 79
    found = hunt(target, 30, 1, first=number - 5)
    assert found.outcome is not None
    some, outcome = shrink(target, found.outcome)
    assert outcome.violations[0].kind == found.outcome.violations[0].kind
    assert len(some) < len(deviations(found.outcome)) and outcome.steps < 2 * found.outcome.steps


def test_the_command_that_a_violation_prints_shows_it_again(caught: dict[str, Hunt]) -> None:
    lines = list(violation_lines(caught["end_of_one_is_end_of_all"]))
    assert lines[-1].startswith(
        "  again: nicemu check two-ranges --discipline v6.12 --mutant end_of_one_is_end_of_all "
    )
    command = lines[-1].split()[2:]
    done = subprocess.run([sys.executable, "-m", "nicemu", *command], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == lines


def test_without_the_mutant_the_same_schedules_violate_nothing() -> None:
    for name in QUICK:
        scenario, era = WHERE[name]
        clean = target_of(name).__class__(ALL[scenario], era)
        assert hunt(clean, 20, 1).outcome is None


def test_the_summary_counts_what_was_caught_and_names_what_escapes() -> None:
    target = target_of("cow_under_lock")
    missed, shown = Hunt(target, 1, 5), Hunt(target, 1, 5, number=3)
    assert mutant_summary([Caught("a", missed), Caught("b", shown)]) == ["2 mutants, 1 caught"]
    assert mutant_summary([Caught("a", shown, missed), Caught("b", shown, shown)])[-1].endswith("schedules: a")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in QUICK])
def test_every_other_mutant_is_caught(name: str) -> None:
    assert hunt(target_of(name), BUDGET, 1).outcome is not None
