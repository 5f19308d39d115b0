"""Experiment files: what is wrong is said in one line that names file and field."""

import pytest

from nicemu.config.errors import ConfigError
from nicemu.experiment import conduct
from nicemu.experiment.conduct import Wish, plan
from tests.experiment.files import SENDS, document, written


def refused(folder, **changes):
    with pytest.raises(ConfigError) as caught:
        plan(document(folder, SENDS | {"expect": []}, **changes), Wish(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_right_is_taken(tmp_path):
    assert document(tmp_path, SENDS).experiment.metrics["took"].unit == "us"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("sweeps", {}, ("sweeps", "expected sweep", "unknown field")),
        ("repeat", 0, ("repeat", "expected int 1..10000", "given 0")),
        ("workload", {"name": "sending"}, ("workload.name", "a workload (", "given 'sending'")),
        ("workload", {"name": "sends", "file": "none.py"}, ("workload.file", "No such file", "given 'none.py'")),
        ("workload", SENDS["workload"] | {"sizes": 3}, ("workload.sizes", "(size, iterations, fails_at)")),
        ("workload", SENDS["workload"] | {"iterations": "3"}, ("workload.iterations", "expected int", "given '3'")),
        ("workload", {}, ("workload.name", "the name of a workload, or a script")),
        ("lab", {"nics": 0}, ("lab.nics", "expected int 1..256", "given 0")),
        ("lab", "nowhere", ("a shipped lab", "given 'nowhere'")),
        ("sweep", {"lab.nic": ["nope"], "lab.nic.costs.packet_ns": [1]}, ("lab.nic", "a profile (", "given 'nope'")),
        ("firmware", "none", ("lab.firmware", "shipped images", "given 'none'")),
        ("sweep", {"pages": [1]}, ("sweep", "a key that begins with lab. or workload.", "given 'pages'")),
        ("sweep", {"workload.size": []}, ("sweep", "a list of values", "workload.size")),
        ("sweep", {"workload.size": [[1]]}, ("sweep.workload.size", "scalars, or {label")),
        ("sweep", {"lab.nics": [1, 0]}, ("lab.nics", "given 0", "at nics=0")),
        ("sweep", {"lab.seed": [1], "workload.seed": [1]}, ("sweep", "different words")),
        ("sweep", {"zip": {"workload.size": [1, 2], "lab.nics": [1]}}, ("zip", "lists of one length")),
        ("metrics", {"took": {"of": "took_ns", "aggregate": "median"}}, ("metrics.took.aggregate", "p50", "'median'")),
        ("metrics", {"took": {"of": "took_ns", "offf": 1}}, ("metrics.took.offf", "expected of", "unknown field")),
        ("expect", [{"metric": "speed", "min": 1}], ("expect", "took, sent", "speed")),
        ("expect", [{"metric": "took", "value": 1}], ("expect.0.tolerance", "0.05")),
        ("expect", [{"metric": "took"}], ("expect.0.value", "one of value, min and max, relation")),
        ("expect", [{"metric": "took", "min": 1, "where": {"bytes": 1}}], ("expect.0.where", "an axis (size)")),
        ("expect", [{"metric": "took", "min": 1, "where": {"size": 5}}], ("expect.0.where.size", "one of 64, 1024")),
        ("expect", [{"metric": "took", "relation": "increasing", "along": "x"}], ("expect.0.along", "an axis (size)")),
        ("plots", [{"name": "p", "kind": "line", "x": "x", "y": "took"}], ("plots.0.x", "an axis (size)")),
        ("plots", [{"name": "p", "kind": "cdf"}], ("plots.0.of", "the column of a cdf")),
        ("show", {"where": {"size": 1}}, ("show.where.size", "one of 64")),
        ("adjust", [{"where": {"x": 1}, "settings": {}}], ("adjust.0.where", "an axis (size)")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path, field, value, words):
    said = refused(tmp_path, **{field: value})
    assert "experiment.yaml:" in said or value == "nowhere"
    for word in words:
        assert word in said


def test_a_name_that_is_no_file_lists_what_is_shipped():
    with pytest.raises(ConfigError, match=r"npf_latency.*given 'no_such'"):
        conduct.load("no_such")


@pytest.mark.parametrize(
    ("only", "words"),
    [({"pages": "1"}, "an axis (size)"), ({"size": "3"}, "size one of 64, 1024, 4096"),
     ({"repetition": "4"}, "repetition 0..0")],
)  # fmt: skip
def test_only_names_axes_and_their_values(tmp_path, only, words):
    with pytest.raises(ConfigError) as caught:
        plan(document(tmp_path, SENDS), Wish(tmp_path, only=only))
    assert words in str(caught.value)


def test_a_broken_workload_file_is_said_with_its_error(tmp_path):
    written(tmp_path, SENDS)
    (tmp_path / "workload.py").write_text("def sends(:\n")
    with pytest.raises(ConfigError, match=r"field workload.file: .*invalid syntax"):
        plan(conduct.load(str(tmp_path / "experiment.yaml")), Wish(tmp_path))
