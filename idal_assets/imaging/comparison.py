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

ANOTHER_SIZE = 4
"""A volume so many times as long as the others, or shorter, is of another body part or has another unit."""

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
    return [
        *_label_meaning(facts, raw_dir),
        *_several_planes(facts, raw_dir),
        *_beside(facts, facts, raw_dir),
        *_vanishing(facts, raw_dir),
    ]


def compare_patients(
    patients: Mapping[str, "CaseFacts"], cases: Mapping[str, "CaseFacts"], folder: Path
) -> list[Problem]:
    """Report patients that do not fit the cases that networks learned from.

    Args:
        patients: Facts by id of the patients that nothing else is wrong with.
        cases: Facts by id of the study's cases.
        folder: Folder of the patients.
    """
    return list(_beside(patients, cases, folder))


def _beside(
    facts: Mapping[str, "CaseFacts"], others: Mapping[str, "CaseFacts"], raw_dir: Path
) -> Iterator[Problem]:
    """Report what is odd beside other cases and needs no label."""
    yield from _orientations(facts, others, raw_dir)
    yield from _backgrounds(facts, others)
    yield from _sizes(facts, others)


def _label_meaning(facts: Mapping[str, "CaseFacts"], raw_dir: Path) -> Iterator[Problem]:
    """Warn where the labels of most cases say enhancing of what does not enhance, whatever names them."""
    found = [fact.enhancement for fact in facts.values() if fact.enhancement is not None]
    if len(found) < FEW_TO_COMPARE or np.median(found) >= 0:
        return
    what = (
        f"in {sum(value < 0 for value in found)} of {len(found)} cases another label takes up more contrast than"
        " the enhancing tumour, so its value, or the channels before and after contrast, may mean something else"
    )
    remedy = "look at the labels over T1gd, and correct the names in dataset.json or the label values"
    yield Problem(None, raw_dir, what, remedy, "warning", "enhancing tumour that does not enhance")


def _several_planes(facts: Mapping[str, "CaseFacts"], raw_dir: Path) -> Iterator[Problem]:
    """Warn where slices lie in several planes, none of which most cases have."""
    planes = Counter(_planes(fact.orientation) for fact in facts.values())
    if facts and _usual_orientation(facts) is None:
        shown = ", ".join(f"{count} {''.join(order)}" for order, count in planes.most_common())
        what = f"slices lie in several planes, none of which most cases have (axes of the voxels: {shown})"
        yield Problem(None, raw_dir, what, "re-orient images and labels alike", "warning", "several orientations")


def _usual_orientation(facts: Mapping[str, "CaseFacts"]) -> tuple[str, int] | None:
    """Return the orientation of most cases of the planes that most have, and of how many; None without any."""
    planes = Counter(_planes(fact.orientation) for fact in facts.values())
    if not facts or (len(planes) > 1 and planes.most_common(1)[0][1] * 2 <= len(facts)):
        return None
    usual = planes.most_common(1)[0][0]
    alike = Counter(fact.orientation for fact in facts.values() if _planes(fact.orientation) == usual)
    return alike.most_common(1)[0]


def _orientations(
    facts: Mapping[str, "CaseFacts"], others: Mapping[str, "CaseFacts"], raw_dir: Path
) -> Iterator[Problem]:
    """Refuse cases whose slices lie in other planes than those of most others, and warn of mirrored ones.

    nnU-Net keeps the order of the file. A case of other planes, segmented by networks that learned from the rest,
    fell from a Dice of 0.82 to 0.36; a mirrored one lost up to 0.08.
    """
    usual = _usual_orientation(others)
    if usual is None:
        return
    wanted, count = usual
    for case_id, fact in facts.items():
        if fact.orientation == wanted:
            continue
        alike = "image and label" if fact.label_voxels else "image"
        remedy = f"re-orient its {alike} to {wanted} (nibabel: image.as_reoriented), or remove the case"
        those = f"{count} of {len(others)} cases are {wanted}"
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


def _backgrounds(facts: Mapping[str, "CaseFacts"], others: Mapping[str, "CaseFacts"]) -> Iterator[Problem]:
    """Warn of a case whose background is not 0 where that of the others is, or the other way round.

    nnU-Net crops to what is not 0, and normalises by it where the background was cut out.
    """
    if len(others) < FEW_TO_COMPARE:
        return
    usual = float(np.median([fact.zero_share for fact in others.values()]))
    for case_id, fact in facts.items():
        share = fact.zero_share
        if not (share < NOT_CUT_OUT and usual > CUT_OUT) and not (share > 0.5 and usual < NOT_CUT_OUT):
            continue
        what = f"all channels are 0 in {share:.0%} of the voxels, in the others in {usual:.0%} (median)"
        remedy = "prepare it as the others, such as by setting its background to 0"
        yield Problem(case_id, None, what, remedy, "warning", "another background")


def _sizes(facts: Mapping[str, "CaseFacts"], others: Mapping[str, "CaseFacts"]) -> Iterator[Problem]:
    """Warn of a volume several times as large or small as the others, as where its unit is not that said."""
    if len(others) < FEW_TO_COMPARE:
        return
    usual = float(np.median([_longest_edge(fact) for fact in others.values()]))
    for case_id, fact in facts.items():
        edge = _longest_edge(fact)
        if not usual / ANOTHER_SIZE <= edge <= usual * ANOTHER_SIZE:
            what = f"longest edge is {edge:.3g} mm, that of the others {usual:.3g} mm (median)"
            remedy = "correct the voxel size in its header if it is of the same body part"
            yield Problem(case_id, None, what, remedy, "warning", "another size")


def _longest_edge(fact: "CaseFacts") -> float:
    return float(max(np.multiply(fact.shape, fact.spacing)))


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
