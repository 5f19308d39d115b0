"""The scenarios, one file per area of the mm."""

from nicemu.check.scenario import Scenario
from nicemu.check.scenarios import files, huge, page_operations, ranges

MODULES = (ranges, files, huge, page_operations)
ALL: dict[str, Scenario] = {scenario.name: scenario for module in MODULES for scenario in module.SCENARIOS}
