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


def main(path: str) -> int:
    """Run a guest; the status of its command, or of `guest.run`."""
    from nicemu.cli.ending import die_with_parent, raise_on_sigterm
    from nicemu.cli.rxe_lab import guest
    from nicemu.cli.rxe_lab.qemu import Machine

    die_with_parent()
    raise_on_sigterm()
    job = json.loads(Path(path).read_text())
    paths = {name: Path(given) for name in ("share", "lock") if (given := job["machine"][name]) is not None}
    machine = Machine(**{**job["machine"], **paths, "mtu": MTU})
    result = guest.run(job["command"], machine, timeout=job["timeout"], on_output=_pass_on)
    boot = {"boot_seconds": round(result.boot_seconds, 1), "retries": result.retries, "accel": result.accel}
    Path(job["facts"]).write_text(json.dumps({"facts": boot}) + "\n")
    if result.reason:
        print(f"the guest: {result.reason}", flush=True)
    return result.status


def _pass_on(stream: str, content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    from nicemu.config.errors import ConfigError

    try:
        sys.exit(main(sys.argv[1]))
    except ConfigError as error:
        sys.exit(f"{error}")
