"""The soak, short: every byte and completion right over a lossy fabric while pages go; what it must notice it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def soak(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``tools/soak.py ARGUMENTS``."""
    command = [sys.executable, str(ROOT / "tools" / "soak.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1800)


def count(done: subprocess.CompletedProcess[str], name: str) -> int:
    """A number of the summary."""
    found = re.search(rf"(?<!\w){name} (\d+)", done.stdout)
    return int(found[1]) if found else 0


@pytest.mark.slow
def test_twenty_thousand_messages_at_one_percent_loss_under_every_invalidation() -> None:
    done = soak("--messages", 20_000)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "no wrong byte, no lost or duplicate completion" in done.stdout
    assert "sanitizer reports 0" in done.stdout
    for kind in ("swap", "pageout", "migrate", "fork", "mprotect", "dontneed", "discard", "rewrite"):
        assert count(done, kind) > 0, kind
    assert count(done, "'loss' fired") > 100


@pytest.mark.slow
@pytest.mark.parametrize("discipline", ["v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12"])
def test_migration_under_each_discipline_is_never_seen(discipline: str) -> None:
    done = soak("--messages", 1500, "--kinds", "migrate", "--per-ms", 60, "--discipline", discipline)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert count(done, "migrate") > 20 and "sanitizer reports 0" in done.stdout


@pytest.mark.slow
def test_migration_without_waiting_for_the_device_is_reported() -> None:
    done = soak("--messages", 3000, "--kinds", "migrate", "--per-ms", 60, "--mutant", "skip_device_wait")
    assert done.returncode == 1
    assert re.search("DMA VIOLATION .* by migrate", done.stdout + done.stderr)


@pytest.mark.slow
def test_one_seed_one_soak() -> None:
    first, again = (soak("--messages", 1500, "--seed", 7).stdout.splitlines() for _ in range(2))
    summaries = [[line for line in lines if not line.lstrip()[:1].isdigit() and "passed" not in line]
                 for lines in (first, again)]  # fmt: skip
    assert summaries[0] == summaries[1]


def test_a_wrong_byte_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: one byte beside the truth is found, with area and offset."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import numpy as np
    from soak_memory import Area, Wrong

    area = Area.__new__(Area)
    area.name, area.length = "inbox", 4096
    area.view, area.model = np.zeros(4096, np.uint8), np.zeros(4096, np.uint8)
    area.address = area.view.ctypes.data
    area.check()
    area.view[77] = 1
    with pytest.raises(Wrong, match=r"inbox: 1 wrong bytes of \[0, 4096\), the first at 77: 01"):
        area.check()
