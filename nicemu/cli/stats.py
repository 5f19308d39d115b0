"""`nicemu stats`: the counters of a recorded run, for people, programs and Prometheus."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nicemu.config.errors import ConfigError


def stats(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A folder of nicemu run --record (it may run still) or experiment.")
    ],
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Text exposition format, as node_exporter's textfile collector reads.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, in JSON.")] = False,
) -> None:
    """Print the counters of a run under the kernel's names.

    What nicemu run --stats prints, again, or the other formats. Counters of MRs are those of rdma stat mr, counters of
    ports (nicemu0/1) have the names of mlx5's and rxe's hw_counters; those that are 0 are left out of the text.

    The NIC's own (nicemu0) count what its blocks and the firmware's hooks did: page_faults, retransmits, zaps.
    Those of queue pairs and links are in --json and --prometheus only.

    Example: nicemu run --record out --firmware npf examples/odp_pingpong.py && nicemu stats out

    Example: nicemu stats --prometheus out > nicemu.prom
    """
    from nicemu.observe import counters_text
    from nicemu.observe.prometheus import exposition
    from nicemu.observe.run_folder import counters_of

    snapshot = counters_of(run)
    if prometheus and as_json:
        raise ConfigError("expected one of --prometheus and --json, given both")
    if prometheus:
        text = exposition(snapshot)
    else:
        text = (json.dumps(snapshot, indent=1) if as_json else "\n".join(counters_text.lines(snapshot))) + "\n"
    typer.echo(text, nl=False)
