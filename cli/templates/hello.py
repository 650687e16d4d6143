"""A first pipeline. Run it with: tailrace run hello --param days=30"""

from tailrace import Dataset, Metrics, Report, pipeline, step


@step(outputs="measurements")
def measure(days: int) -> Dataset:
    """What a real pipeline would read from a file or a database."""
    return Dataset([{"day": day, "litres": 100 + day * day % 37} for day in range(days)], name="flow")


@step(outputs="summary")
def summarize(measurements: Dataset) -> Metrics:
    """Metrics go to the experiment tracker too, if tailrace.yaml names one."""
    litres = [row["litres"] for row in measurements.data]
    return Metrics(days=len(litres), mean=sum(litres) / len(litres), most=max(litres))


@step(outputs="report")
def write_report(summary: Metrics) -> Report:
    """A Report is for people: HTML, Markdown, JSON or PDF."""
    lines = "\n".join(f"- {name}: {value:g}" for name, value in summary.items())
    return Report(f"# Water through the tailrace\n\n{lines}\n", name="water")


@pipeline
def hello(days: int = 14) -> None:
    """Measure, summarize, report."""
    write_report(summarize(measure(days)))
