"""What is true of the cases of a raw folder by construction: a phantom's planted faults and subtypes."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from idal_assets.imaging.case import CaseError

TRUTH_FILE = "truth.json"
"""In the raw folder; only a phantom has one."""


@dataclass(frozen=True)
class CaseTruth:
    """What is true of a case by construction.

    Attributes:
        subtype: Its kind; a phantom names its own.
        scanner: What it was scanned with, by name.
        fault: Kind of the planted fault, or None.
        severity: How bad the fault is, above 0 and up to 1; None where there is none, or nobody said.
        site: Where it was scanned and drawn, by name; None where all are of one site.
    """

    subtype: str
    scanner: str
    fault: str | None
    severity: float | None = None
    site: str | None = None


def read_truth(raw_dir: Path) -> dict[str, CaseTruth]:
    """Reads what was planted, where the raw folder says so.

    Args:
        raw_dir: The raw folder; under `cases` its `truth.json` has `subtype`, `scanner` and `fault` of each case.

    Returns:
        Truth by case id; empty where there is no such file.

    Raises:
        CaseError: The file holds something else.
    """
    file = raw_dir / TRUTH_FILE
    if not file.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, CaseTruth]).validate_python(json.loads(file.read_bytes())["cases"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise CaseError(
            f"{file} does not say subtype, scanner and fault of each case under 'cases', as a phantom's truth "
            "does; mend the file or rename it"
        ) from error
