"""The whole comparison: what makes it fail, what it prints, the JSON file, and the tables of docs/rxe.md."""

import json
from pathlib import Path

import pytest

from nicemu.cli.conformance.stored import check
from nicemu.cli.rxe_lab import differential, explanations, page, stored_run, table
from nicemu.cli.rxe_lab.differential import Differential
from nicemu.cli.rxe_lab.explanations import Explanation
from nicemu.cli.rxe_lab.records import JobResult, Observation, Record
from nicemu.config.errors import ConfigError

ENTRY = {"name": "no XRC", "tests": "xrc", "explanation": "rxe has no XRC.", "right": "both", "source": "rxe_verbs.c"}
LENGTH = Observation("status", "LOC_LEN_ERR", "LOC_LEN_ERR")
OTHER = Observation("status", "LOC_QP_OP_ERR", "LOC_LEN_ERR", "rxe is wrong")


def known(tmp_path: Path, *entries: dict[str, object]) -> list[Explanation]:
    path = tmp_path / "differences.yaml"
    path.write_text(json.dumps(list(entries)))
    return explanations.read(path)


def job(name: str, *records: Record) -> JobResult:
    return JobResult(name, {record.test: record for record in records}, {"kernel": "7.3.4"}, 1.5)


def passes(count: int) -> list[Record]:
    return [Record(f"test_{number}", "PASS") for number in range(count)]


def build(*given: JobResult, explained: list[Explanation] | None = None, whole: bool = False) -> Differential:
    return differential.build({each.name: each for each in given}, explained or [], whole)


def verbs(here: Record, there: Record, model: Record | None = None, **options: object) -> Differential:
    given = [job("verbs/nicemu", here), job("verbs/rxe", there)]
    return build(*given, *([job("verbs/nicemu as rxe", model)] if model else []), **options)  # type: ignore[arg-type]


def test_the_same_on_both_is_no_problem() -> None:
    found = verbs(Record("t", "PASS"), Record("t", "PASS"))
    assert differential.problems(found) == []
    assert list(table.lines(found))[-1] == "1 tests, 1 same; 0 differences, 0 unexplained"


def test_a_failure_on_nicemu_is_a_problem_even_if_rxe_fails_too() -> None:
    found = verbs(Record("t", "FAIL"), Record("t", "FAIL"))
    assert differential.problems(found) == ["verbs/nicemu: 1 failed"]


def test_a_lost_test_is_a_problem() -> None:
    there = JobResult("verbs/rxe", trouble="the guest died")
    there.lose(["t"])
    found = build(job("verbs/nicemu", Record("t", "PASS")), there)
    assert differential.problems(found) == ["verbs/rxe: the guest died", "verbs/rxe: 1 tests lost"]
    assert "lost (1)" in "\n".join(table.lines(found))


def test_an_unexplained_difference_is_a_problem_and_is_shown() -> None:
    found = verbs(Record("t", "PASS"), Record("t", "FAIL", "AssertionError"))
    assert differential.problems(found) == ["unexplained: 1 of nicemu PASS, rxe FAIL (AssertionError): verbs/t"]
    assert "NOT EXPLAINED" in "\n".join(table.lines(found))


def test_what_the_test_explains_is_no_problem() -> None:
    found = verbs(Record("t", "PASS", observations=(LENGTH,)), Record("t", "PASS", observations=(OTHER,)))
    assert differential.problems(found) == []
    text = "\n".join(table.lines(found))
    assert "1 of status: nicemu LOC_LEN_ERR, rxe LOC_QP_OP_ERR" in text and "rxe is wrong" in text


@pytest.mark.parametrize(("count", "wrong"), [(109, []), (108, ["suite/rxe: expected at least 109 passes, given 108"])])
def test_rxe_has_to_pass_what_it_did(count: int, wrong: list[str]) -> None:
    records = passes(count)
    assert differential.problems(build(job("suite/nicemu", *records), job("suite/rxe", *records), whole=True)) == wrong
    assert differential.problems(build(job("suite/nicemu", *records), job("suite/rxe", *records), whole=False)) == []


