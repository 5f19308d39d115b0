"""The jobs: processes and guests that run tests, on small tests made up here; the guest is a process of this host."""

import io
import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from nicemu.cli import ending
from nicemu.cli.rxe_lab import guest, guest_process, jobs, schedule
from nicemu.cli.rxe_lab.jobs import Process, Selection
from nicemu.cli.rxe_lab.progress import Progress
from nicemu.cli.rxe_lab.qemu import Machine
from nicemu.cli.rxe_lab.records import JobResult, Record
from nicemu.cli.rxe_lab.schedule import Job, Listener
from nicemu.cli.rxe_lab.tail import Tail

CONFTEST = """
import json, pytest

def pytest_addoption(parser):
    for name in ("--verbs", "--device", "--profile", "--observations"):
        parser.addoption(name)

def pytest_runtest_logreport(report):
    if report.when == "call":
        with open(path, "a") as file:
            name = report.nodeid.rpartition("/")[2]
            file.write(json.dumps({"id": name, "outcome": report.outcome, "seconds": 0, "reason": "",
                                   "observations": [value for _, value in report.user_properties]}) + "\\n")

def pytest_configure(config):
    global path
    path = config.getoption("observations")
"""
VERBS = """
import os, signal, time

def test_a(record_property):
    record_property("observation", {"what": "status", "observed": "SUCCESS", "spec": "SUCCESS", "why": "", "rxe": "x"})
def test_crash(): os.kill(os.getpid(), signal.SIGKILL)
def test_sometimes():
    folder = os.path.dirname(__file__)
    tries = len([name for name in os.listdir(folder) if name.startswith("try")])
    open(f"{folder}/try{tries}", "w").close()
    assert tries, "the first time"
def test_z(): pass
"""
SUITE = """
import unittest
class T(unittest.TestCase):
    def test_one(self): pass
    def test_two(self): self.fail("no")
"""
ALL_VERBS = tuple(f"test_made.py::{name}" for name in ("test_a", "test_crash", "test_sometimes", "test_z"))


@pytest.fixture
def tests(tmp_path: Path) -> Selection:
    verbs, suite = tmp_path / "verbs", tmp_path / "suite"
    for folder in (verbs, suite):
        folder.mkdir()
    (verbs / "conftest.py").write_text(CONFTEST)
    (verbs / "test_made.py").write_text(VERBS)
    (suite / "test_made.py").write_text(SUITE)
    return Selection(("test_made.T.test_one", "test_made.T.test_two"), suite, ALL_VERBS, verbs)


def listener(name: str = "verbs/rxe") -> Listener:
    return Listener(name, Progress([name], io.StringIO()), threading.Event())


def start(command: list[str], share: Path) -> Process:
    """A guest whose /share is the folder itself."""
    job = json.loads((share / "job.json").read_text().replace("/share", str(share)))
    (share / "job.json").write_text(json.dumps({**job, "device": None}))
    words = [word.replace("/share", str(share)).replace("python3", sys.executable) for word in command]
    return Process(words, share / "output.txt")


def test_a_process_that_dies_fails_the_test_it_ran_and_the_others_still_run(tests: Selection) -> None:
    result = jobs.verbs_there(tests, start, listener())
    assert {name.partition("::")[2]: record.status for name, record in result.records.items()} == {
        "test_a": "PASS",
        "test_crash": "FAIL",
        "test_sometimes": "FLAKY",
        "test_z": "PASS",
    }
    assert result.records["test_made.py::test_crash"].reason == "the process died: SIGKILL"
    assert result.trouble == "" and "python" in result.facts


def test_observations_come_with_the_result(tests: Selection) -> None:
    chosen = Selection(verbs=ALL_VERBS[:1], verbs_folder=tests.verbs_folder, all_verbs=False)
    result = jobs.verbs_there(chosen, start, listener())
    assert [each.observed for each in result.records[ALL_VERBS[0]].observations] == ["SUCCESS"]
    assert list(result.records) == [ALL_VERBS[0]]


