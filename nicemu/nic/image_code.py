"""What a hook of a firmware image, or a ``@jit`` helper of one, may say: integer code that ends.

Loops are ``for ... in range(...)`` of constants, nothing calls itself, every path of a hook answers, and rows have the
fields that are asked for. What remains for the compiler to find is a matter of types.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from nicemu.nic.image_source import STATE, Refusal, Source, name, names_stored

BUILTINS = frozenset(("abs", "bool", "int", "len", "max", "min", "range"))
MAX_TURNS = 1 << 16
"""Turns of a loop, times those of the loops around it."""
ENDS = "integer code that ends"
FORBIDDEN: dict[type[ast.AST], str] = {
    ast.While: "a while loop", ast.AsyncFor: "async", ast.Try: "try", ast.With: "with", ast.Raise: "raise",
    ast.Assert: "assert", ast.Lambda: "lambda", ast.FunctionDef: "a function in it", ast.ClassDef: "a class",
    ast.Global: "global", ast.Nonlocal: "nonlocal", ast.Import: "import", ast.ImportFrom: "import",
    ast.Yield: "yield", ast.YieldFrom: "yield", ast.Await: "await", ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension", ast.DictComp: "a comprehension", ast.GeneratorExp: "a comprehension",
    ast.List: "a list", ast.Dict: "a dict", ast.Set: "a set", ast.JoinedStr: "a string", ast.Delete: "del",
    ast.Match: "match", ast.Div: "/, which gives a float (// does not)",
}  # fmt: skip


def refusals(source: Source, function: ast.FunctionDef) -> Iterator[Refusal]:
    """What is wrong with a function's text."""
    title, own = source.title(function), names_stored(function)
    rows = _rows(source, function)
    for node in _nodes(function):
        line = getattr(node, "lineno", 0) or _line_of(function, node)
        if type(node) in FORBIDDEN:
            yield Refusal(line, title, ENDS, FORBIDDEN[type(node)])
        elif isinstance(node, ast.Constant) and not isinstance(node.value, int):
            yield Refusal(line, title, "integers", repr(node.value))
        elif isinstance(node, ast.For) and not is_range(node.iter):
            given = f"`for {ast.unparse(node.target)} in {ast.unparse(node.iter)}`"
            yield Refusal(line, title, "for ... in range(constants)", given)
        elif isinstance(node, ast.Call):
            yield from _call(source, title, node)
        elif isinstance(node, ast.Name) and not _is_defined(source, node.id, own):
            yield Refusal(line, title, "a name that the image defines, or imports", node.id)
        elif isinstance(node, ast.Attribute):
            yield from _field(source, title, node, rows)
    yield from _recursion(source, function)
    if function.name in source.hooks:
        yield from _answers(title, function)


