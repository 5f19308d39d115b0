"""Why `nicemu.pyverbs` differs from the real package where it does: the last column of docs/pyverbs.md."""

_FLAT = "the flat layout of older releases, beside that of 59"
_LENIENT = "None may be left out here"

REASONS = {
    ("cm_enums", "(module)"): _FLAT,
    ("enums", "(module)"): _FLAT,
    ("cq", "CQEX.__init__"): _LENIENT,
    ("cq", "CQEX.start_poll"): _LENIENT,
    ("cq", "CQEX.resize"): "an addition: in C an extended CQ can be resized as well",
    ("device", "DMMR"): "an import of the real module's own; it is in `pyverbs.mr`",
    ("device", "speed_to_str"): "release 44 calls it with one argument",
    ("device", "FdArr.__init__"): "the same to a caller: an empty list that nobody can change",
}
"""By module and name; the name of a class stands for all its members."""


def reason(module: str, name: str) -> str:
    """The reason for one difference, or nothing."""
    return REASONS.get((module, name)) or REASONS.get((module, name.partition(".")[0]), "")
