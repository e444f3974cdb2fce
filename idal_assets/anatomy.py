"""What the channels and labels of a dataset are: their names, the regions that are scored, words and colours.

A dataset describes itself (`imaging.dataset_layouts`), a profile may add to that, and every other module is handed
the result. Nothing here knows a particular organ; the brain tumour of BraTS is a preset in `imaging.brain_tumour`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

from pydantic import BaseModel, ConfigDict

from idal_assets.settings import AnatomySettings

MEAN = "mean"
"""Name of the scalar among the regions of a table."""

BACKGROUND = "background"
IGNORE = "ignore"
"""nnU-Net's name for voxels that nobody labelled."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f5aa8")
"""Colours of labels, after Okabe and Ito, where neither dataset nor profile names any."""


class AnatomyError(ValueError):
    """Channels, labels or regions that contradict one another or are not known; the message names them."""


class Anatomy(BaseModel):
    """The channels, labels and regions of a dataset.

    Attributes:
        channels: Names of the channels in the order of an image; nnU-Net takes its normalisation from the name.
        labels: Name by label value, from 1 upwards without a gap.
        regions: What is scored, in the order of the tables: label values by name, each single label among them.
        composites: Regions that the scalar `regions` averages.
        singles: Names among `regions` of the single labels, in the order of `labels`.
        trained: Regions that networks are trained on, one head each; empty where they are trained on the labels.
        class_order: nnU-Net's `regions_class_order`: the label value that each of `trained` writes, a later one
            over an earlier one.
        ignore: Value of voxels that nobody labelled; they are neither learned from nor scored.
        foreground: What all labels together are called.
        titles: Regions in words, where their name is none.
        colours: Colour by label value, `#rrggbb`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...]
    labels: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    composites: tuple[str, ...]
    singles: tuple[str, ...]
    trained: tuple[str, ...] = ()
    class_order: tuple[int, ...] = ()
    ignore: int | None = None
    foreground: str = "labelled volume"
    titles: Mapping[str, str] = {}
    colours: Mapping[int, str]

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
        for name in regions.keys() & singles.keys():
            if regions[name] != singles[name]:
                raise AnatomyError(f"{name!r} is the name of a label and of another region; rename one of them")
        found = cls(
            channels=tuple(channels),
            labels=dict(sorted(labels.items())),
            regions={**regions, **singles},
            composites=tuple(regions or singles),
            singles=tuple(singles),
            trained=tuple(regions) if class_order else (),
            class_order=tuple(class_order),
            ignore=ignore,
            colours=dict(zip(sorted(labels), cycle(COLOURS), strict=False)),
        )
        found._ensure_sound()
        return found

    def with_settings(self, settings: AnatomySettings) -> "Anatomy":
        """The anatomy with what a profile says of it.

        Raises:
            AnatomyError: The profile names a channel, label or region that there is not.
        """
        if settings.channels and len(settings.channels) != len(self.channels):
            raise AnatomyError(
                f"anatomy.channels names {len(settings.channels)} channels and the dataset has "
                f"{len(self.channels)}: {', '.join(self.channels)}"
            )
        unknown = sorted(settings.labels.keys() - self.labels.keys())
        if unknown:
            raise AnatomyError(f"anatomy.labels names the values {unknown}; the dataset has {sorted(self.labels)}")
        renamed = {self.labels[value]: name for value, name in settings.labels.items()}
        added = {name: self._values(name, members) for name, members in settings.regions.items()}
        regions = {renamed.get(name, name): values for name, values in {**self.regions, **added}.items()}
        changed = self.model_copy(
            update={
                "channels": settings.channels or self.channels,
                "labels": {**self.labels, **settings.labels},
                "regions": regions,
                "composites": tuple(
                    settings.scalar_regions
                    or dict.fromkeys([*(renamed.get(name, name) for name in self._declared), *added])
                    or self.singles
                ),
                "singles": tuple(renamed.get(name, name) for name in self.singles),
                "trained": tuple(renamed.get(name, name) for name in self.trained),
                "titles": {**self.titles, **settings.titles},
                "colours": {
                    **self.colours,
                    **{
                        value: colour
                        for name, colour in settings.colours.items()
                        for value in self._values("colours", (name,))
                    },
                },
            }
        )
        changed._ensure_sound()
        return changed

    @property
    def _declared(self) -> tuple[str, ...]:
        """Composites that are more than all the single labels side by side."""
        return () if self.composites == self.singles else self.composites

    def _values(self, region: str, members: Sequence[int | str]) -> tuple[int, ...]:
        by_name = {name: value for value, name in self.labels.items()}
        found = {by_name.get(member, -1) if isinstance(member, str) else member for member in members}
        if not found or not found <= self.labels.keys():
            known = ", ".join(f"{value} ({name})" for value, name in self.labels.items())
            raise AnatomyError(f"anatomy: {region} holds {list(members)}; the dataset's labels are {known}")
        return tuple(sorted(found))

    def _ensure_sound(self) -> None:
        values = sorted(self.labels)
        if not self.channels:
            raise AnatomyError("there is no channel; name at least one")
        for what, names in (("channel", self.channels), ("label", list(self.labels.values()))):
            repeated = {name for name in names if list(names).count(name) > 1}
            if repeated:
                raise AnatomyError(f"the {what} name {sorted(repeated)[0]!r} is there twice; names must differ")
        if not values or values != list(range(1, len(values) + 1)):
            raise AnatomyError(f"label values are {values}; they must run from 1 upwards without a gap")
        if self.ignore is not None and self.ignore != len(values) + 1:
            raise AnatomyError(f"ignore has the value {self.ignore}; it must be {len(values) + 1}, the highest")
        for name, inside in self.regions.items():
            if not inside or not set(inside) <= set(values):
                raise AnatomyError(f"the region {name!r} holds the values {list(inside)}; labels are {values}")
        if MEAN in self.regions:
            raise AnatomyError(f"{MEAN!r} is the name of the scalar in all tables; rename that label or region")
        if len(self.class_order) != len(self.trained) or not set(self.class_order) <= set(values):
            raise AnatomyError(
                f"regions_class_order is {list(self.class_order)}; it needs one label value for each of "
                f"{', '.join(self.trained) or 'the regions'}"
            )
        for name in self.composites:
            self.scored(name)

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

    def title(self, region: str) -> str:
        """A region in words."""
        return self.titles.get(region, region)

    def in_words(self, scalar: str) -> str:
        """What a scalar averages, for people: `mean of WT, TC and ET`."""
        names = self.scored(scalar)
        if len(names) == 1:
            return self.title(names[0])
        if scalar == "labels":
            return f"mean of the {len(names)} labels"
        return f"mean of {', '.join(names[:-1])} and {names[-1]}"
