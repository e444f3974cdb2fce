"""What the channels and labels of a dataset are: their names, the regions that are scored, words and colours.

A dataset describes itself (`imaging.dataset_layouts`), a profile may add to that, and every other module is handed
the result. Nothing here knows a particular organ; the brain tumour of BraTS is a preset in `imaging.brain_tumour`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

from pydantic import BaseModel, ConfigDict

from idal_assets.settings import AnatomySettings
from idal_assets.store.artifacts import content_hash

MEAN = "mean"
"""Name of the scalar among the regions of a table."""

BACKGROUND = "background"
IGNORE = "ignore"
"""nnU-Net's name for voxels that nobody labelled."""

RESERVED = {
    MEAN: "is the name of the scalar in all tables",
    "regions": "is what the scalar may average, all regions",
    "labels": "is what the scalar may average, all labels",
    **dict.fromkeys(("case_id", "scanner", "cluster", "foreground_ml"), "is the name of a column of the tables"),
}
"""Names that no label or region may have."""

LISTED = 4
"""Up to as many labels are named one by one where words say what is averaged."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f5aa8")
"""Colours of labels, after Okabe and Ito, where neither dataset nor profile names any."""


class AnatomyError(ValueError):
    """Channels, labels or regions that contradict one another or are not known; the message names them."""


class Legend(BaseModel):
    """What pictures and words need of an anatomy; nothing here determines a number.

    Attributes:
        channels: Names of the channels in the order of an image.
        labels: Name by label value, from 1 upwards without a gap.
        ignore: Value of voxels that nobody labelled; None where there are none.
        foreground: What all labels together are called.
        titles: Regions in words, where their name is none.
        colours: Colour by label value, `#rrggbb`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...]
    labels: Mapping[int, str]
    ignore: int | None = None
    foreground: str = "labelled volume"
    titles: Mapping[str, str] = {}
    colours: Mapping[int, str]

    def title(self, region: str) -> str:
        """A region in words."""
        return self.titles.get(region, region)


