"""The published matrix says what the code does, and has the cases that were promised."""

from __future__ import annotations

import difflib

from .fidelity import PAGE, page, sections

LEAST = {"pandas": 60, "NumPy": 35, "polars": 20, "Arrow": 15, "plain Python": 50}


def test_the_page_says_what_becomes_of_every_case() -> None:
    kept, now = PAGE.read_text(encoding="utf-8").splitlines(), page().splitlines()
    changed = "\n".join(difflib.unified_diff(kept, now, "the page", "the code", lineterm="", n=0))
    assert not changed, f"{changed}\nRight? Then: python -m tests.materializers.fidelity"


def test_there_are_enough_cases_of_each_library() -> None:
    found = {library: len(cases) for library, cases in sections().items()}
    assert {library: count for library, count in LEAST.items() if found[library] < count} == {}
    assert all(found.values())
