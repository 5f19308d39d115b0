"""``nicemu run --record DIR``: one folder that says what a run was given, what happened, and what it counted.

=================  ====================================================================================
``config.yaml``    the whole configuration, for ``nicemu run --config``
``firmware/``      firmware images, those that are not shipped
``program.py``     the program, if it is a file
``run.json``       its arguments, its exit status, nicemu's version
``trace.pftrace``  the event log
``capture.pcapng`` the packets
``counters.json``  the counters at the end (``nicemu.lab.counters``)
``live.json``      while the program runs: the counters of half a second ago, for ``nicemu top``
=================  ====================================================================================

Everything but ``live.json`` is the same for two runs with one seed. Only ``live.json`` knows the wall clock.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicemu.config.errors import ConfigError
from nicemu.lab.counters import snapshot
from nicemu.observe.run_folder import CAPTURE, COUNTERS, LIVE, TRACE

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab

PERIOD_S = 0.5
IMAGES = "firmware"
WRITTEN = {"config.yaml", IMAGES, "program.py", "run.json", TRACE, CAPTURE, COUNTERS, LIVE}


class Record:
    """The folder of one run. ``begin`` when its lab is there, ``end`` after the program."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pid = folder.resolve(), os.getpid()  # the program may go to another folder
        self.lab: Lab | None = None
        self._make()

    def _make(self) -> None:
        """Make the folder; that of an earlier run stays as it is until :meth:`inputs`.

        :raises ConfigError: it holds something else, or cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            foreign = sorted({entry.name for entry in self.folder.iterdir()} - WRITTEN)
            if foreign:
                text = f"--record: expected an empty folder or an earlier record, given one with {foreign[0]!r}"
                raise ConfigError(text)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    @property
    def files(self) -> dict[str, str]:
        """Fields of the lab's configuration: where log and capture go."""
        return {"trace": str(self.folder / TRACE), "pcap": str(self.folder / CAPTURE)}

    def inputs(self, config: Any, program: Path | None) -> None:
        """Write what the run is given, in the place of an earlier record, of which it may be a part."""
        import yaml

        try:
            own = [name for name in dict.fromkeys(config.firmware) if name.endswith(".py")]
            called = _names(own)
            files = {called[name]: Path(name).read_bytes() for name in own}
            if program is not None:
                files["program.py"] = program.read_bytes()
            firmware = [called.get(name, name) for name in config.firmware]
            fields = config.to_dict() | {"trace": None, "pcap": None, "firmware": firmware}
            files["config.yaml"] = yaml.safe_dump(fields, sort_keys=False).encode()
            self._empty()
            for place, data in files.items():
                (self.folder / place).parent.mkdir(exist_ok=True)
                (self.folder / place).write_bytes(data)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def _empty(self) -> None:
        shutil.rmtree(self.folder / IMAGES, ignore_errors=True)
        for name in WRITTEN - {IMAGES}:
            (self.folder / name).unlink(missing_ok=True)

    def begin(self, lab: Lab) -> None:
        """From now on ``live.json`` is kept up to date, twice a second."""
        self.lab = lab
        lab.timeline.engine = _Watched(lab.timeline.engine, self.publish)

    def publish(self) -> None:
        """Write ``live.json``. A forked child's counters are a copy: not its to publish."""
        if self.lab is not None and os.getpid() == self.pid:
            self._write(LIVE, snapshot(self.lab) | {"wall_s": time.time()})

    def end(self, **run: Any) -> None:
        """Write what is known at the end: ``run`` into ``run.json``, and the counters."""
        if self.lab is None or os.getpid() != self.pid:
            return
        self._write("run.json", run)
        self._write(COUNTERS, snapshot(self.lab))
        (self.folder / LIVE).unlink(missing_ok=True)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        """Readers see the old file or the new one, nothing between."""
        fresh = self.folder / f"{name}.new"
        try:
            fresh.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
            fresh.replace(self.folder / name)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error


def _names(images: list[str]) -> dict[str, str]:
    """What a record calls firmware images that are not shipped, by path: each its own name."""
    called: dict[str, str] = {}
    for number, image in enumerate(images):
        place = f"{IMAGES}/{Path(image).name}"
        called[image] = place if place not in called.values() else f"{IMAGES}/{number}-{Path(image).name}"
    return called


def _cannot_write(folder: Path, error: OSError) -> ConfigError:
    text = f"--record: expected a folder that can be written, given {str(folder)!r}: {error.strerror}"
    return ConfigError(text)


class _Watched:
    """An engine that tells ``publish`` now and then; the history is the same with and without it. A run of it may last
    long (one WRITE of 1 GiB): it tells when the event log is full, too, which it is every few thousand events."""

    def __init__(self, engine: Any, publish: Callable[[], None]) -> None:
        self.engine, self.publish = engine, publish
        self.enter, self.interrupts, self.error = engine.enter, engine.interrupts, engine.error
        self.set_time, self.idle = engine.set_time, engine.idle
        self.drain, engine.on_trace = engine.on_trace, self._drained
        self.due = 0.0

    def run(self, until: int) -> int:
        """As the engine's."""
        stop: int = self.engine.run(until)
        self._tell()
        return stop

    def _drained(self, world: Any) -> None:
        if self.drain is not None:
            self.drain(world)
        self._tell()

    def _tell(self) -> None:
        if time.monotonic() >= self.due:
            self.publish()
            self.due = time.monotonic() + PERIOD_S
