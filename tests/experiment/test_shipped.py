"""The experiments that are shipped: each is sound, and its gates hold."""

from collections.abc import Iterator

import pytest

from nicemu.config import paths
from nicemu.experiment import conduct
from nicemu.experiment.measure import measure
from nicemu.experiment.run_one import run
from nicemu.uverbs import session

NAMES = paths.shipped_names(conduct.FOLDER, ".yaml")


@pytest.fixture(autouse=True)
def no_lab() -> Iterator[None]:
    session.reset()
    yield
    session.reset()


@pytest.mark.parametrize("name", NAMES)
def test_every_point_is_a_lab_and_the_first_one_yields_what_the_metrics_are_of(name, tmp_path):
    document = conduct.load(name)
    points, todo, shown = conduct.plan(document, conduct.Wish(tmp_path, quick=True))
    assert len(todo) == len(points)
    assert shown is not None, "a trace and a capture of one point are kept"
    result = run(todo[0])
    assert not result.error
    values = measure(document, points[0], [result]).values
    assert None not in values.values(), values


@pytest.mark.parametrize("name", NAMES)
def test_what_was_expected_has_a_source_and_what_came_out_is_said(name):
    experiment = conduct.load(name).experiment
    assert experiment.name == name
    assert experiment.sources and experiment.answer and experiment.plots and experiment.expect
    assert all(each.source for each in experiment.expect)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_only_recalled_is_never_a_gate(name):
    assert not [each for each in conduct.load(name).experiment.expect if each.gate and "[R]" in each.source]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_gates_hold(name, tmp_path):
    outcome = conduct.conduct(conduct.load(name), conduct.Wish(tmp_path, processes=2), lambda done, of: None)
    assert not outcome.failures
    assert [verdict.what for verdict in outcome.verdicts if verdict.failed] == []
    assert [verdict.what for verdict in outcome.verdicts if verdict.ok is None and verdict.expectation.gate] == []
