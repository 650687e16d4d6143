"""Pipelines of a thousand and of ten thousand tasks beside bare Prefect, and a thousand tasks on Dask."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator

from handover import CONFIG
from measure import Bench, Row, process, row

__all__ = ["rows"]

_SHAPES = {
    "chain": ("Prefect: a chain of 1,000 steps", 1.1),
    "map": ("Prefect: a map over 1,000 items, and back into one", 1.1),
    "values": ("Prefect: 100 lists of 10,000 integers, stored", 0.35),
    "most": ("Prefect: a map over 10,000 items, and back into one", None),
}
_DASK = "Prefect on Dask: 1,000 tasks on 4 workers"


def rows(bench: Bench) -> Iterator[Row]:
    """Each shape in turn with the same of bare Prefect; values beside its ``persist_result``."""
    cwd = bench.folder / "prefect_scale"
    cwd.mkdir()
    (cwd / "tailrace.yaml").write_text(CONFIG, encoding="utf-8")
    said = process(bench.python, "import scale_rounds", cwd, given="3 10000", errors=True)[1]
    found = json.loads(said.splitlines()[-1])
    for shape, (name, most) in _SHAPES.items():
        floor = "persist_result" if shape == "values" else "a bare flow of the same shape"
        yield row(name, found[shape]["ours"], "s", found[shape]["bare"], floor, most_ratio=most)
    yield row("its process' peak of memory", [found["peak"]], "MB")
    yield row('"database is locked" in what it said', [float(said.count("database is locked"))], "", most=0)
    if importlib.util.find_spec("prefect_dask") is None:
        yield Row(_DASK, note="not installed")
        return
    found = json.loads(process(bench.python, "import dask_rounds; dask_rounds.main(2, 1000)", cwd)[1].splitlines()[-1])
    yield row(_DASK, found["ours"], "s", found["bare"], "bare prefect-dask", most_ratio=1.15)
