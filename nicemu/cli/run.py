"""`nicemu run`: an unmodified pyverbs program on the emulated NIC."""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from nicemu import __version__
from nicemu.config.errors import ConfigError

STALLED = 1
"""Exit status of a program that ended well although the watchdog had something to report."""
IDLE_FAULT = 1
"""Exit status of a program that ended well although a fault that must fire did not: it has shown nothing."""


class RunCommand(TyperCommand):
    """Ends our options at SCRIPT or at `-m MODULE`: what follows is the program's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._end_options(args))

    def _end_options(self, args: list[str]) -> list[str]:
        """Put `--` before SCRIPT or after MODULE."""
        flags = {name for parameter in self.params if getattr(parameter, "is_flag", False) for name in parameter.opts}
        flags |= {"-h", "--help"}
        position = 0
        while position < len(args) and args[position] != "--":
            argument = args[position]
            if not argument.startswith("-"):
                return [*args[:position], "--", *args[position:]]
            is_alone = argument in flags or "=" in argument or (argument.startswith("-m") and argument != "-m")
            position += 1 if is_alone else 2
            if argument.startswith("-m") and position <= len(args):
                return [*args[:position], "--", *args[position:]]
        return args


def run(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="SCRIPT [ARGUMENT]", help="The program and its arguments.")
    ] = None,
    module: Annotated[str | None, typer.Option("-m", metavar="MODULE", help="Run a module, as python -m.")] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="A YAML file, or a shipped lab's name.")] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What a device is called; again for the next one.")
    ] = None,
    firmware: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A firmware image: name or path; again for the next NIC.")
    ] = None,
    check_firmware: Annotated[
        bool, typer.Option("--check-firmware", help="Refuse hooks that write, or answer, what they may not.")
    ] = False,
    seed: Annotated[str | None, typer.Option(metavar="N", help="One seed, one history.")] = None,
    discipline: Annotated[str | None, typer.Option(help="When mm operations notify: v3.6 ... v6.12.")] = None,
    memory: Annotated[str | None, typer.Option(help="arena: real memory; model: simulated RAM.")] = None,
    force_odp: Annotated[bool, typer.Option("--force-odp", help="Register every MR with on-demand paging.")] = False,
    evict: Annotated[
        str | None, typer.Option(metavar="RATE", help="Invalidations per virtual millisecond during the run.")
    ] = None,
    mutant: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Plant a deliberate bug.")] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write every event of the run: as text, or for ui.perfetto.dev if FILE ends in .pftrace.",
        ),
    ] = None,
    trace_limit_mb: Annotated[
        str | None, typer.Option(metavar="N", help="Stop writing the trace at N MB; the run goes on.")
    ] = None,
    pcap: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the packets: pcapng, for Wireshark.")] = None,
    sysfs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write what /sys would say; SYSFS_PATH tells the program where.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep trace, packets, counters and inputs, for stats, why, diff.")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print the counters afterwards, on stderr.")] = False,
    stages: Annotated[bool, typer.Option("--stages", help="Print the stages of a fault and an invalidation.")] = False,
) -> None:
    """Run an unmodified pyverbs program on the emulated NIC.

    Options of nicemu come before SCRIPT; what follows SCRIPT belongs to the program. The exit status is the program's.
    """
    overrides = {
        "seed": _number(seed),
        "names": name or None,
        "firmware": _from_here(firmware or []),
        "check_firmware": True if check_firmware else None,
        "discipline": discipline,
        "memory": memory,
        "force_odp": True if force_odp else None,
        "evict_per_ms": _number(evict),
        "mutants": mutant or None,
        "trace": str(trace) if trace else None,
        "trace_limit_mb": _number(trace_limit_mb),
        "pcap": str(pcap) if pcap else None,
    }
    words = list(arguments or [])
    if record is not None and (trace or pcap):
        raise ConfigError(
            "--record writes trace and capture into its folder: expected no --trace and no --pcap beside it"
        )
    if module is None and not words:
        raise ConfigError("expected SCRIPT or -m MODULE, given neither")
    sys.exit(_run(module, words, config, overrides, Leaves(sysfs, record, stats, stages)))


def _number(text: str | None) -> int | float | str | None:
    """The number that `text` is, or the text itself, which the configuration then refuses in its own words."""
    for kind in (int, float):
        with contextlib.suppress(ValueError, TypeError):
            return kind(text)  # type: ignore[arg-type]
    return text


def _from_here(images: list[str]) -> str | list[str] | None:
    """A file in the working directory may be given without a slash, like any file on a command line."""
    found = [f"./{image}" if "/" not in image and Path(image).is_file() else image for image in images]
    return found[0] if len(found) == 1 else found or None


@dataclass(frozen=True)
class Leaves:
    """What a run leaves behind."""

    sysfs: Path | None
    record: Path | None
    stats: bool
    stages: bool


def _run(module: str | None, words: list[str], config: str | None, overrides: dict[str, Any], leaves: Leaves) -> int:
    from nicemu import _alias
    from nicemu import _program as program
    from nicemu.config import load_config

    record = _record(leaves.record)
    checked = load_config(config, overrides | (record.files if record else {}))
    _check_firmware(checked)
    _alias.install()
    script = None if module else Path(words[0])
    loaded = program.load_module(module) if module else program.load_script(words.pop(0))

    from nicemu.uverbs import session, waits

    session.configure(checked)
    waits.install()
    if record is not None:
        record.inputs(checked, script)
        record.begin(_lab())
    if leaves.sysfs is not None:  # the program may look there before it opens a device
        _write_sysfs(leaves.sysfs)
        os.environ["SYSFS_PATH"] = str(leaves.sysfs.resolve())
    status = program.run_program(loaded, words)
    status = _ended(status, leaves, config)
    if record is not None:
        record.end(nicemu=__version__, program=str(module or script), arguments=words, exit_status=status)
    return status


def _record(folder: Path | None) -> Any:
    if folder is None:
        return None
    from nicemu.lab.record import Record

    return Record(folder)


def _lab() -> Any:
    """The lab of this run, built now if the program has not used it yet."""
    from nicemu.uverbs import session

    session.endpoint()
    return session.current()


def _ended(status: int, leaves: Leaves, config: str | None) -> int:
    """Say and write what is left to say and write; the exit status of all."""
    from nicemu import _program as program
    from nicemu.uverbs import session

    lab = session.current()
    if lab is not None:
        if lab.world.complaint is not None:  # the program may have caught it
            raise lab.world.complaint
        if status == program.INTERRUPTED:
            print(f"nicemu: {lab.watchdog.interrupted()}", file=sys.stderr)
        lab.flush()
        if leaves.sysfs is not None:
            _write_sysfs(leaves.sysfs)
        if status == 0 and lab.watchdog.reports:
            status = STALLED
        if _idle_faults(lab, config):
            status = status or IDLE_FAULT
    if leaves.stats or leaves.stages:
        sys.stdout.flush()
        _report(leaves.stats, leaves.stages)
    return status


def _idle_faults(lab: Any, config: str | None) -> bool:
    """Say which faults did not happen; True if there are any."""
    from nicemu.lab.inject import idle

    lines = idle(lab)
    for line in lines:
        print(f"nicemu: {config or 'command line'}: {line}", file=sys.stderr)
    return bool(lines)


def _check_firmware(config: Any) -> None:
    """A firmware image that cannot be used is said so before the program starts."""
    if config.firmware == ("default",):
        return
    from nicemu import lab

    try:
        lab.load_firmware(config)
    except lab.FirmwareError as error:
        raise ConfigError(str(error)) from error


def _write_sysfs(folder: Path) -> None:
    from nicemu.lab.sysfs import write_sysfs

    write_sysfs(_lab(), folder)


def _report(stats: bool, stages: bool) -> None:
    from nicemu.lab import report
    from nicemu.uverbs import session

    lab = session.current()
    if lab is None:
        print("nicemu: the program opened no device: nothing to report", file=sys.stderr)
        return
    if stages:
        report.print_stages(lab)
    if stats:
        report.print_stats(lab)
