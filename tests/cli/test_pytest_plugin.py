"""The pytest plug-in, with stand-ins for the session and for our pyverbs (the package `json`)."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

SUITE = """
def test_pyverbs_is_ours():
    import json.decoder
    import pyverbs.decoder
    assert pyverbs.decoder is json.decoder

def test_lab(nicemu_lab):
    assert nicemu_lab == "a lab"
"""

RUN = """
import sys, types
import nicemu._alias
nicemu._alias.TARGET = "json"
uverbs = types.ModuleType("nicemu.uverbs")
uverbs.session = types.SimpleNamespace(
    configure=lambda config: print("seed", config.seed),
    endpoint=lambda: print("built"),
    current=lambda: "a lab",
    reset=lambda: print("reset"),
)
sys.modules["nicemu.uverbs"] = uverbs
import pytest
sys.exit(pytest.main(["-q", "-s", "-p", sys.argv[1], "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[2:]]))
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_suite.py").write_text(SUITE)
    installed = any(point.value == "nicemu.pytest_plugin" for point in entry_points(group="pytest11"))
    plugin = "nicemu" if installed else "nicemu.pytest_plugin"
    command = [sys.executable, "-c", RUN, plugin, "test_suite.py", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_with_the_option_pyverbs_is_ours_and_a_test_gets_a_lab(tmp_path: Path) -> None:
    done = run(tmp_path, "--nicemu")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    steps = [line.strip(".") for line in done.stdout.splitlines()]
    assert [line for line in steps if line in ("seed 1", "built", "reset")] == [
        "seed 1",  # the whole session
        *("reset", "seed 1", "built", "reset", "seed 1"),  # the test with a lab of its own
    ]


def test_without_the_option_pyverbs_is_left_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "-k", "ours")
    assert "1 failed" in done.stdout


def test_a_wrong_configuration_is_a_usage_error(tmp_path: Path) -> None:
    done = run(tmp_path, "--nicemu", "--nicemu-config", "nosuch")
    assert done.returncode == 4
    assert "nicemu: expected a YAML file that exists" in done.stderr
