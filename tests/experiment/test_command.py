"""`nicemu experiment` and `nicemu schema`: exit statuses and what they say."""

import json
import signal
import sys

import pytest
import typer

from nicemu.cli import experiment as command
from nicemu.cli.schema import KINDS, schema
from nicemu.config.errors import ConfigError
from nicemu.experiment import conduct
from tests.experiment.files import SENDS, written


def status(folder, capsys, changes=None, **options):
    """Exit status and words of the command on a file with these changes."""
    file = written(folder, SENDS, **(changes or {}))
    with pytest.raises(typer.Exit) as left:
        command.experiment(**({"file": str(file), "output": folder / "out", "processes": 1} | options))
    return left.value.exit_code, capsys.readouterr()


def test_status_0_when_all_gated_expectations_hold(tmp_path, capsys):
    code, said = status(tmp_path, capsys)
    assert code == 0
    assert "The gated expectation holds." in said.out
    assert (tmp_path / "out" / "index.html").is_file()


def test_status_1_when_one_does_not_and_it_says_which(tmp_path, capsys):
    expect = [{"metric": "took", "max": 0.001}, {"metric": "sent", "max": 1.0, "gate": False}]
    code, said = status(tmp_path, capsys, {"expect": expect})
    assert code == 1
    assert "FAILS  time of a SEND at size=64" in said.out
    assert "no     sent at size=64" in said.out


def test_quick_gates_nothing(tmp_path, capsys):
    code, said = status(tmp_path, capsys, {"expect": [{"metric": "took", "max": 0.001}]}, quick=True)
    assert code == 0
    assert "no     time of a SEND" in said.out
    assert "Nothing is gated" in said.out
    assert "FAILS" not in said.out and "gated expectation" not in said.out
    assert "Quick" in (tmp_path / "out" / "summary.md").read_text()


def test_a_failed_run_is_told_with_its_point_its_seed_and_the_command_that_repeats_it(tmp_path, capsys):
    workload = SENDS["workload"] | {"fails_at": 1024}
    code, said = status(tmp_path, capsys, {"workload": workload, "expect": []}, seed=5)
    assert code == 1
    first, again = said.err.splitlines()
    assert first.startswith("nicemu: a run failed at size=1024, repetition 0, seed ")
    assert again.endswith("--processes 1 --seed 5 --only size=1024 --only repetition=0")
    code, said = status(tmp_path, capsys, {"workload": workload, "expect": []}, seed=5,
                        only=["size=1024", "repetition=0"])  # fmt: skip
    assert (code, said.err.splitlines()[0]) == (1, first)


def test_only_leaves_expectations_of_other_points_open(tmp_path, capsys):
    expect = [{"metric": "took", "where": {"size": 4096}, "max": 0.001}]
    code, said = status(tmp_path, capsys, {"expect": expect}, only=["size=64"])
    assert code == 0
    assert "not run" in said.out


def test_an_answer_that_lacks_points_is_left_out_and_says_which(tmp_path, capsys):
    answer = {"answer": "It takes {took size=64} and {took size=4096} us, {sent size=4096} packets."}
    _, said = status(tmp_path, capsys, answer, only=["size=64"])
    line = next(line for line in said.out.splitlines() if "answer" in line)
    assert line.startswith("The answer is left out: it needs what was not observed here, at size=4096.")
    assert "It takes" not in said.out


@pytest.mark.parametrize(
    ("answer", "words"), [("{tok size=64}", "metrics .took, sent."), ("{took size=6}", "one of 64,")]
)
def test_an_answer_of_what_there_is_not_is_refused(tmp_path, answer, words):
    with pytest.raises(ConfigError, match=f"field answer.*: expected {words}"):
        conduct.load(str(written(tmp_path, SENDS, answer=answer)))


IDLE = {"event": "verbs_error", "call": "reg_mr", "errno": "ENOMEM", "nth": 1000}


def test_a_fault_that_never_happened_is_told_and_fails_the_run(tmp_path, capsys):
    code, said = status(tmp_path, capsys, {"lab": {"inject": [IDLE]}, "sweep": {}, "expect": []})
    assert code == 1
    assert "faults that never happened: inject.0: " in said.err


def test_a_second_interrupt_is_not_heard(tmp_path, monkeypatch):
    """Until the processes have ended: it would be told by the interpreter, at length."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(conduct, "conduct", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            command.experiment(str(written(tmp_path, SENDS)), output=tmp_path / "out")
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_a_terminal_progress_is_plain_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "EVERY", 0.0)
    said = status(tmp_path, capsys)[1].err.splitlines()
    assert said[-1].startswith("nicemu experiment: 3 of 3 runs, ")
    assert "runs/s" in said[-1]
    assert status(tmp_path, capsys)[1].err.splitlines()[0] == "nicemu experiment: 3 of 3 runs are done already"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"only": ["size"]}, "expected AXIS=VALUE"), ({"file": None}, "expected FILE or --list")],
)
def test_bad_input_is_one_line(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        command.experiment(**({"file": str(written(tmp_path, SENDS)), "output": tmp_path} | options))


@pytest.mark.parametrize(
    ("package", "extra", "options"),
    [("pyarrow", "experiment", {}), ("distributed", "dask", {"scheduler": "local"})],
)
def test_a_package_that_is_missing_is_said_with_what_to_install(tmp_path, monkeypatch, package, extra, options):
    monkeypatch.setitem(sys.modules, package, None)
    file = written(tmp_path, SENDS)
    with pytest.raises(ConfigError, match=rf"package {package}.* pip install 'nicemu\[{extra}\]'"):
        command.experiment(str(file), output=tmp_path / "out", processes=1, **options)


def test_the_list_names_shipped_experiments_and_workloads(capsys):
    command.experiment(None, listing=True)
    said = capsys.readouterr().out
    assert "npf_latency" in said
    assert "send_gather_fault" in said
    assert "iterations=100" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_json_with_the_fields(kind, capsys):
    schema(kind)
    fields = json.loads(capsys.readouterr().out)["properties"]
    assert {"experiment": "question", "lab": "nics", "nic": "costs", "host": "ram_pages"}[kind] in fields


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="expected one of experiment, lab, nic, host, given 'cable'"):
        schema("cable")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"columns": [], "counters": {}}', "[" * 100_000])
def test_a_run_that_is_not_what_was_kept_is_refused_with_its_file(tmp_path, capsys, text):
    status(tmp_path, capsys)
    kept = min((tmp_path / "out" / "runs").glob("*.json"))
    kept.write_text(text)
    with pytest.raises(ConfigError) as caught:
        status(tmp_path, capsys)
    assert str(caught.value).startswith(f"{kept}: expected a finished run, given ")


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, capsys):
    thesis = tmp_path / "out" / "inputs" / "thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("x")
    with pytest.raises(ConfigError, match="expected an empty folder or that of an earlier call, given one with 'inpu"):
        status(tmp_path, capsys)
    assert thesis.read_text() == "x"


@pytest.mark.parametrize("name", ["inputs"])
def test_a_file_where_a_folder_should_be_is_said_in_one_line(tmp_path, capsys, name):
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / name).write_text("x")
    with pytest.raises(ConfigError, match=f"field --output: expected a folder that can be written, given '.*{name}'"):
        status(tmp_path, capsys)
