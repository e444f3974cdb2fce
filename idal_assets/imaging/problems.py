"""What is wrong with a raw data folder, a case or a file, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idal_assets.imaging.case import CaseError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a folder, a case or a file, and what to do about it.

    Attributes:
        case_id: The case concerned, None if it is the folder as a whole.
        file: The file concerned (it may be absent), None if it is no single file.
        what: What is wrong.
        remedy: What to do.
        severity: An error refuses the case, a warning does not.
    """

    case_id: str | None
    file: Path | None
    what: str
    remedy: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = [str(part) for part in (self.case_id, self.file) if part is not None]
        text = f"{', '.join(place) or 'folder'}: {self.what}; {self.remedy}"
        return " ".join(text.split())


class CaseProblems(CaseError):
    """A case that is refused for all of `problems`; the message has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type, tuple[tuple[Problem, ...]]]:
        # an exception is otherwise rebuilt from its message, which loses the problems between processes
        return CaseProblems, (self.problems,)
