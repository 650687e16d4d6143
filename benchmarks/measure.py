"""How all of this is measured: in rounds in which each subject has its turn, as ratios to a floor of the same rounds.

A machine that is busy with something else is busy for both sides of a round. So the ratio is the median of the rounds'
ratios, shown with its quartiles; the figure itself is the median of the rounds, shown with the least.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEAK", "Bench", "Row", "alternate", "environment", "process", "row", "working_in"]

PEAK = """
def peak():  # KB of this program at most; what getrusage says may be of the process that forked it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
"""

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Bench:
    """What a subject is given: a folder for its files, and the interpreters to use."""

    folder: Path
    python: str
    kedro_python: str | None = None


@dataclass(frozen=True)
class Row:
    """One figure. ``ok`` is None where no budget is set; ``note`` stands for a figure that could not be taken."""

    name: str
    value: float | None = None
    least: float | None = None
    unit: str = ""
    ratio: float | None = None
    quartiles: tuple[float, float] | None = None
    floor: str = ""
    budget: str = ""
    ok: bool | None = None
    note: str = ""


def row(
    name: str,
    values: Sequence[float],
    unit: str,
    floors: Sequence[float] = (),
    floor: str = "",
    *,
    most: float | None = None,
    most_ratio: float | None = None,
) -> Row:
    """The rounds of a subject beside those of its floor. ``most`` and ``most_ratio`` are the budget, for medians."""
    value = statistics.median(values)
    ratios = [one / other for one, other in zip(values, floors, strict=True)] if floors else []
    ratio = statistics.median(ratios) if ratios else None
    limits = [(value, most, f" {unit}".rstrip()), (ratio, most_ratio, "x")]
    set_limits = [(found, limit, what) for found, limit, what in limits if found is not None and limit is not None]
    return Row(
        name,
        value,
        min(values),
        unit,
        ratio,
        (_quartile(ratios, 1), _quartile(ratios, 3)) if len(ratios) > 1 else None,
        floor,
        " and ".join(f"<= {limit:g}{what}" for _, limit, what in set_limits),
        all(found <= limit for found, limit, _ in set_limits) if set_limits else None,
    )


def _quartile(values: Sequence[float], which: int) -> float:
    return statistics.quantiles(values, n=4, method="inclusive")[which - 1]


def alternate(rounds: int, *subjects: Callable[[], float], warm_up: int = 1) -> list[list[float]]:
    """Each subject's figures, round by round. Who goes first changes with the round; warm-up rounds do not count."""
    figures: list[list[float]] = [[] for _ in subjects]
    for turn in range(-warm_up, rounds):
        for place in range(len(subjects)):
            chosen = (place + turn) % len(subjects)
            figure = subjects[chosen]()
            if turn >= 0:
                figures[chosen].append(figure)
    return figures


def environment(home: Path) -> dict[str, str]:
    """This environment for a fresh process: byte code is written and used, and every home is a folder of the benchmark.

    The first start of a program compiles what it imports, so warm up before you measure.
    """
    foreign = ("TAILRACE_", "PREFECT_", "MLFLOW_", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    inherited = os.environ.get("PYTHONPATH")
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([*map(str, (PROGRAMS, PROGRAMS.parent)), *filter(None, [inherited])]),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def process(python: str, code: str, cwd: Path, *, given: str = "", errors: bool = False) -> tuple[float, str]:
    """Run code in a fresh interpreter: the seconds of the whole process, and what it printed.

    With ``errors``, what it and its server wrote to standard error comes before that. A program is imported
    (``import three_tailrace``), since only a module's byte code is kept. Raises when it fails.
    """
    begin = time.perf_counter()
    done = subprocess.run(
        [python, "-c", code, given], cwd=cwd, env=environment(cwd), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        raise RuntimeError(f"{code!r} failed in {python}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return seconds, done.stderr + done.stdout if errors else done.stdout


@contextmanager
def working_in(folder: Path, config: str = "") -> Iterator[Path]:
    """A new project folder, which is the working directory meanwhile, with a ``tailrace.yaml`` if one is given."""
    folder.mkdir(parents=True)
    if config:
        (folder / "tailrace.yaml").write_text(config, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
