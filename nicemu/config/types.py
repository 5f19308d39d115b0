"""The field types of the configuration: integers with units, all strict (a string is never taken for a number)."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Nanoseconds = Annotated[int, Field(ge=0, le=10**12)]
"""Virtual time: up to 1000 seconds."""

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""A number of things, at least one, as an ibv attribute can report it."""

CountOrNone = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A number of things; 0: not supported."""

Pages = Annotated[int, Field(ge=1, le=2**36)]
"""4 KiB pages."""

Word32 = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Record(BaseModel):
    """A frozen group of fields: unknown fields and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain Python values, ready for YAML or JSON."""
        return self.model_dump(mode="json")


Factor = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]


class Spread(Record):
    """What costs are times: percentiles of a factor, which lies on straight lines between them. The seed draws."""

    p0: Factor = 1.0
    p50: Factor = 1.0
    p95: Factor = 1.0
    p99: Factor = 1.0
    p100: Factor = 1.0

    @model_validator(mode="after")
    def _percentiles_ascend(self) -> Self:
        if not self.p0 <= self.p50 <= self.p95 <= self.p99 <= self.p100:
            raise ValueError(": expected p0 <= p50 <= p95 <= p99 <= p100")
        return self
