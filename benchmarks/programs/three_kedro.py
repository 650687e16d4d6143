"""Three nodes on Kedro's sequential runner, without a project; the data stay in memory."""

from __future__ import annotations

from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import node, pipeline
from kedro.runner import SequentialRunner


def one() -> int:
    return 1


def add(x: int) -> int:
    return x + 1


nodes = [node(one, None, "one"), node(add, "one", "two", name="second"), node(add, "two", "three", name="third")]
done = SequentialRunner().run(pipeline(nodes), DataCatalog({name: MemoryDataset() for name in ("one", "two")}))
result = done["three"]
assert (result.load() if hasattr(result, "load") else result) == 3
