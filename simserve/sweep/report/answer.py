"""The answer in words, first of all."""

from __future__ import annotations

from simserve.sweep.report.findings import HALF_WIDTH, Findings, best, number
from simserve.sweep.rows import Row

UNITS = {"request_rate": "requests/s", "max_concurrency": "users", "rate_scale": "times the trace's rate"}


def answer(findings: Findings) -> list[str]:
    """A few sentences; the first one is the answer, the others what stands behind it."""
    if not findings.done:
        return _nothing(findings)
    sentences = _capacity(findings) if findings.searched else _grid(findings)
    return [*sentences, *_failures(findings), _trust(findings)]


def load_text(findings: Findings, load: float | None) -> str:
    """``12.3 requests/s``."""
    assert findings.searched is not None
    unit = UNITS.get(findings.searched, findings.searched.replace("_", " "))
    return f"{number(load)} {unit}"


def money_text(row: Row) -> str:
    """What a row costs, in brackets; empty where no price is known."""
    if row.get("usd_per_hour") is None:
        return ""
    per_million = row.get("usd_per_million_output_tokens")
    more = f", {per_million:,.2f} USD per million output tokens" if per_million else ""
    return f" ({row['usd_per_hour']:,.2f} USD/h{more})"


def _capacity(findings: Findings) -> list[str]:
    key = findings.load_key
    assert key is not None
    most = best(findings.good, lambda row: -row[key])
    if most is None:
        return _none_meets(findings)
    cheapest = best(findings.good, lambda row: _ratio(row["usd_per_hour"], row[key]))
    first = cheapest or most
    sentences = [
        f"{_upper(findings.label(first))} bears {_with_interval(findings, first, key)} within {findings.slo}"
        f"{money_text(first)}{', for the least money' if cheapest and len(findings.good) > 1 else ''}."
    ]
    if first["binds"]:
        sentences.append(f"Beyond that {first['binds']} gives way: {first['because']}.")
    sentences += [f"Next wall: {wall}." for wall in _later_walls(findings, first)]
    if most is not first:
        sentences.append(f"The most is borne by {findings.label(most)}: {load_text(findings, most[key])}.")
    return sentences


def _later_walls(findings: Findings, row: Row) -> list[str]:
    search = next((outcome.search for outcome in findings.outcomes if outcome.key == row["key"]), {})
    limits = {row["binds"]}
    later = [
        wall for wall in search.get("walls", []) if wall["limit"] not in limits and wall["load"] != row.get("load")
    ]
    return [
        f"{wall['limit']} "
        + (f"gives way at {load_text(findings, wall['load'])}, {wall['because']}" if wall["load"] else wall["because"])
        for wall in later
    ]


def _grid(findings: Findings) -> list[str]:
    if findings.slo and not findings.good:
        return _none_meets(findings)
    fastest = best(findings.good, lambda row: row.get(findings.judged_by))
    cheapest = best(findings.good, lambda row: row.get("usd_per_million_output_tokens"))
    busiest = best(findings.good, lambda row: -row["output_throughput"])
    sentences = []
    if findings.slo:
        sentences.append(f"{len(findings.good):,} of {len(findings.rows):,} settings meet {findings.slo}.")
    if cheapest:
        sentences.append(f"The cheapest is {findings.label(cheapest)}{money_text(cheapest)}.")
    if fastest:
        what = findings.judged_by.removesuffix("_ms").replace("_", " ")
        value = number(fastest[findings.judged_by])
        sentences.append(f"The lowest {what} has {findings.label(fastest)}: {value} ms.")
    if busiest and busiest is not fastest:
        rate = number(busiest["output_throughput"])
        sentences.append(f"The most output has {findings.label(busiest)}: {rate} tokens/s.")
    return sentences


def _none_meets(findings: Findings) -> list[str]:
    """Nothing meets the SLO: how near one comes."""
    slo = findings.slo
    assert slo is not None
    if findings.searched:
        nearest = _least_load(findings)
    else:
        nearest = best(findings.done, lambda row: max(term.share(row) for term in slo.terms))
    if nearest is None:
        return [f"Nothing meets {slo}."]
    parts = [f"{term} is {number(nearest[term.key])} ms" for term in slo.missed(nearest)]
    return [
        f"Nothing meets {slo}.",
        f"Nearest comes {findings.label(nearest)}: {' and '.join(parts) or 'some requests are refused'}.",
    ]


def _least_load(findings: Findings) -> Row | None:
    """Of the least loads that were tried, the one nearest to the SLO, as a row."""
    slo = findings.slo
    assert slo is not None
    searches = {outcome.key: outcome.search for outcome in findings.outcomes if outcome.search.get("probes")}
    tried = [{**row, **searches[row["key"]]["probes"][0][1]} for row in findings.rows if row["key"] in searches]
    return best(tried, lambda row: max(term.share(row) for term in slo.terms))


def _nothing(findings: Findings) -> list[str]:
    reasons = list(dict.fromkeys(str(row["error"]) for row in findings.rows if row["error"]))
    if not reasons:
        return _none_meets(findings)
    return ["No setting can be run.", *(f"{_upper(reason)}." for reason in reasons[:5])]


def _failures(findings: Findings) -> list[str]:
    failed = [row for row in findings.rows if row["error"]]
    if not failed:
        return []
    return [f"{len(failed):,} settings cannot be run; for {findings.label(failed[0])}: {failed[0]['error']}."]


def _trust(findings: Findings) -> str:
    """Which profiles stand behind it, how far off they may be, and what chance adds."""
    profiles = {str(row["hardware_profile"]): row for row in findings.done}
    parts = [
        f"{name} is {'calibrated' if row['calibrated'] else 'uncalibrated'} ({row['uncertainty']})"
        for name, row in profiles.items()
    ]
    shown = "; ".join(parts[:4]) + (f"; and {len(parts) - 4} more" if len(parts) > 4 else "")
    seeds = f" Figures are means over {findings.seeds} seeds." if findings.seeds > 1 else ""
    return f"Predicted, not measured: {shown}.{seeds}"


def _with_interval(findings: Findings, row: Row, key: str) -> str:
    half_width = row.get(key + HALF_WIDTH)
    text = load_text(findings, row[key])
    return f"{text} (±{number(half_width)} over {findings.seeds} seeds)" if half_width is not None else text


def _ratio(cost: float | None, load: float | None) -> float | None:
    return None if cost is None or not load else cost / load


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
