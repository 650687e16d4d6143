"""A local run on the Prefect engine, as a whole process: with a server that runs already, and with one of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial

from measure import Bench, Row, alternate, environment, process, row

__all__ = ["rows"]


def rows(bench: Bench) -> Iterator[Row]:
    """``tailrace run`` of three steps beside a bare flow of three tasks, the first run of all left out."""
    cwd = bench.folder / "local"
    cwd.mkdir()

    def server(*words: str) -> str:
        command = [bench.python, "-m", "tailrace.cli", "server", *words]
        return subprocess.run(command, cwd=cwd, env=environment(cwd), capture_output=True, text=True, check=True).stdout

    def whole(code: str) -> float:
        return process(bench.python, code, cwd)[0]

    ours = partial(whole, "import local_run")
    mine, bare = alternate(5, ours, partial(whole, "import flow_three"))
    floor = "a bare flow of 3 tasks, which starts one too"
    yield row("tailrace run: 3 steps, starts its server", mine, "s", bare, floor, most_ratio=0.9)

    url = json.loads(server("start", "--json"))["url"]
    try:
        bare_there = f"import os; os.environ['PREFECT_API_URL'] = {url!r}; import flow_three"
        mine, bare = alternate(7, ours, partial(whole, bare_there))
    finally:
        server("stop")
    floor = "a bare flow of 3 tasks, on the same server"
    yield row("tailrace run: 3 steps, server in the background", mine, "s", bare, floor, most_ratio=1.2)