def test_a_stale_explanation_is_said_when_everything_was_run(tmp_path: Path) -> None:
    explained = known(tmp_path, {**ENTRY, "modelled": True})
    same = Record("t", "PASS")
    found = verbs(same, same, explained=explained, whole=True)
    assert "stale: the explanation no XRC fits no difference any more" in list(table.lines(found))
    assert verbs(same, same, explained=explained, whole=False).stale == []


@pytest.mark.parametrize(
    ("model", "entry_modelled", "wrong"),
    [("SKIP", True, 0), ("PASS", False, 0), ("PASS", True, 1)],
    ids=["modelled", "listed as not modelled", "said to be modelled and is not"],
)
def test_with_the_profile_only_what_is_listed_may_be_left(
    tmp_path: Path, model: str, entry_modelled: bool, wrong: int
) -> None:
    explained = known(tmp_path, {**ENTRY, "modelled": entry_modelled})
    found = verbs(Record("xrc", "PASS"), Record("xrc", "SKIP"), Record("xrc", model), explained=explained)
    lines = differential.problems(found)
    assert len(lines) == wrong and all(line.startswith("not modelled, and not listed so: ") for line in lines)
    left = 0 if model == "SKIP" else 1
    assert f"with the profile rxe: {left} of 1 differences are left" in "\n".join(table.lines(found))


def test_what_is_only_about_the_profile_does_not_explain_rxe(tmp_path: Path) -> None:
    explained = known(tmp_path, {**ENTRY, "modelled": False, "left": True})
    records = Record("xrc", "PASS"), Record("xrc", "FAIL"), Record("xrc", "PASS")
    problems = differential.problems(verbs(*records, explained=explained))
    assert problems == ["unexplained: 1 of nicemu PASS, rxe FAIL: verbs/xrc"]


def test_what_is_listed_as_not_modelled_and_is_is_said(tmp_path: Path) -> None:
    explained = known(tmp_path, {**ENTRY, "modelled": False})
    records = Record("xrc", "PASS"), Record("xrc", "SKIP"), Record("xrc", "SKIP")
    lines = list(table.lines(verbs(*records, explained=explained, whole=True)))
    assert "stale: no XRC is listed as not modelled, and the profile rxe leaves no difference of it" in lines


def test_a_difference_that_a_test_explains_has_to_be_modelled_or_listed(tmp_path: Path) -> None:
    records = (Record("t", "PASS", observations=(each,)) for each in (LENGTH, OTHER, LENGTH))
    assert len(differential.problems(verbs(*records))) == 1
    explained = known(tmp_path, {**ENTRY, "tests": "^verbs/t$", "what": "status", "modelled": False})
    records = (Record("t", "PASS", observations=(each,)) for each in (LENGTH, OTHER, LENGTH))
    assert differential.problems(verbs(*records, explained=explained)) == []


# -- the file


def test_a_stored_run_gives_the_same_results_again(tmp_path: Path) -> None:
    there = Record("t", "FLAKY", "timeout", 1.0, "trace", ("ERROR", "PASS"), (OTHER,))
    found = verbs(Record("t", "PASS", observations=(LENGTH,)), there)
    found.versions = {"nicemu": "1", "guest": {"kernel": "7.3.4"}}
    stored_run.write(tmp_path / "run.json", found)
    jobs, versions = stored_run.read(str(tmp_path / "run.json"))
    assert list(jobs) == ["verbs/rxe"] and versions == found.versions
    assert jobs["verbs/rxe"].records == {"t": there} and jobs["verbs/rxe"].facts == {"kernel": "7.3.4"}


def test_the_file_has_rows_with_their_explanations(tmp_path: Path) -> None:
    explained = known(tmp_path, {**ENTRY, "modelled": True})
    found = verbs(Record("xrc", "PASS"), Record("xrc", "SKIP"), Record("xrc", "PASS"), explained=explained)
    stored_run.write(tmp_path / "run.json", found)
    document = json.loads((tmp_path / "run.json").read_text())
    [row] = document["rows"]
    assert row["verdict"] == "only here" and row["differences"][0]["explanation"]["name"] == "no XRC"
    assert [row["test"] for row in document["left_with_profile_rxe"]] == ["xrc"]
    assert document["problems"] == differential.problems(found)


