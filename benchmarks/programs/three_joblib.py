"""Three functions whose results joblib stores and loads."""

from __future__ import annotations

import tempfile

from joblib import Memory

with tempfile.TemporaryDirectory(dir=".") as folder:
    memory = Memory(folder, verbose=0)

    @memory.cache
    def one() -> int:
        return 1

    @memory.cache
    def two(x: int) -> int:
        return x + 1

    @memory.cache
    def three(x: int) -> int:
        return x + 1

    assert three(two(one())) == 3
