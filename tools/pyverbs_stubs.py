#!/usr/bin/env python3
"""Writes the stubs by which type checkers and editors know `import pyverbs`; `--check` exits 1 if any is out of date.

`stubs/pyverbs-stubs` re-exports nicemu's annotated classes under pyverbs' module names, and is installed with nicemu.
Beside the flat enum modules, which fill themselves when imported, lie stubs that name every member.
"""

import argparse
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nicemu import pyverbs  # noqa: E402
from nicemu.pyverbs import cm_enums, enums, libibverbs_enums, librdmacm_enums  # noqa: E402

STUBS = ROOT / "stubs" / "pyverbs-stubs"
MARK = "# Written by tools/pyverbs_stubs.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a stub is out of date")
    check = parser.parse_args().check
    stale = [path for path, text in wanted() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date' if check else 'written'}")
    if check:
        return 1 if stale else 0
    for path, text in wanted():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def wanted() -> Iterator[tuple[Path, str]]:
    """Every stub with its text."""
    for flat, classes in ((enums, libibverbs_enums), (cm_enums, librdmacm_enums)):
        yield Path(flat.__file__ or "").with_suffix(".pyi"), flat_text(flat, classes)
    yield STUBS / "__init__.pyi", f"{MARK}\n"
    for found in pkgutil.walk_packages(pyverbs.__path__, "nicemu.pyverbs."):
        below = found.name.removeprefix("nicemu.pyverbs.").split(".")
        if below[-1].startswith("_"):
            continue
        if found.ispkg:
            yield STUBS.joinpath(*below, "__init__.pyi"), f"{MARK}\n"
        else:
            yield STUBS.joinpath(*below).with_suffix(".pyi"), alias_text(found.name)


def alias_text(module: str) -> str:
    """All public names of a module, and those of libibverbs_enums that begin with an underscore.

    The modules of providers make their classes when they are imported: to a checker, any name of theirs is Any.
    """
    if ".providers." in module and not module.endswith("_enums"):
        return f"{MARK}\nfrom typing import Any\n\ndef __getattr__(name: str) -> Any: ...\n"
    lines = [MARK, f"from {module} import *"]
    names = vars(libibverbs_enums) if module.endswith("libibverbs_enums") else ()
    lines += [f"from {module} import {name} as {name}" for name in names if name.startswith("_IBV_")]
    return "\n".join(lines) + "\n"


def flat_text(flat: object, classes: object) -> str:
    """The members of every enum at module level, as older releases have them."""
    lines = [MARK, f"from {classes.__name__} import *", ""]  # type: ignore[attr-defined]
    for name, value in vars(flat).items():
        if isinstance(value, int) and not hasattr(classes, name):
            lines.append(f"{name}: {type(value).__name__}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
