"""What is odd about a case only beside the others of its folder: axes, background, voxels that are far smaller."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from idal_assets.imaging.problems import Problem, Severity

if TYPE_CHECKING:
    from idal_assets.imaging.inspection import CaseFacts

CLEARLY_ALONG = 0.87
"""Cosine of 30 degrees: an axis closer to one of the world's is clearly along it; the letters of an oblique scan
that is not may change from case to case."""

FEW_TO_COMPARE = 3
"""With fewer cases none can be called the odd one."""

CUT_OUT, NOT_CUT_OUT = 0.05, 0.01
"""Shares of voxels with 0 in all channels, above and below which a background was and was not set to 0."""

SURELY_GONE, MAYBE_GONE = 0.5, 8.0
"""Pixels of the usual size that a lesion fills, below which it surely, and perhaps, vanishes in resampling.

nnU-Net keeps a pixel of a label where at least half of it is covered.
"""


def compare(facts: Mapping[str, "CaseFacts"], raw_dir: Path) -> list[Problem]:
    """Report cases that do not fit the others; networks would learn or be judged by the difference.

    Args:
        facts: Facts by case id of all cases that nothing else is wrong with.
        raw_dir: Their folder.
    """
    return [*_orientations(facts, raw_dir), *_backgrounds(facts), *_vanishing(facts, raw_dir)]


def _orientations(facts: Mapping[str, "CaseFacts"], raw_dir: Path) -> Iterator[Problem]:
    """Refuse cases whose slices lie in other planes than those of most cases, and warn of mirrored ones.

    nnU-Net keeps the order of the file. A case of other planes, segmented by networks that learned from the rest,
    fell from a Dice of 0.82 to 0.36; a mirrored one lost up to 0.08.
    """
    planes = Counter(_planes(fact.orientation) for fact in facts.values())
    if len(planes) > 1 and planes.most_common(1)[0][1] * 2 <= len(facts):
        shown = ", ".join(f"{count} {''.join(order)}" for order, count in planes.most_common())
        what = f"slices lie in several planes, none of which most cases have (axes of the voxels: {shown})"
        yield Problem(None, raw_dir, what, "re-orient images and labels alike", "warning", "several orientations")
        return
    alike = Counter(
        fact.orientation for fact in facts.values() if _planes(fact.orientation) == planes.most_common(1)[0][0]
    )
    for case_id, fact in facts.items():
        wanted, count = alike.most_common(1)[0]
        if fact.orientation == wanted:
            continue
        remedy = f"re-orient its image and label to {wanted} (nibabel: image.as_reoriented), or remove the case"
        those = f"{count} of {len(facts)} cases are {wanted}"
        if _planes(fact.orientation) == _planes(wanted):
            what = f"stored mirrored, as {fact.orientation}, while {those}"
            yield Problem(case_id, None, what, remedy, "warning", "mirrored axes")
        else:
            what = (
                f"slices lie in other planes than those of the others: it is stored as {fact.orientation}, {those}"
            )
            severity: Severity = "error" if _is_clear(np.array(fact.affine)) else "warning"
            yield Problem(case_id, raw_dir / fact.files[0], what, remedy, severity, "other slice planes")


def _planes(orientation: str) -> tuple[str, ...]:
    """Return the axes of the world that the axes of the voxels lie along, whatever their direction."""
    return tuple({"L": "x", "R": "x", "A": "y", "P": "y"}.get(letter, "z") for letter in orientation)


def _is_clear(affine: NDArray[np.float64]) -> bool:
    axes = np.abs(affine[:3, :3] / voxel_sizes(affine))
    return bool((axes.max(axis=0) > CLEARLY_ALONG).all())


def _backgrounds(facts: Mapping[str, "CaseFacts"]) -> Iterator[Problem]:
    """Warn of a case whose background is not 0 where that of the others is, or the other way round.

    nnU-Net crops to what is not 0, and normalises by it where the background was cut out.
    """
    if len(facts) < FEW_TO_COMPARE:
        return
    usual = float(np.median([fact.zero_share for fact in facts.values()]))
    for case_id, fact in facts.items():
        share = fact.zero_share
        if not (share < NOT_CUT_OUT and usual > CUT_OUT) and not (share > 0.5 and usual < NOT_CUT_OUT):
            continue
        what = f"all channels are 0 in {share:.0%} of the voxels, in the others in {usual:.0%} (median)"
        remedy = "prepare it as the others, such as by setting its background to 0"
        yield Problem(case_id, None, what, remedy, "warning", "another background")


def _vanishing(facts: Mapping[str, "CaseFacts"], raw_dir: Path) -> Iterator[Problem]:
    """Report lesions so small that resampling to the voxel size of the others may leave nothing of them.

    The plans come later, with the median voxel size of the cases that networks learn from; here it is that of all.
    """
    if not facts:
        return
    usual = np.median([fact.spacing for fact in facts.values()], axis=0)
    # nnU-Net slices along the axis of the largest voxels, the last of equal ones in a file, and keeps it as it is
    across = 2 - int(np.argmax(usual[::-1]))
    for case_id, fact in facts.items():
        voxels = sum(fact.label_voxels.values())
        share = float(np.delete(np.array(fact.spacing) / usual, across).prod())
        pixels = voxels * share
        if not voxels or share >= 1 or pixels >= MAYBE_GONE:
            continue
        gone = pixels < SURELY_GONE
        size = " x ".join(f"{edge:g}" for edge in fact.spacing)
        what = f"label has {voxels} voxels of {size} mm, and {'vanishes' if gone else 'may vanish'} where they are"
        what += f" resampled to the {' x '.join(f'{edge:g}' for edge in usual)} mm of the others"
        remedy = "remove the case, or resample all cases to the finer voxels"
        yield Problem(
            case_id, raw_dir / fact.files[-1], what, remedy, "error" if gone else "warning", "lesion below a voxel"
        )
