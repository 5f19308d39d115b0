"""`nicemu lab rxe`: one command, or a shell, in a guest with the kernel's soft-RoCE device; and what belongs to it."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nicemu.cli.rxe_lab import referee
from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.cli.rxe_lab.guest import OnOutput, Result

RUN = "run"  # the subcommand that `--` stands for


class RxeGroup(TyperGroup):
    """`rxe [OPTIONS] -- CMD` runs CMD, `rxe [OPTIONS] SUBCOMMAND ...` is a subcommand, `rxe [OPTIONS]` a shell."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        position = self._end_of_options(args)
        if args[position : position + 1] == ["--"]:
            if position + 1 == len(args):
                raise ConfigError("expected a command after --, given none")
            args = [*args[:position], RUN, *args[position:]]
        elif position < len(args) and args[position] not in self.commands:
            words = " ".join(args[position:])
            known = ", ".join(name for name in self.commands if name != RUN)
            raise ConfigError(f"expected {known}, or -- before a command: nicemu lab rxe -- {words}")
        return super().parse_args(ctx, args)

    def _end_of_options(self, args: list[str]) -> int:
        """The position of the first word that is neither an option of ours nor the value of one."""
        flags = {name for parameter in self.params if getattr(parameter, "is_flag", False) for name in parameter.opts}
        flags |= {"-h", "--help"}
        position = 0
        while position < len(args) and args[position].startswith("-") and args[position] != "--":
            position += 1 if args[position] in flags or "=" in args[position] else 2
        return position


lab = typer.Typer(
    help="Other software that speaks verbs, a command away: what nicemu is compared with.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
rxe = typer.Typer(cls=RxeGroup, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})
lab.add_typer(
    rxe, name="rxe", invoke_without_command=True, short_help="A Linux guest with rxe0, the kernel's soft-RoCE device."
)


@rxe.callback(
    epilog="""\b
    nicemu lab rxe -- ibv_devinfo -v                 the device, and what it can do
    nicemu lab rxe --share . -- python3 program.py   a pyverbs program of this folder
    nicemu lab rxe                                   look around""",
)
def options(
    ctx: typer.Context,
    kernel: Annotated[
        str, typer.Option(metavar="N", help="7.3, 6.12 or 6.1 (7.3 if not given, which on-demand paging needs).")
    ] = "",
    share: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder the guest sees as /share, and may write to.")
    ] = None,
    mtu: Annotated[
        int, typer.Option(metavar="BYTES", help="Of eth0, 576 to 9216; 9000 lets rxe0 use a path MTU of 4096.")
    ] = 1500,
    memory: Annotated[int, typer.Option(metavar="MIB", help="Of the guest, 512 or more.")] = 2048,
    cpus: Annotated[int, typer.Option(metavar="N", help="Of the guest; emulation is stable with one only.")] = 1,
    timeout: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="For boot and command; then status 124.")
    ] = None,
    console: Annotated[bool, typer.Option("--console", help="The kernel's messages, on stderr.")] = False,
    dmesg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the kernel's log at the end.")] = None,
    accel: Annotated[str, typer.Option(metavar="NAME", help="kvm, tcg (emulation) or auto: KVM if it works.")] = "auto",
    lock: Annotated[
        Path | None, typer.Option("--lock", metavar="FILE", help="Another lock file than nicemu's own.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(metavar="URI", help="A Debian mirror, where apt's sources name none.")
    ] = None,
) -> None:
    """Run a command in a Linux guest with rxe0, the kernel's soft-RoCE device; or, without one, a shell.

    Needs QEMU, and neither root nor KVM nor modules of the host. The guest is built at the first run from Debian
    packages (154 MB, once); later it is there after some 6 to 10 seconds. It has rdma-core 56 with pyverbs, perftest,
    Python and pytest. The command runs as root in /share, without input; its output, errors and exit status are passed
    on. Of the host it sees the folder of --share and nothing else, no network either; what it writes elsewhere is gone
    at the end.

    Status 124: the time was over; 125: the guest did not come up, or died; 2: something is missing here; 3: no mirror
    has the packages, or answers.
    """
    from nicemu.cli.rxe_lab.qemu import Machine

    ctx.obj = Machine(kernel, memory, mtu, share, cpus, accel, verbose=console, lock=lock, mirror=mirror)
    ctx.meta["timeout"], ctx.meta["console"], ctx.meta["dmesg"] = timeout, console, dmesg
    if ctx.invoked_subcommand is None:
        sys.exit(_run(ctx, None))


@rxe.command(RUN, hidden=True, context_settings={"ignore_unknown_options": True})
def run(ctx: typer.Context, words: Annotated[list[str], typer.Argument(metavar="CMD")]) -> None:
    """What `--` stands for."""
    sys.exit(_run(ctx, words))


