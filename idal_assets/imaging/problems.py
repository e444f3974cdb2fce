"""What is wrong with a raw data folder, a case or a file, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idal_assets.imaging.case import CaseError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a folder, a case or a file, and what to do about it.

    Attributes:
        case_id: The case concerned, None if it is the folder as a whole.
        file: The file concerned (it may be absent), None if it is no single file.
        what: What is wrong.
        remedy: What to do.
        severity: An error refuses the case, a warning does not.
        kind: Short name of what is wrong, alike for all cases that have it; a summary counts by it. Where none is
            given, it is what is wrong.
    """

    case_id: str | None
    file: Path | None
    what: str
    remedy: str
    severity: Severity = "error"
    kind: str = ""

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", self.what)

    def __str__(self) -> str:
        if self.case_id is None:
            return self.sentence if self.file else f"folder: {self.sentence}"
        return f"{self.case_id}, {self.sentence}" if self.file else f"{self.case_id}: {self.sentence}"

    @property
    def sentence(self) -> str:
        """The problem on one line, for a place that names the case already."""
        place = f"{self.file}: " if self.file else ""
        return " ".join(f"{place}{self.what}; {self.remedy}".split())


def by_kind(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Sort problems by their kind, in the order in which the kinds come first."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    return kinds


class CaseProblems(CaseError):
    """A case that is refused for all of `problems`; the message has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type, tuple[tuple[Problem, ...]]]:
        # an exception is otherwise rebuilt from its message, which loses the problems between processes
        return CaseProblems, (self.problems,)
