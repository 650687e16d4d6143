"""The step cache: a task that was computed before, from the same code and the same inputs, is not computed again."""
