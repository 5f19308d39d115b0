"""What a run's lab is asked when the workload is done: its counters as a file, and faults that never happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nicemu.lab.counters import snapshot
from nicemu.lab.inject import idle

if TYPE_CHECKING:
    from nicemu.lab import Lab


def write_counters(lab: Lab, file: Path) -> None:
    """All of them, for ``nicemu stats``."""
    file.write_text(json.dumps(snapshot(lab), indent=1) + "\n", encoding="utf-8")


def idle_faults(lab: Lab) -> str:
    """Faults that had to happen and did not, in one line: a run without them has shown nothing. Empty: none."""
    lines = idle(lab)
    return f"faults that never happened: {'; '.join(lines)}" if lines else ""
