"""What an experiment leaves in its folder."""

import re
from html.parser import HTMLParser

import pytest
import yaml

from nicemu.cli.diff import diff
from nicemu.cli.stats import stats
from nicemu.cli.why import why
from nicemu.experiment import folder
from nicemu.experiment.conduct import Wish
from nicemu.experiment.series import chart, distributions
from nicemu.experiment.task import SHOWN
from tests.experiment.files import LOSSY, SENDS, done

PLOTS = [
    {"name": "line", "kind": "line", "title": "SENDs & bytes", "x": "size", "y": ["took"], "log": ["x", "y"]},
    {"name": "bar", "kind": "bar", "x": "size", "y": ["took", "sent"]},
    {"name": "stack", "kind": "stacked", "x": "size", "y": ["took"], "by": "firmware"},
    {"name": "share", "kind": "cdf", "of": "took_ns", "unit": "us", "by": "size", "where": {"firmware": "default"}},
]
EXPECT = [
    {"metric": "took", "where": {"size": 64}, "value": 5.0, "tolerance": 0.5, "source": "a guess", "kind": "fitted"},
    {"metric": "took", "relation": "increasing", "along": "size", "source": "more bytes take longer"},
    {"metric": "sent", "max": 1.0, "gate": False, "source": "no ACKs"},
]
CHANGES = {"sweep": SENDS["sweep"] | {"firmware": ["default", "backup_ring"]}, "plots": PLOTS, "expect": EXPECT,
           "answer": "It takes {took size=64} us.", "show": {"where": {"size": 64}}}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of an experiment with every kind of plot."""
    top = tmp_path_factory.mktemp("experiment")
    outcome = done(top, SENDS, CHANGES)
    folder.write(outcome, Wish(top / "out"))
    return top / "out", outcome


class Page(HTMLParser):
    """Tags, references, and whether all that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.references = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(out):
    text = (out[0] / "index.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.tags.count("img") == len(PLOTS)
    assert {ref.split(",")[0] for ref in page.references} == {"data:image/png;base64", *SHOWN}
    assert not re.findall(r"url\(|@import|https?://", text)
    assert "SENDs &amp; bytes" in text
    assert "prefers-color-scheme: dark" in text


def test_the_summary_has_expected_source_kind_model_and_deviation_side_by_side(out):
    lines = (out[0] / "summary.md").read_text().splitlines()
    assert "| expectation | expected | source | kind | model | deviation | N | ok |" in lines
    row = next(line for line in lines if "a guess" in line and "firmware=default" in line)
    assert re.fullmatch(r"\| time of a SEND at size=64 firmware=default \| 5 us within 50 % \| a guess \| fitted \| "
                        r"[\d.]+ us \| [+-][\d.]+ % \| 3 \| yes \|", row)  # fmt: skip
    assert any(line.startswith("**Answer.** It takes ") and "gated expectations hold" in line for line in lines)
    assert any(line.endswith("| (no) |") for line in lines)


def test_every_plot_is_a_png_of_160_dots_an_inch(out):
    for plot in PLOTS:
        data = (out[0] / "plots" / f"{plot['name']}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        width = int.from_bytes(data[16:20], "big")
        assert 900 < width < 1400
        assert b"Software" not in data  # nor anything else that differs between two runs


def test_inputs_are_exact(out):
    inputs = out[0] / "inputs"
    lab = yaml.safe_load((inputs / "lab-1.yaml").read_text())
    assert lab["firmware"] == ["backup_ring"]
    assert lab["nic"]["costs"]["doorbell_ns"] == 150
    assert {file.name for file in inputs.iterdir()} >= {"experiment.yaml", "versions.yaml", "workload-sends.py",
                                                       "firmware-default.py", "firmware-backup_ring.py"}  # fmt: skip


def test_observations_and_runs_are_tables(out):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(out[0] / "results.parquet").to_pydict()
    assert len(table["took_ns"]) == 3 * 6
    assert table["observation"] == [0, 1, 2] * 6
    assert table["size"] == [size for size in (64, 1024, 4096) for _ in range(6)]
    runs = parquet.read_table(out[0] / "runs.parquet")
    assert runs.column("nic0.packets_sent").to_pylist() == [6] * 6
    metadata = parquet.read_metadata(out[0] / "results.parquet")
    assert not set(metadata.metadata or {}) - {b"ARROW:schema"}


def test_a_chart_has_the_model_and_the_expected_points(out):
    document, measured = out[1].document, out[1].measured
    data = chart(document, document.experiment.plots[2], measured)
    assert data.positions == [64, 1024, 4096]
    assert data.groups == ["default", "backup_ring"]
    assert [(mark.x, mark.y, mark.below) for mark in data.marks] == [(64, 5.0, 2.5)] * 2
    curves = distributions(document, document.experiment.plots[3], measured)
    assert [curve.label for curve in curves] == ["size 64", "size 1024", "size 4096"]
    assert [(mark.x, mark.y) for mark in curves[0].marks] == [(5.0, 0.5)]


def test_stats_why_and_diff_take_the_folder(out, capsys):
    stats(out[0])
    assert "device events" in capsys.readouterr().out
    why(out[0])
    assert "send work requests" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        diff(out[0], out[0])
    assert left.value.code == 0
    assert "The same history." in capsys.readouterr().out


def test_an_experiment_without_plots_and_expectations_has_a_page_too(tmp_path):
    outcome = done(tmp_path, LOSSY, {"show": None})
    folder.write(outcome, Wish(tmp_path / "out"))
    assert not Page((tmp_path / "out" / "index.html").read_text()).open
    assert not (tmp_path / "out" / "plots").exists()
    assert "Answer" not in (tmp_path / "out" / "summary.md").read_text()


def test_one_is_said_as_one(tmp_path):
    outcome = done(tmp_path, SENDS, {"sweep": {}, "expect": []})
    assert next(folder.notes(outcome, Wish(tmp_path))).startswith("1 run at 1 point, seed 1")
