"""``@message`` is a frozen dataclass with slots; ``dataclasses`` is the reference."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from nicemu.uverbs.message import message


class Members:
    """What both classes below declare."""

    number: int
    name: str = "x"
    many: tuple[int, ...] = field(default_factory=tuple)


def made(decorator):
    namespace = {"__annotations__": Members.__annotations__, "name": "x", "many": field(default_factory=tuple),
                 "__module__": __name__, "__qualname__": "Pair"}  # fmt: skip
    return decorator(type("Pair", (), namespace))


Pair, Reference = made(message), made(dataclass(frozen=True, slots=True))
CALLS = [((1,), {}), ((1, "y"), {}), ((), {"number": 3, "many": (1, 2)}), ((1, "y", (3,)), {})]


@pytest.mark.parametrize("args, kwargs", CALLS)
def test_it_behaves_as_the_dataclass(args, kwargs):
    ours, reference = Pair(*args, **kwargs), Reference(*args, **kwargs)
    assert repr(ours) == repr(reference)
    assert [getattr(ours, f.name) for f in fields(ours)] == [getattr(reference, f.name) for f in fields(reference)]
    assert hash(ours) == hash(reference)
    assert ours == Pair(*args, **kwargs) and ours != replace(ours, number=99) and ours != reference
    assert repr(replace(ours, name="z")) == repr(replace(reference, name="z"))
    assert copy.copy(ours) == copy.deepcopy(ours) == pickle.loads(pickle.dumps(ours)) == ours


@pytest.mark.parametrize("args, kwargs", [((), {}), ((1, 2, 3, 4), {}), ((1,), {"other": 2}), ((1,), {"number": 2})])
def test_wrong_arguments_are_refused_in_the_same_words(args, kwargs):
    said = []
    for cls in (Pair, Reference):
        with pytest.raises(TypeError) as caught:
            cls(*args, **kwargs)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_it_is_frozen_and_has_no_dict():
    pair = Pair(1)
    with pytest.raises(FrozenInstanceError):
        pair.number = 2
    with pytest.raises(FrozenInstanceError):
        del pair.number
    assert not hasattr(pair, "__dict__")
