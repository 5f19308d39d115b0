"""Numbers of readings, results as JSON, gates, comparison with stored ratios."""

import json
from pathlib import Path

import pytest

from nicemu.bench import gates, rows, table
from nicemu.bench.against import fall
from nicemu.bench.measure import Against, Reading, Row
from nicemu.bench.results import Results, load, load_ratios
from nicemu.bench.units import UNITS, best_ratio, median, number, ratio, shown
from nicemu.config.errors import ConfigError
from tests.bench.made import readings, results, row

NAME, LIMIT = "RC WRITE 64 KiB, MTU 4096, arena", "bare event loop"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(3_921_000, "3.92 M"), (812_300, "812 k"), (0.4123, "0.412"), (58.04, "58.0"), (999.6, "1.00 k"), (0, "0.000")],
)
def test_three_digits(amount: float, text: str) -> None:
    assert number(amount) == text


def test_long_times_are_shown_in_ms() -> None:
    assert (shown(5310, "us"), shown(58, "us"), shown(2e6, "packets/s")) == ("5.31 ms", "58.0 us", "2.00 M packets/s")


def test_a_rate_is_by_the_clock_asked_for_and_a_ratio_by_cpu_time() -> None:
    found = row()
    assert median(found.readings, "packets/s", "wall") == 1e6
    assert median(found.readings, "packets/s", "cpu") == 2e6
    assert median(found.readings, "x real time", "cpu") == 1
    assert ratio(found, found.limits[0]) == 0.5
    assert best_ratio(found, found.limits[0]) == 0.75


def test_times_and_sizes_are_turned_over() -> None:
    found = Row("r", "t", "us", (), "", readings("calls", 10.0))
    assert median(found.readings, "us", "cpu") == 1e5
    assert ratio(found, Against("l", "us", readings("calls", 100.0))) == 0.1
    size = Row("r", "t", "MB", (), "", [Reading(1, 1, {"bytes": 5e6})])
    assert ratio(size, Against("l", "MB", [Reading(1, 1, {"bytes": 1e6})])) == 0.2


def test_results_are_json_and_back(tmp_path: Path) -> None:
    made = results(row(), Row("gone", "verbs", "us", (), "", absent="no device"))
    made.profile = {"compiled engine;nic.port.depart": 0.5}
    made.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == made
    assert load_ratios(tmp_path / "r.json") == {NAME: {LIMIT: 0.5}}


def test_the_json_says_what_is_in_it(tmp_path: Path) -> None:
    results().save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert list(content) == ["format", "ratios", "machine", "short", "rows", "profile"]
    assert content["rows"][0]["readings"][0] == [
        2.0,
        1.0,
        {"packets": 3e6, "messages": 1e6, "bytes": 1e9, "virtual_ns": 1e9},
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "can be read"),
        ("{", "not JSON"),
        ("[]", "format 1"),
        ('{"format": 2}', "format 1"),
        ('{"format": 1}', "ratios"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "r.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_ratios(file)


def test_results_without_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"format": 1, "ratios": {}}')
    with pytest.raises(ConfigError, match="not complete"):
        load(tmp_path / "r.json")


def test_a_ratio_may_fall_by_a_quarter() -> None:
    found = row(rates=(2e6, 2e6))  # 0.5 of the limit
    assert fall(found, {NAME: {LIMIT: 0.66}}) is None
    assert str(fall(found, {NAME: {LIMIT: 0.7}})) == f"{NAME}: 0.5 of {LIMIT}, 29% below 0.7"


def test_the_better_of_median_and_best_counts() -> None:
    assert fall(row(rates=(1e6, 1e6, 3e6)), {NAME: {LIMIT: 0.9}}) is None


def test_only_the_first_limit_counts() -> None:
    found = row()
    found.limits.append(Against("another", "packets/s", found.limits[0].readings))
    assert fall(found, {NAME: {"another": 9.0}}) is None


def test_rows_that_are_not_stored_or_not_there_do_not_fall() -> None:
    assert fall(row(), {}) is None
    assert fall(Row(NAME, "verbs", "packets/s", (), ""), {NAME: {LIMIT: 9.0}}) is None
    assert fall(Row(NAME, "verbs", "packets/s", (), "", limits=row().limits), {NAME: {LIMIT: 9.0}}) is None


def test_every_gate_names_a_row_and_a_limit_that_there_are() -> None:
    cases = {case.name: case for case in rows.cases(peers=True)}
    for gate in gates.GATES:
        case = cases[gate.row]
        assert gate.unit in (case.unit, *case.also)
        assert not gate.limit or gate.limit in {limit.name for limit in case.limits}


def test_rows_have_one_name_each_and_units_that_there_are() -> None:
    cases = list(rows.cases(peers=True))
    assert len({case.name for case in cases}) == len(cases)
    assert {unit for case in cases for unit in (case.unit, *case.also, *(limit.unit for limit in case.limits))} <= set(
        UNITS
    )


def test_gates_are_met_or_not_or_not_measured() -> None:
    verdicts = {name: (shown, verdict) for name, _, shown, verdict in table.gate_cells(results(), "cpu")}
    assert verdicts["full model against the bare loop"] == ("0.500", "NOT MET")
    assert verdicts["help"] == ("-", "not measured")
    good = results(row(rates=(3e6, 3e6)))
    assert {name: verdict for name, *_, verdict in table.gate_cells(good, "cpu")}[
        "full model against the bare loop"
    ] == "met"


def test_at_most_so_many_times_a_limit() -> None:
    gate = gates.Gate("g", NAME, "packets/s", 1.4, "most", LIMIT)
    assert gate.measured(results(row(rates=(2e6,))), "cpu") == 2
    assert gate.met(1.4) and not gate.met(1.5)


def test_the_table_says_what_is_missing() -> None:
    gone = Row("gone", "verbs", "us", (), "", absent="no device")
    broken = Row("broken", "verbs", "us", (), "", failed="OSError: no memory")
    text = "\n".join(table.text(Results({}, rows=[row(), gone, broken]), "wall"))
    assert "1.00 M packets/s" in text and "0.500 of bare event loop" in text
    assert "not measured: no device" in text and "FAILED: OSError: no memory" in text
