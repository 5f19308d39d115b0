"""Axes, points and what each point sets."""

import json

from nicemu.experiment import sweep
from nicemu.experiment.conduct import Wish, plan
from nicemu.experiment.sweep import REPETITION
from tests.experiment.files import LOSSY, SENDS, document


def labels(folder, **changes):
    return [str(point) for point in sweep.points(document(folder, SENDS, **changes))]


def labs(folder, **changes):
    """The resolved labs of all points."""
    return [json.loads(task.lab) for task in plan(document(folder, SENDS, **changes), Wish(folder))[1]]


def test_axes_are_called_by_the_last_word_of_their_keys(tmp_path):
    assert labels(tmp_path) == ["size=64", "size=1024", "size=4096"]


def test_every_value_goes_with_every_other(tmp_path):
    sweep = {"firmware": ["default", "backup_ring"], "workload.size": [1, 2]}
    expected = ["firmware=default size=1", "firmware=default size=2", "firmware=backup_ring size=1",
                "firmware=backup_ring size=2"]  # fmt: skip
    assert labels(tmp_path, sweep=sweep, expect=[]) == expected


def test_zipped_values_go_together(tmp_path):
    sweep = {"lab.nics": [1, 2], "zip": {"workload.size": [1, 2], "workload.iterations": [9, 8]}}
    expected = ["nics=1 size=1 iterations=9", "nics=1 size=2 iterations=8", "nics=2 size=1 iterations=9",
                "nics=2 size=2 iterations=8"]  # fmt: skip
    assert labels(tmp_path, sweep=sweep, expect=[]) == expected


def test_without_a_sweep_there_is_one_point(tmp_path):
    assert labels(tmp_path, sweep={}, expect=[]) == ["the only point"]


def test_a_value_that_is_no_scalar_goes_by_its_label(tmp_path):
    sweep = {"lab.impairments": [{"label": "none", "value": []},
                                 {"label": "all", "value": [{"kind": "loss", "probability": 1.0}]}]}  # fmt: skip
    assert labels(tmp_path, sweep=sweep, expect=[]) == ["impairments=none", "impairments=all"]
    assert [len(lab["impairments"]) for lab in labs(tmp_path, sweep=sweep, expect=[])] == [0, 1]


def test_a_cost_inside_a_named_profile_can_vary(tmp_path):
    found = labs(tmp_path, lab={"nic": "rxe"}, sweep={"lab.nic.costs.packet_ns": [1, 2]}, expect=[])
    assert [(lab["nic"]["name"], lab["nic"]["costs"]["packet_ns"]) for lab in found] == [("rxe", 1), ("rxe", 2)]


def test_a_whole_profile_can_vary_and_a_cost_in_each(tmp_path):
    sweep = {"lab.nic": ["connectib", "rxe"], "lab.nic.costs.packet_ns": [7]}
    found = labs(tmp_path, sweep=sweep, expect=[])
    assert [(lab["nic"]["name"], lab["nic"]["costs"]["packet_ns"]) for lab in found] == [("connectib", 7), ("rxe", 7)]


def test_an_item_of_a_list_can_vary(tmp_path):
    tasks = plan(document(tmp_path, LOSSY), Wish(tmp_path))[1]
    assert {json.loads(task.lab)["impairments"][0]["probability"] for task in tasks} == {0.05, 0.3}


def test_a_lab_is_like_a_shipped_one_but_for_its_own_fields(tmp_path):
    (lab,) = labs(tmp_path, lab={"like": "congested", "nics": 5}, sweep={}, expect=[])
    assert lab["nics"] == 5
    assert lab["fabric"]["switch"]["queue_bytes"] == 400000


def test_adjustments_hold_where_they_say(tmp_path):
    adjust = [{"where": {"size": 1024}, "settings": {"workload.iterations": 9}}]
    tasks = plan(document(tmp_path, SENDS, adjust=adjust), Wish(tmp_path))[1]
    assert [dict(task.work.values).get("iterations") for task in tasks] == [None, 9, None]


def test_only_leaves_the_points_with_a_value(tmp_path):
    points, tasks, _ = plan(document(tmp_path, SENDS), Wish(tmp_path, only={"size": "1024"}))
    assert [str(point) for point in points] == ["size=1024"]
    assert [task.point for task in tasks] == [1]


def test_quick_runs_once_with_few_iterations(tmp_path):
    tasks = plan(document(tmp_path, SENDS, repeat=5), Wish(tmp_path, quick=True))[1]
    assert [dict(task.work.values)["iterations"] for task in tasks] == [20, 20, 20]


def test_seeds_depend_on_the_point_and_not_on_its_place(tmp_path):
    document_ = document(tmp_path, LOSSY)
    seeds = {(task.point, task.repetition): task.seed for task in plan(document_, Wish(tmp_path))[1]}
    assert len(set(seeds.values())) == 12
    turned = document(tmp_path, LOSSY, sweep={"lab.impairments.0.probability": [0.9, 0.3]})
    assert [task.seed for task in plan(turned, Wish(tmp_path))[1]][6:] == [seeds[1, i] for i in range(6)]
    again = plan(document(tmp_path, LOSSY), Wish(tmp_path, seed=2, only={REPETITION: "0"}))[1]
    assert not {task.seed for task in again} & set(seeds.values())
