"""The commands and what `nicemu --help` says about them."""

from typing import Annotated

import typer

import nicemu
from nicemu.cli import bench, check, devinfo, diff, experiment, fuzz, run, schema, stats, top, why
from nicemu.cli.conformance import command as conformance
from nicemu.cli.firmware import command as firmware
from nicemu.cli.rxe_lab import command as rxe_lab

app = typer.Typer(
    help="A software RDMA NIC with on-demand paging: run verbs programs without RDMA hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would double the time it takes
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nicemu {nicemu.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


app.command("run", cls=run.RunCommand)(run.run)
app.command("devinfo")(devinfo.devinfo)
app.command("conformance")(conformance.conformance)
app.command("check")(check.check)
app.command("fuzz")(fuzz.fuzz)
app.command("experiment")(experiment.experiment)
app.command("schema")(schema.schema)
app.command("stats")(stats.stats)
app.command("top")(top.top)
app.command("why")(why.why)
app.command("diff")(diff.diff)
app.command("bench")(bench.bench)
app.add_typer(firmware.firmware, name="firmware")
app.add_typer(rxe_lab.lab, name="lab")
