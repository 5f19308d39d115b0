"""The scenarios, one file per area of the mm."""

from nicemu.check.scenario import Scenario
from nicemu.check.scenarios import ranges

ALL: dict[str, Scenario] = {scenario.name: scenario for module in (ranges,) for scenario in module.SCENARIOS}
