"""The labs of a test session: one that tests share, and fresh ones for tests that ask for their own."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from nicemu._tracebacks import end_in_the_program

LAB = pytest.StashKey[Any]()
"""The lab that is a test's own."""
VIOLATIONS = 5


def configuration(config: pytest.Config, fields: Mapping[str, Any] | None = None) -> Any:
    """The checked configuration that the command line asks for, with a test's own `fields` on top.

    Raises ConfigError.
    """
    from nicemu.config import load_config
    from nicemu.config.load import FORCE_ODP

    overrides: dict[str, Any] = dict(FORCE_ODP) if config.getoption("--nicemu-force-odp") else {}
    overrides["seed"] = config.getoption("--nicemu-seed")
    return load_config(config.getoption("--nicemu-config"), {**overrides, **(fields or {})})


def describe(config: pytest.Config) -> str:
    """The lab in a few words."""
    words = [f"seed {configuration(config).seed}"]
    if config.getoption("--nicemu-config"):
        words.append(f"config {config.getoption('--nicemu-config')}")
    if config.getoption("--nicemu-force-odp"):
        words.append("every MR on demand")
    return ", ".join(words)


def own_lab(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A lab for one test: what its `nicemu` markers say, the nearest one last. On hardware the test is skipped."""
    if not request.config.getoption("--nicemu"):
        pytest.skip("needs the emulated NIC: pytest --nicemu")
    from nicemu.config import ConfigError
    from nicemu.uverbs import session

    fields = {"nics": 2} if "nicemu_two_nics" in request.fixturenames else {}
    for marker in reversed(list(request.node.iter_markers("nicemu"))):
        if marker.args:
            pytest.fail(f"nicemu marker: expected FIELD=VALUE, given {marker.args[0]!r}", pytrace=False)
        fields |= marker.kwargs
    try:
        checked = configuration(request.config, fields)
    except ConfigError as error:
        pytest.fail(f"nicemu marker: {str(error).removeprefix('command line: ')}", pytrace=False)
    session.reset()
    session.configure(checked)
    session.endpoint()  # builds the lab
    lab = session.current()
    request.node.stash[LAB] = lab
    yield lab
    restart(request.config)


def restart(config: pytest.Config) -> None:
    """Close the lab; the tests that share one get a new one when they use it."""
    from nicemu.uverbs import session

    with contextlib.suppress(Exception):  # a test that was interrupted may have left anything
        session.reset()
    session.configure(configuration(config))


def inject(lab: Any, fields: Mapping[str, Any]) -> Any:
    """Plant an entry of `inject:` now. Raises ConfigError."""
    from nicemu.lab.inject import plant

    checked = _checked("inject", fields, {"nic": lab.config.nic, "nics": lab.config.nics})
    entry = plant(lab, checked.inject[0])
    lab.injected.append(entry)
    return entry


def impair(lab: Any, fields: Mapping[str, Any]) -> None:
    """Plant an entry of `impairments:` now. Raises ConfigError."""
    for rule in _checked("impairments", fields, {"nics": lab.config.nics}).impairments:
        lab.fabric.add(rule)


def _checked(section: str, fields: Mapping[str, Any], lab: Mapping[str, Any]) -> Any:
    """A configuration with one entry in `section`. Raises ConfigError, which names the entry's field."""
    from nicemu.config import ConfigError, load_config

    try:
        return load_config(None, {**lab, section: [fields]})
    except ConfigError as error:
        text = str(error).removeprefix("command line: field ").removeprefix(f"{section}.0.")
        raise ConfigError(f"{section}: field {text}") from None


def end_in_the_test(trace: TracebackType | None, file: Path) -> None:
    """Cut a traceback off where a test of `file` calls into this package."""
    while trace is not None and Path(trace.tb_frame.f_code.co_filename) != file:
        trace = trace.tb_next
    end_in_the_program(trace)


def check_fired(item: pytest.Item) -> None:
    """Fail a test of whose own lab a fault did not happen: it has shown nothing."""
    lab = item.stash.get(LAB, None)
    if lab is None:
        return
    idle = [str(entry) for entry in lab.injected if entry.what.must_fire and not entry.fired]
    rules = zip(lab.fabric.rules, lab.fabric.firings(), strict=True)
    idle += [f"impairment '{name}' never fired" for rule, (name, count) in rules if not count and _is_wanted(rule)]
    if idle:
        pytest.fail("nicemu: " + "; ".join(idle), pytrace=False)


def _is_wanted(rule: Any) -> bool:
    """An impairment that a test asks for has to hit something unless it says otherwise; a packet fault of `inject:`
    answers for itself."""
    is_fault = hasattr(rule, "event")
    return not is_fault and (rule.must_fire or "must_fire" not in rule.model_fields_set)


def state(item: pytest.Item) -> list[str]:
    """What a failed test's lab was like, and how to have the same again. Empty: there was none."""
    import sys

    session = sys.modules.get("nicemu.uverbs.session")
    lab = session.current() if session is not None else None
    if lab is None:
        return []
    from nicemu.lab.violations import violation_lines

    config = lab.config
    whose = "its own lab" if item.stash.get(LAB, None) is lab else "the lab that tests share"
    lines = [f"{whose}: seed {config.seed}, {config.nics} NIC(s), at {lab.world.now} ns of virtual time"]
    lines += [f"inject {entry}" for entry in lab.injected]
    lines += [f"impairment '{name}' fired {count} times" for name, count in lab.fabric.firings()]
    lines += [f"watchdog: {text}" for text in lab.watchdog.reports]
    lines += [f"DMA VIOLATION at {line}" for line in violation_lines(lab, VIOLATIONS)]
    lines.append(f"again: pytest --nicemu --nicemu-seed {config.seed} '{item.nodeid}'")
    return lines
