"""The channels, labels and regions that every case has once it is read; nothing else defines them.

The order and the label values are those of MSD Task01_BrainTumour.
"""

CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")

OEDEMA, NON_ENHANCING, ENHANCING = 1, 2, 3
LABELS = {OEDEMA: "oedema", NON_ENHANCING: "non-enhancing tumour", ENHANCING: "enhancing tumour"}

REGIONS: dict[str, tuple[int, ...]] = {
    "WT": (OEDEMA, NON_ENHANCING, ENHANCING),
    "TC": (NON_ENHANCING, ENHANCING),
    "ET": (ENHANCING,),
    "L1": (OEDEMA,),
    "L2": (NON_ENHANCING,),
    "L3": (ENHANCING,),
}
"""BraTS regions (whole tumour, tumour core, enhancing tumour) and the single labels, as sets of label values."""
