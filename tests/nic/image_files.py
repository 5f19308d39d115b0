"""Firmware images for the bench: shipped ones by name, others by their text."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import gettempdir

from nicemu.config.paths import shipped
from nicemu.nic import firmware
from tests.nic.testbench import default_image


def image(name: str) -> firmware.Image:
    """A shipped image."""
    return firmware.load(shipped("firmware") / f"{name}.py", default_image())


def written(text: str, folder: Path | None = None) -> firmware.Image:
    """An image with this text behind its docstring and the imports of all that it may use."""
    source = f'"""An image of a test."""\nfrom nicemu.firmware import *\n\n\n{text}'
    name = f"image_{hashlib.sha256(source.encode()).hexdigest()[:16]}.py"
    path = (folder or Path(gettempdir())) / name
    path.write_text(source)
    return firmware.load(path, default_image())
