"""What an MLflow tracker and registry add to a run: at their first use, in a new process, and after that."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator

from measure import Bench, Row, process, row

__all__ = ["rows"]

_CONFIG = """\
active_stack: plain
stacks:
  plain: {}
  tracked:
    experiment_tracker: {type: mlflow}
    model_registry: {type: mlflow}
"""


def rows(bench: Bench) -> Iterator[Row]:
    """Seconds beside the same run without them; no budget is set."""
    if importlib.util.find_spec("sklearn") is None:
        yield Row("MLflow tracker and registry", note="scikit-learn is not installed")
        return
    cwd = bench.folder / "tracker"
    cwd.mkdir()
    (cwd / "tailrace.yaml").write_text(_CONFIG, encoding="utf-8")
    new, known = (json.loads(process(bench.python, "import tracked_rounds", cwd)[1].splitlines()[-1]) for _ in range(2))
    floor = "the same run without MLflow, to which it adds"
    yield _added("MLflow adds, first use, database made", new, slice(0, 1), floor)
    yield _added("MLflow adds, first use in a process", known, slice(0, 1), floor)
    yield _added("MLflow adds, later uses", known, slice(1, None), floor)


def _added(name: str, figures: dict[str, list[float]], which: slice, floor: str) -> Row:
    plain = figures["plain"][which]
    added = [one - other for one, other in zip(figures["tracked"][which], plain, strict=True)]
    return row(name, added, "s", plain, floor)
