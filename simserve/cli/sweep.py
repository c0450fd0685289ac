"""``simserve sweep``: many runs from one description, kept as they end, with a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simserve.cli.options import number, whole_number
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.sweep.executors import Executor
    from simserve.sweep.expand import Job
    from simserve.sweep.report.findings import Findings
    from simserve.sweep.run import OnProgress
    from simserve.sweep.spec import SweepSpec

DEFAULT_OUT = Path("sweep")
FORMATS = ("text", "md", "json")

AXES_HELP = (
    "Every option of `simserve simulate` can be given with several values: a list (--hardware A100,NPU) or, where it is"
    " a number, a range FIRST:LAST:STEP (--request-rate 1:20:1). All combinations are run."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve sweep``; those that it does not know are settings and axes."""
    from simserve.cli.settings import setting_names

    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC.yaml", help="what to sweep, as docs/sweep.md says")
    group = parser.add_argument_group("what is asked")
    group.add_argument("--slo", nargs="+", metavar="TERM", help="limits, such as ttft:p99=2s tpot:p90=50ms")
    group.add_argument(
        "--capacity",
        nargs="?",
        const="request_rate",
        metavar="LOAD",
        help="find the highest LOAD that meets the SLO: request_rate (so without a name), max_concurrency, rate_scale",
    )
    group.add_argument("--tolerance", type=number, metavar="F", help="how closely, as a fraction (0.02)")
    group.add_argument("--seeds", type=whole_number, metavar="N", help="repeat all with N seeds (1)")
    group.add_argument("--title", help="of the report")
    _add_running(parser)
    settings = parser.add_argument_group("settings and axes", AXES_HELP)
    for name in setting_names():
        if f"--{name.replace('_', '-')}" not in parser._option_string_actions:
            settings.add_argument(
                f"--{name.replace('_', '-')}", dest=f"axis_{name}", nargs="?", const=True, help=argparse.SUPPRESS
            )


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running it")
    group.add_argument(
        "--out", type=Path, metavar="DIR", default=DEFAULT_OUT, help=f"folder of runs and report ({DEFAULT_OUT})"
    )
    group.add_argument("--resume", action="store_true", help="go on with what DIR has; without it DIR must be new")
    add_executor_arguments(group)
    group.add_argument("--format", choices=FORMATS, default="text", help="what is printed (text)")


