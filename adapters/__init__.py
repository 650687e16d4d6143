"""From a Plan to an engine: the shared runtime, and one module for each engine."""
