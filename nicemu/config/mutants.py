"""Deliberate ordering bugs, by name: what each does wrong. All are off unless a configuration names them.

`layer` says whose code asks for it: the mm (`Host.broken`), the driver (`Driver.broken`) or the NIC.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One deliberate bug."""

    layer: str
    what: str


MUTANTS: dict[str, Mutant] = {
    "skip_device_wait": Mutant("driver", "an invalidation does not wait for the device's completion"),
    "ignore_fork_protect": Mutant("driver", "fork's write protection does not invalidate"),
    "drop_mutex_before_mtt_write": Mutant("driver", "umem_mutex is dropped between retry check and MTT write"),
    "zap_without_flush": Mutant("nic", "ZAP_MTT leaves the IOTLB as it is"),
    "zap_without_drain": Mutant("nic", "ZAP_MTT completes before DMA in flight has drained"),
}


def of_layer(layer: str, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``chosen`` that are the layer's.

    :raises ValueError: one is unknown.
    """
    for name in chosen:
        if name not in MUTANTS:
            raise ValueError(f"mutant {name!r} is unknown: one of {', '.join(MUTANTS)}")
    return tuple(name for name in chosen if MUTANTS[name].layer == layer)
