"""`pytest tests/verbs --verbs rxe` where the device is not: one line that says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

VERBS = Path(__file__).parents[2] / "verbs"
REAL = """
class Device:
    name = b"mlx5_0"

def get_device_list():
    return [Device()]
"""
NO_KERNEL = """
from pyverbs.pyverbs_error import PyverbsError

def get_device_list():
    raise PyverbsError("Failed to get device list")
"""


def collect(folder: Path, *words: str) -> tuple[int, str]:
    """Status and errors of pytest, with the modules of `folder`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", str(VERBS / "test_sizes.py"), "--collect-only", "-q", *words]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
    return done.returncode, done.stderr


def pyverbs(folder: Path, device: str) -> None:
    """Another pyverbs, of as much as is asked before the tests are imported."""
    package = folder / "pyverbs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "pyverbs_error.py").write_text("class PyverbsError(Exception):\n    pass\n")
    (package / "device.py").write_text(device)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("", "expected rdma-core's pyverbs (cannot import name 'get_device_list'"),
        (NO_KERNEL, "expected RDMA devices (Failed to get device list)"),
        (REAL, "expected the device 'rxe0' (--device NAME), found mlx5_0"),
    ],
)
def test_without_the_device_it_names_the_lab(tmp_path: Path, device: str, message: str) -> None:
    pyverbs(tmp_path, device)
    status, errors = collect(tmp_path, "--verbs", "rxe")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: --verbs rxe: {message}" in errors
    assert "nicemu lab rxe test --only verbs" in errors and "Traceback" not in errors


def test_observations_need_a_folder(tmp_path: Path) -> None:
    status, errors = collect(tmp_path, "--observations", str(tmp_path / "missing" / "file"))
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --observations: expected a file that can be written" in errors
