"""Runs plotting code and tells what it drew; inside of the sandbox this file is the script.

Needs matplotlib and numpy.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import shutil
import sys
from typing import Any


def prepare(fonts: str | None) -> None:
    """Most of what a chart costs: imports, and a first drawing, which loads fonts and codecs.
    `fonts`: matplotlib's cache of them, seconds of work otherwise."""
    if fonts:
        shutil.copy(fonts, ".")
    os.environ["MPLCONFIGDIR"] = os.getcwd()
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.bar(["a"], [1])
    plt.legend(plt.plot([1, 2]), ["b"])
    plt.title("c")
    plt.savefig(io.BytesIO(), format="png")
    plt.close()


def main(request: dict[str, Any]) -> None:
    """Runs `code`, and writes the figure that it saved, showed or made last to descriptor 3: `png`
    (base64), `texts`, `values`, `layout` and `colours`; or `{"error": text}`."""
    if "matplotlib" not in sys.modules:
        prepare(request["fonts"])
    import numpy as np
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    random.seed(0)
    np.random.seed(0)
    drawn: list[Figure] = []
    write = Figure.savefig
    Figure.savefig = lambda self, *given, **named: drawn.append(self)
    plt.show = lambda *given, **named: drawn.append(plt.gcf())
    exec(compile(request["code"], "chart.py", "exec"), {"__name__": "__main__"})
    if not drawn and plt.get_fignums():
        drawn.append(plt.figure(plt.get_fignums()[-1]))
    if not drawn:
        _write({"error": "the code draws no figure"})
        return
    figure = drawn[-1]
    if max(figure.get_size_inches()) > request["inches"]:
        _write({"error": f"the figure is larger than {request['inches']} inches"})
        return
    picture = io.BytesIO()
    write(figure, picture, format="png", dpi=request["dpi"], facecolor="white")
    png = base64.b64encode(picture.getvalue()).decode()
    _write({"png": png, **_attributes(figure)})


def _attributes(figure: Any) -> dict[str, list[Any]]:
    import numpy as np
    from matplotlib import collections, colors, lines, patches, text

    values, layout, colours = [], [], set()
    shown = [one.get_text().strip() for one in figure.findobj(text.Text) if one.get_visible()]

    def colour(*given: Any) -> None:
        for one in given:
            if colors.to_rgba(one)[3] > 0:
                colours.add(colors.to_hex(one))

    for axes in figure.axes:
        place = axes.get_subplotspec()
        if place is not None:
            rows, columns = place.get_gridspec().get_geometry()
            spans = place.rowspan, place.colspan
            layout.append([rows, columns, *(n for span in spans for n in (span.start, span.stop))])
        for one in axes.get_children():
            if isinstance(one, lines.Line2D):
                values += np.ravel(one.get_ydata()).tolist()
                colour(one.get_color())
            elif isinstance(one, patches.Rectangle) and one is not axes.patch:
                wide = one.get_height() == 0.8 != one.get_width()  # a bar of barh
                values.append(one.get_width() if wide else one.get_height())
                colour(one.get_facecolor())
            elif isinstance(one, patches.Wedge):
                values.append((one.theta2 - one.theta1) / 360)
                colour(one.get_facecolor())
            elif isinstance(one, collections.PathCollection):
                values += np.ravel(one.get_offsets()).tolist()
                colour(*one.get_facecolor())
    return {
        "texts": [one for one in shown if one],
        "values": [number for number in map(_number, values) if number is not None],
        "layout": layout,
        "colours": sorted(colours),
    }


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 1e300 else None


def _write(message: Any) -> None:
    data = json.dumps(message).encode()
    while data:
        data = data[os.write(3, data) :]


if __name__ == "__main__":
    main(REQUEST)  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
