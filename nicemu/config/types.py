"""The field types of the configuration: integers with units, all strict (a string is never taken for a number)."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

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