def add_executor_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the options that :func:`executor_of` reads."""
    group.add_argument("--jobs", type=whole_number, metavar="N", help="processes on this machine (one for each core)")
    group.add_argument("--executor", choices=("local", "ray"), default="local", help="where runs are done (local)")
    group.add_argument("--ray-address", metavar="HOST:PORT", help="of a Ray cluster that is there (one is started)")


def run(args: argparse.Namespace) -> int:
    """Sweep, then write tables and report and print the answer."""
    from simserve.cli.settings import simulate_settings
    from simserve.sweep.expand import jobs_of
    from simserve.sweep.report.findings import findings_of
    from simserve.sweep.run import run_sweep
    from simserve.sweep.store import FILE_NAME, Store

    spec = sweep_spec(args)
    jobs = jobs_of(spec)
    check(jobs)
    executor = executor_of(args)
    if (args.out / FILE_NAME).exists() and not args.resume:
        raise ConfigError(f"{args.out} has a sweep already; add --resume to go on with it, or name another --out")
    with Store(args.out) as store, sweep_progress(f"simserve sweep --resume --out {args.out}") as on_progress:
        store.note("spec", spec.model_dump(mode="json", by_alias=True))
        store.note("jobs", [job.key for job in jobs])
        done = run_sweep(jobs, simulate_settings, executor, store, on_progress)
    publish(findings_of(done, spec.title, spec_text(spec)), args.out, args.format)
    return 0


def sweep_spec(args: argparse.Namespace) -> SweepSpec:
    """The sweep that ``args`` describe: that of the file, with what the options add or say instead."""
    import yaml

    from simserve.sweep.spec import read_spec, spec_from

    given: dict[str, Any] = {}
    if args.spec is not None:
        given = read_spec(args.spec).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    base, axes = dict(given.get("base", {})), dict(given.get("axes", {}))
    for name, values in given_settings(args):
        base.pop(name, None)
        axes.pop(name, None)
        (axes if len(values) > 1 else base)[name] = values if len(values) > 1 else values[0]
    given |= {"base": base, "axes": axes}
    if args.seeds is not None:
        given["seeds"] = args.seeds
    given |= {name: value for name in ("title",) if (value := getattr(args, name)) is not None}
    if args.slo is not None:
        given["slo"] = " ".join(args.slo)
    if args.capacity is not None:
        given["capacity"] = given.get("capacity", {}) | {"of": args.capacity}
    if args.tolerance is not None:
        if "capacity" not in given:
            raise ConfigError("--tolerance is that of a search; add --capacity")
        given["capacity"] |= {"tolerance": args.tolerance}
    if not base and not axes:
        raise ConfigError("what is to be swept? Name a SPEC.yaml, or options with several values, see --help")
    return spec_from(yaml.safe_load(yaml.safe_dump(given)), str(args.spec or "the options"))


def given_settings(args: argparse.Namespace) -> Iterator[tuple[str, list[Any]]]:
    """Settings of ``simulate`` among ``args``, each with its values."""
    from simserve.cli.settings import setting_names
    from simserve.sweep.axes import parse_axis

    for name, numeric in setting_names().items():
        text = getattr(args, f"axis_{name}", None)
        if text is not None:
            yield name, [True] if text is True else parse_axis(name, text, numeric)


def check(jobs: Sequence[Job]) -> None:
    """Refuse settings that `simulate` does not have before anything is run."""
    from simserve.cli.settings import parsed
    from simserve.sweep.jobs import at_load

    for job in jobs:
        parsed(at_load(job.settings, job.capacity, job.capacity.first) if job.capacity else job.settings)


def executor_of(args: argparse.Namespace) -> Executor:
    """Where the runs are done; raises :class:`ConfigError` for what contradicts itself, or if Ray is not there."""
    from simserve.sweep.executors import LocalProcesses

    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs counts processes and must be at least 1, not {args.jobs}")
    if args.executor == "ray":
        from simserve.sweep.executors.on_ray import OnRay

        if args.jobs is not None:
            raise ConfigError("--jobs counts processes of this machine; a Ray cluster has its own, leave it out")
        return OnRay(args.ray_address)
    if args.ray_address is not None:
        raise ConfigError("--ray-address names a Ray cluster; add --executor ray")
    return LocalProcesses(args.jobs)


@contextmanager
def sweep_progress(resume: str) -> Iterator[OnProgress]:
    """Shows how far a sweep is; Ctrl-C is told how to go on by ``resume``."""
    from simserve.cli.sweep_progress import shown

    with shown(sys.stderr) as on_progress:
        try:
            yield on_progress
        except KeyboardInterrupt:
            print(f"what was done is kept; go on with: {resume}", file=sys.stderr)
            raise


def publish(findings: Findings, folder: Path, form: str) -> None:
    """Write tables and report into ``folder`` and print the answer as ``form``."""
    from simserve.sweep.report.publish import write_report
    from simserve.sweep.rows import write_tables

    paths = [*write_tables(folder, findings.runs), *write_report(findings, folder)]
    print_findings(findings, form)
    print(f"wrote {', '.join(map(str, paths))}", file=sys.stderr)


def print_findings(findings: Findings, form: str) -> None:
    """As text, Markdown or JSON."""
    import json

    from simserve.sweep.report.answer import answer
    from simserve.sweep.report.markdown import markdown

    if form == "md":
        print(markdown(findings), end="")
    elif form == "json":
        print(json.dumps({"answer": answer(findings), "rows": list(findings.rows)}, indent=1, default=str))
    else:
        print("\n".join(answer(findings)))


def spec_text(spec: SweepSpec) -> str:
    """The sweep as YAML, without what goes without saying."""
    import yaml

    plain = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
