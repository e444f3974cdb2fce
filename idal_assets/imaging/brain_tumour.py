"""The preset for brain tumours: channels, labels and regions of BraTS.

The order of the channels and the label values are those of MSD Task01_BrainTumour, whatever layout a case
comes in.
"""

from idal_assets.anatomy import Anatomy

CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")

OEDEMA, NON_ENHANCING, ENHANCING = 1, 2, 3
LABELS = {OEDEMA: "oedema", NON_ENHANCING: "non-enhancing tumour", ENHANCING: "enhancing tumour"}

BRAIN_TUMOUR = Anatomy(
    channels=CHANNELS,
    labels=LABELS,
    regions={
        "WT": (OEDEMA, NON_ENHANCING, ENHANCING),
        "TC": (NON_ENHANCING, ENHANCING),
        "ET": (ENHANCING,),
        "L1": (OEDEMA,),
        "L2": (NON_ENHANCING,),
        "L3": (ENHANCING,),
    },
    composites=("WT", "TC", "ET"),
    singles=("L1", "L2", "L3"),
    foreground="tumour",
    titles={
        "WT": "whole tumour",
        "TC": "tumour core",
        "ET": "enhancing tumour",
        **{f"L{value}": name for value, name in LABELS.items()},
    },
    # as the field draws them
    colours={OEDEMA: "#1f7bff", NON_ENHANCING: "#ffb000", ENHANCING: "#ff8ad8"},
)

CAVITY = 4

POST_TREATMENT = BRAIN_TUMOUR.model_copy(
    update={
        "labels": {**LABELS, CAVITY: "resection cavity"},
        "regions": {**BRAIN_TUMOUR.regions, f"L{CAVITY}": (CAVITY,)},
        "singles": (*BRAIN_TUMOUR.singles, f"L{CAVITY}"),
        "titles": {**BRAIN_TUMOUR.titles, f"L{CAVITY}": "resection cavity"},
        "colours": {**BRAIN_TUMOUR.colours, CAVITY: "#3fd6b0"},
    }
)
"""After an operation, as BraTS 2024 labels adult gliomas: the cavity is a label of its own and no part of WT."""

REGIONS = BRAIN_TUMOUR.regions
