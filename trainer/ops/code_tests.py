"""Tests of a program, as a data row has them: what goes into the sandbox, and what stays out.

A `Case` is one run: text on standard input, or a call. Its right answer is compared here, with
plain data that came back; no expression of a test is ever evaluated next to the code it tests.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WRAPPERS = {
    "sorted": sorted,
    "set": set,
    "list": list,
    "tuple": tuple,
    "len": len,
    "str": str,
    "round": round,
    "sum": sum,
    "abs": abs,
    "bool": bool,
    "float": float,
}
"""What an assert may do to a returned value; done outside, to plain data."""


@dataclass(frozen=True, slots=True)
class Case:
    """`name` None: a program that reads `stdin` and prints; else a function that is called."""

    right: Any
    stdin: str = ""
    name: str | None = None
    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """(name, further arguments) to apply to the value, the inmost first."""
    from_json: bool = False
    """`right` was written as JSON, which has no tuples; APPS and TACO put some in a list of one."""

    def passed(self, value: Any, tolerance: float) -> bool:
        """Whether a printed text or returned value is right."""
        if self.name is None:
            return same_text(value, self.right, tolerance)
        try:
            for name, more in self.wrappers:
                value = WRAPPERS[name](value, *more)
        except (TypeError, ValueError, OverflowError):
            return False
        if not self.from_json:
            return same_value(value, self.right, tolerance)
        value, right = _listed(value), self.right
        inside = isinstance(right, list) and len(right) == 1 and not isinstance(value, list)
        return same_value(value, right[0] if inside else right, tolerance)


def same_text(given: str, right: str, tolerance: float = 0.0) -> bool:
    """Line by line, without white space at the ends of lines or empty lines at the end; with a
    tolerance, words that are numbers are compared as numbers."""
    a = [line.rstrip() for line in given.rstrip().splitlines()]
    b = [line.rstrip() for line in right.rstrip().splitlines()]
    if a == b:
        return True
    if not tolerance or len(a) != len(b):
        return False
    rows = [(x.split(), y.split()) for x, y in zip(a, b, strict=True)]
    return all(
        len(x) == len(y) and all(_near(p, q, tolerance) for p, q in zip(x, y, strict=True))
        for x, y in rows
    )


def same_value(given: Any, right: Any, tolerance: float = 0.0) -> bool:
    """Equal as Python has it, for plain data; NaN equals NaN; floats within `tolerance`, absolute
    or relative. A list is not a tuple."""
    if isinstance(given, float) or isinstance(right, float):
        numbers = isinstance(given, int | float) and isinstance(right, int | float)
        if not numbers:
            return False
        if isinstance(given, float) and isinstance(right, float) and math.isnan(right):
            return math.isnan(given)
        try:
            return given == right or math.isclose(
                given, right, rel_tol=tolerance, abs_tol=tolerance
            )
        except OverflowError:
            return False
    if type(given) is type(right) and isinstance(right, list | tuple):
        return len(given) == len(right) and all(
            same_value(a, b, tolerance) for a, b in zip(given, right, strict=True)
        )
    if isinstance(given, dict) and isinstance(right, dict):
        return given.keys() == right.keys() and all(
            same_value(given[key], right[key], tolerance) for key in right
        )
    return given == right


def cases(tests: Any, entry_point: str | None = None) -> list[Case]:
    """Reads the forms in use. Raises ValueError for any other.

    JSON text of a form; `{"inputs": [...], "outputs": [...], "fn_name": ...}` (APPS, TACO, and
    PRIME-RL/Eurus-2-RL-Data, where a call is text with a line of JSON per argument); a list of
    `{"input": ..., "output": ...}`; asserts, as a list or one text (MBPP), also inside of
    `def check(candidate)` with an `entry_point` (HumanEval).
    """
    if isinstance(tests, str):
        with_json = _as_json(tests)
        return (
            cases(with_json, entry_point) if with_json is not None else _asserts(tests, entry_point)
        )
    if isinstance(tests, Mapping) and "inputs" in tests and "outputs" in tests:
        name = tests.get("fn_name") or entry_point
        if len(tests["inputs"]) != len(tests["outputs"]):
            raise ValueError(f"{len(tests['inputs'])} inputs for {len(tests['outputs'])} outputs")
        pairs = zip(tests["inputs"], tests["outputs"], strict=True)
        found = [_pair(given, right, name) for given, right in pairs]
    elif isinstance(tests, Sequence) and all(isinstance(one, str) for one in tests):
        found = [case for one in tests for case in _asserts(one, entry_point)]
    elif isinstance(tests, Sequence) and all(
        isinstance(one, Mapping) and "input" in one and "output" in one for one in tests
    ):
        found = [
            _pair(one["input"], one["output"], one.get("fn_name") or entry_point) for one in tests
        ]
    else:
        raise ValueError(
            "tests must be asserts, a list of {input, output}, or {inputs, outputs}; got "
            f"{str(tests)[:80]!r}"
        )
    if not found:
        raise ValueError("the row has no tests")
    return found


def _pair(given: Any, right: Any, name: str | None) -> Case:
    if name is not None:
        if isinstance(given, str) and (lines := _lines(given)) is not None:
            given, right = lines, _value(right)
        arguments = tuple(given) if isinstance(given, list) else (given,)
        return Case(right, name=name, arguments=arguments, from_json=True)
    texts = [
        "\n".join(map(str, one)) if isinstance(one, list) else str(one) for one in (given, right)
    ]
    return Case(texts[1], stdin=texts[0])


def _lines(text: str) -> list[Any] | None:
    """A value of JSON per line; None if a line is none."""
    try:
        return [json.loads(line) for line in text.split("\n")]
    except ValueError:
        return None


def _value(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _listed(value: Any) -> Any:
    """With lists for tuples, at any depth."""
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


def _as_json(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list | dict) else None


def _asserts(text: str, entry_point: str | None) -> list[Case]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"tests are not Python: {error}") from None
    found = [_assert(node, entry_point) for node in _statements(tree.body)]
    if not found:
        raise ValueError("the tests hold no assert")
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.Assert]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == "check":
            yield from _statements(node.body)
        elif isinstance(node, ast.Assert):
            yield node
        elif not _says_nothing(node):
            raise ValueError(f"a test may hold asserts only, not {_short(node)!r}")


def _says_nothing(node: ast.stmt) -> bool:
    """Doc strings, `METADATA = {...}`, imports, and the call of `check`."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return isinstance(node.value.func, ast.Name) and node.value.func.id == "check"
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant or isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.Pass)


