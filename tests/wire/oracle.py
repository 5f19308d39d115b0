"""tshark as an oracle. Without it tests skip and say so, or fail where CI says that it must be there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MISSING = "tshark is not installed (Debian package tshark)"
QUIET = (
    "-o", "udp.ignore_ipv6_zero_checksum:TRUE",  # RoCE sends none on IPv6 either
    "--disable-protocol", "rpcordma", "--disable-protocol", "infiniband.eoib",  # guess at payloads that are ours
)  # fmt: skip


def tshark(file: Path, *arguments: str) -> list[str]:
    """Output lines of ``tshark -r FILE ARGUMENTS``."""
    if shutil.which("tshark") is None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    command = ["tshark", "-n", "-r", str(file), *QUIET, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def fields(file: Path, *names: str) -> list[list[str]]:
    """A row for each packet, the named fields of it; a field that is not there is empty."""
    asked = [word for name in names for word in ("-e", name)]
    return [line.split("\t") for line in tshark(file, "-T", "fields", *asked)]


def complaints(file: Path) -> list[str]:
    """Expert information of every severity, "malformed" included."""
    return [line for line in tshark(file, "-q", "-z", "expert") if line.strip()]
