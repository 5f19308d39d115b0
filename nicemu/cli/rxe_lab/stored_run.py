"""A run as a JSON file: all results, versions and rows; and one that was made before, in the place of a guest."""

import contextlib
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nicemu
from nicemu.cli.conformance.stored import write_text
from nicemu.cli.rxe_lab.compare import Difference, Row
from nicemu.cli.rxe_lab.differential import GROUPS, THERE, Differential, job_name, problems
from nicemu.cli.rxe_lab.records import JobResult, Observation, Record
from nicemu.config.errors import ConfigError

SHIPPED = Path(__file__).parent / "runs"
FORMAT = 1
MAX_BYTES = 64 << 20


def write(path: Path, found: Differential) -> None:
    """Store a run. Raises ConfigError."""
    document = {
        "format": FORMAT,
        "versions": found.versions,
        "whole": found.whole,
        "problems": problems(found),
        "jobs": [job.to_dict() for job in found.jobs.values()],
        "rows": [_row(row) for row in found.rows],
        "left_with_profile_rxe": None if found.remaining is None else [
            _row(row) for row in found.remaining if row.differences
        ],
        "stale_explanations": [each.name for each in found.stale],
    }  # fmt: skip
    write_text(path, "w", json.dumps(document, indent=1) + "\n")


def write_reference(folder: Path, found: Differential) -> None:
    """Store what rxe did as `rxe-KERNEL.json`, a line a test. Raises ConfigError.

    Without what the other side of a comparison has as well: the values that the specification asks, and reasons.
    """
    jobs = [job for name, job in found.jobs.items() if name.endswith(f"/{THERE}")]
    parts = []
    for job in jobs:
        head = {**job.to_dict(), "tests": []}
        tests = ",\n  ".join(json.dumps(_short(record), separators=(",", ":")) for record in job.records.values())
        parts.append(json.dumps(head).replace('"tests": []', f'"tests": [\n  {tests}\n ]'))
    versions = json.dumps(found.versions)
    every = ",\n ".join(parts)
    with contextlib.suppress(OSError):  # said by what comes next
        folder.mkdir(exist_ok=True)
    text = f'{{"format": {FORMAT}, "versions": {versions}, "jobs": [\n {every}\n]}}\n'
    write_text(folder / f"rxe-{found.versions['guest']['kernel_series']}.json", "w", text)


def _short(record: Record) -> dict[str, Any]:
    observed = tuple(Observation(each.what, each.observed) for each in record.observations)
    short = replace(record, detail="", observations=observed).to_dict()
    short["observations"] = [{"what": each.what, "observed": each.observed} for each in observed]
    return short if observed else {name: value for name, value in short.items() if name != "observations"}


def _row(row: Row) -> dict[str, Any]:
    return {**asdict(row), "differences": [_difference(each) for each in row.differences]}


def _difference(each: Difference) -> dict[str, Any]:
    known = each.explanation
    found = {"what": each.what, "here": each.here, "there": each.there, "reason": each.reason, "why": each.why}
    if known is not None:
        found["explanation"] = {"name": known.name, "text": known.text, "right": known.right, "source": known.source,
                                "modelled": known.modelled}  # fmt: skip
    return {name: value for name, value in found.items() if value != ""}


def read(name: str) -> tuple[dict[str, JobResult], dict[str, Any]]:
    """The jobs on rxe of a stored run, by name, and its versions; `name` is a file or one that is shipped.

    Raises ConfigError.
    """
    path = SHIPPED / f"{name}.json" if re.fullmatch(r"[\w.-]+", name) and not Path(name).exists() else Path(name)
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_BYTES))
        jobs = [JobResult.from_dict(each) for each in document["jobs"]]
        versions = dict(document["versions"])
        versions["guest"] = dict(versions.get("guest") or {})
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.json"))) or "(none is shipped)"
        raise ConfigError(f"--against: expected a file or {known}, given {name!r}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise ConfigError(f"--against: expected what --json wrote, given {name!r}") from None
    wanted = [job_name(group, THERE) for group in GROUPS]
    found = {job.name: job for job in jobs if job.name in wanted}
    if not found:
        raise ConfigError(f"--against: expected a run with {' or '.join(wanted)}, given none in {name!r}")
    return found, versions


def versions(guest: Mapping[str, Any]) -> dict[str, Any]:
    """Of everything that takes part; `guest`: what is known of the guest."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("numpy", "numba", "llvmlite", "pytest") if _installed(name)}
    release = ".".join(platform.release().split(".")[:2])
    system = f"{platform.system()} {release} {platform.machine()}"
    host = {"python": platform.python_version(), "system": system, "processors": os.cpu_count(), **packages}
    return {"nicemu": nicemu.__version__, "host": host, "guest": dict(guest)}


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
