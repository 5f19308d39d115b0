"""`nicemu schema`: what YAML files may say, as JSON Schema, for editors that complete and check."""

import json
from typing import Annotated, Any

import typer

from nicemu.config.errors import ConfigError

KINDS = ("experiment", "lab", "nic", "host")


def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What for: {', '.join(KINDS)}.")],
) -> None:
    """Print the JSON Schema of a kind of YAML file.

    An editor with a YAML language server uses it after: nicemu schema lab > lab.json, and a first line in the file
    that says: # yaml-language-server: $schema=lab.json
    """
    if kind not in KINDS:
        raise ConfigError(f"command line: field KIND: expected one of {', '.join(KINDS)}, given {kind!r}")
    typer.echo(json.dumps(_model(kind).model_json_schema(), indent=1))


def _model(kind: str) -> Any:
    from nicemu.config import Config, HostProfile, NicProfile
    from nicemu.experiment.schema import Experiment

    return {"experiment": Experiment, "lab": Config, "nic": NicProfile, "host": HostProfile}[kind]
