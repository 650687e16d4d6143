"""Three steps in this process, without an engine."""

from __future__ import annotations

from local_chain import chain

result = chain.run(orchestrator="inline")
assert result.outputs["three"] == 3
