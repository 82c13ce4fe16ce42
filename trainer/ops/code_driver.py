"""Plain data over a pipe, and the script that calls a function of untrusted code.

`encode` and `decode` run on both sides; `main` only inside of the sandbox, where this whole file
is the script. Standard library only.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # its import takes longer than most programs run
    from typing import Any

DEEPEST = 100


def encode(value: Any, depth: int = 0) -> Any:
    """JSON for None, bool, numbers, str, bytes, list, tuple, set and dict, told apart; arrays and
    numbers of numpy as what they hold. Anything else is its type's name: equal to nothing."""
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} deep")
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.decode("latin-1")]
    for name, kind in (("list", list), ("tuple", tuple), ("set", set | frozenset)):
        if isinstance(value, kind):
            return [name, *(encode(item, depth + 1) for item in value)]
    if isinstance(value, dict):
        pairs = ([encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items())
        return ["dict", *pairs]
    if hasattr(value, "tolist"):
        return encode(value.tolist(), depth + 1)
    return ["object", type(value).__name__]


def decode(data: Any, depth: int = 0) -> Any:
    """Undoes `encode`. Raises ValueError for what it cannot have made."""
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} deep")
    if not isinstance(data, list):
        if isinstance(data, dict):
            raise ValueError("not data of encode")
        return data
    kind, rest = (data[0], data[1:]) if data else ("", [])
    try:
        if kind == "dict":
            return {decode(k, depth + 1): decode(v, depth + 1) for k, v in rest}
        if kind == "bytes":
            return rest[0].encode("latin-1")
        made = {"list": list, "tuple": tuple, "set": set}[kind]
        return made([decode(item, depth + 1) for item in rest])
    except (TypeError, KeyError, IndexError, AttributeError, UnicodeError):
        raise ValueError("not data of encode") from None


def main(request: dict[str, Any]) -> None:
    """Runs `request["code"]`, calls `request["name"]` (of a class `Solution` if the code has no
    such function) with the arguments, and writes what it returns to descriptor 3."""
    scope: dict[str, Any] = {"__name__": "solution"}
    exec(compile(request["code"], "solution.py", "exec"), scope)
    name = request["name"]
    function = scope[name] if name in scope else getattr(scope["Solution"](), name)
    arguments = decode(request["arguments"])
    value = function(*arguments, **decode(request["named"]))
    data = json.dumps(encode(value)).encode()
    while data:
        data = data[os.write(3, data) :]


if __name__ == "__main__":
    main(REQUEST)  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
