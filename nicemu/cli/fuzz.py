"""`nicemu fuzz`: hostile packets and work requests against the device."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nicemu.lab.fuzz.campaign import Result

DEFAULT_N = {"wire": 1_000_000, "wqe": 100_000}


class Mode(StrEnum):
    """What is hostile."""

    wire = "wire"
    wqe = "wqe"


def fuzz(
    mode: Annotated[Mode, typer.Argument(help="wire: packets of a hostile peer; wqe: a program's work requests.")],
    n: Annotated[int | None, typer.Option("--n", min=1, help="Inputs to feed (wire 1,000,000; wqe 100,000).")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same inputs, same history.")] = 1,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so many seconds.")] = None,
    first: Annotated[
        int, typer.Option(min=0, help="Number of the first input, to replay a failure (rounded down to its episode).")
    ] = 0,
) -> None:
    """Feed mutated packets or WQEs into the device; exit 1 if anything that must hold does not."""
    from nicemu.lab.fuzz.campaign import fuzz as run
    from nicemu.lab.fuzz.report import failure_lines, summary_lines

    count = n if n is not None or seconds is not None else DEFAULT_N[mode.value]
    progress = Progress()
    result = run(mode.value, count, seed, seconds, first, progress)
    for line in summary_lines(result):
        typer.echo(line)
    if result.failure is not None:
        for line in failure_lines(result):
            typer.echo(line, err=True)
        raise typer.Exit(1)


class Progress:
    """A line on stderr at the first chunk and then every ten seconds, so that a crash leaves seed and number behind."""

    every = 10.0  # seconds

    def __init__(self) -> None:
        self.next = 0.0

    def __call__(self, result: "Result") -> None:
        if result.seconds >= self.next:
            self.next = result.seconds + self.every
            rate = result.done / max(result.seconds, 1e-9)
            print(
                f"nicemu fuzz {result.mode}: seed {result.seed}, number {result.first + result.done:,}, {rate:,.0f}/s",
                file=sys.stderr,
                flush=True,
            )
