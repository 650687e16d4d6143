from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tailrace import MaterializationError
from tailrace.materializers.testing import check_refused, check_round_trip, restored

from .libraries import digests, digests_of_another_process, loaded_with, saved_in

MODES = [*Image.MODES, "La", "RGBa", "RGBX", "PA", "I;16B", "I;16L", "I;16N"]
NOISE = np.random.default_rng(0)


def noise(mode: str, size: tuple[int, int] = (7, 5)) -> Any:
    blank = Image.new(mode, size)
    return Image.frombytes(mode, size, NOISE.bytes(len(blank.tobytes()))) if all(size) else blank


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (0, 3)])
@pytest.mark.parametrize("mode", dict.fromkeys(MODES))
def test_every_mode_comes_back_in_every_pixel(mode: str, size: tuple[int, int]) -> None:
    check_round_trip(noise(mode, size))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16"])
def test_what_png_holds_is_a_png_file(mode: str, tmp_path: Path) -> None:
    image = noise(mode)
    assert list(saved_in(tmp_path, image)[1]) == ["image.png"]
    with Image.open(tmp_path / "image.png") as picture:
        assert (picture.mode, picture.tobytes()) == (mode, image.tobytes())


@pytest.mark.parametrize(("mode", "shape"), [("CMYK", (5, 7, 4)), ("HSV", (5, 7, 3)), ("F", (5, 7)), ("I", (5, 7))])
def test_what_png_would_change_is_an_array_with_rows_and_columns(
    mode: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    image = noise(mode)
    saved_in(tmp_path, image)
    array = np.load(tmp_path / "image.npy")
    assert array.shape == shape
    assert array.tobytes() == image.tobytes()


colours = st.binary(min_size=3, max_size=768).map(lambda raw: raw[: len(raw) // 3 * 3])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(MODES), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.data())
def test_any_pixels_come_back(mode: str, size: tuple[int, int], data: st.DataObject) -> None:
    count = len(Image.new(mode, size).tobytes())
    image = Image.frombytes(mode, size, data.draw(st.binary(min_size=count, max_size=count)))
    if mode in ("P", "PA"):
        image.putpalette(data.draw(colours))
    image.info = data.draw(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.binary(), st.text())))
    check_round_trip(image)


# ---- palettes


def test_indexes_beyond_the_palette_are_kept() -> None:
    image = noise("P", (9, 9))
    image.putpalette([1, 2, 3, 4, 5, 6])
    check_round_trip(image)


def test_a_palette_with_transparency_is_kept() -> None:
    image = noise("P", (9, 9))
    image.putpalette(NOISE.bytes(1024), "RGBA")
    loaded = check_round_trip(image)
    assert loaded.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_a_picture_of_few_colours_is_a_png_with_them(tmp_path: Path) -> None:
    image = noise("RGB", (20, 20)).quantize(16)
    check_round_trip(image)
    saved_in(tmp_path, image)
    with Image.open(tmp_path / "image.png") as picture:
        assert picture.convert("RGB").tobytes() == image.convert("RGB").tobytes()


def test_a_fresh_palette_image_with_colours_that_were_drawn_is_kept() -> None:
    from PIL import ImageDraw

    image = Image.new("P", (4, 4))
    ImageDraw.Draw(image).point((1, 1), fill=(255, 0, 0))
    loaded = check_round_trip(image)
    assert loaded.convert("RGB").getpixel((1, 1)) == (255, 0, 0)


# ---- info and EXIF


def reopened(image: Any, format: str, **options: Any) -> Any:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return Image.open(stream)


def photo() -> Any:
    exif = Image.Exif()
    exif[0x010E] = "description"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:31 10:00:00"
    return exif


def text() -> Any:
    from PIL.PngImagePlugin import PngInfo

    made = PngInfo()
    made.add_itxt("Title", "Größe", "de", "Titel")
    made.add_text("Plain", "text")
    return made


OPENED: dict[str, dict[str, Any]] = {
    "PNG": {"pnginfo": text(), "dpi": (300, 300), "icc_profile": b"profile"},
    "JPEG": {"exif": photo(), "dpi": (72, 72)},
    "TIFF": {"dpi": (300, 72.5)},
    "WEBP": {"exif": photo(), "lossless": True},
    "GIF": {"transparency": 3},
    "BMP": {},
}


@pytest.mark.parametrize("format", OPENED)
def test_an_image_opened_from_a_file_comes_back_as_its_copy_would_be(format: str) -> None:
    image = reopened(noise("RGB", (9, 9)), format, **OPENED[format])
    loaded = check_round_trip(image, equal=lambda one, other: bool(one.copy() == other))
    assert type(loaded) is Image.Image
    if "exif" in OPENED[format]:
        assert dict(loaded.getexif()) == dict(image.getexif())
        assert loaded.getexif().get_ifd(0x8769) == {0x9003: "2026:01:31 10:00:00"}


def test_exif_that_was_written_into_the_object_is_kept() -> None:
    image = noise("RGB")
    image.getexif()[0x010E] = "edited"
    image.getexif().get_ifd(0x8825)[1] = "N"
    loaded = check_round_trip(image)
    assert loaded.getexif()[0x010E] == "edited"
    assert loaded.getexif().get_ifd(0x8825) == {1: "N"}


def test_the_metadata_say_size_and_mode(tmp_path: Path) -> None:
    image = noise("LA")
    image.info["dpi"] = (72, 72)
    about = saved_in(tmp_path, image)[0].metadata
    assert {"width": 7, "height": 5, "mode": "LA", "info": ["dpi"]}.items() <= about.items()


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("pillow") == digests("pillow")


# ---- refused


def test_an_animation_is_refused_with_a_way_out() -> None:
    frames = [noise("L"), noise("L")]
    animation = reopened(frames[0], "GIF", save_all=True, append_images=frames[1:])
    check_refused(animation, "2 frames", "list of their copies")
    check_round_trip([frame.copy() for frame in frames])


def test_info_that_is_no_data_is_refused_by_its_key() -> None:
    image = noise("L")
    image.info["callback"] = print
    check_refused(image, "['callback']", "builtin_function_or_method")


# ---- hostile files


def encoded(image: Any, format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


HOSTILE = {
    "a format with a larger decoder": encoded(noise("L"), "TIFF"),
    "an EPS file, which Ghostscript would run": encoded(noise("L"), "EPS"),
    "a picture of another size": encoded(noise("L", (70, 50)), "PNG"),
    "a picture of another mode": encoded(noise("RGB"), "PNG"),
    "half a picture": encoded(noise("L", (7, 5)), "PNG")[:-30],
    "a pickle": pickle.dumps(noise("L")),
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_is_not_the_picture_is_an_error(case: str, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "image", noise("L"))
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "image", saved, {"image.png": HOSTILE[case]})


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_that_says_it_is_huge_is_not_decoded(tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "image", noise("L"))
    bomb = encoded(Image.new("1", (12000, 12000)), "PNG")
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "image", saved, {"image.png": bomb})


def test_images_in_a_list_are_files_of_their_own(tmp_path: Path) -> None:
    entries = saved_in(tmp_path, {"train": [noise("L"), noise("F")]})[1]
    assert {"item-0/image.png", "item-1/image.npy"} < set(entries)
    assert restored([noise("1")])[0].mode == "1"
