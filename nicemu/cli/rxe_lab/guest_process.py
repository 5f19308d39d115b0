"""One run of a guest as a process of its own, which can be killed: QEMU goes with it.

`python -m nicemu.cli.rxe_lab.guest_process JOB.json`, with `command`, `machine` (fields of qemu.Machine), `timeout` in
seconds and `facts`, the file that gets one JSON line about the boot. What the guest says goes to our stdout, and at the
end why it did not end well.
"""

import json
import sys
from pathlib import Path

MTU = 9000
"""Of the guest's network device: packets of a whole page, the only ones whose on-demand data rxe places right."""

MOST = 16 << 20
"""Bytes of what the guest says that are kept: it may write without end, and the disk is ours."""


def main(path: str) -> int:
    """Run a guest; the status of its command, or of `guest.run`."""
    from nicemu.cli.ending import die_with_parent, raise_on_sigterm
    from nicemu.cli.rxe_lab import guest
    from nicemu.cli.rxe_lab.qemu import Machine

    die_with_parent()
    raise_on_sigterm()
    job = json.loads(Path(path).read_text())
    paths = {name: Path(job["machine"][name]) for name in ("share", "lock") if job["machine"].get(name)}
    machine = Machine(**{**job["machine"], **paths, "mtu": MTU})
    left = MOST

    def pass_on(_stream: str, content: bytes) -> None:
        nonlocal left
        sys.stdout.buffer.write(content[:left])
        sys.stdout.buffer.flush()
        left -= len(content[:left])

    result = guest.run(job["command"], machine, timeout=job["timeout"], on_output=pass_on)
    boot = {"boot_seconds": round(result.boot_seconds, 1), "retries": result.retries, "accel": result.accel}
    with open(job["facts"], "x") as file:  # a new one: the guest may have put a link there
        file.write(json.dumps({"facts": boot}) + "\n")
    if result.reason:
        print(f"the guest: {result.reason}", flush=True)
    return result.status


if __name__ == "__main__":
    from nicemu.config.errors import ConfigError

    try:
        sys.exit(main(sys.argv[1]))
    except ConfigError as error:
        sys.exit(f"{error}")