def _nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """All below a function, but for its docstring and annotations."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (each for statement in body for each in ast.walk(statement))


def _line_of(function: ast.FunctionDef, operator: ast.AST) -> int:
    """Operators have no line of their own: that of the expression they stand in."""
    around = (each for each in _nodes(function) if isinstance(each, ast.BinOp | ast.AugAssign))
    return next((each.lineno for each in around if each.op is operator), function.lineno)


def is_range(node: ast.AST) -> bool:
    """``range(...)`` of positional arguments."""
    return isinstance(node, ast.Call) and name(node.func) == "range" and bool(node.args) and not node.keywords


def _is_defined(source: Source, used: str, own: set[str]) -> bool:
    return used in own or used in BUILTINS or used in source.imported or used in source.assigned or (
        used in source.functions)  # fmt: skip


def _call(source: Source, title: str, node: ast.Call) -> Iterator[Refusal]:
    called = name(node.func)
    if called in source.hooks:
        yield Refusal(node.lineno, title, "calls of @jit helpers only: hooks are called by the device", called)
    elif called in source.functions:
        if not source.is_helper(source.functions[called]):
            yield Refusal(node.lineno, title, "calls of @jit helpers only", f"{called}, which has no @jit")
    elif called in source.accessors:
        if len(node.args) != 2 or node.keywords:
            yield Refusal(node.lineno, title, f"{called}(world, row)", f"`{ast.unparse(node)}`")
    elif called not in BUILTINS and source.imported.get(called, "jit") in (*STATE, "jit"):
        expected = f"calls of @jit helpers, row accessors, state, {', '.join(sorted(BUILTINS))}"
        yield Refusal(node.lineno, title, expected, f"`{ast.unparse(node.func)}`")


def _rows(source: Source, function: ast.FunctionDef) -> dict[str, str]:
    """The accessor of each local name that only ever holds rows of that one."""
    held: dict[str, set[str]] = {argument.arg: {""} for argument in function.args.args}
    for node in ast.walk(function):
        for target, value in _stores(node):
            held.setdefault(target, set()).add(name(value.func) if isinstance(value, ast.Call) else "")
    return {local: each for local, (each, *others) in held.items() if not others and each in source.accessors}


def _stores(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Names that a statement stores to, with what; of what is unpacked, iterated or added: the statement."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            yield from ((each.id, value) for part, value in pairs for each in ast.walk(part)
                        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))  # fmt: skip
    elif isinstance(node, ast.AugAssign | ast.For | ast.AnnAssign | ast.NamedExpr):
        yield from ((each.id, node) for each in ast.walk(node.target) if isinstance(each, ast.Name))


def _field(source: Source, title: str, node: ast.Attribute, rows: dict[str, str]) -> Iterator[Refusal]:
    accessor = rows.get(name(node.value)) or (name(node.value.func) if isinstance(node.value, ast.Call) else "")
    fields = source.accessors.get(accessor)
    if fields is not None and node.attr not in fields:
        yield Refusal(node.lineno, title, f"a field of {accessor}", node.attr)


def _recursion(source: Source, function: ast.FunctionDef) -> Iterator[Refusal]:
    reached, open_ = set[str](), _calls(source, function)
    while open_:
        reached |= open_
        open_ = {each for called in open_ for each in _calls(source, source.functions[called])} - reached
    if function.name in reached:
        yield Refusal(function.lineno, source.title(function), ENDS, "a function that calls itself")


def _calls(source: Source, function: ast.FunctionDef) -> set[str]:
    return {name(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)} & set(source.functions)


def _answers(title: str, function: ast.FunctionDef) -> Iterator[Refusal]:
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and (node.value is None or isinstance(node.value, ast.Tuple)):
            yield Refusal(node.lineno, title, "an integer as the answer", f"`{ast.unparse(node)}`")
    if not _always_returns(function.body):
        yield Refusal(function.body[-1].lineno, title, "an answer on every path", "an end without return")


def _always_returns(body: list[ast.stmt]) -> bool:
    last = body[-1] if body else None
    return isinstance(last, ast.Return) or (
        isinstance(last, ast.If) and _always_returns(last.body) and _always_returns(last.orelse)
    )


def endless_loops(source: Source, function: ast.FunctionDef, constants: dict[str, Any]) -> Iterator[Refusal]:
    """Loops whose turns depend on more than constants of the module, or are too many."""
    mine = names_stored(function)
    known = {key: value for key, value in constants.items() if key not in mine}
    for statement in function.body:
        yield from _loops(source.title(function), statement, known, 1)


def _loops(title: str, node: ast.AST, constants: dict[str, Any], around: int) -> Iterator[Refusal]:
    if isinstance(node, ast.For):
        turns, given = _turns(node.iter, constants), f"`{ast.unparse(node.iter)}`"
        if turns is None:
            yield Refusal(node.lineno, title, "a range of constants, so that it ends", given)
            return
        around *= max(turns, 1)
        if around > MAX_TURNS:
            yield Refusal(node.lineno, title, f"at most {MAX_TURNS} turns", f"{around} by {given}")
            return
    for child in ast.iter_child_nodes(node):
        yield from _loops(title, child, constants, around)


def _turns(call: ast.expr, constants: dict[str, Any]) -> int | None:
    """Turns of ``range(...)``; None if they depend on anything but constants."""
    code = compile(ast.Expression(call), "range", "eval")
    scope = constants | {"__builtins__": {"range": range, "min": min, "max": max, "len": len}}
    try:
        return len(eval(code, scope))
    except Exception:  # a name that is not constant, a wrong argument, a length beyond the machine's words
        return None
