"""What it costs to begin: the import alone, and a whole process that runs three steps. Byte code is there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from measure import Bench, Row, alternate, process, row

__all__ = ["rows"]

_HEAVY = "prefect mlflow pandas numpy sqlalchemy fsspec pydantic"
_FOUND = f"import sys, tailrace; print(*(name for name in '{_HEAVY}'.split() if name in sys.modules))"


def rows(bench: Bench) -> Iterator[Row]:
    """``import tailrace`` over an empty process; three inline steps beside joblib and Kedro."""
    cwd = bench.folder / "start"
    cwd.mkdir()
    bare, imported = alternate(
        15, partial(_seconds, bench.python, "pass", cwd), partial(_seconds, bench.python, "import tailrace", cwd)
    )
    added = [1000 * (one - other) for one, other in zip(imported, bare, strict=True)]
    floors = [1000 * other for other in bare]
    yield row("import tailrace", added, "ms", floors, "`python -c pass`, to which it adds", most=50)
    found = process(bench.python, _FOUND, cwd)[1].split()
    yield row(f"of {', '.join(_HEAVY.split())}: imported by it", [float(len(found))], "", most=0)

    ours = partial(_seconds, bench.python, "import three_tailrace", cwd)
    peers = {
        "joblib": (bench.python, "import three_joblib", "joblib.Memory around 3 functions, whole process", None),
        "kedro": (bench.kedro_python, "import three_kedro", "Kedro SequentialRunner, 3 nodes in memory", 0.75),
    }
    for module, (python, code, what, most_ratio) in peers.items():
        name = "3 steps inline, whole process"
        if python is None or not _has(python, module, cwd):
            yield Row(name, floor=what, note="not installed", budget=f"<= {most_ratio:g}x" if most_ratio else "")
            continue
        values, floors = alternate(9, ours, partial(_seconds, python, code, cwd))
        yield row(name, values, "s", floors, what, most=0.30, most_ratio=most_ratio)


def _seconds(python: str, code: str, cwd: Path) -> float:
    return process(python, code, cwd)[0]


def _has(python: str, module: str, cwd: Path) -> bool:
    found = f"import importlib.util; print(importlib.util.find_spec({module!r}) is not None)"
    return process(python, found, cwd)[1].strip() == "True"
