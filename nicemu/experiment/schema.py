"""What an experiment file says (`configs/experiments/*.yaml`)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from nicemu.config.types import Record

Scalar = str | int | float | bool
Kind = Literal["fitted", "prediction", "qualitative"]
AGGREGATE = re.compile(r"p\d{1,2}(\.\d+)?|min|max|mean|sum|count")


def _aggregate(value: str) -> str:
    if AGGREGATE.fullmatch(value) is None:
        raise ValueError(": expected p50, p99.9 or another percentile, or one of min, max, mean, sum, count")
    return value


def _name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", value) is None:
        raise ValueError(": expected a name: a letter, then letters, digits, '_', '-'")
    return value


def _many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Name = Annotated[str, AfterValidator(_name)]
Names = Annotated[tuple[str, ...], BeforeValidator(_many), Field(strict=False)]
Where = dict[str, Scalar]
"""Values of axes; an axis that is not named may have any."""


class Workload(Record):
    """Which workload runs. Its parameters are those of the function: any other field is one."""

    model_config = ConfigDict(extra="allow")
    name: str = ""  # of a shipped one, or of a function in `file`
    file: str = ""  # a Python file with workloads, relative to the experiment's
    script: str = ""  # instead: a pyverbs program, relative to the experiment's
    arguments: Annotated[tuple[Scalar, ...], Field(strict=False)] = ()  # of the script

    @property
    def parameters(self) -> dict[str, Any]:
        """What is set of the function's parameters."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.name) == bool(self.script):
            raise ValueError("name: expected the name of a workload, or a script instead")
        if self.script and (self.parameters or self.file):
            raise ValueError("script: expected no other fields than arguments beside a script")
        return self


class Metric(Record):
    """One number of a point: a column of the observations (or a counter of the runs), aggregated."""

    of: str  # a column (total_ns), or a counter by its dotted name (nic0.page_faults)
    aggregate: Annotated[str, AfterValidator(_aggregate)] = "mean"
    unit: str = ""  # s, ms, us, ns: a column whose name ends in _ns is converted
    title: str = ""


class Place(Record):
    """A metric at one point."""

    metric: str = ""  # empty: the same metric
    where: Where = Field(default_factory=dict)


class Expectation(Record):
    """What a metric should be, and who says so."""

    metric: str
    where: Where = Field(default_factory=dict)
    value: float | None = None
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # a share: 0.05 is 5 %
    min: float | None = None
    max: float | None = None
    relation: Literal["increasing", "decreasing", "never_decreasing", "never_increasing"] | None = None
    along: str = ""  # the axis of a relation
    less_than: Place | None = None
    ratio_to: Place | None = None  # value, min or max are of the ratio
    source: str = ""
    kind: Kind = "prediction"
    gate: bool = True  # false: shown, but never a failure
    note: str = ""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        forms = [self.value is not None, self.min is not None or self.max is not None, self.relation is not None,
                 self.less_than is not None]  # fmt: skip
        if sum(forms) != 1:
            raise ValueError("value: expected one of value, min and max, relation, less_than")
        if self.value is not None and self.gate and self.tolerance is None:
            raise ValueError("tolerance: expected a share such as 0.05 beside a value that is gated")
        if bool(self.along) != (self.relation is not None):
            raise ValueError("along: expected the axis of a relation")
        if self.ratio_to is not None and (self.relation or self.less_than):
            raise ValueError("ratio_to: expected value, min or max beside it")
        return self


class PaperPoint(Record):
    """A point of a publication, drawn beside ours."""

    x: Scalar
    y: float
    low: float | None = None
    high: float | None = None


class Paper(Record):
    """Points of a publication."""

    label: str
    points: Annotated[tuple[PaperPoint, ...], Field(strict=False)]


class Plot(Record):
    """One picture. `line` and `bar`: metrics over an axis; `stacked`: metrics on top of each other; `cdf`: a column."""

    name: Name
    kind: Literal["line", "bar", "stacked", "cdf"]
    title: str = ""
    x: str = ""  # an axis
    y: Names = ()  # metrics
    of: str = ""  # the column of a cdf
    unit: str = ""  # of a cdf
    by: str = ""  # an axis: a series (a bar, a line) for each of its values
    where: Where = Field(default_factory=dict)
    log: Annotated[tuple[Literal["x", "y"], ...], BeforeValidator(_many), Field(strict=False)] = ()
    x_label: str = ""
    y_label: str = ""
    paper: Annotated[tuple[Paper, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _has_its_data(self) -> Self:
        if self.kind == "cdf" and not self.of:
            raise ValueError("of: expected the column of a cdf")
        if self.kind != "cdf" and not (self.x and self.y):
            raise ValueError("x: expected an axis as x and metrics as y")
        return self


class Adjustment(Record):
    """Settings that some points have beside their axes: fewer iterations where each takes longer."""

    where: Where
    settings: dict[str, Any]  # by key: workload.iterations


class Show(Record):
    """The point whose trace and capture are kept, run once more for them with some settings of its own."""

    where: Where = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)  # by key: workload.iterations


class Sweep(Record):
    """What varies: keys (`lab.nic.costs.resume_ns`, `firmware`, `workload.pages`) and their values, each with each;
    those under `zip` go together. A value that is no scalar has a label: {label: none, value: []}."""

    model_config = ConfigDict(extra="allow")
    zip: dict[str, list[Any]] = Field(default_factory=dict)

    @property
    def product(self) -> dict[str, Any]:
        """The axes that go with each other in every combination."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        for key, values in {**self.product, **self.zip}.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f": expected a list of values for {key}")
        if len({len(values) for values in self.zip.values()}) > 1:
            raise ValueError("zip: expected lists of one length")
        return self


class Experiment(Record):
    """One experiment."""

    name: Name
    title: str
    question: str
    answer: str = ""  # what came out; {npf_p50 pages=1} is the metric's value there
    sources: Names = ()
    lab: str | dict[str, Any] = Field(default_factory=dict)  # a name, a path, or fields; `like: NAME`: others as there
    firmware: str = ""  # the same as lab.firmware
    workload: Workload
    sweep: Sweep = Sweep()
    adjust: Annotated[tuple[Adjustment, ...], Field(strict=False)] = ()
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    metrics: dict[str, Metric]
    expect: Annotated[tuple[Expectation, ...], Field(strict=False)] = ()
    plots: Annotated[tuple[Plot, ...], Field(strict=False)] = ()
    show: Show | None = None
    quick: dict[str, Any] = Field(default_factory=dict)  # settings of --quick, by key

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        used = [("expect", each.metric) for each in self.expect]
        used += [("expect", place.metric) for each in self.expect for place in (each.less_than, each.ratio_to)
                 if place is not None and place.metric]  # fmt: skip
        used += [("plots", name) for plot in self.plots for name in plot.y]
        for field, name in used:
            if name not in self.metrics:
                raise ValueError(f"{field}: expected metrics among {', '.join(self.metrics)}, not {name}")
        return self
