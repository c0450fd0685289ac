"""Writes the ``calibration:`` of the shipped profiles: ``python -m simserve.calibration.build [FOLDER OF TABLES]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from simserve.calibration.fit import fit_all
from simserve.calibration.holdout import holdout_errors
from simserve.calibration.shipped import DERIVED, FLAGS, TABLES, USUAL_FOLDER, Derivation
from simserve.hardware import Curves, load_hardware
from simserve.resources import data_dir

HEADING = (
    "\n# Efficiency curves fitted to published measurements; see simserve/hardware/curves.py for how to read them.\n"
)


def main() -> None:
    """Fit and write all shipped calibrations."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else USUAL_FOLDER
    for name in dict.fromkeys([*TABLES, *DERIVED]):
        size = write_calibration(name, root)
        print(f"{name}: {size / 1000:.0f} kB")


def write_calibration(name: str, root: Path) -> int:
    """Replace the calibration in the profile of ``name``; its length in bytes."""
    file = data_dir("hardware_profiles") / f"{name}.yaml"
    text = file.read_text(encoding="utf-8").split(HEADING)[0].rstrip() + "\n"
    content = yaml.safe_dump(
        {"calibration": calibration_of(name, root)}, sort_keys=False, width=118, allow_unicode=True
    )
    file.write_text(text + HEADING + content, encoding="utf-8")
    return len(content)


def calibration_of(name: str, root: Path) -> dict[str, Any]:
    """What the profile of ``name`` holds under ``calibration:``."""
    fields: dict[str, Any] = dict(FLAGS.get(name, {}))
    if name in TABLES:
        fields |= _measured(name, root)
    fields |= {operator: _derived(entry) for operator, entry in DERIVED.get(name, {}).items()}
    return fields


def _measured(name: str, root: Path) -> dict[str, Any]:
    # Errors are told of the device as it is measured: what it derives from others is not needed for that.
    curves: dict[str, Curves] = fit_all(TABLES[name], load_hardware(name), root)
    errors = holdout_errors(root, name)
    fields = {}
    for operator, fitted in curves.items():
        dumped = fitted.model_dump(exclude={"derived"}, exclude_defaults=False)
        held = [error.held_out.model_dump() for error in errors if error.operator == operator]
        fields[operator] = dumped | {"held_out": held}
    return fields


def _derived(entry: Derivation) -> dict[str, Any]:
    return {"derived_from": entry.source, "because": entry.because, "uncertainty": entry.uncertainty}


if __name__ == "__main__":
    main()
