from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tailrace import PickleNotAllowed
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.matplotlib import drawn, picture
from tailrace.materializers.registry import load, save
from tailrace.materializers.testing import check_refused, check_round_trip

from .libraries import digests, digests_of_another_process


@pytest.fixture
def figure() -> Any:
    made = Figure(figsize=(3, 2), dpi=50)
    made.suptitle("All")
    left, right = made.subplots(1, 2)
    left.plot([1, 2, 3], [4, 6, 5], label="line")
    left.scatter([1, 2], [3, 4], label="points")
    left.set(title="Left", xlabel="x", ylabel="y")
    right.bar(["a", "b"], [1, 2])
    right.imshow(np.arange(4).reshape(2, 2))
    return made


def test_a_figure_is_refused_with_the_safe_way_named(figure: Any) -> None:
    check_refused(figure, "executes code", "picture(figure)", "allow_pickle")


def test_its_picture_comes_back_in_every_pixel(figure: Any) -> None:
    image = picture(figure)
    assert image.size == (150, 100)
    assert check_round_trip(image).tobytes() == picture(figure).tobytes()


def test_another_process_draws_the_same_picture() -> None:
    assert digests_of_another_process("matplotlib") == digests("matplotlib")


def test_what_is_drawn_is_data(figure: Any) -> None:
    left, right = drawn(figure)["axes"]
    assert (left["title"], left["x_label"], left["y_label"]) == ("Left", "x", "y")
    assert left["lines"][0]["label"] == "line"
    assert left["lines"][0]["y"] == [4, 6, 5]
    assert left["points"][0]["xy"] == [[1, 3], [2, 4]]
    assert [bar[3] for bar in right["bars"]] == [1, 2]
    assert right["images"][0] == [[0, 1], [2, 3]]
    check_round_trip(drawn(figure))


def test_where_pickle_is_allowed_the_figure_comes_back_and_the_picture_stands_beside_it(
    figure: Any, tmp_path: Path
) -> None:
    writer = FileWriter(tmp_path, allow_pickle="fallback")
    with pytest.warns(UserWarning, match="loading it executes code"):
        saved = save(figure, writer)
    assert saved.metadata["titles"] == ["Left", ""]
    assert (saved.metadata["width"], saved.metadata["height"]) == (150, 100)
    entries = {entry.path: entry for entry in writer.finish()}
    assert set(entries) == {"figure.json", "figure.png", "value.pkl"}
    assert json.loads((tmp_path / "figure.json").read_text()) == drawn(figure)

    with pytest.raises(PickleNotAllowed):
        load("matplotlib", 1, FileReader(tmp_path, entries), saved.spec)
    loaded = load("matplotlib", 1, FileReader(tmp_path, entries, allow_pickle="fallback"), saved.spec)
    assert picture(loaded).tobytes() == picture(figure).tobytes()


def test_a_figure_of_pyplot_is_one_too() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        made, axes = plt.subplots()
        axes.plot([1, 2])
        check_refused(made, "picture(figure)")
        assert picture(made).size == (640, 480)
        plt.close(made)
