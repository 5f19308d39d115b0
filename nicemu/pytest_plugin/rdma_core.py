"""rdma-core's own tests under pytest: what their runner would set up, if a folder of them is among the arguments."""

import tempfile
from pathlib import Path
from typing import Any

import pytest

MARKS = ("args_parser.py", "run_tests.py", "base.py")


def install(config: pytest.Config, lab: Any) -> None:
    """Give the first folder of such tests among the arguments its command line, `tests` package and programs."""
    for folder in map(_folder, config.args):
        if is_suite(folder):
            from nicemu.cli.conformance import suite

            programs = tempfile.TemporaryDirectory(prefix="nicemu-pytest-")
            config.add_cleanup(programs.cleanup)
            suite.install(folder, Path(programs.name), lab.device_names)
            return


def is_suite(folder: Path) -> bool:
    """It holds rdma-core's Python tests."""
    return all((folder / name).is_file() for name in MARKS)


def _folder(argument: str) -> Path:
    path = Path(argument.partition("::")[0]).absolute()
    return path if path.is_dir() else path.parent
