"""Where the files that nicemu ships lie: `configs/` and `firmware/`, in a checkout and inside the wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped(folder: str) -> Path:
    """The shipped folder `configs` or `firmware`: `nicemu/_configs` in a wheel, `configs` at the top of a checkout."""
    inside = _PACKAGE / f"_{folder}"
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def shipped_names(folder: str, suffix: str) -> list[str]:
    """The names, without suffix, of the shipped files in `folder` (`configs/nic`), sorted."""
    top, _, rest = folder.partition("/")
    files = shipped(top).joinpath(rest).glob(f"*{suffix}")
    return sorted(file.stem for file in files if not file.name.startswith("_"))


def find(name: str, folder: str, suffix: str, base: Path | None = None) -> Path | None:
    """The file that `name` means, or None.

    `name` is a path if it has a slash or ends in `suffix` (relative to `base`, by default the working directory),
    otherwise the name of a file shipped in `folder`.
    """
    if "/" in name or name.endswith(suffix):
        path = (base or Path.cwd()) / Path(name).expanduser()
        return path if path.is_file() else None
    top, _, rest = folder.partition("/")
    path = shipped(top) / rest / f"{name}{suffix}"
    return path if path.is_file() else None
