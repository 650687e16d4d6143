from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tailrace import MaterializationError
from tailrace.materializers.testing import check_refused, check_round_trip, restored

from .libraries import digests, digests_of_another_process, loaded_with, saved_in

FRAME = pd.DataFrame(
    {
        "when": pd.date_range("2026-01-31", periods=3),
        "name": ["a", "b", None],
        "value": [1.5, np.nan, 3],
        "count": [1, 2, 3],
        "kind": pd.Categorical(["x", "y", "x"]),
    }
)


def express(kind: str, **options: Any) -> Any:
    import plotly.express as px

    return getattr(px, kind)(FRAME, **options)


def subplots() -> Any:
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=2, subplot_titles=("é", "<b>&"))
    figure.add_scatter(x=[1, 2], y=(1, 2.5), row=1, col=1)
    figure.add_heatmap(z=np.arange(6.0).reshape(2, 3), row=2, col=2)
    return figure


def bare() -> Any:
    figure = go.Figure([go.Scatter(y=[dt.datetime(2026, 1, 31, 10, tzinfo=dt.UTC), None, float("nan")])])
    figure.layout.template = None
    return figure.update_layout(title="t", xaxis_range=(dt.date(2026, 1, 1), dt.date(2027, 1, 1)))


def animated() -> Any:
    frames = [go.Frame(data=[go.Scatter(y=np.arange(n), name="f")], name=str(n)) for n in range(3)]
    return go.Figure([go.Scatter(y=[0])], frames=frames)


FIGURES: dict[str, Callable[[], Any]] = {
    "empty": go.Figure,
    "dates": lambda: express("line", x="when", y="value", color="name"),
    "words": lambda: express("bar", x="name", y="count", color="kind"),
    "hover data of several types": lambda: express("scatter", x="count", y="value", hover_data=["name", "when"]),
    "subplots": subplots,
    "without a template": bare,
    "frames": animated,
    "large integers": lambda: go.Figure(go.Scatter(x=np.array([2**60, 1]), y=np.array(["a", "b"]))),
    "mixed lists": lambda: go.Figure(
        go.Scatter(x=[1, "a", None, dt.date(2026, 1, 31)], customdata=[[1, "a"], [2, None]])
    ),
    "mappings in lists": lambda: go.Figure(go.Scatter(customdata=[[{1: (2,)}]])),
    "moments with zones": lambda: go.Figure(go.Scatter(x=pd.Series([pd.Timestamp("2026-01-31", tz="UTC")] * 2))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_comes_back_in_every_property_with_the_same_bytes(name: str) -> None:
    figure = FIGURES[name]()
    loaded = check_round_trip(figure)
    assert loaded.to_json() == figure.to_json()
    assert list(loaded.to_dict()["layout"]) == list(figure.to_dict()["layout"])


def test_arrays_are_arrays_again_of_their_type() -> None:
    kinds = ["i1", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "M8[s]", "U3", ">f8"]
    figure = go.Figure([go.Scatter(y=np.arange(3).astype(kind)) for kind in kinds])
    assert [trace["y"].dtype for trace in check_round_trip(figure)._data] == [
        trace["y"].dtype for trace in figure._data
    ]


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["i1", "i4", "i8", "u8", "f4", "f8", "M8[us]", "?"]).flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(max_dims=2))
    ),
    st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**53), 2**53), st.text(max_size=3))),
)
def test_any_data_come_back(array: Any, items: list[Any]) -> None:
    check_round_trip(go.Figure([go.Heatmap(z=array), go.Scatter(x=items, customdata=array)]))


def test_subplots_can_be_added_to_after_loading() -> None:
    loaded = restored(subplots())
    loaded.add_bar(y=[1], row=2, col=1)
    assert loaded.data[-1].xaxis == "x3"


def test_plotly_reads_the_file(tmp_path: Path) -> None:
    import plotly.io

    figure = subplots()
    saved_in(tmp_path, figure)
    read = plotly.io.read_json(tmp_path / "figure.json")
    assert json.loads(read.to_json()) == json.loads(figure.to_json())


def test_the_metadata_say_title_and_traces(tmp_path: Path) -> None:
    figure = go.Figure([go.Bar(y=[1], name="b")]).update_layout(title="Sales")
    about = saved_in(tmp_path, figure)[0].metadata
    assert about["title"] == "Sales"
    assert about["traces"] == [{"type": "bar", "name": "b"}]


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("plotly") == digests("plotly")


class Mine(go.Figure):  # type: ignore[misc]
    pass


def test_what_cannot_come_back_is_refused() -> None:
    check_refused(Mine(), "Mine", "go.Figure(figure)")
    check_refused(go.Figure(go.Scatter(customdata=[[object()]])), "plotly does not write it as JSON")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"data": [{"type": "os.system"}], "layout": {}}', b"\x80\x04."])
def test_a_file_that_is_no_figure_is_an_error(content: bytes, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "figure", go.Figure())
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "figure", saved, {"figure.json": content})