def _assert(node: ast.Assert, entry_point: str | None) -> Case:
    """`wrapper(f(literals)) == literal`, also with `is` or the literal first; `[not] f(...)`."""
    test: ast.expr = node.test
    right: Any = True
    after: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    if isinstance(test, ast.Compare):
        if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq | ast.Is):
            raise _unfit(node)
        test, literal = test.left, test.comparators[0]
        if not _is_literal(literal):
            test, literal = literal, test
        if not _is_literal(literal):
            raise _unfit(node)
        right = ast.literal_eval(literal)
    else:
        after = (("bool", ()),)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, right = test.operand, False
    name, call = _called(test, node)
    while name in WRAPPERS and call.args and isinstance(call.args[0], ast.Call):
        if call.keywords or not all(map(_is_literal, call.args[1:])):
            raise _unfit(node)
        after = ((name, tuple(map(ast.literal_eval, call.args[1:]))), *after)
        name, call = _called(call.args[0], node)
    if not all(map(_is_literal, call.args)):
        raise _unfit(node)
    named: dict[str, Any] = {}
    for word in call.keywords:
        if word.arg is None or not _is_literal(word.value):
            raise _unfit(node)
        named[word.arg] = ast.literal_eval(word.value)
    if name == "candidate":
        if entry_point is None:
            raise ValueError("tests call `candidate`, and the row names no entry_point")
        name = entry_point
    return Case(right, "", name, tuple(map(ast.literal_eval, call.args)), named, after)


def _called(node: ast.expr, test: ast.Assert) -> tuple[str, ast.Call]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id, node
    raise _unfit(test)


def _is_literal(node: ast.AST | None) -> bool:
    try:
        ast.literal_eval(node)  # pyright: ignore[reportArgumentType]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _near(a: str, b: str, tolerance: float) -> bool:
    if a == b:
        return True
    try:
        return math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=tolerance)
    except ValueError:
        return False


def _short(node: ast.AST) -> str:
    return ast.unparse(node)[:80]


def _unfit(node: ast.AST) -> ValueError:
    return ValueError(
        f"test {_short(node)!r}: its right answer would have to be shown to the code; write it as "
        "`assert f(literals) == literal`"
    )
