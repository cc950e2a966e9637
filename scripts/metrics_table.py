"""Write the table of metrics in docs/metrics.md from their declarations; the rest of the page stays."""

from pathlib import Path

from service.metrics.catalogue import ALL, Metric

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
ROW = "| `tierwise_"


def row(metric: Metric) -> str:
    """Return one line of the table."""
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def main() -> None:
    """Replace the table's rows."""
    lines = PAGE.read_text().splitlines()
    head = lines.index("|---|---|---|---|") + 1
    rest = [line for line in lines[head:] if not line.startswith(ROW)]
    PAGE.write_text("\n".join([*lines[:head], *map(row, ALL), *rest]) + "\n")


if __name__ == "__main__":
    main()
