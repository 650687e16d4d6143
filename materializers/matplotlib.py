"""matplotlib's figures: a picture and the drawn numbers for people, and a pickle, the only way to have the figure back.

A figure is a net of objects and functions that no data format holds, so it is refused unless the stack allows pickle.
What it shows needs no pickle: return :func:`picture` of it, an image, and :func:`drawn`, its numbers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .base import Spec
from .files import FileReader, FileWriter
from .pickle import PickleMaterializer
from .tagged import dumps, readable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["MatplotlibMaterializer", "drawn", "picture"]


class MatplotlibMaterializer:
    """``matplotlib.figure.Figure``, by pickle: not portable between versions of matplotlib."""

    name: ClassVar[str] = "matplotlib"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = True
    instead: ClassVar[str] = "; tailrace.materializers.matplotlib.picture(figure) is an image of it, and safe"

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``value.pkl``, and for readers ``figure.png`` and ``figure.json``."""
        spec = PickleMaterializer().save(value, files)
        files.write("figure.png", _png(value))
        files.write("figure.json", dumps(readable(drawn(value))))
        return spec

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The figure."""
        return PickleMaterializer().load(files, spec)

    def describe(self, value: Any) -> dict[str, Any]:
        """Its size in pixels, and the titles of its axes."""
        width, height = value.get_size_inches() * value.dpi
        return {"width": round(width), "height": round(height), "titles": [axes.get_title() for axes in value.axes]}


def picture(figure: Figure) -> Image:
    """What a figure shows, as an image that is stored safely; the same for equal figures."""
    from PIL import Image

    with Image.open(io.BytesIO(_png(figure)), formats=["PNG"]) as image:
        return image.copy()


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=figure.dpi, metadata={"Software": None})
    return stream.getvalue()


def drawn(figure: Figure) -> dict[str, Any]:
    """The numbers of a figure's lines, points, bars and images, and the words on its axes, as lists and text.

    Dates and categories are the numbers that they are drawn at.
    """
    return {"title": figure.get_suptitle(), "axes": [_axes(axes) for axes in figure.axes]}


def _axes(axes: Any) -> dict[str, Any]:
    from matplotlib.collections import PathCollection
    from matplotlib.patches import Rectangle

    return {
        "title": axes.get_title(),
        "x_label": axes.get_xlabel(),
        "y_label": axes.get_ylabel(),
        "lines": [
            {
                "label": line.get_label(),
                "x": _list(line.get_xdata(orig=False)),
                "y": _list(line.get_ydata(orig=False)),
            }
            for line in axes.lines
        ],
        "points": [
            {"label": part.get_label(), "xy": _list(part.get_offsets())}
            for part in axes.collections
            if isinstance(part, PathCollection)
        ],
        "bars": [list(map(float, part.get_bbox().bounds)) for part in axes.patches if isinstance(part, Rectangle)],
        "images": [_list(image.get_array()) for image in axes.images],
    }


def _list(numbers: Any) -> Any:
    """An array of matplotlib's, whose own annotations do not say that it is one."""
    return numbers.tolist()
