"""The command line as a user meets it: help, and one line for bad input."""

import subprocess
import sys
from pathlib import Path

import pytest


def nicemu(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "nicemu", *arguments], capture_output=True, text=True)


def test_help_names_the_commands_and_imports_nothing_that_computes() -> None:
    program = (
        "import sys\nfrom nicemu.cli import main\nsys.argv = ['nicemu', '--help']\n"
        "try:\n    main()\nexcept SystemExit as e:\n"
        "    print(e.code, {'numba', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert all(command in done.stdout for command in ("run", "devinfo", "conformance", "fuzz"))
    assert done.stdout.splitlines()[-1] == "0 set()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "expected SCRIPT or -m MODULE, given neither"),
        (["run", "nosuch.py"], "expected a Python program, given 'nosuch.py': No such file or directory"),
        (["run", "-m", "nosuch"], "expected a Python module that can be run, given 'nosuch'"),
        (["run", "--discipline", "v1", "x.py"], "command line: field discipline: expected one of v3.6"),
        (["run", "--seed", "-1", "x.py"], "command line: field seed: expected int >= 0, given -1"),
        (["run", "--firmware", "nosuch", "x.py"], "command line: field firmware: expected a Python file that exists"),
        (["run", "--mutant", "cat", "x.py"], "command line: field mutants.0: expected one of zap_without_flush"),
        (["run", "--config", "nosuch", "x.py"], "expected a YAML file that exists or a shipped lab ("),
        (["conformance", "("], "expected a regular expression, given '('"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = nicemu(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"nicemu: error: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "--seed", "many", "x.py"], "'many'"),
        (["run", "--nosuch", "x.py"], "--nosuch"),
        (["run", "-m"], "-m"),
        (["dance"], "dance"),
        (["conformance", "--jobs", "0"], "--jobs"),
        (["fuzz"], "wire, wqe"),
        (["fuzz", "rings"], "'rings'"),
        (["fuzz", "wire", "--n", "0"], "--n"),
        (["fuzz", "wqe", "--seconds", "0"], "--seconds"),
        (["fuzz", "wire", "--first", "-1"], "--first"),
    ],
)
def test_wrong_usage_gets_one_line_as_well(arguments: list[str], word: str) -> None:
    done = nicemu(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("nicemu: error: ") and word in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_command_it_says_the_help() -> None:
    done = nicemu()
    assert done.returncode == 2
    assert "conformance" in done.stdout + done.stderr


FAKE_SESSION = """
import sys, types
uverbs = types.ModuleType("nicemu.uverbs")
uverbs.session = types.SimpleNamespace(
    configure=lambda config: print("configured", config.seed, config.force_odp), current=lambda: None
)
uverbs.waits = types.SimpleNamespace(install=lambda: None)
sys.modules["nicemu.uverbs"] = uverbs
from nicemu.cli import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--seed", "7", "probe.py", "--seed", "8", "-m"], "configured 7 False\n['probe.py', '--seed', '8', '-m']\n"),
        (["--force-odp", "-m", "probe", "--stats", "x"], "configured 1 True\n['--stats', 'x']\n"),
        (["--seed=3", "-mprobe", "-h"], "configured 3 False\n['-h']\n"),
        (["--", "probe.py", "--help"], "configured 1 False\n['probe.py', '--help']\n"),
    ],
)
def test_what_follows_the_program_belongs_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], printed: str
) -> None:
    (tmp_path / "probe.py").write_text(
        "import sys\nprint([a for a in sys.argv if not a.startswith('/')])\nsys.exit(5)\n"
    )
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", FAKE_SESSION, "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, printed), done.stderr
