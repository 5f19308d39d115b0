"""Every name of pyverbs 59 outside vendor providers is here. `surface_v59.json`: what its source distribution has."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FACTS = json.loads((Path(__file__).parent / "surface_v59.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(ROOT / "tools"))
    import compare_pyverbs
    import pyverbs_differences
    import pyverbs_source

    yield compare_pyverbs, pyverbs_differences, pyverbs_source
    sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def ours(tools):
    compare, _, _ = tools
    return compare.live(sys.executable, "nicemu.pyverbs", {"PYTHONPATH": str(ROOT)})


def without_enums(surfaces):
    """`test_enums` compares every member with its value."""
    return {module: {**surface, "enums": {}} for module, surface in surfaces.items()}


def test_every_difference_has_a_reason(tools, ours) -> None:
    _, differences, _ = tools
    found = differences.differences(without_enums(ours), FACTS)
    assert [f"{each.module} {each.name}: {each.what}" for each in found if not each.reason] == []


def test_no_reason_is_left_over(tools, ours) -> None:
    _, differences, _ = tools
    from pyverbs_reasons import REASONS

    found = {(each.module, each.name) for each in differences.differences(without_enums(ours), FACTS)}
    found |= {(module, name.partition(".")[0]) for module, name in found}
    assert {key for key in REASONS if key not in found} == {("device", "DMMR")}  # an import: sources do not tell them


def test_source_reader_understands_cython(tools) -> None:
    _, _, source = tools
    surface = source.module(
        '''
cdef class Thing(PyverbsCM):
    """ Text with a (bracket. """
    def __init__(self, PD pd not None, unsigned int size=e.IBV_QPT_UD,  # a comment
                 **kwargs):
        raise PyverbsError('not closed (here')

    @property
    def size(self):
        return self.size
    @size.setter
    def size(self, val):
        pass

    property context:
        def __set__(self, val):
            pass

    cdef add_ref(self, obj):
        pass

    cpdef close(self):
        pass

    @staticmethod
    def named(x):
        pass

def read(addr, length, offset=0):
    pass

VALUE = 3
''',
        "cdef extern from 'x.h':\n    cpdef enum ibv_thing:\n        IBV_THING_A\n    cpdef enum:\n        IBV_ALONE\n",
    )
    thing = surface["classes"]["Thing"]
    assert thing["bases"] == ["PyverbsCM"]
    assert thing["properties"] == {"size": "rw", "context": "w"}
    assert thing["methods"] == {
        "__init__": [["pd", "", None], ["size", "", "e.IBV_QPT_UD"], ["kwargs", "**", None]],
        "close": [],
        "named": [["x", "", None]],
    }
    assert surface["functions"] == {"read": [["addr", "", None], ["length", "", None], ["offset", "", "0"]]}
    assert surface["constants"] == {"IBV_ALONE": None, "VALUE": None}
    assert surface["enums"] == {"ibv_thing": {"IBV_THING_A": 0}}


def surface(**parts):
    return {"m": {"functions": {}, "classes": {}, "enums": {}, "constants": {}, "borrowed": [], **parts}}


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (surface(), surface(functions={"f": []}), ("f", "missing here")),
        (surface(functions={"f": []}), surface(), ("f", "here only")),
        (surface(), surface(borrowed=["PyverbsError"]), ("PyverbsError", "missing here (of another module)")),
        (
            surface(functions={"f": [["a", "", "1"]]}),
            surface(functions={"f": [["a", "", "2"]]}),
            ("f", "`(a=1)` here, `(a=2)` there"),
        ),
        (
            surface(classes={"C": {"bases": [], "methods": {}, "properties": {"p": "r"}}}),
            surface(classes={"C": {"bases": [], "methods": {}, "properties": {"p": "rw"}}}),
            ("C.p", "read-only here, read and write there"),
        ),
        (
            surface(enums={"ibv_x": {"IBV_A": 1}}),
            surface(enums={"ibv_x": {"IBV_A": 2}}),
            ("ibv_x.IBV_A", "1 here, 2 there"),
        ),
    ],
)
def test_differences_are_told_by_name(tools, here, there, expected) -> None:
    _, differences, _ = tools
    assert [(each.name, each.what) for each in differences.differences(here, there)] == [expected]


def test_the_document_has_a_section_for_each_reference() -> None:
    text = (ROOT / "docs" / "pyverbs.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- (\w+) -->", text) == ["source", "debian"]
    assert "|  |" not in text.replace("\n", "")  # no difference without a reason


def test_a_reference_that_cannot_be_had_says_so_and_leaves_its_section(tools, monkeypatch, tmp_path, capsys) -> None:
    compare, _, _ = tools

    def unavailable():
        raise compare.Unavailable("no network")

    document = tmp_path / "pyverbs.md"
    sections = "\n".join(f"<!-- {name} -->\n\nkept {name}\n" for name in compare.SECTIONS)
    document.write_text(f"{compare.head()}\n{sections}", encoding="utf-8")
    monkeypatch.setattr(compare, "DOCUMENT", document)
    monkeypatch.setattr(compare, "REFERENCES", dict.fromkeys(compare.SECTIONS, unavailable))
    monkeypatch.setattr(sys, "argv", ["compare_pyverbs.py", "--check"])
    assert compare.main() == 0
    assert capsys.readouterr().out.count("not compared: no network") == 2
    document.write_text("other", encoding="utf-8")
    assert compare.main() == 1
