"""``make bench``: every figure as a ratio to a floor measured in the same run, with its budget beside it.

``python benchmarks/run.py`` measures everything; with names (``start steps``) only those subjects.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from measure import Bench, Row, row

SUBJECTS = {
    "start": "import and cold start",
    "steps": "one more step",
    "handover": "an array and a frame from step to step",
    "materializers": "each library's values to files and back",
    "frameworks": "models of PyTorch, Keras, TensorFlow and Hugging Face, where they are installed",
    "local": "a local run on the Prefect engine, whole process",
    "engine": "the Prefect engine beside a bare flow",
    "prefect_scale": "thousands of tasks on Prefect, and Dask",
    "dags": "an Airflow DAG beside bare TaskFlow",
    "tracker": "what MLflow adds",
    "catalog": "the index with many artifacts",
    "cache": "the step cache",
    "gc": "collecting garbage among many artifacts",
    "object_stores": "objects beside boto3, and the local store beside npy files",
}

_MODULES = {"gc": "garbage"}  # where the subject's name is that of a module of Python's


def main() -> int:
    asked = _arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-", dir=asked.dir) as folder:
        bench = Bench(Path(folder), sys.executable, asked.kedro_python)
        for subject in asked.subjects or SUBJECTS:
            begin = time.perf_counter()
            found = list(_measured(subject, bench))
            print(*_table(found), "", sep="\n", flush=True)
            print(f"{subject}: measured in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
            rows += found
    machine = {"python": platform.python_version(), "system": platform.platform(), "processors": os.cpu_count()}
    print(f"Python {machine['python']}, {machine['system']}, {machine['processors']} processors")
    if asked.json:
        Path(asked.json).write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    what = "; ".join(f"{name}: {about}" for name, about in SUBJECTS.items())
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=what)
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    parser.add_argument("--dir", metavar="DIR", help="a folder on the disk to measure (default: the temporary one)")
    parser.add_argument("--kedro-python", metavar="PATH", default=os.environ.get("KEDRO_PYTHON") or sys.executable)
    asked = parser.parse_args()
    unknown = [name for name in asked.subjects if name not in SUBJECTS]
    if unknown:
        parser.error(f"unknown subject {unknown[0]!r}; known: {', '.join(SUBJECTS)}")
    return asked


def _measured(subject: str, bench: Bench) -> Iterator[Row]:
    try:
        module = importlib.import_module(_MODULES.get(subject, subject))
    except ModuleNotFoundError as error:
        if error.name != _MODULES.get(subject, subject):
            raise
        return
    if subject == "catalog":
        for found in module.bench():
            yield row(found["name"], [found["value"]], found["unit"], most=found["budget"])
        return
    yield from module.rows(bench)


def _table(rows: list[Row]) -> Iterator[str]:
    """The rows of a subject as a Markdown table."""
    head = ["what", "median", "least", "ratio (quartiles)", "to the floor", "budget", ""]
    cells = [head, *map(_cells, rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(head))]
    for number, line in enumerate(cells):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        if number == 0:
            yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"


def _cells(row: Row) -> list[str]:
    spread = f" ({row.quartiles[0]:.2f} to {row.quartiles[1]:.2f})" if row.quartiles else ""
    return [
        row.name,
        row.note or _figure(row.value, row.unit),
        _figure(row.least, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f}x{spread}",
        row.floor,
        row.budget,
        {None: "", True: "ok", False: "OVER"}[row.ok],
    ]


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}".strip()


if __name__ == "__main__":
    sys.exit(main())
