"""How far off curves of one device are for another: ``python -m simserve.calibration.transfer [FOLDER OF TABLES]``.

A profile may take over the curves of a related device for operators that nobody measured on its own. What that costs
is found between devices that were both measured: the curves of each are asked for the points of every other, relative
to the other's peaks, as a derived profile does. :data:`simserve.calibration.shipped.ANOTHER_CHIP` holds the medians.
In the same way the points are asked of the assumed efficiencies, on which profiles without any curves rest: medians of
that are the uncertainties of :class:`simserve.hardware.Efficiency`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simserve.calibration.holdout import SEED, configurations, limited_decodes, limited_gemms
from simserve.calibration.holdout import summed_errors as errors_of_sums
from simserve.calibration.points import Floats
from simserve.calibration.predict import predict_decodes, predict_gemms, predict_prompts
from simserve.calibration.shipped import TABLES, USUAL_FOLDER
from simserve.hardware import Curves, Derived, HardwareProfile, PrefillCurves, load_hardware
from simserve.hardware.uncertainty import OPERATORS

DATA_SHEET = "data sheet"
"""Stands for the assumed efficiencies, among the names of devices."""


class Transfer(NamedTuple):
    """Error of sums of a few points of ``operator`` on one device, by the curves of another."""

    source: str
    target: str
    operator: str
    median: float
    p90: float


def transfers(root: Path, target: str, sources: list[str]) -> list[Transfer]:
    """Errors on ``target``'s points of the curves measured on each of ``sources``, of which one may be DATA_SHEET."""
    found = []
    for operator in OPERATORS:
        for source in sources:
            curves = None
            if source != DATA_SHEET:
                curves = getattr(load_hardware(source).calibration, operator)
                if not isinstance(curves, Curves) or curves.derived:
                    continue
                taken = Derived(derived_from=source, because="to see how far off that is", uncertainty=1)
                curves = curves.model_copy(update={"derived": taken})
            errors = _errors(curves, operator, load_hardware(target), root)
            if errors is not None:
                median, p90 = np.percentile(errors, (50, 90)).tolist()
                found.append(Transfer(source, target, operator, median, p90))
    return found


def _errors(curves: Curves | None, operator: str, target: HardwareProfile, root: Path) -> Floats | None:
    """Absolute errors, or None where ``operator`` was not measured on ``target``."""
    tables, random = TABLES[target.name], np.random.default_rng(SEED)
    if operator == "gemm":
        gemms = limited_gemms(tables, target, root)
        return errors_of_sums(predict_gemms(curves, gemms, target), gemms.seconds, gemms.m, random)
    if operator == "decode_attention" and tables.decode:
        decodes = limited_decodes(tables, target, root)
        predicted = predict_decodes(curves, decodes, target)
        return errors_of_sums(predicted, decodes.seconds, configurations(decodes)[1], random)
    if operator == "prefill_attention" and tables.prefill and (curves is None or isinstance(curves, PrefillCurves)):
        prompts = tables.prefill[1](root)
        prompts = prompts.where(prompts.sequences == 1)  # curves of other numbers are not kept
        predicted = predict_prompts(curves, prompts, target)
        return errors_of_sums(predicted, prompts.seconds, configurations(prompts)[1], random)
    return None


def main() -> None:
    """Print the errors of each pair of measured GPUs, then their medians by operator."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else USUAL_FOLDER
    gpus = [name for name in TABLES if load_hardware(name).kind == "gpu"]
    found = []
    print(f"{'curves of':16} {'for':16} {'operator':18} {'median':>8} {'p90':>8}")
    for target in TABLES:
        loans = [name for name in gpus if name != target] if target in gpus else []
        for each in transfers(root, target, [*loans, DATA_SHEET]):
            found.append(each)
            figures = f"{each.median:8.1%} {each.p90:8.1%}"
            print(f"{each.source:16} {each.target:16} {each.operator:18} {figures}", flush=True)
    for operator in OPERATORS:
        for assumed in (False, True):
            p90 = [e.p90 for e in found if e.operator == operator and (e.source == DATA_SHEET) == assumed]
            what = f"median of {len(p90)} {'data sheets' if assumed else 'pairs'}"
            print(f"{what:33} {operator:18} {'':8} {np.median(p90):8.1%}")


if __name__ == "__main__":
    main()
