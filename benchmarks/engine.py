"""A run of ours on the Prefect engine beside a bare flow of the same shape: per task, and as a whole process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from handover import CONFIG
from measure import Bench, Row, alternate, process, row

__all__ = ["rows"]

_FLOORS = {
    "plain": "bare tasks as one writes them: submit(future)",
    "bare": "bare tasks submitted as ours are: submit({..: future})",
}


def rows(bench: Bench) -> Iterator[Row]:
    """Tasks in turn on one server in one process; then whole processes, each with a server of its own."""
    cwd = bench.folder / "engine"
    cwd.mkdir()
    (cwd / "tailrace.yaml").write_text(CONFIG, encoding="utf-8")
    found = json.loads(process(bench.python, "import engine_rounds", cwd, given="7")[1].splitlines()[-1])
    for stack, word in ("quick", "not durable"), ("durable", "durable"):
        for kind, how in _FLOORS.items():
            yield row(f"Prefect: one more task of 20, {word}", found[stack], "ms", found[kind], how, most_ratio=1.15)

    def whole(code: str) -> float:
        return process(bench.python, code, cwd)[0]

    ours, bare = alternate(3, partial(whole, "import flow_tailrace"), partial(whole, "import flow_bare"), warm_up=0)
    floor = "a flow of 20 tasks, whole process"
    yield row("Prefect: 20 steps, whole process and server", ours, "s", bare, floor, most_ratio=1.05)
    if Path("/proc/self/environ").exists():
        yield row("processes that these left running", [float(len(_left_behind(cwd)))], "", most=0)


def _left_behind(home: Path) -> list[int]:
    """The processes whose Prefect home is the benchmark's, once they had five seconds to end."""
    for _ in range(50):
        found = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if _is_of(path, home)]
        if not found:
            break
        time.sleep(0.1)
    return found


def _is_of(environ: Path, home: Path) -> bool:
    try:
        return f"PREFECT_HOME={home}".encode() in environ.read_bytes() and int(environ.parent.name) != os.getpid()
    except OSError:
        return False
