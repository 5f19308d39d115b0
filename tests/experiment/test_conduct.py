"""Running an experiment: what is missing is run, what fails is told, results do not depend on where they were made."""

import json

import pytest

from nicemu.config.errors import ConfigError
from nicemu.experiment import folder, pool
from nicemu.experiment.conduct import Wish
from nicemu.experiment.run_one import run
from nicemu.experiment.store import Store
from nicemu.experiment.task import SHOWN
from tests.experiment.files import LOSSY, SENDS, document, done

FILES = ("results.parquet", "runs.parquet", "summary.md", "index.html", "inputs/experiment.yaml", *SHOWN)


def folder_of(tmp_path, experiment, name, changes=None, **wishes):
    """Everything that an experiment leaves, by name."""
    out = tmp_path / name
    outcome = done(tmp_path, experiment, changes, folder=out, **wishes)
    assert not outcome.failures
    folder.write(outcome, Wish(out))
    return {file: (out / file).read_bytes() for file in FILES}


def test_observations_are_virtual_times_of_the_workload(tmp_path):
    outcome = done(tmp_path, SENDS)
    assert [len(each.results[0].columns["took_ns"]) for each in outcome.measured] == [3, 3, 3]
    assert [verdict.ok for verdict in outcome.verdicts] == [True]
    assert [each.values["sent"] for each in outcome.measured] == [6, 6, 6]  # and an ACK for each


def test_one_seed_gives_one_result_byte_for_byte(tmp_path):
    first = folder_of(tmp_path, LOSSY, "first")
    assert folder_of(tmp_path, LOSSY, "second") == first
    assert folder_of(tmp_path, LOSSY, "third", seed=2)["results.parquet"] != first["results.parquet"]


def test_a_pool_of_processes_gives_what_one_process_gives(tmp_path):
    assert folder_of(tmp_path, LOSSY, "two", processes=2) == folder_of(tmp_path, LOSSY, "one")


def test_a_dask_cluster_gives_what_one_process_gives(tmp_path):
    pytest.importorskip("distributed")
    assert folder_of(tmp_path, LOSSY, "dask", scheduler="local") == folder_of(tmp_path, LOSSY, "one")


@pytest.mark.slow
def test_two_hundred_runs_are_the_same_on_one_process_two_and_a_dask_cluster(tmp_path):
    many = {"sweep": {"lab.impairments.0.probability": [i / 100 for i in range(20)]}, "repeat": 10,
            "show": {"where": {"probability": 0.1}}}  # fmt: skip
    one = folder_of(tmp_path, LOSSY, "one", many)
    assert folder_of(tmp_path, LOSSY, "two", many, processes=2) == one
    assert folder_of(tmp_path, LOSSY, "dask", many, scheduler="local") == one


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    first = folder_of(tmp_path, LOSSY, "out")
    ran = []
    monkeypatch.setattr(pool, "here", lambda tasks: ran.extend(tasks) or iter(()))
    assert folder_of(tmp_path, LOSSY, "out") == first
    assert not ran


def test_an_interrupted_experiment_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = folder_of(tmp_path, LOSSY, "whole")
    here = pool.here

    def interrupted(tasks):
        for number, finished in enumerate(here(tasks)):
            yield finished
            if number == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(pool, "here", interrupted)
    with pytest.raises(KeyboardInterrupt):
        done(tmp_path, LOSSY)
    assert len(list((tmp_path / "out" / "runs").glob("*.json"))) == 5
    monkeypatch.setattr(pool, "here", lambda tasks: (ran.extend(tasks), here(tasks))[1])
    ran = []
    assert folder_of(tmp_path, LOSSY, "out") == whole
    assert len(ran) == 13 - 5


def test_fresh_does_all_again(tmp_path):
    done(tmp_path, LOSSY)
    (file, *_) = (tmp_path / "out" / "runs").glob("*.json")
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"virtual_ns": -1}))
    done(tmp_path, LOSSY, fresh=True)
    assert json.loads(file.read_text()) == kept


@pytest.mark.parametrize("changes", [{"seed": 2}, {"lab": {"impairments": [], "nics": 2}, "sweep": {}, "show": None}])
def test_a_run_with_other_inputs_is_another_run(tmp_path, changes):
    done(tmp_path, LOSSY)
    count = len(list((tmp_path / "out" / "runs").glob("*.json")))
    done(tmp_path, LOSSY, changes)
    assert len(list((tmp_path / "out" / "runs").glob("*.json"))) > count


def test_the_workloads_text_is_an_input(tmp_path):
    first = done(tmp_path, SENDS)
    file = tmp_path / "workload.py"
    text = file.read_text()
    document(tmp_path, SENDS)
    assert first.tasks[0][0].work.text == text


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path, processes):
    outcome = done(tmp_path, SENDS, {"workload": SENDS["workload"] | {"fails_at": 1024}}, processes=processes)
    (failure,) = outcome.failures
    assert str(failure.point) == "size=1024"
    assert failure.error.startswith("ValueError: no such size (workload-sends.py, line ")
    assert [str(each.point) for each in outcome.measured] == ["size=64", "size=4096"]
    assert not Store(tmp_path / "out").has(failure.task)


IMAGE = """
def unreliable_fault(world, row, arg):
    return {answer}
"""


def test_firmware_that_is_not_shipped_travels_with_the_run(tmp_path):
    image = tmp_path / "mine.py"
    image.write_text(IMAGE.format(answer=1))
    first = done(tmp_path, SENDS, {"firmware": "./mine.py"}).tasks[0][0]
    assert first.images == (("0-mine.py", IMAGE.format(answer=1)),)
    image.write_text(IMAGE.format(answer=0))
    assert done(tmp_path, SENDS, {"firmware": "./mine.py"}).tasks[0][0].digest != first.digest


def test_broken_firmware_is_said_before_anything_runs(tmp_path):
    (tmp_path / "broken.py").write_text(IMAGE.format(answer="[]"))
    with pytest.raises(ConfigError, match=r"broken\.py"):
        done(tmp_path, SENDS, {"firmware": "./broken.py"})


def test_a_worker_with_another_nicemu_refuses(tmp_path):
    task = done(tmp_path, SENDS).tasks[0][0]
    assert run(task._replace(nicemu="other")).error == "this worker has another nicemu, which may give other results"


def test_a_metric_of_nothing_is_said_with_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"field metrics.took.of: expected a column \(name, share, took_ns\)"):
        done(tmp_path, SENDS, {"metrics": {"took": {"of": "taken_ns"}}})
    with pytest.raises(ConfigError, match=r"field metrics.took.of: expected a column of numbers"):
        done(tmp_path, SENDS, {"metrics": {"took": {"of": "name"}}})
    with pytest.raises(ConfigError, match=r"field metrics.took.of: expected a counter \(nic0.packets_sent, "):
        done(tmp_path, SENDS, {"metrics": {"took": {"of": "nic0.packets"}}})


def test_a_column_may_not_be_called_like_an_axis(tmp_path):
    with pytest.raises(ConfigError, match=r"no columns called like an axis \(iterations\)"):
        done(tmp_path, SENDS, {"workload": SENDS["workload"] | {"name": "draws"}, "expect": [], "metrics": {},
                               "sweep": {"workload.iterations": [1]}})  # fmt: skip


def test_a_scheduler_that_does_not_answer_is_said(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(ConfigError, match="field --scheduler: expected local or the address"):
        done(tmp_path, SENDS, scheduler="nonsense://here")
