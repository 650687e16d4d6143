"""A battery that proves an engine: it runs named and random pipelines as the ``inline`` engine does, to the same end.

import pytest
from tailrace.adapters.testing import check_engine, conformance_cases

def my_engine(pipeline, *, params, run_id, stack_config, source): ...

@pytest.mark.parametrize("case", conformance_cases())
def test_my_engine_leaves_what_inline_leaves(case, tmp_path):
    check_engine(my_engine, case, tmp_path)
"""

from __future__ import annotations

from .case import Case
from .check import PIPELINES, RUN_ID, Engine, check_engine, check_graph, conformance_cases, inline, load
from .graphs import build, descriptions, wiring
from .snapshot import Snapshot, left_behind

__all__ = [
    "PIPELINES",
    "RUN_ID",
    "Case",
    "Engine",
    "Snapshot",
    "build",
    "check_engine",
    "check_graph",
    "conformance_cases",
    "descriptions",
    "inline",
    "left_behind",
    "load",
    "wiring",
]
