"""The fidelity matrix: what becomes of every case of the tests, tried anew, as a page of the documentation.

python -m tests.materializers.fidelity    # writes docs/reference/fidelity.md
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from tailrace import MaterializationError, PickleNotAllowed
from tailrace.materializers.testing import check_round_trip

from . import (
    libraries,
    test_arrow,
    test_attrs,
    test_catboost,
    test_numpy,
    test_pandas,
    test_pil,
    test_plain,
    test_plotly,
    test_polars,
    test_scipy,
    test_sklearn,
    test_xarray,
)
from .models import MODELS

__all__ = ["PAGE", "page", "sections"]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "fidelity.md"

_HEAD = """# Fidelity

What becomes of a value that a step returns, case by case. Each one was saved and loaded to write this page, by the
default settings (`allow_pickle: never`), and compared in every way that a program can tell: types, dtypes, order,
labels, the bits of a NaN. Whatever is not exact is refused before anything is written; the error names the place inside
the value and the way out.

| | |
|---|---|
| exact | it comes back as it was, and the same value gives the same bytes |
| refused | whatever the settings |
| policy | unless the stack says `allow_pickle: fallback` or `always`: then it is pickled |

`python -m tests.materializers.fidelity` writes this page, and a test holds it to what the code does.
"""

Cases = Iterator[tuple[str, Callable[[], Any]]]


def sections() -> Mapping[str, list[tuple[str, Callable[[], Any]]]]:
    """By library the cases, each with a function that makes its value."""
    found: dict[str, Cases] = {
        "pandas": _pandas(),
        "NumPy": _values(test_numpy.CASES, test_numpy.REFUSED),
        "polars": _polars(),
        "Arrow": _arrow(),
        "plain Python": _plain(),
        "attrs": _made(test_attrs.VALUES),
        "SciPy, sparse": _values(test_scipy.CASES, test_scipy.REFUSED),
        "xarray": _xarray(),
        "scikit-learn": _sklearn(),
        "XGBoost": _made(libraries.xgboost()),
        "LightGBM": _made(libraries.lightgbm()),
        "CatBoost": _made(libraries.catboost()),
        "matplotlib": _made({"a figure": Figure}),
        "PIL": ((f"an image of mode {mode}", _image(mode)) for mode in dict.fromkeys(test_pil.MODES)),
        "plotly": _made(test_plotly.FIGURES),
    }
    return {library: list(cases) for library, cases in found.items()}


def _values(exact: Mapping[str, Any], refused: Mapping[str, tuple[Any, Any]], kind: str = "") -> Cases:
    for name, value in exact.items():
        yield f"{kind}{name}", partial(_same, value)
    for name, (value, _) in refused.items():
        yield name, partial(_same, value)


def _same(value: Any) -> Any:
    return value


def _made(cases: Mapping[str, Callable[[], Any]]) -> Cases:
    yield from cases.items()


def _plain() -> Cases:
    yield from _values(test_plain.EXACT, test_plain.UNHOLDABLE)
    yield "a path to nothing", lambda: Path("no such file")
    yield "a list in itself", test_plain.cyclic_list
    yield "a tuple in itself", test_plain.cyclic_tuple
    yield "lists three thousand deep", lambda: test_plain.deep(lambda inner: [inner])


def _pandas() -> Cases:
    yield from _values(test_pandas.COLUMNS, {}, "a column: ")
    yield from _values(test_pandas.INDEXES, {}, "an index: ")
    for name, labels in test_pandas.LABELS.items():
        yield f"column labels: {name}", partial(pd.DataFrame, [[1, 2.5]], columns=labels, index=["row"])
    yield from _values(test_pandas.FRAMES, test_pandas.REFUSED, "a frame: ")


def _polars() -> Cases:
    yield from _values(test_polars.COLUMNS, {}, "a column: ")
    yield from _values(test_polars.FRAMES, test_polars.REFUSED, "a frame: ")
    yield "a lazy frame", lambda: pl.DataFrame({"a": [1]}).lazy()
    yield "a lazy frame that is sorted", lambda: pl.DataFrame({"a": [2, 1]}).lazy().sort("a")


def _arrow() -> Cases:
    yield from _values(test_arrow.ARRAYS, {}, "an array: ")
    yield from _values(test_arrow.TABLES, test_arrow.REFUSED, "a table: ")
    yield "a schema", lambda: pa.schema([("a", pa.int8())])


def _xarray() -> Cases:
    yield from _values(test_xarray.DATASETS, {}, "a dataset: ")
    yield from _values(test_xarray.ARRAYS, test_xarray.REFUSED, "an array: ")


def _sklearn() -> Cases:
    yield from _made(MODELS)
    yield from _values({}, test_sklearn.REFUSED)


def _image(mode: str) -> Callable[[], Any]:
    return lambda: test_pil.noise(mode, (7, 5))


def outcome(value: Any) -> str:
    """What becomes of a value: exact, refused or policy. Raises AssertionError for a change."""
    try:
        check_round_trip(value, equal=_equal(value))
    except PickleNotAllowed:
        return "policy"
    except MaterializationError:
        return "refused"
    return "exact"


def _equal(value: Any) -> Callable[[Any, Any], bool] | None:
    """scikit-learn's trees and CatBoost hold addresses, which are left out as their tests do."""
    root = type(value).__module__.partition(".")[0]
    return {"sklearn": test_sklearn.same, "catboost": test_catboost.same}.get(root)


def page() -> str:
    """The page, from every case tried now."""
    parts = [_HEAD]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library, cases in sections().items():
            rows = [(name, outcome(make())) for name, make in cases]
            counts = {kind: sum(how == kind for _, how in rows) for kind in ("exact", "refused", "policy")}
            said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            parts.append(f"\n## {library}\n\n{len(rows)} cases: {said}.\n\n| case | |\n|---|---|\n")
            parts += [f"| {_cell(name)} | {how} |\n" for name, how in rows]
    return "".join(parts)


def _cell(name: str) -> str:
    return name.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
