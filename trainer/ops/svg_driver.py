"""Renders one SVG; inside of the sandbox this file is the script. Needs resvg-py."""

from __future__ import annotations

import os
import sys
from typing import Any


def prepare(folder: str) -> None:
    """`folder` holds resvg_py."""
    sys.path.insert(0, folder)
    import resvg_py  # noqa: F401


def main(request: dict[str, Any]) -> None:
    """Writes the picture of `svg` on white, as PNG, to descriptor 3."""
    if "resvg_py" not in sys.modules:
        prepare(request["folder"])
    import resvg_py

    picture = resvg_py.svg_to_bytes(
        svg_string=request["svg"],
        width=request["width"],
        height=request["height"],
        background="white",
    )
    data = bytes(picture)
    while data:
        data = data[os.write(3, data) :]


if __name__ == "__main__":
    main(REQUEST)  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
