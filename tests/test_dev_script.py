"""`tools/dev`: what each task runs, without running it."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "dev"


@pytest.fixture
def dev() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("nicemu_tools_dev", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["-q", "-m", "not slow", "-n", "2", "tests"]),
        (["-m", "slow"], ["-q", "-n", "2", "-m", "slow", "tests"]),
        (["-n0", "-x"], ["-q", "-m", "not slow", "-n0", "-x", "tests"]),
        (["tests/config", "-k", "wrong"], ["-q", "-m", "not slow", "-n", "2", "tests/config", "-k", "wrong"]),
    ],
)
def test_test_runs_the_fast_tests_on_two_processes_unless_told_otherwise(
    dev: ModuleType, arguments: list[str], expected: list[str]
) -> None:
    command = dev.pytest_command(arguments, parallel=True)
    assert command == [str(dev.PYTHON), "-m", "pytest", *expected]


def test_demo_shows_the_stages_of_the_example(dev: ModuleType) -> None:
    first, *others = dev.commands_for("demo", [])
    assert first[1:] == ["-m", "nicemu", "run", "--stats", "--stages", "examples/odp_pingpong.py"]
    assert ["v3.6" in command for command in others] == [True, False]


def test_check_runs_ruff_then_mypy(dev: ModuleType) -> None:
    assert [command[2] for command in dev.commands_for("check", [])] == ["ruff", "mypy"]


def test_arguments_after_the_task_belong_to_it(dev: ModuleType) -> None:
    given = dev.parse(["conformance", "test_pd", "--json", "out.json"])
    assert dev.commands_for(given.task, given.arguments)[0][3:] == ["conformance", "test_pd", "--json", "out.json"]


def test_an_unknown_task_is_refused() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "dance"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "dance" in done.stderr


def test_a_step_that_fails_shows_what_it_said(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="fail on purpose failed \\(status 3\\)"):
        dev.Progress().run("fail on purpose", [sys.executable, "-c", "print('why'); raise SystemExit(3)"])
    assert "why" in capsys.readouterr().err
