"""The fork server and its client, on a suite made up here and without an engine."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicemu.cli.conformance.outcome import Outcome
from nicemu.cli.conformance.runner import Job, Runner, ServerError

SUITE = """
import os, random, signal, time, unittest

class A(unittest.TestCase):
    def test_pass(self): pass
    def test_fail(self): self.assertEqual(1, 2)
    def test_skip(self): self.skipTest("no\\n hardware")
    def test_error(self): raise KeyError("x")
    def test_crash(self):
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    def test_exit(self): os._exit(3)
    def test_hang(self):
        pid = os.fork()
        if pid:
            with open(os.environ["NOTE"], "w") as note: note.write(str(pid))
        time.sleep(60)
    def test_random(self): self.fail(f"{random.random()} {hash('x')}")
    def test_folder(self): self.fail(os.getcwd())
    def test_kill_server(self):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
"""

SERVER = """
import sys, types, json, socket
from nicemu.cli.conformance import server
job = json.loads(sys.argv[2])
tests = types.ModuleType("tests")
tests.__path__ = [job["folder"]]
sys.modules["tests"] = tests
def warm_up(**job):
    if job["config"]: raise ValueError(job["config"])
    return {"names": ["nicemu0"]}
server.warm_up = warm_up
server.main(socket.socket(fileno=int(sys.argv[1])), job)
"""


@pytest.fixture(autouse=True)
def without_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = Runner._command
    monkeypatch.setattr(
        Runner, "_command", lambda self, channel: [sys.executable, "-c", SERVER, *command(self, channel)[3:]]
    )
    monkeypatch.setenv("NOTE", str(tmp_path / "note"))
    (tmp_path / "test_a.py").write_text(SUITE)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with Runner(Job(tmp_path, limit=20)) as made:
        made.start()
        yield made


def run(runner: Runner, *methods: str, jobs: int = 2) -> dict[str, Outcome]:
    tests = [f"test_a.A.test_{method}" for method in methods]
    return {outcome.test.rpartition("_")[2]: outcome for outcome in runner.run_all(tests, jobs)}


def test_each_outcome_has_its_reason(runner: Runner) -> None:
    outcomes = run(runner, "pass", "fail", "skip", "error")
    assert {name: (each.status, each.reason) for name, each in outcomes.items()} == {
        "pass": ("PASS", ""),
        "fail": ("FAIL", "AssertionError: 1 != 2"),
        "skip": ("SKIP", "no hardware"),
        "error": ("ERROR", "KeyError: 'x'"),
    }
    assert "test_a.py" in outcomes["fail"].detail and runner.facts["device"] == {"names": ["nicemu0"]}


def test_a_process_that_dies_is_an_error_with_what_it_said(runner: Runner) -> None:
    outcomes = run(runner, "crash", "exit", "pass")
    assert (outcomes["crash"].status, outcomes["crash"].reason) == ("ERROR", "the process was killed by SIGSEGV")
    assert "last words" in outcomes["crash"].detail
    assert outcomes["exit"].reason == "the process ended with status 3 and no result"
    assert outcomes["pass"].status == "PASS"


def test_a_test_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    with Runner(Job(tmp_path, limit=1)) as runner:
        runner.start()
        outcome = run(runner, "hang")["hang"]
    assert (outcome.status, outcome.reason) == ("TIMEOUT", "killed after 1 s") and 1 <= outcome.seconds < 50
    assert has_ended(int((tmp_path / "note").read_text()))


def test_a_server_that_dies_takes_its_tests_along_and_another_one_goes_on(runner: Runner, tmp_path: Path) -> None:
    outcomes = run(runner, "kill_server", "pass", "fail", jobs=1)
    assert outcomes["server"].reason == "the test server: the process was killed by SIGKILL"
    assert (outcomes["pass"].status, outcomes["fail"].status) == ("PASS", "FAIL")


def test_closing_kills_what_runs(tmp_path: Path, runner: Runner) -> None:
    running = runner.run_all(["test_a.A.test_pass", "test_a.A.test_hang"], 2)
    assert next(running).status == "PASS"
    deadline = time.monotonic() + 30
    while not (tmp_path / "note").exists() or not (tmp_path / "note").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    runner.close()
    assert has_ended(int((tmp_path / "note").read_text()))


def test_the_hash_seed_makes_a_run_repeatable(tmp_path: Path) -> None:
    def draw(seed: int) -> str:
        with Runner(Job(tmp_path, hash_seed=seed)) as runner:
            return run(runner, "random")["random"].reason

    assert draw(5) == draw(5) != draw(6)


def test_each_test_has_a_folder_of_its_own_that_goes_away(runner: Runner) -> None:
    folder = Path(run(runner, "folder")["folder"].reason.removeprefix("AssertionError: "))
    assert folder != Path.cwd() and not folder.exists()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with Runner(Job(tmp_path, config="broken")) as runner, pytest.raises(ServerError, match=r"^ValueError: broken$"):
        runner.start()


def has_ended(pid: int) -> bool:
    """Within half a minute; by itself it would sleep for a minute."""
    for _ in range(3000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return True
            os.kill(pid, 0)
        except (OSError, IndexError):
            return True
        time.sleep(0.01)
    return False
