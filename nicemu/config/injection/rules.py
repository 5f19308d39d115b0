"""What every entry of `inject:` has: where, when, how often, and that it must happen.

Beside its fields each kind says how a program meets it: on hardware, here, and where that is from. `docs/faults.md`
is made of it (`nicemu.config.injection.table`).
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from nicemu.config.types import Count, Nanoseconds, Record


class Injection(Record):
    """One entry. With `must_fire` a run in which it did not happen fails."""

    boundary: ClassVar[str]
    hardware: ClassVar[str]
    here: ClassVar[str]
    source: ClassVar[str]

    must_fire: bool = True

    @property
    def detail(self) -> str:
        """Which one of its kind, in a few words."""
        return ""


class OfNic(Injection):
    """At one NIC."""

    nic: Annotated[int, Field(ge=0, le=255)] = 0


class Timed(Injection):
    """At a time, counted from the start of the lab."""

    at_ns: Nanoseconds = 0


class Counted(Injection):
    """At occasions, counted from 1: the `nth`, each `every`-th, or each with a `chance` of its own draw from the seed.

    What comes before `after_ns` is not counted. `times`: firings at most; 1 with nth, where more mean so many in a
    row.
    """

    nth: Count | None = None
    every: Count | None = None
    chance: Annotated[float, Field(gt=0, le=1)] | None = None
    times: Count | None = None
    after_ns: Nanoseconds = 0

    @property
    def occasion(self) -> str:
        """What is counted, with an article: `a send doorbell`."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _one_way_to_count(self) -> Self:
        given = [name for name in ("nth", "every", "chance") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: expected only one of nth, every and chance")
        return self
