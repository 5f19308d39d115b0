"""Verdicts on pairs of results, and the explanations of what differs."""

import re
from pathlib import Path
from typing import Any

import pytest

from nicemu.cli.rxe_lab import compare, explanations
from nicemu.cli.rxe_lab.compare import OUTCOME, Row
from nicemu.cli.rxe_lab.explanations import Explanation
from nicemu.cli.rxe_lab.records import Observation, Record
from nicemu.config.errors import ConfigError


def record(status: str, *observations: Observation, test: str = "t", reason: str = "") -> Record:
    return Record(test, status, reason, observations=observations)


def judge(here: Record | None, there: Record | None) -> Row:
    [row] = compare.compare("verbs", {"t": here} if here else {}, {"t": there} if there else {})
    return row


@pytest.mark.parametrize(
    ("here", "there", "verdict"),
    [
        ("PASS", "PASS", "same"),
        ("SKIP", "SKIP", "same"),
        ("FAIL", "ERROR", "same"),
        ("PASS", "FAIL", "differs"),
        ("FAIL", "PASS", "differs"),
        ("PASS", "FLAKY", "differs"),
        ("PASS", "TIMEOUT", "differs"),
        ("PASS", "SKIP", "only here"),
        ("FAIL", "SKIP", "only here"),
        ("SKIP", "PASS", "only there"),
        ("PASS", "LOST", "lost"),
        ("LOST", "SKIP", "lost"),
    ],
)
def test_statuses_give_a_verdict(here: str, there: str, verdict: str) -> None:
    assert judge(record(here), record(there)).verdict == verdict


@pytest.mark.parametrize("missing", ["here", "there"])
def test_a_test_that_one_side_does_not_have_was_not_run(missing: str) -> None:
    row = judge(*((None, record("PASS")) if missing == "here" else (record("PASS"), None)))
    assert row.verdict == "not run" and row.unexplained == []


def test_the_reason_of_the_side_that_did_not_pass_goes_with_the_difference() -> None:
    [difference] = judge(record("PASS"), record("SKIP", reason="no XRC")).differences
    assert (difference.what, difference.here, difference.there) == (OUTCOME, "PASS", "SKIP")
    assert difference.reason == "no XRC"


def test_observations_with_other_values_differ_although_both_pass() -> None:
    here = record("PASS", Observation("status", "LOC_LEN_ERR"), Observation("bytes", [1, 2]))
    there = record(
        "PASS", Observation("status", "LOC_QP_OP_ERR", why="the specification"), Observation("bytes", [1, 2])
    )
    row = judge(here, there)
    assert row.verdict == "differs" and row.unexplained == []
    [difference] = row.differences
    assert (difference.here, difference.there, difference.why) == ("LOC_LEN_ERR", "LOC_QP_OP_ERR", "the specification")


def test_observations_of_one_name_are_compared_in_order() -> None:
    here = record("PASS", Observation("status", 1), Observation("status", 2))
    there = record("PASS", Observation("status", 1), Observation("status", 3))
    assert [each.what for each in judge(here, there).differences] == ["status (2)"]


def test_an_observation_that_only_one_side_made_differs() -> None:
    row = judge(record("PASS", Observation("event", 1)), record("PASS"))
    assert [(each.here, each.there) for each in row.differences] == [(1, "not observed")]


def test_after_a_failure_missing_observations_say_nothing() -> None:
    row = judge(record("PASS", Observation("a", 1), Observation("b", 1)), record("FAIL", Observation("a", 2)))
    assert [each.what for each in row.differences] == [OUTCOME, "a"]


def test_what_follows_from_a_difference_is_not_another_one() -> None:
    here = record("PASS", Observation("errno", "accepted"), Observation("status", "SUCCESS"))
    there = record("PASS", Observation("errno", "EINVAL", why="rxe checks earlier"))
    assert [each.what for each in judge(here, there).differences] == ["errno"]


