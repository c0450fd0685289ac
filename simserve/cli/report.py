"""``simserve report``: the report of a sweep that was made before, drawn again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simserve.cli.sweep import FORMATS, print_findings, publish
from simserve.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve report``."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of a sweep")
    parser.add_argument("--format", choices=(*FORMATS, "html"), default="html", help="md is for a pull request (html)")
    parser.add_argument("--png", action="store_true", help="write the charts as PNG files, too (needs matplotlib)")


def run(args: argparse.Namespace) -> int:
    """Draw the report from what the folder has, finished or not."""
    from simserve.cli.sweep import spec_text
    from simserve.sweep.expand import jobs_of
    from simserve.sweep.report.findings import findings_of
    from simserve.sweep.run import Sweep
    from simserve.sweep.spec import spec_from
    from simserve.sweep.store import open_store

    with open_store(args.folder) as store:
        spec = spec_from(store.noted("spec") or {}, str(args.folder))  # type: ignore[arg-type]
        jobs = jobs_of(spec)
        outcomes = store.outcomes(job.key for job in jobs)
    done = {outcome.key for outcome in outcomes}
    jobs_done = [job for job in jobs if job.key in done]
    if not jobs_done:
        raise ConfigError(f"no run of the sweep in {args.folder} is done; go on with it by simserve sweep --resume")
    if len(jobs_done) < len(jobs):
        print(f"{len(jobs_done):,} of {len(jobs):,} runs are done", file=sys.stderr)
    findings = findings_of(Sweep(jobs_done, outcomes, len(outcomes)), spec.title, spec_text(spec))
    if args.format == "html":
        publish(findings, args.folder, "text")
    else:
        print_findings(findings, args.format)
    if args.png:
        from simserve.sweep.report.png import write_pngs

        print(f"wrote {', '.join(map(str, write_pngs(findings, args.folder)))}", file=sys.stderr)
    return 0
