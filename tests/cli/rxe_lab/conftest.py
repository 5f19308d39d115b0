import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nicemu.cli.rxe_lab import image
from nicemu.cli.rxe_lab.image import Image

Steps = list[tuple[str, object]]


@pytest.fixture
def fake_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Call it with what happens at each start; returns the folder in which each start leaves its command line."""
    for folder in ("bin", "fake", "cache"):
        (tmp_path / folder).mkdir()
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {Path(__file__).parent / "fake_qemu.py"} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("FAKE_QEMU", str(tmp_path / "fake"))
    monkeypatch.setenv("NICEMU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image, "ready", lambda *_: Image(tmp_path / "vmlinux", tmp_path / "initrd"))

    def starts(*steps: Steps) -> Path:
        (tmp_path / "fake" / "starts.json").write_text(json.dumps(steps))
        return tmp_path / "fake"

    return starts
