"""Expectations against measured points."""

import pytest

from nicemu.experiment.judge import judge
from nicemu.experiment.measure import Measured
from nicemu.experiment.sweep import points
from tests.experiment.files import SENDS, document


def verdicts(folder, expectation, values, **changes):
    """Of one expectation, with the metric `took` having these values at the points in order."""
    text = document(folder, SENDS, expect=[expectation], **changes)
    measured = [Measured(point, (), {"took": value, "sent": 1.0}, {"took": 5, "sent": 1})
                for point, value in zip(points(text), values, strict=False) if value != "not run"]  # fmt: skip
    return judge(text, measured)


def ok(*arguments, **changes):
    return [verdict.ok for verdict in verdicts(*arguments, **changes)]


@pytest.mark.parametrize(("value", "holds"), [(100, True), (105, True), (95, True), (105.1, False), (94.9, False)])
def test_a_value_holds_within_its_tolerance(tmp_path, value, holds):
    expectation = {"metric": "took", "where": {"size": 64}, "value": 100.0, "tolerance": 0.05}
    assert ok(tmp_path, expectation, [value, 0, 0]) == [holds]


def test_the_deviation_is_a_share_of_what_was_expected(tmp_path):
    expectation = {"metric": "took", "where": {"size": 64}, "value": 200.0, "tolerance": 0.05}
    (verdict,) = verdicts(tmp_path, expectation, [205, 0, 0])
    assert (verdict.model, verdict.expected, verdict.deviation) == ("205 us", "200 us within 5 %", "+2.5 %")
    assert verdict.n == 5


def test_a_value_is_judged_at_every_point_that_it_is_about(tmp_path):
    expectation = {"metric": "took", "value": 100.0, "tolerance": 0.05}
    assert ok(tmp_path, expectation, [100, 1, 100]) == [True, False, True]


def test_bounds_are_judged_together_and_name_the_first_point_that_is_out(tmp_path):
    expectation = {"metric": "took", "min": 1.0, "max": 3.0}
    assert ok(tmp_path, expectation, [1, 2, 3]) == [True]
    (verdict,) = verdicts(tmp_path, expectation, [1, 2, 3.5])
    assert not verdict.ok
    assert verdict.what == "time of a SEND at size=4096"


@pytest.mark.parametrize(
    ("relation", "values", "holds"),
    [("increasing", [1, 2, 3], True), ("increasing", [1, 1, 3], False), ("never_decreasing", [1, 1, 3], True),
     ("decreasing", [3, 2, 1], True), ("never_increasing", [3, 3, 4], False)],
)  # fmt: skip
def test_a_relation_is_between_neighbours_on_an_axis(tmp_path, relation, values, holds):
    assert ok(tmp_path, {"metric": "took", "relation": relation, "along": "size"}, values) == [holds]


def test_a_relation_is_judged_for_each_value_of_the_other_axes(tmp_path):
    sweep = {"lab.nics": [1, 2], "workload.size": [1, 2]}
    expectation = {"metric": "took", "relation": "increasing", "along": "size"}
    found = verdicts(tmp_path, expectation, [1, 2, 2, 1], sweep=sweep)
    assert [(verdict.what, verdict.ok) for verdict in found] == [
        ("time of a SEND at nics=1", True), ("time of a SEND at nics=2", False)]  # fmt: skip


def test_axes_that_go_together_are_one_in_a_relation(tmp_path):
    sweep = {"zip": {"workload.size": [1, 2, 3], "workload.iterations": [9, 8, 7]}}
    assert ok(tmp_path, {"metric": "took", "relation": "increasing", "along": "size"}, [1, 2, 3], sweep=sweep) == [True]


def test_a_ratio_is_to_the_same_point_but_for_the_axes_that_are_named(tmp_path):
    expectation = {"metric": "took", "where": {"size": 4096}, "ratio_to": {"where": {"size": 64}}, "min": 2.0}
    (verdict,) = verdicts(tmp_path, expectation, [10, 15, 25])
    assert (verdict.ok, verdict.model, verdict.expected) == (True, "2.5", ">= 2")


def test_less_than_is_strict_and_may_be_another_metric(tmp_path):
    at = {"metric": "took", "where": {"size": 64}}
    assert ok(tmp_path, at | {"less_than": {"where": {"size": 1024}}}, [1, 2, 3]) == [True]
    assert ok(tmp_path, at | {"less_than": {"where": {"size": 1024}}}, [2, 2, 3]) == [False]
    assert ok(tmp_path, at | {"less_than": {"metric": "sent"}}, [0.5, 2, 3]) == [True]


def test_a_point_that_was_not_run_is_not_judged(tmp_path):
    expectation = {"metric": "took", "where": {"size": 4096}, "value": 1.0, "tolerance": 0.1}
    assert ok(tmp_path, expectation, [1, 1, "not run"]) == [None]
    ratio = {"metric": "took", "where": {"size": 64}, "ratio_to": {"where": {"size": 4096}}, "min": 2.0}
    assert ok(tmp_path, ratio, [1, 1, "not run"]) == [None]


def test_a_gate_that_observed_nothing_fails(tmp_path):
    (verdict,) = verdicts(tmp_path, {"metric": "took", "where": {"size": 64}, "max": 1.0}, [None, 1, 1])
    assert verdict.failed


def test_a_value_without_tolerance_is_shown_and_not_judged(tmp_path):
    expectation = {"metric": "took", "where": {"size": 64}, "value": 2.0, "gate": False}
    (verdict,) = verdicts(tmp_path, expectation, [3, 1, 1])
    assert (verdict.ok, verdict.deviation) == (None, "+50.0 %")


def test_what_is_not_gated_never_fails(tmp_path):
    expectation = {"metric": "took", "where": {"size": 64}, "max": 1.0, "gate": False}
    (verdict,) = verdicts(tmp_path, expectation, [9, 1, 1])
    assert not verdict.ok
    assert not verdict.failed
