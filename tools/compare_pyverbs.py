#!/usr/bin/env python3
"""Compares `nicemu.pyverbs` with the real package and writes docs/pyverbs.md; `--check` exits 1 if that is out of date.

Two references: the source distribution of release 59 (parameters, defaults, which properties can be set), and the
compiled package that Debian ships (names, and the values of enums). One that cannot be had leaves its section of the
document as it is, and a line says why. `--installed PYTHON` prints the comparison with the `pyverbs` that an
interpreter has, and every value, text and error that differs where no device is needed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyverbs_source
from pyverbs_differences import Difference, differences
from pyverbs_reasons import BEHAVIOUR

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "pyverbs.md"
LIVE = ROOT / "tools" / "pyverbs_live.py"
VALUES = ROOT / "tools" / "pyverbs_values.py"
SOURCE = "pyverbs-59.0.tar.gz"
DEBIAN = ("python3-pyverbs", "libibverbs1", "librdmacm1", "ibverbs-providers", "libnl-3-200", "libnl-route-3-200")
SECTIONS = ("source", "debian")
TITLES = {
    "source": "Release 59, from its source distribution",
    "debian": "Release 44, as Debian 12 compiles it",
}
HEAD = """# pyverbs: what differs from the real package

Written by `tools/compare_pyverbs.py`; do not edit. Compared are the modules outside vendor providers: classes, bases,
methods, properties and whether they can be set, parameters with their defaults, functions, constants, enums.

What differs on purpose in behaviour:

{behaviour}
"""

Surfaces = dict[str, dict[str, Any]]


class Unavailable(Exception):
    """A reference cannot be had; `str()` is one line."""


class Section(NamedTuple):
    """What one reference showed."""

    text: str
    unexplained: list[Difference]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if docs/pyverbs.md is out of date")
    parser.add_argument("--installed", metavar="PYTHON", help="print the comparison with that interpreter's pyverbs")
    options = parser.parse_args()
    ours = live(sys.executable, "nicemu.pyverbs", {"PYTHONPATH": str(ROOT)})
    if options.installed:
        print(section(ours, live(options.installed, "pyverbs", {})).text)
        print_values(options.installed)
        return 0
    stored = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    written, status = [head()], 0
    for name in SECTIONS:
        try:
            made = section(ours, REFERENCES[name](), newer=name == "debian")
        except Unavailable as reason:
            print(f"{TITLES[name]}: not compared: {reason}")
            written.append(stored_section(stored, name))
            continue
        for each in made.unexplained:
            print(f"{TITLES[name]}: no reason given for: {each.module} {each.name}: {each.what}")
            status = 1
        written.append(f"<!-- {name} -->\n\n## {TITLES[name]}\n\n{made.text}")
    document = "\n".join(written)
    if not options.check:
        DOCUMENT.write_text(document, encoding="utf-8")
    elif document != stored:
        print("docs/pyverbs.md is out of date: run tools/compare_pyverbs.py")
        status = 1
    return status


def head() -> str:
    """The document's beginning."""
    return HEAD.format(behaviour="\n".join(f"- {each}" for each in BEHAVIOUR))


def live(python: str, package: str, environment: dict[str, str]) -> Surfaces:
    """The surfaces of an importable package. Raises Unavailable."""
    command = [python, str(LIVE), package]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or ["it cannot be imported"])[-1])
    surfaces: Surfaces = json.loads(done.stdout)
    return surfaces


def print_values(python: str) -> None:
    """What the two packages answer differently. Where the real one crashes, so it says."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = ([sys.executable, str(VALUES), "nicemu.pyverbs"], environment), ([python, str(VALUES), "pyverbs"], None)
    done = [subprocess.run(command, env=env, check=True, capture_output=True, text=True) for command, env in commands]
    ours, theirs = (json.loads(each.stdout) for each in done)
    for words in sorted(ours.keys() & theirs.keys()):
        if ours[words] != theirs[words]:
            print(f"{words}\n    here:  {ours[words]}\n    there: {theirs[words]}")


def source_surfaces() -> Surfaces:
    """The surfaces of the source distribution, from nicemu's cache or by pip. Raises Unavailable."""
    from nicemu.cli.conformance.fetch import cache_folder

    cached = cache_folder() / SOURCE
    if cached.is_file():
        return pyverbs_source.read(cached)
    with tempfile.TemporaryDirectory() as folder:
        wanted = ["--no-deps", "--no-binary", "pyverbs", "--dest", folder, "pyverbs==59.0"]
        run([sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", *wanted], folder)
        return pyverbs_source.read(Path(folder) / SOURCE)


def debian_surfaces() -> Surfaces:
    """The surfaces of Debian's package, unpacked into a temporary folder. Raises Unavailable."""
    for program in ("apt-get", "dpkg", "/usr/bin/python3"):
        if shutil.which(program) is None:
            raise Unavailable(f"there is no {program}")
    with tempfile.TemporaryDirectory() as folder:
        run(["apt-get", "download", *DEBIAN], folder)
        for package in sorted(Path(folder).glob("*.deb")):
            run(["dpkg", "-x", str(package), "root"], folder)
        libraries = {
            str(path.parent) for path in Path(folder).glob("root/**/*.so.*") if path.parent.parent.name != "usr"
        }
        paths = {
            "PYTHONPATH": f"{folder}/root/usr/lib/python3/dist-packages",
            "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries)),
        }
        return live("/usr/bin/python3", "pyverbs", paths)


def run(command: list[str], folder: str) -> None:
    """Run a program in `folder`. Raises Unavailable with the last line it said."""
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or [f"{command[0]} gave no reason"])[-1])


REFERENCES = {"source": source_surfaces, "debian": debian_surfaces}


def section(ours: Surfaces, theirs: Surfaces, newer: bool = False) -> Section:
    """The comparison as Markdown. With a `newer` release than `theirs` emulated here, what is here only is no news."""
    found = [each for each in differences(ours, theirs) if not (newer and each.what == "here only")]
    rows = [*counts(ours, theirs, found), ""]
    if found:
        rows += ["| module | name | difference | reason |", "|---|---|---|---|"]
        rows += [f"| {each.module} | `{each.name}` | {each.what} | {each.reason} |" for each in found]
    else:
        rows.append("No difference.")
    return Section("\n".join(rows) + "\n", [each for each in found if not each.reason])


def counts(ours: Surfaces, theirs: Surfaces, found: list[Difference]) -> Iterator[str]:
    """A row for each module: what the reference has, and how many names differ."""
    yield "| module | classes | methods | properties | functions | enums | constants | differences |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, surface in sorted(theirs.items()):
        classes = surface["classes"].values()
        numbers = [
            len(classes),
            *(sum(len(each[kind]) for each in classes) for kind in ("methods", "properties")),
            *(len(surface[kind]) for kind in ("functions", "enums", "constants")),
            sum(each.module == name for each in found),
        ]
        yield f"| {name} | {' | '.join(map(str, numbers))} |"


def stored_section(document: str, name: str) -> str:
    """A section of the document that exists, or nothing."""
    _, mark, rest = document.partition(f"<!-- {name} -->\n")
    return mark + rest.split("\n<!-- ")[0]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
