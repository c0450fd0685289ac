"""The report's files."""

from __future__ import annotations

from pathlib import Path

from simserve.errors import ConfigError
from simserve.sweep.report.findings import Findings
from simserve.sweep.report.markdown import markdown
from simserve.sweep.report.page import page


def write_report(findings: Findings, folder: Path) -> list[Path]:
    """``report.html`` and ``report.md``; raises :class:`ConfigError` if they cannot be written."""
    paths = [folder / "report.html", folder / "report.md"]
    try:
        for path, text in zip(paths, (page(findings), markdown(findings)), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror}") from None
    return paths
