"""`nicemu firmware`: which images there are, what a hook is asked, a new image from a template, and its check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.nic.firmware import Image

firmware = typer.Typer(
    help="""A NIC's firmware: Python files whose functions decide what a vendor's firmware would.

    A NIC asks its image about 31 things: how long to wait after an RNR NAK, which pages a fault asks for, what to send
    again. An image answers some of them and leaves the rest to the image `default`. The engine is not recompiled.""",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
    nicemu firmware hooks rnr_wait                what this hook is asked, in which units
    nicemu firmware new slow.py --hook rnr_wait   a file to change
    nicemu firmware check slow.py                 what is wrong with it, and what it changes
    nicemu run --firmware ./slow.py --check-firmware PROGRAM.py""",
)

Markdown = Annotated[bool, typer.Option("--markdown", help="The table of docs/firmware.md.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[HOOK]...", help="Only these; all if none is given.")]


@firmware.command("list")
def list_images(markdown: Markdown = False) -> None:
    """The images that come with nicemu, for `--firmware NAME` and `firmware: NAME`."""
    from nicemu.cli.firmware import tables

    print(tables.images_markdown() if markdown else tables.images_text())


@firmware.command("hooks")
def hooks(names: Names = None, markdown: Markdown = False) -> None:
    """What each hook is asked, of which row, in which units, and what `default` answers.

    Every hook is `int64 f(world, row, arg)`: reach the row by `from nicemu.firmware import qp`, `qp(world, row)`.
    """
    from nicemu.cli.firmware import tables

    print(tables.hooks_markdown() if markdown else tables.hooks_text(_known(names or [], "HOOK")))


@firmware.command("new")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The Python file to write; it must not exist.")],
    hook: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A hook to begin with, as often as you like; else all.")
    ] = None,
) -> None:
    """Write a new image that does what `default` does, with units and ranges beside each answer, to be changed."""
    from nicemu.cli.firmware import tables

    chosen = _known(hook or [], "--hook")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(tables.template(chosen))
    except OSError as error:
        raise ConfigError(f"expected a file that can be made, given {str(file)!r}: {error.strerror}") from None
    count = f"{len(chosen)} hook{'' if len(chosen) == 1 else 's'}"
    print(f"{file}: {count}. Change an answer, then: nicemu firmware check {file}")


@firmware.command("check")
def check(
    image: Annotated[str, typer.Argument(metavar="FILE", help="An image: a path, or the name of a shipped one.")],
) -> None:
    """Load and compile an image: the first thing that is wrong with it, with its line, or what it changes."""
    from nicemu import lab
    from nicemu.config import load_config

    given = f"./{image}" if "/" not in image and Path(image).is_file() else image
    try:
        (loaded,) = lab.load_firmware(load_config(None, {"firmware": given}))
    except lab.FirmwareError as error:
        raise ConfigError(str(error)) from None
    _say(loaded)


def _say(image: "Image") -> None:
    from nicemu.cli.firmware import tables
    from nicemu.nic import firmware as images
    from nicemu.nic import unit_code

    print(f"{image.path}: {image.doc.splitlines()[0] if image.doc else 'no docstring'}")
    print(tables.changes_text(image))
    absent = [key for key in tables.TOLD if key not in tables.told(image.doc)]
    if absent:
        print(f"  docstring  says nothing of {', '.join(absent)}")
    print(f"  code       {images.code_text(image)}")
    unit_code.load_units()
    print(f"  engine     {unit_code.code_text()}")


def _known(names: list[str], option: str) -> list[str]:
    """The hooks of these names, all if there are none."""
    import difflib

    from nicemu.nic.firmware import HOOKS

    for name in names:
        if name not in HOOKS:
            close = difflib.get_close_matches(name, HOOKS, n=3)
            expected = " or ".join(close) if close else "a name that nicemu firmware hooks prints"
            raise ConfigError(f"{option}: expected {expected}, given {name!r}")
    return names or list(HOOKS)
