"""Times and sizes for people."""


def duration(ns: int) -> str:
    """``450 ns``, ``12.35 us``, ``873.2 us``, ``1.023 s``: four digits that count."""
    if ns < 1000:
        return f"{ns} ns"
    for limit, scale, unit in ((10**6, 10**3, "us"), (10**9, 10**6, "ms")):
        if ns < limit:
            return f"{_digits(ns / scale)} {unit}"
    return f"{_digits(ns / 10**9)} s"


def _digits(value: float) -> str:
    return f"{value:.{max(0, 4 - len(str(int(value))))}f}" if value < 1000 else f"{value:.0f}"


def size(count: int) -> str:
    """``8 B``, ``24.5 KiB``, ``4 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"
