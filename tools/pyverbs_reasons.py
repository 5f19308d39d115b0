"""Why `nicemu.pyverbs` differs from the real package where it does: the last column of docs/pyverbs.md."""

REASONS = {
    ("cm_enums", "(module)"): "the flat layout of older releases, beside that of 59",
    ("enums", "(module)"): "the flat layout of older releases, beside that of 59",
    ("device", "DMMR"): "an import of the real module's own; it is in `pyverbs.mr`",
    ("device", "FdArr.__init__"): "the same to a caller: an empty list that nobody can change",
}
"""By module and name."""


def reason(module: str, name: str) -> str:
    """The reason for one difference, or nothing."""
    return REASONS.get((module, name), "")
