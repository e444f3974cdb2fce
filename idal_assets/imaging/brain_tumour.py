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
    colours={OEDEMA: "#2f7fff", NON_ENHANCING: "#2ecc40", ENHANCING: "#ff3b30"},
)

REGIONS = BRAIN_TUMOUR.regions
