"""The module names, classes and behaviour of rdma-core's pyverbs, on the emulated NIC.

`nicemu run` and the pytest plug-in make `import pyverbs` mean this package. With the real package any import of it
brings the modules of :data:`BROUGHT`, so that programs find them as attributes after `import pyverbs.device`. Here they
are attributes as well; they load when they are looked at.
"""

from __future__ import annotations

import importlib
from types import ModuleType

BROUGHT = (
    *("addr", "base", "cmid", "cq", "device", "dmabuf", "enums", "flow"),
    *("librdmacm_enums", "mr", "pd", "qp", "srq", "wq", "wr", "xrcd"),
)
"""Of every release that programs were written for."""


def __getattr__(name: str) -> ModuleType:
    if name in BROUGHT:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *BROUGHT})
