"""Pillow's images: exact pixels, mode, palette, info and EXIF; as PNG where that holds the pixels, else as an npy file.

PNG has no mode for some pixels (it makes 16 bits of 32) and changes indexes that are beyond the palette; so what is
written is read again and compared. All but the pixels is in the spec: PNG would keep some of it, changed. On purpose
not kept: that an image was opened from a file, with the class that it has for that and the tags of a TIFF file. It
comes back as its ``copy()`` would be.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, ClassVar

from PIL import Image
from PIL.PngImagePlugin import iTXt
from PIL.TiffImagePlugin import IFDRational

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .identical import difference
from .tagged import decode, encode, tag

__all__ = ["PillowMaterializer"]

_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_EXIF_FOLDERS = (0x8769, 0x8825, 0xA005)  # Exif, GPS, interoperability


class PillowMaterializer:
    """``PIL.Image.Image`` of every mode, with one frame."""

    name: ClassVar[str] = "pillow"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``image.png`` or ``image.npy``. Raises MaterializationError for several frames, or info that is not data."""
        frames = getattr(value, "n_frames", 1)
        if frames != 1:
            raise MaterializationError(f"it has {frames} frames; return a list of their copies, or the file's Path")
        value.load()
        pixels = value.tobytes()
        spec: Spec = {"mode": value.mode, "size": list(value.size), "info": encode(value.info, _encode_leaf)}
        if value.palette is not None:
            spec["palette"] = encode([value.palette.mode, bytes(value.palette.palette)])
        again = _restored(spec, pixels)
        if difference(_exif(value), _exif(again)):
            spec["exif"] = encode(value.getexif().tobytes())
            again = _restored(spec, pixels)
        changed = difference(_about(value), _about(again))
        if changed:
            raise MaterializationError(
                f"it would come back changed at {changed}; clear that, or return the file's Path"
            )
        png = _as_png(value) if value.mode in _PNG_MODES and pixels else None
        if png is not None and _from_png(png, spec) == pixels:
            files.write("image.png", png)
        else:
            _write_npy(value, pixels, files)
        return spec

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The image, in memory. No other decoder of Pillow's than PNG's sees the bytes."""
        if "image.png" in files.names():
            pixels = _from_png(files.read("image.png"), spec)
            if pixels is None:
                raise MaterializationError("image.png is not the picture of the mode and size that were saved")
            return _restored(spec, pixels)
        from .numpy import read_npy

        return _restored(spec, read_npy(files, "image.npy").tobytes())

    def describe(self, value: Any) -> dict[str, Any]:
        """Size, mode, and the names of what it says of itself."""
        return {"width": value.width, "height": value.height, "mode": value.mode, "info": [*map(str, value.info)]}


def _restored(spec: Mapping[str, Any], pixels: bytes) -> Any:
    image = Image.frombytes(spec["mode"], tuple(spec["size"]), pixels)
    if "palette" in spec:
        rawmode, colours = decode(spec["palette"])
        if colours:
            image.putpalette(colours, rawmode)
    image.info = decode(spec["info"], _decode_leaf)
    if "exif" in spec:
        image.getexif().load(decode(spec["exif"]))
    return image


def _about(image: Any) -> list[Any]:
    """All but the pixels."""
    palette = image.palette and (image.palette.mode, bytes(image.palette.palette))
    return [image.mode, image.size, palette, image.getpalette(None), image.info, _exif(image)]


def _exif(image: Any) -> list[Any]:
    if hasattr(image, "tag_v2"):
        return [{}]  # of a TIFF file these are its tags, all about the file
    exif = image.getexif()
    folders = [folder for folder in _EXIF_FOLDERS if folder in exif or folder in exif._ifds]  # asking makes one
    return [{k: v for k, v in exif.items() if k not in folders}, *((n, dict(exif.get_ifd(n))) for n in folders)]


# ---- files


def _as_png(image: Any) -> bytes:
    """The pixels as PNG, with the colours of a palette for whoever looks at it."""
    stream = io.BytesIO()
    bare = Image.frombytes(image.mode, image.size, image.tobytes())
    if image.palette is not None:
        bare.putpalette(image.getpalette("RGB"))
    bare.save(stream, format="PNG", compress_level=1)  # half the time of the default, for a few per cent of size
    return stream.getvalue()


def _from_png(data: bytes | memoryview, spec: Mapping[str, Any]) -> bytes | None:
    """The pixels of a PNG file, if it is of the mode and size that were saved; a larger one is not decoded."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
        if (file.mode, list(file.size)) != (spec["mode"], spec["size"]):
            return None
        return bytes(file.tobytes())


def _write_npy(image: Any, pixels: bytes, files: FileWriter) -> None:
    """As an array of rows, columns and bands, if Pillow tells NumPy how; else of bytes."""
    import numpy as np

    from .numpy import write_npy

    try:
        array = np.asarray(image)
    except (KeyError, TypeError, ValueError):  # a mode that has no description
        array = np.zeros(0)
    write_npy(files, "image.npy", array if array.tobytes() == pixels else np.frombuffer(pixels, np.uint8))


# ---- what Pillow puts into info beside plain Python


def _encode_leaf(value: Any, where: str) -> Any:
    if type(value) is iTXt:
        return tag("text", encode([str(value), value.lang, value.tkey]))
    if type(value) is IFDRational:
        return tag("rational", encode([value._numerator, value._denominator]))
    raise MaterializationError(f"its info at {where} is a {type(value).__qualname__}; take it out, or make data of it")


def _decode_leaf(node: Any) -> Any:
    made = iTXt if node["$t"] == "text" else IFDRational
    return made(*decode(node["v"]))
