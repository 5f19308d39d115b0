"""The examples of docs/experiments.md are what they say."""

import re
from pathlib import Path

import pytest

from nicemu.experiment import conduct
from nicemu.experiment.conduct import Wish, plan
from tests.experiment.files import SENDS, done

TEXT = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")


def block(language):
    """The only code block in that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)
    return found


def test_the_file_is_one(tmp_path):
    (tmp_path / "file.yaml").write_text(block("yaml"))
    points, tasks, shown = plan(conduct.load(str(tmp_path / "file.yaml")), Wish(tmp_path))
    assert (len(points), len(tasks)) == (6, 12)
    assert shown is not None


def test_the_workload_runs(tmp_path):
    (tmp_path / "mine.py").write_text(block("python"))
    workload = {"name": "send_twice", "file": "mine.py", "iterations": 2}
    outcome = done(tmp_path, SENDS, {"workload": workload, "expect": [], "sweep": {}})
    assert outcome.measured[0].values["took"] == pytest.approx(225, rel=0.1)