def test_verbs_on_this_side_run_in_a_process_too(tests: Selection) -> None:
    result = jobs.verbs_here(tests, None, listener("verbs/nicemu"))
    assert result.count("PASS") == 2 and result.count("FAIL") == 2  # nothing is run again


def test_a_process_in_which_nothing_happens_is_killed(
    tests: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tests.verbs_folder / "test_made.py").write_text("import signal\ndef test_a(): signal.pause()\n")
    monkeypatch.setattr(jobs, "SILENCE", 2.0)
    chosen = Selection(verbs=ALL_VERBS[:1], verbs_folder=tests.verbs_folder)
    result = jobs.verbs_there(chosen, start, listener())
    assert result.records[ALL_VERBS[0]].reason == "nothing for 2 s: killed"


def test_pytest_that_cannot_begin_is_trouble_and_all_tests_are_lost(tests: Selection) -> None:
    (tests.verbs_folder / "conftest.py").write_text("raise RuntimeError('no device')")
    result = jobs.verbs_there(tests, start, listener())
    assert "ended with status" in result.trouble and "no device" in result.trouble
    assert result.count("LOST") == len(ALL_VERBS)


def test_the_suite_in_a_guest(tests: Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    result = jobs.suite_there(tests, start, listener("suite/rxe"))
    assert [record.status for record in result.records.values()] == ["PASS", "FAIL"]
    assert result.records["test_made.T.test_two"].tries == ("FAIL",) * jobs.TRIES


def test_a_guest_that_dies_is_said_and_what_it_had_not_run_is_lost(tests: Selection) -> None:
    def dies(command: list[str], share: Path) -> Process:
        line = json.dumps({"test": "test_made.T.test_one", "status": "PASS"})
        boot = json.dumps({"facts": {"retries": 2, "accel": "tcg"}})
        script = f"echo '{line}' >> results/suite.jsonl; echo '{boot}' > results/guest.jsonl"
        script += "; echo the guest: died; exit 125"
        return Process(["sh", "-c", f"cd {share}; {script}"], share / "output.txt")

    result = jobs.suite_there(tests, dies, listener("suite/rxe"))
    assert result.trouble == "ended with status 125: the guest: died"
    assert (result.retries, result.facts) == (2, {"accel": "tcg"})
    assert [record.status for record in result.records.values()] == ["PASS", "LOST"]
    assert result.records["test_made.T.test_two"].reason == result.trouble


def test_a_job_that_is_told_to_stop_ends_its_process(tests: Selection, tmp_path: Path) -> None:
    told = listener()
    threading.Timer(0.3, told.stop.set).start()
    began = time.monotonic()
    result = jobs.watch(Process(["sleep", "60"], tmp_path / "out"), tmp_path, ["t"], told)
    assert result.trouble == "interrupted" and time.monotonic() - began < 20


# -- the schedule


def test_jobs_run_in_order_two_at_a_time() -> None:
    running: list[str] = []
    most: list[int] = []
    lock = threading.Lock()

    def run(told: Listener) -> JobResult:
        with lock:
            running.append(told.name)
            most.append(len(running))
        time.sleep(0.05)
        with lock:
            running.remove(told.name)
        result = JobResult(told.name)
        result.add(Record("t", "PASS"))
        return result

    names = ["a", "b", "c", "d"]
    results = schedule.run_all([Job(name, run) for name in names], Progress(names, io.StringIO()), 2)
    assert list(results) == names and max(most) <= 2 and all(result.seconds > 0 for result in results.values())


def test_what_a_job_raises_stops_the_others() -> None:
    stopped = threading.Event()

    def fails(told: Listener) -> JobResult:
        raise RuntimeError("broken")

    def waits(told: Listener) -> JobResult:
        if told.stop.wait(20):
            stopped.set()
        return JobResult(told.name)

    jobs_ = [Job("waits", waits), Job("fails", fails), Job("never", waits)]
    with pytest.raises(RuntimeError, match="broken"):
        schedule.run_all(jobs_, Progress(["waits", "fails", "never"], io.StringIO()), 2)
    assert stopped.is_set()


# -- results as they come


def test_a_line_that_is_not_complete_waits(tmp_path: Path) -> None:
    tail = Tail(tmp_path)
    assert list(tail.read()) == []
    file = tmp_path / "1.jsonl"
    file.write_text('{"a": 1}\n{"b"')
    assert list(tail.read()) == [{"a": 1}]
    file.write_text('{"a": 1}\n{"b": 2}\nrubbish\n[1]\n')
    (tmp_path / "2.jsonl").write_text('{"c": 3}\n')
    assert list(tail.read()) == [{"b": 2}, {"c": 3}]
    assert list(tail.read()) == []


def test_progress_off_a_terminal_is_plain_lines() -> None:
    stream = io.StringIO()
    progress = Progress(["suite/rxe"], stream)
    progress.start("suite/rxe", 2)
    progress.add("suite/rxe", Record("one", "PASS"))
    progress.add("suite/rxe", Record("two", "FAIL", "AssertionError"))
    result = JobResult("suite/rxe", trouble="the guest died")
    result.lose(["three"])
    progress.end(result)
    lines = stream.getvalue().splitlines()
    assert lines[1] == "suite/rxe: FAIL two: AssertionError"
    assert "2/2: 1 passed, 1 failed, 0 skipped; the guest died, 1 tests lost" in lines[-1]
    assert "\x1b" not in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line_a_job_drawn_over() -> None:
    stream = Terminal()
    progress = Progress(["a", "b"], stream)
    progress.start("a", 1)
    progress.add("a", Record("t", "ERROR", "why"))
    progress.close()
    shown = stream.getvalue()
    assert "\x1b[2A\x1b[J" in shown and "a: ERROR t: why\n" in shown
    assert len(shown.rpartition("\x1b[J")[2].splitlines()) == 2


def test_a_guest_gets_the_lock_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Machine] = []

    def run(command: list[str], machine: Machine, **_: object) -> guest.Result:
        made.append(machine)
        return guest.Result(0, "", 1.0, 2.0, 0, "tcg")

    monkeypatch.setattr(guest, "run", run)
    monkeypatch.setattr(jobs, "Process", lambda words, output: words)
    monkeypatch.setattr(ending, "die_with_parent", lambda: None)
    monkeypatch.setattr(ending, "raise_on_sigterm", lambda: None)
    (tmp_path / jobs.RESULTS).mkdir()
    for lock in (Path("my.yaml"), None):
        words: Any = jobs.boot(asdict(Machine(lock=lock)), 5, ["true"], tmp_path)
        assert guest_process.main(words[-1]) == 0
        (tmp_path / jobs.RESULTS / "guest.jsonl").unlink()
    assert [machine.lock for machine in made] == [Path("my.yaml"), None]
    assert made[0].share == tmp_path


def test_lines_that_are_no_results_are_a_trouble_and_end_nothing(tmp_path: Path) -> None:
    lines = ['{"facts": 5}', '{"test": "a", "status": "GOOD"}', '{"id": "b", "outcome": "odd"}', "[1]", "{"]
    text = "\n".join([*lines, '{"test": "c", "status": "PASS"}', ""])
    (tmp_path / "1.jsonl").write_text(text)
    result = jobs.watch(Process(["true"], tmp_path / "out"), tmp_path, ["c"], listener())
    assert result.records["c"].status == "PASS" and len(result.records) == 1
    assert result.trouble == "3 lines of its results are none"


def test_a_link_or_a_pipe_in_the_place_of_results_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "secret").write_text('{"test": "a", "status": "PASS"}\n')
    (tmp_path / "results" / "1.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "results" / "2.jsonl")
    assert list(Tail(tmp_path / "results").read()) == []