class Anatomy(Legend):
    """The channels, labels and regions of a dataset.

    nnU-Net takes the normalisation from a channel's name. Voxels to ignore are neither learned from nor scored.

    Attributes:
        regions: What is scored, in the order of the tables: label values by name, each single label among them.
        composites: Regions that the scalar `regions` averages.
        singles: Names among `regions` of the single labels, in the order of `labels`.
        trained: Regions that networks are trained on, one head each; empty where they are trained on the labels.
        class_order: nnU-Net's `regions_class_order`: the label value that each of `trained` writes, a later one
            over an earlier one.
    """

    regions: Mapping[str, tuple[int, ...]]
    composites: tuple[str, ...]
    singles: tuple[str, ...]
    trained: tuple[str, ...] = ()
    class_order: tuple[int, ...] = ()

    @property
    def legend(self) -> Legend:
        """Only what pictures and words need."""
        return Legend(**{name: getattr(self, name) for name in Legend.model_fields})

    @classmethod
    def of(
        cls,
        channels: Sequence[str],
        labels: Mapping[int, str],
        declared: Mapping[str, Sequence[int]] | None = None,
        class_order: Sequence[int] = (),
        ignore: int | None = None,
    ) -> "Anatomy":
        """The anatomy that a dataset describes.

        Args:
            channels: Names of the channels, in order.
            labels: Name by label value, without background and ignored voxels.
            declared: Regions that the dataset declares, label values by name.
            class_order: As in `Anatomy`; with it networks are trained on the declared regions.
            ignore: As in `Anatomy`.

        Raises:
            AnatomyError: A name or value is there twice, missing or not known.
        """
        regions = {name: tuple(sorted(values)) for name, values in (declared or {}).items()}
        singles = {name: (value,) for value, name in sorted(labels.items())}
        # regions of one label each are labels, to nnU-Net too
        on_regions = bool(class_order) and (not regions or any(len(values) > 1 for values in regions.values()))
        found = cls(
            channels=tuple(channels),
            labels=dict(sorted(labels.items())),
            # a declared region keeps its values, so that a label of the same name is noticed
            regions={**regions, **singles, **regions},
            composites=tuple(regions or singles),
            singles=tuple(singles),
            trained=tuple(regions) if on_regions else (),
            class_order=tuple(class_order) if on_regions else (),
            ignore=ignore,
            colours=dict(zip(sorted(labels), cycle(COLOURS), strict=False)),
        )
        found._ensure_sound()
        return found

    def with_settings(self, settings: AnatomySettings) -> "Anatomy":
        """The anatomy with what a profile says of it.

        A label that gets another name keeps its value, and every region keeps its values. In all other settings a
        label goes by its new name.

        Raises:
            AnatomyError: The profile names a channel, label or region that there is not, or a name twice.
        """
        renamed = self._renamed(settings)
        added = {name: renamed._values(f"regions.{name}", members) for name, members in settings.regions.items()}
        changed = renamed._with_regions(added, settings.scalar_regions)
        unknown = sorted(settings.titles.keys() - changed.regions.keys())
        if unknown:
            raise AnatomyError(f"anatomy.titles: there is no region {unknown[0]!r}; {changed._known_regions}")
        colours = {
            value: colour
            for name, colour in settings.colours.items()
            for value in changed._values("colours", (name,))
        }
        changed = changed.model_copy(
            update={
                "titles": {**changed.titles, **settings.titles},
                "colours": {**changed.colours, **colours},
            }
        )
        changed._ensure_sound()
        return changed

    def _renamed(self, settings: AnatomySettings) -> "Anatomy":
        """With the profile's names of channels and labels."""
        if settings.channels and len(settings.channels) != len(self.channels):
            raise AnatomyError(
                f"anatomy.channels names {len(settings.channels)} channels and the dataset has "
                f"{len(self.channels)}: {', '.join(self.channels)}"
            )
        unknown = sorted(settings.labels.keys() - self.labels.keys())
        if unknown:
            raise AnatomyError(f"anatomy.labels names the values {unknown}; the dataset has {sorted(self.labels)}")
        # a preset may call the region of a label otherwise than the label; then the region keeps its name
        names = {
            single: settings.labels.get(value, single) if single == self.labels[value] else single
            for value, single in zip(self.labels, self.singles, strict=True)
        }
        regions = [names.get(name, name) for name in self.regions]
        if repeated := _repeated(regions):
            raise AnatomyError(f"anatomy.labels: {repeated!r} is the name of another region; take another name")
        words = {self.labels[value]: name for value, name in settings.labels.items()}
        titles = {
            names.get(name, name): words.get(title, title) if name in self.singles else title
            for name, title in self.titles.items()
        }
        return self.model_copy(
            update={
                "channels": settings.channels or self.channels,
                "labels": {**self.labels, **settings.labels},
                "regions": dict(zip(regions, self.regions.values(), strict=True)),
                "composites": tuple(names.get(name, name) for name in self.composites),
                "singles": tuple(names.values()),
                "trained": tuple(names.get(name, name) for name in self.trained),
                "titles": titles,
            }
        )

    def _with_regions(self, added: Mapping[str, tuple[int, ...]], scalar: tuple[str, ...]) -> "Anatomy":
        """With regions of the profile, which stand before the single labels, and the scalar of the profile."""
        for name in added.keys() & self.regions.keys():
            if added[name] != self.regions[name]:
                raise AnatomyError(
                    f"anatomy.regions.{name}: the dataset has a region of this name with the values "
                    f"{list(self.regions[name])}; take another name"
                )
        declared = () if self.composites == self.singles else self.composites
        unknown = [name for name in scalar if name not in self.regions and name not in added]
        if unknown:
            raise AnatomyError(f"anatomy.scalar_regions: there is no region {unknown[0]!r}; {self._known_regions}")
        first = {
            name: values
            for name, values in self.regions.items()
            if name not in self.singles or name in (*declared, *self.trained)
        }
        return self.model_copy(
            update={
                "regions": {**first, **added, **self.regions},
                "composites": scalar or tuple(dict.fromkeys((*declared, *added))) or self.singles,
            }
        )

    @property
    def _known_regions(self) -> str:
        return f"there are {', '.join(self.regions)}"

    def _values(self, setting: str, members: Sequence[int | str]) -> tuple[int, ...]:
        """Label values of what a setting names by value, by label or by the region of a single label."""
        singles = {name: self.regions[name][0] for name in self.singles}
        by_name = {**singles, **{name: value for value, name in self.labels.items()}}
        found = [by_name.get(member, -1) if isinstance(member, str) else member for member in members]
        if not found or not set(found) <= self.labels.keys():
            known = ", ".join(f"{value} ({name})" for value, name in self.labels.items())
            raise AnatomyError(f"anatomy.{setting} names {list(members)}; the dataset's labels are {known}")
        return tuple(sorted(set(found)))

    def _ensure_sound(self) -> None:
        if not self.channels:
            raise AnatomyError("there is no channel; name at least one")
        for what, names in (("channel", self.channels), ("label", tuple(self.labels.values()))):
            if repeated := _repeated(names):
                raise AnatomyError(f"the {what} name {repeated!r} is there twice; names must differ")
            _ensure_printable(what, names)
        self._ensure_values()
        self._ensure_regions()

    def _ensure_values(self) -> None:
        values = list(self.labels)
        if not values or values != list(range(1, len(values) + 1)):
            raise AnatomyError(f"label values are {sorted(values)}; they must run from 1 upwards without a gap")
        if self.ignore is not None and self.ignore != len(values) + 1:
            raise AnatomyError(f"{IGNORE} has the value {self.ignore}; it must be {len(values) + 1}, the highest")
        for name in self.labels.values():
            if name.lower() in (BACKGROUND, IGNORE):
                raise AnatomyError(f"{name!r} is no name of a label to be learned; rename it")

    def _ensure_regions(self) -> None:
        _ensure_printable("region", tuple(self.regions))
        values = set(self.labels)
        for name, inside in self.regions.items():
            if not inside or not set(inside) <= values:
                raise AnatomyError(
                    f"the region {name!r} holds the values {list(inside)}; labels are {list(values)}"
                )
            if name in RESERVED:
                raise AnatomyError(f"{name!r} {RESERVED[name]}; rename that label or region")
        for value, name in self.labels.items():
            if self.regions.get(name, (value,)) != (value,):
                raise AnatomyError(f"{name!r} is the name of a label and of another region; rename one of them")
        if [self.regions.get(name) for name in self.singles] != [(value,) for value in self.labels]:
            raise AnatomyError(f"the regions {', '.join(self.singles)} are not the single labels {list(values)}")
        for name in self.composites:
            if name not in self.regions:
                raise AnatomyError(f"there is no region {name!r} to score; {self._known_regions}")
        if repeated := _repeated(self.composites):
            raise AnatomyError(f"the scalar averages {repeated!r} twice; name each region once")
        self._ensure_class_order()

    def _ensure_class_order(self) -> None:
        if len(self.class_order) != len(self.trained):
            raise AnatomyError(
                f"regions_class_order is {list(self.class_order)}; it needs one label value for each of "
                f"{', '.join(self.trained) or 'the regions'}"
            )
        inside = {value for name in self.trained for value in self.regions[name]}
        if self.trained and inside != set(self.labels):
            raise AnatomyError(
                f"the labels {sorted(set(self.labels) - inside)} are in no region that networks are trained on; "
                "add a region that holds them"
            )
        for name, value in zip(self.trained, self.class_order, strict=True):
            if value not in self.regions[name]:
                raise AnatomyError(
                    f"regions_class_order is {list(self.class_order)}; {name!r} would write {value}, none "
                    f"of its values {list(self.regions[name])}"
                )

    @property
    def version(self) -> str:
        """Content hash of what determines networks and scores: all but words and colours."""
        content = self.model_dump(mode="json", exclude={"foreground", "titles", "colours"})
        # the order of the regions is that of the tables
        return content_hash({**content, "regions": list(content["regions"].items())})

    @property
    def size(self) -> int:
        """How many label values there are, background included and `ignore` not."""
        return len(self.labels) + 1

    def scored(self, scalar: str) -> tuple[str, ...]:
        """Regions that a scalar averages.

        Args:
            scalar: `regions`, `labels` or the name of a region.

        Raises:
            AnatomyError: There is no such region.
        """
        if scalar == "regions":
            return self.composites
        if scalar == "labels":
            return self.singles
        if scalar not in self.regions:
            raise AnatomyError(
                f"there is no region {scalar!r} to score; take regions, labels or one of {', '.join(self.regions)}"
            )
        return (scalar,)

    def in_words(self, scalar: str) -> str:
        """What a scalar averages, for people: `mean of WT, TC and ET`."""
        names = self.scored(scalar)
        if len(names) == 1:
            return self.title(names[0])
        if scalar == "labels" or (names == self.singles and len(names) > LISTED):
            return f"mean of the {len(names)} labels"
        return f"mean of {', '.join(names[:-1])} and {names[-1]}"


def _repeated(names: Sequence[str]) -> str | None:
    """The first name that is there more than once."""
    return next((name for name in names if list(names).count(name) > 1), None)


def _ensure_printable(what: str, names: Sequence[str]) -> None:
    for name in names:
        if not name.strip() or not name.isprintable():
            raise AnatomyError(f"the {what} name {name!r} cannot be printed; rename it")