def test_the_reference_is_a_line_a_test_and_gives_the_same_comparison(tmp_path: Path) -> None:
    found = verbs(Record("t", "PASS", observations=(LENGTH,)), Record("t", "PASS", "", 1.0, "", (), (OTHER,)))
    found.versions = {"guest": {"kernel_series": "7.3"}}
    stored_run.write_reference(tmp_path, found)
    jobs, _ = stored_run.read(str(tmp_path / "rxe-7.3.json"))
    assert (tmp_path / "rxe-7.3.json").read_text().count("\n") == 5
    again = build(job("verbs/nicemu", Record("t", "PASS", observations=(LENGTH,))), *jobs.values())
    [difference] = again.rows[0].differences
    assert (difference.there, difference.why) == (OTHER.observed, "")
    here = Record("t", "PASS", observations=(Observation("status", "LOC_LEN_ERR", "LOC_LEN_ERR", "rxe is wrong"),))
    assert differential.problems(build(job("verbs/nicemu", here), *jobs.values())) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"jobs": [], "versions": {}}', '{"jobs": [{"name": "x"}], "versions": {}}', "{}"]
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=r"^--against: expected "):
        stored_run.read(str(tmp_path / "run.json"))


def test_a_file_that_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(ConfigError, match=r"^--against: expected a file or .*, given 'nothing'"):
        stored_run.read("nothing")


def test_a_file_that_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file that can be written"):
        check(tmp_path / "none" / "run.json")


# -- the page


def page_of(tmp_path: Path, content: str) -> Path:
    (tmp_path / "docs").mkdir()
    path = tmp_path / "docs" / "rxe.md"
    path.write_text(content)
    return path


def test_the_tables_are_written_between_the_marks_and_the_rest_stays(tmp_path: Path) -> None:
    path = page_of(tmp_path, f"# rxe\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")
    explained = known(tmp_path, {**ENTRY, "modelled": True})
    found = verbs(Record("xrc", "PASS"), Record("xrc", "SKIP"), Record("xrc", "SKIP"), explained=explained)
    found.versions = {"nicemu": "1.0", "guest": {"kernel": "7.3.4"}, "host": {"python": "3.13"}}
    page.write(tmp_path, found)
    page.write(tmp_path, found)
    text = path.read_text()
    assert text.startswith("# rxe\n") and text.endswith("\n\nafter\n") and "old" not in text
    assert "| guest: kernel | 7.3.4 |" in text
    assert "| no XRC | PASS | SKIP | both | rxe has no XRC. | rxe_verbs.c | as rxe | `xrc` |" in text
    assert "0 differences are left" in text


def test_what_tests_explain_is_a_row_each_and_bars_are_escaped(tmp_path: Path) -> None:
    other = Observation("status | more", "b", "a", "because")
    found = verbs(
        Record("t", "PASS", observations=(Observation("status | more", "a"),)),
        Record("t", "PASS", observations=(other,)),
        Record("t", "PASS", observations=(Observation("status | more", "a"),)),
    )
    text = page.text(found)
    assert "| status \\| more | a | b | because | differs | `t` |" in text
    assert "**not listed**" in text and "### Problems of this run" in text


def test_a_row_of_many_tests_names_a_few(tmp_path: Path) -> None:
    names = [f"t[{number}]" for number in range(200)]
    observed, other = Observation("status", "a"), Observation("status", "b", "a", "because")
    here = {name: Record(name, "PASS", observations=(observed,)) for name in names}
    there = {name: Record(name, "PASS", observations=(other,)) for name in names}
    jobs = {name: JobResult(name, records=records) for name, records in (("verbs/nicemu", here), ("verbs/rxe", there))}
    text = page.text(differential.build(jobs, [], False))
    assert "| not run | `t[0]`, `t[1]`, `t[2]` and 197 more |" in text


@pytest.mark.parametrize("content", ["# rxe\n", page.BEGIN, f"{page.END}{page.BEGIN}"])
def test_a_page_without_the_marks_is_refused(tmp_path: Path, content: str) -> None:
    page_of(tmp_path, content)
    with pytest.raises(ConfigError, match="--docs: expected the lines"):
        page.check(tmp_path)


def test_without_a_checkout_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--docs: expected .* in a checkout"):
        page.check(tmp_path)
