"""What an importable pyverbs offers, as JSON on standard output: `python pyverbs_live.py PACKAGE` (`pyverbs` or ours).

Runs under any Python 3.8+ with any release of pyverbs, and imports nothing else. Compiled classes of old Cython tell
neither parameters nor which properties can be set; both are null then.
"""

import importlib
import inspect
import json
import logging
import pkgutil
import sys

logging.disable(logging.CRITICAL)


def main(name):
    package = importlib.import_module(name)
    modules = {}
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        if found.ispkg or found.name.startswith("_"):
            continue
        module = importlib.import_module(f"{name}.{found.name}")
        modules[found.name] = module_surface(module, name)
    json.dump(modules, sys.stdout, indent=1, sort_keys=True)


def module_surface(module, package):
    surface = {"functions": {}, "classes": {}, "enums": {}, "constants": {}, "borrowed": []}
    for name in sorted(getattr(module, "__all__", vars(module))):
        value = getattr(module, name)
        if (name.startswith("_") and not name.startswith("_IBV_")) or inspect.ismodule(value):
            continue
        if inspect.isclass(value) and hasattr(value, "__members__") and "enums" in module.__name__:
            surface["enums"][name] = {member: int(number) for member, number in value.__members__.items()}
        elif hasattr(value, "__members__") or not is_own(value, module, package):
            surface["borrowed"].append(name)
        elif inspect.isclass(value):
            surface["classes"][name] = class_surface(value)
        elif callable(value):
            surface["functions"][name] = parameters(value)
        elif isinstance(value, (int, str)):
            surface["constants"][name] = int(value) if isinstance(value, int) else value
    return surface


def is_own(value, module, package):
    """Whether `value` belongs to the module: made there, or in a private module beside it, or a plain constant."""
    home = getattr(value, "__module__", None)
    if isinstance(value, (int, str)) or home is None:
        return not callable(value) or "cython" in type(value).__name__ or isinstance(value, type(len))
    return home == module.__name__ or home.startswith(package + "._")


def class_surface(cls):
    surface = {"bases": [base.__name__ for base in cls.__mro__[1:] if is_public(base)], "methods": {}, "properties": {}}
    for owner in reversed(cls.__mro__):
        if owner is not cls and is_public(owner):
            continue
        for name, value in vars(owner).items():
            kind = property_kind(value)
            if name in ("__init__", "__str__", "__getitem__") and owner is not object:
                surface["methods"][name] = parameters(value, of_class=True)
            elif name.startswith("_") and name != "_copy_data":
                continue
            elif kind:
                surface["properties"][name] = kind
            elif callable(value) or isinstance(value, (staticmethod, classmethod)):
                surface["methods"][name] = parameters(value, of_class=True)
    return surface


def is_public(cls):
    return (not cls.__name__.startswith("_") and not cls.__module__.rpartition(".")[2].startswith("_")) or cls is object


def property_kind(value):
    """'r', 'w' or 'rw'; '?' for a compiled property; None if it is none."""
    if isinstance(value, property):
        return ("r" if value.fget else "") + ("w" if value.fset else "")
    if inspect.isgetsetdescriptor(value):
        return "?"
    if inspect.ismemberdescriptor(value):
        return "rw"
    if hasattr(type(value), "__get__") and hasattr(type(value), "__set__"):
        return "r" if type(value).__name__ == "Constant" else "rw"
    return None


def parameters(function, of_class=False):
    """[[name, kind, default]...]; kind is '', '*' or '**', default null if there is none. None: not told."""
    of_class = of_class and not isinstance(function, staticmethod)
    function = getattr(function, "__func__", function)
    if inspect.ismethoddescriptor(function) and "cyfunction" not in type(function).__name__:
        return None  # of C: its text signature tells nothing, or only `*args, **kwargs`
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    return [one(each) for each in found[1 if of_class else 0 :]]


def one(parameter):
    kind = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    return [parameter.name, kind, None if parameter.default is inspect.Parameter.empty else default(parameter.default)]


def default(value):
    return str(int(value)) if isinstance(value, int) and not isinstance(value, bool) else repr(value)


if __name__ == "__main__":
    main(sys.argv[1])
