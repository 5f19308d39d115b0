"""Firmware images for the bench: shipped ones by name, others by their text."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from nicemu import firmware as api
from nicemu.config import NicProfile
from nicemu.config.paths import shipped
from nicemu.nic import firmware
from tests.nic.testbench import Bench, default_image


def image(name: str) -> firmware.Image:
    """A shipped image."""
    return firmware.load(shipped("firmware") / f"{name}.py", default_image())


def written(text: str, folder: Path | None = None) -> firmware.Image:
    """An image with this text behind its docstring and the imports of all that it may use."""
    imports = f"from nicemu.firmware import {', '.join(api.__all__)}"
    source = f'"""An image of a test."""\n{imports}\n\n\n{text}'
    name = f"image_{hashlib.sha256(source.encode()).hexdigest()[:16]}.py"
    path = (folder or Path(gettempdir())) / name
    path.write_text(source)
    return firmware.load(path, default_image())


def bench_of(folder: Path, source: str, **profile: Any) -> Bench:
    """A bench whose NIC runs an image of this source."""
    return Bench(NicProfile(**profile), firmware_image=written(source, folder))


def answering(folder: Path, **answers: Any) -> Bench:
    """A bench whose NIC answers these hooks so: an expression of ``world``, ``row`` and ``arg``."""
    hooks = [f"def {hook}(world, row, arg):\n    return {answer}\n" for hook, answer in answers.items()]
    return bench_of(folder, "\n\n".join(hooks))


def bench_with(name: str, **profile: Any) -> Bench:
    """A bench whose NIC runs a shipped image."""
    return Bench(NicProfile(**profile), firmware_image=image(name))
