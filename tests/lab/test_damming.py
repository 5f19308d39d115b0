"""Packet damming as a program sees it: examples/damming.py on devices with and without it."""

from pathlib import Path

import pytest

from tests.lab.test_main_job import ROOT, nicemu

EXAMPLE = Path(ROOT) / "examples" / "damming.py"


def reads(*options: str) -> dict[float, tuple[float, float]]:
    """By how many ms later the second READ was posted: what both took, ms."""
    done = nicemu(*options, EXAMPLE)
    assert done.returncode == 0, done.stderr
    rows = [line.replace("ms", "").split() for line in done.stdout.splitlines()[1:]]
    return {float(apart): (float(first), float(second)) for apart, first, second in rows}


def test_by_default_both_are_there_when_the_rnr_wait_is_over():
    for apart, (first, second) in reads().items():
        assert 1.28 < first < 1.3
        assert second < max(first - apart, 0) + 0.01


@pytest.mark.parametrize(("lab", "floor"), [("connectx4", 500), ("connectx5", 30)])
def test_on_a_device_that_dams_the_second_waits_for_the_timer(lab: str, floor: float):
    """In the window, which is 3.5 times the RNR timer; after it nothing is lost."""
    found = reads("--config", lab)
    for apart, (first, second) in found.items():
        assert 4.48 < first < 4.5
        if apart < first:
            assert floor < second < floor + 5
        else:
            assert second < 0.01
    assert len(found) >= 6 and max(found) > 4.5


def test_the_floor_belongs_to_the_profile_and_the_rest_to_the_image():
    """Without a floor the QP's own timeout of 16.8 ms ends it."""
    found = reads("--firmware", "connectx_damming")
    assert all(16.7 < second < 22 for apart, (first, second) in found.items() if apart < first)
    calm = reads("--config", "connectx4", "--firmware", "default")
    assert all(second < 1.3 for _, second in calm.values())