def test_values_that_the_specification_both_allows_need_no_reason() -> None:
    spec = {"one of": ["EINVAL", "ENOMEM"]}
    here, there = (record("PASS", Observation("errno", value, spec)) for value in ("EINVAL", "ENOMEM"))
    assert judge(here, there).differences[0].why == compare.LEFT_OPEN


def test_a_difference_without_a_reason_is_unexplained() -> None:
    row = judge(record("PASS", Observation("a", 1, 1)), record("PASS", Observation("a", 2, 2)))
    assert len(row.unexplained) == 1


# -- explanations

ENTRY = {
    "name": "no XRC",
    "tests": "xrc",
    "explanation": "rxe has no XRC.",
    "right": "both",
    "source": "rxe_verbs.c",
    "modelled": True,
}


def read(tmp_path: Path, *entries: Any) -> list[Explanation]:
    import json

    path = tmp_path / "differences.yaml"
    path.write_text(json.dumps(list(entries)))  # JSON is YAML
    return explanations.read(path)


def row_of(there: str, test: str = "test_xrc", reason: str = "") -> list[Row]:
    records = {test: record("PASS", test=test)}, {test: record(there, test=test, reason=reason)}
    return compare.compare("suite", *records)


def test_an_explanation_fits_by_test(tmp_path: Path) -> None:
    known = read(tmp_path, ENTRY)
    [row] = compare.explain(row_of("SKIP"), known)
    assert row.unexplained == [] and row.differences[0].explanation == known[0]
    [row] = compare.explain(row_of("SKIP", "test_other"), known)
    assert len(row.unexplained) == 1


@pytest.mark.parametrize(
    ("more", "explained"),
    [
        ({"reason": "XRCD"}, True),
        ({"reason": "memory"}, False),
        ({"there": "SKIP"}, True),
        ({"there": ["FAIL", "ERROR"]}, False),
        ({"here": "SKIP"}, False),
        ({"what": "status"}, False),
        ({"tests": "^suite/"}, True),
        ({"tests": "^verbs/"}, False),
    ],
)
def test_each_field_of_an_explanation_narrows_it(tmp_path: Path, more: dict[str, Any], explained: bool) -> None:
    [row] = compare.explain(row_of("SKIP", reason="no XRCD"), read(tmp_path, {**ENTRY, **more}))
    assert (row.unexplained == []) is explained


def test_the_first_explanation_that_fits_is_taken(tmp_path: Path) -> None:
    known = read(tmp_path, ENTRY, {**ENTRY, "name": "later"})
    [row] = compare.explain(row_of("SKIP"), known)
    assert row.differences[0].explanation == known[0]
    assert [each.name for each in compare.stale([row], known)] == ["later"]


def test_an_explanation_of_what_comes_and_goes_is_never_stale(tmp_path: Path) -> None:
    known = read(tmp_path, ENTRY, {**ENTRY, "name": "at times", "sometimes": True})
    assert [each.name for each in compare.stale([], known)] == ["no XRC"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right": "me"}, "right: expected one of nicemu, rxe, both, neither, lab, given 'me'"),
        ({"tests": "("}, "tests: expected a regular expression, given '\\('"),
        ({"modelled": "perhaps"}, "modelled: expected true or false, given 'perhaps'"),
        ({"modelled": None}, "given no modelled"),
        ({"explanation": ""}, "given no explanation"),
        ({"colour": "red"}, "given an unknown 'colour'"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^differences\.yaml: entry 1 \(no XRC\)(: |.*){message}"):
        read(tmp_path, {**ENTRY, **change})


def test_names_are_unique(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected each name once, given 'no XRC' again"):
        read(tmp_path, ENTRY, ENTRY)


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text("name: x\n")
    with pytest.raises(ConfigError, match=r"^d\.yaml: expected a list of differences$"):
        explanations.read(path)


def test_the_shipped_list_can_be_read() -> None:
    assert all(isinstance(each.tests, re.Pattern) for each in explanations.read())
