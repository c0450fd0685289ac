"""A sweep as Markdown, for a pull request or an issue."""

from __future__ import annotations

from simserve.sweep.report.answer import answer
from simserve.sweep.report.findings import Findings, number
from simserve.sweep.report.page import columns_of

MOST_ROWS = 50
LEFT_OUT = ("command", "error", "missed_at")


def markdown(findings: Findings) -> str:
    """Title, answer, a table and the commands of the best rows."""
    first, *others = answer(findings)
    columns = [name for name in columns_of(findings) if name not in LEFT_OUT]
    lines = [f"## {findings.title}", "", f"**{first}**", "", *others, ""]
    lines += [_line([name.replace("_", " ") for name in columns]), _line(["---"] * len(columns))]
    lines += [_line([_cell(row.get(name)) for name in columns]) for row in findings.rows[:MOST_ROWS]]
    if len(findings.rows) > MOST_ROWS:
        lines += ["", f"{len(findings.rows) - MOST_ROWS:,} more rows are in results.csv."]
    if findings.good:
        lines += ["", "```", str(findings.good[0]["command"]), "```"]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else number(value).replace("|", "\\|")
