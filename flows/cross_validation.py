"""Italian wines, cross-validated: the data, its folds, one task a fold, and the folds together again, in order.

    tailrace run cross_validation --param folds=8

How many folds there are is known when the run gets there. Of each, the data that crosses from task to task are row
numbers; every fold's task loads the stored wines itself.
"""

from __future__ import annotations

from tailrace import Dataset, Metrics, pipeline, step
from tailrace.adapters.prefect import to_flow


@step(outputs="wines")
def load() -> Dataset:
    """178 wines, 13 measurements of each; the target is which of three growers it is from."""
    from sklearn.datasets import load_wine

    return Dataset(load_wine(as_frame=True).frame, name="wines")


@step(outputs="held_out")
def split(wines: Dataset, folds: int, seed: int) -> list[list[int]]:
    """The rows to hold out, one list a fold; each fold has the growers in the same shares."""
    from sklearn.model_selection import StratifiedKFold

    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [held_out.tolist() for _, held_out in parts.split(wines.data, wines.data["target"])]


@step(outputs=["guesses", "metrics"], retries=1)
def measure(held_out: list[int], wines: Dataset, trees: int, seed: int) -> tuple[Dataset, Metrics]:
    """One fold: learn from the other rows, and guess these."""
    from sklearn.ensemble import RandomForestClassifier

    rest = wines.data.drop(index=held_out)
    forest = RandomForestClassifier(trees, random_state=seed).fit(rest.drop(columns="target"), rest["target"])
    part = wines.data.loc[held_out]
    guesses = part[["target"]].assign(guess=forest.predict(part.drop(columns="target")))
    return Dataset(guesses, name="guesses"), Metrics(accuracy=(guesses["guess"] == guesses["target"]).mean())


@step(outputs=["all_guesses", "summary"])
def collect(guesses: list[Dataset], metrics: list[Metrics]) -> tuple[Dataset, Metrics]:
    """Every wine's guess, made without having seen it, and how the folds did."""
    import pandas as pd

    scores = [fold["accuracy"] for fold in metrics]
    least = min(range(len(scores)), key=scores.__getitem__)
    everything = pd.concat([fold.data.assign(fold=number) for number, fold in enumerate(guesses)]).sort_index()
    summary = Metrics(accuracy=sum(scores) / len(scores), least=scores[least], least_fold=least)
    return Dataset(everything, name="guesses"), summary


@pipeline(name="cross-validation")
def cross_validation(folds: int = 5, trees: int = 50, seed: int = 7) -> None:
    """Measure a random forest on wines that it has not seen, fold by fold."""
    wines = load()
    guesses, metrics = measure.partial(wines=wines, trees=trees, seed=seed).map(held_out=split(wines, folds, seed))
    collect(guesses, metrics)


flow = to_flow(cross_validation)