def _run(ctx: typer.Context, command: list[str] | None) -> int:
    from nicemu.cli.ending import raise_on_sigterm
    from nicemu.cli.rxe_lab import guest

    raise_on_sigterm()
    with ExitStack() as stack:
        take, want = _output(ctx, stack)
        result = guest.run(command, ctx.obj, timeout=ctx.meta["timeout"], on_output=take, want=want)
    _report(result)
    return result.status


def _output(ctx: typer.Context, stack: ExitStack) -> "tuple[OnOutput, list[str]]":
    """What takes the guest's streams, and which beside the usual are wanted."""
    streams = {"out": sys.stdout.buffer, "err": sys.stderr.buffer}
    if ctx.meta["console"]:
        streams["console"] = sys.stderr.buffer
    if ctx.meta["dmesg"] is not None:
        try:
            streams["dmesg"] = stack.enter_context(ctx.meta["dmesg"].open("wb"))
        except OSError as error:
            raise ConfigError(f"expected --dmesg with a file that can be written: {error}") from None

    def take(stream: str, content: bytes) -> None:
        if stream == "stage" and sys.stderr.isatty():
            _show_stage(content.decode())
        if stream in streams:
            streams[stream].write(content)
            streams[stream].flush()

    return take, ["dmesg"] if "dmesg" in streams else []


def _show_stage(stage: str) -> None:
    """One line that changes, and goes when the command begins."""
    text = "" if stage == "rxe0" else f"booting: {stage} ..."
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _report(result: "Result") -> None:
    if result.retries:
        print(f"{result.retries} of {result.retries + 1} boots did not reach rxe0", file=sys.stderr)
    if not result.completed:
        print(f"nicemu: the guest: {result.reason}", file=sys.stderr)


@rxe.command("boots", short_help="Boot the guest N times in a row, with the times.")
def boots(
    ctx: typer.Context,
    count: Annotated[int, typer.Argument(metavar="N", min=1, help="How many.")],
) -> None:
    """Boot the guest N times in a row: a line for each, with the seconds to rxe0 and the boots that had to be repeated.

    The options stand before: nicemu lab rxe --kernel 6.1 boots 10. Status 1 if one of them did not reach rxe0.
    """
    from nicemu.cli.ending import raise_on_sigterm
    from nicemu.cli.rxe_lab import guest

    raise_on_sigterm()
    results: list[Result] = []
    for number in range(1, count + 1):
        result = guest.run(["true"], ctx.obj, timeout=ctx.meta["timeout"])
        results.append(result)
        how = f"rxe0 after {result.boot_seconds:.1f} s" if result.completed else f"no rxe0: {result.reason}"
        typer.echo(f"boot {number} of {count}: {how}, {result.retries} retries, {result.seconds:.1f} s")
    good = [result.boot_seconds for result in results if result.completed]
    times = f"; seconds to rxe0: {min(good):.1f} to {max(good):.1f}, mean {sum(good) / len(good):.1f}" if good else ""
    retries = sum(result.retries for result in results)
    typer.echo(f"{len(good)} of {count} boots reached rxe0, {retries} retries ({results[0].accel}){times}")
    sys.exit(0 if len(good) == count else 1)


@rxe.command("lock", short_help="Move the lock file to the mirror's packages of today.")
def move_lock(ctx: typer.Context) -> None:
    """Move the lock file: resolve the guest's packages anew on the machine's Debian mirror and write their checksums.

    Needs apt, and leaves the machine's packages and lists alone. The file of --lock moves, else nicemu's own:
    nicemu lab rxe --lock my.yaml lock. The next run builds a new guest.
    """
    from nicemu.cli.rxe_lab import lock as lock_file
    from nicemu.cli.rxe_lab import move, sources

    place = ctx.obj.lock or lock_file.FILE
    old = lock_file.read(place)
    base = sources.mirror(ctx.obj.mirror)
    suites = dict.fromkeys(group.suite for group in (old.userspace, *old.kernels.values()))
    typer.echo(f"asking {base} for {', '.join(suites)} ...", err=True)
    new = move.resolve(old, base)
    for line in move.changes(old, new):
        typer.echo(line)
    try:
        place.write_text(lock_file.text(new))
    except OSError as error:
        reason = f"expected a lock file that can be written ({error.strerror}); copy it and name the copy with --lock"
        raise ConfigError(reason, file=str(place)) from None
    typer.echo(f"{place}: Linux {', '.join(new.kernels)}; rdma-core {new.rdma_core()}")


@rxe.command("clean", short_help="Remove built guests and downloaded packages.")
def clean(
    dry: Annotated[bool, typer.Option("--list", help="Say what is there and remove nothing.")] = False,
) -> None:
    """Remove the guests that were built, and the packages they were built from."""
    from nicemu.cli.rxe_lab import cache

    place = cache.folder()
    for path, size in cache.sizes(place):
        typer.echo(f"{size / 1e6:8.1f} MB  {path}")
    if not dry:
        typer.echo(f"removed {cache.clean(place) / 1e6:.0f} MB")


rxe.command("test", short_help="Run the same tests on nicemu and rxe, and explain what differs.")(referee.test)
