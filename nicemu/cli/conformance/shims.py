"""Programs that rdma-core's tests call to learn about the system's devices, answering for the emulated ones.

`rdma link show -j` names a netdev for each device, `ip -j addr show lo` has an address for it, and `cat` knows the one
file of sysfs that a test reads, the partition key table. Any other call goes to the real program.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

NETDEV = "lo"
ADDRESS = [
    {
        "ifname": NETDEV,
        "address": "00:00:00:00:00:00",
        "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}],
    }
]


def write_shims(folder: Path, devices: Sequence[str]) -> None:
    """Write the three programs into `folder`, which then goes first on PATH."""
    links = [
        {"ifindex": index, "ifname": name, "port": 1, "state": "ACTIVE", "physical_state": "LINK_UP", "netdev": NETDEV}
        for index, name in enumerate(devices)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "rdma", '"link show -j"', json.dumps(links))
    _write(folder / "ip", f'"-j addr show {NETDEV}"', json.dumps(ADDRESS))
    keys = "|".join(f"/sys/class/infiniband/{name}/ports/1/pkeys/0" for name in devices)
    _write(folder / "cat", keys or '""', "0xffff")


def _write(path: Path, arguments: str, answer: str) -> None:
    real = shutil.which(path.name)
    otherwise = f'exec "{real}" "$@"' if real else f'echo "{path.name}: not installed" >&2; exit 127'
    path.write_text(f"#!/bin/sh\ncase \"$*\" in\n{arguments}) echo '{answer}' ;;\n*) {otherwise} ;;\nesac\n")
    path.chmod(0o755)
