"""The similarity classifier: how well each donor's network will segment a patient that nobody labelled.

It learns from the study's own cases, each played as a patient whose label is hidden, and never from a network that
the case itself trained. A cell of the matrix is taken apart: the level of the patient, the same for all donors,
and the advantage of a donor over the others on this patient. Only the second can guide a choice, so each has a
regression of its own, one for each region: a linear one with a penalty (ridge), since a study has few cases and
what is known of them is nearly the Dice itself. After Goetz et al. (2015) and Konukoglu et al. (2013): a learned
similarity of images predicts how well what was trained on one segments the other. Which differences of images
matter is learned too, as a regression of all donors' advantages on the image of a patient.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from idal_assets.analysis.agreement import BASELINE

PLACE = ["patient", "donor", "region"]
AGREEMENTS = ("with_baseline", "with_majority", "with_others")
PAIR_FEATURES = (
    *("donor_mean", "donor_agreement", *AGREEMENTS, "volume_ratio", "extent_ratio"),
    *("confidence", "turned", "image_distance", "feature_distance", "foreseen"),
)
"""What the advantage of a donor is predicted from; each is taken relative to the other donors on this patient."""
LEVEL_FEATURES = ("with_others", "baseline_agreement", "confidence", "turned")
"""What the level of a patient is predicted from: means over the donors' networks."""
PENALTIES = tuple(np.logspace(-1, 4, 11))
FOLDS = 5
FEWEST = 2
"""Of a region that fewer of the cases have nothing is learned."""


@dataclass(frozen=True)
class CaseSigns:
    """What is known of a case without its label.

    Attributes:
        networks: One row a network and region: the columns of `agreement.agreement_table`, `confidence` and
            `turned`; `model` is a donor or `BASELINE`.
        statistics: Description of its image, shape (n,).
        pooled: What the baseline's encoder makes of it, shape (m,).
    """

    networks: pd.DataFrame
    statistics: NDArray[np.float64]
    pooled: NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """A linear regression on standardised features.

    Attributes:
        features: Their names, in order.
        mean: Their means.
        scale: Their standard deviations; 1 where there is none.
        weights: One a standardised feature.
        intercept: The prediction where all are at their means.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def predict(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """Predictions, one a row; what is not defined counts as the mean of what was learned from."""
        values = table[list(self.features)].to_numpy(float)
        values = np.where(np.isfinite(values), values, self.mean)
        return ((values - self.mean) / self.scale) @ np.asarray(self.weights) + self.intercept


def fit_linear(table: pd.DataFrame, features: Sequence[str], target: str) -> Linear:
    """Fits a ridge regression; its penalty is chosen by leaving out one row at a time (`RidgeCV`)."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    values = _filled(table, features)
    scaler = StandardScaler().fit(values)
    ridge = RidgeCV(alphas=PENALTIES).fit(scaler.transform(values), table[target])
    plain = [tuple(float(value) for value in found) for found in (scaler.mean_, scaler.scale_, ridge.coef_)]
    return Linear(tuple(features), plain[0], plain[1], plain[2], float(ridge.intercept_))


def _filled(table: pd.DataFrame, features: Sequence[str]) -> NDArray[np.float64]:
    """Feature values; what is not defined is as the others are on average."""
    values = table[list(features)].to_numpy(float)
    known = np.isfinite(values)
    means = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, values, means)


@dataclass(frozen=True)
class Standardised:
    """Descriptions of the donors' images, in standard deviations of the donors.

    Attributes:
        donors: One row a donor.
        mean: What was taken off each number.
        spread: By what it was divided; 1 where the donors do not differ.
    """

    donors: pd.DataFrame
    mean: Sequence[float]
    spread: Sequence[float]

    @classmethod
    def of(cls, images: Mapping[str, NDArray[np.float64]]) -> "Standardised":
        """Standardises the descriptions of some donors."""
        table = pd.DataFrame(images).T
        mean, spread = table.mean(), table.std(ddof=0)
        spread = spread.where(spread > 1e-9 * (1 + mean.abs()), 1.0)
        return cls((table - mean) / spread, mean.tolist(), spread.tolist())

    def describe(self, images: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
        """Standardises the descriptions of other cases, one row a case."""
        return (pd.DataFrame(images).T - np.asarray(self.mean)) / np.asarray(self.spread)

    def nearness(self, patient: NDArray[np.float64]) -> pd.Series:
        """Of each donor, minus the Euclidean distance to a patient."""
        standardised = self.describe({"patient": patient}).to_numpy()
        return pd.Series(-np.linalg.norm(self.donors.to_numpy() - standardised, axis=1), index=self.donors.index)


@dataclass(frozen=True)
class Foresight:
    """What the image of a patient alone says of every donor's advantage, in one region.

    Attributes:
        weights: One row a donor, one column a standardised number of the image's description.
        intercept: By donor: its advantage on an image that is like the donors' on average.
    """

    weights: pd.DataFrame
    intercept: pd.Series

    def predict(self, images: pd.DataFrame) -> pd.DataFrame:
        """Advantages, one row an image and one column a donor."""
        return images @ self.weights.T + self.intercept


def fit_foresight(images: pd.DataFrame, advantages: pd.DataFrame) -> Foresight:
    """Fits a ridge regression of all donors' advantages; they share a penalty, chosen by leaving out one case.

    Args:
        images: Standardised descriptions, one row a case.
        advantages: One row a case and one column a donor; undefined ones are as the donor's others on average.
    """
    from sklearn.linear_model import RidgeCV

    targets = advantages.fillna(advantages.mean()).fillna(0.0)
    ridge = RidgeCV(alphas=PENALTIES).fit(images.loc[targets.index].to_numpy(), targets.to_numpy())
    weights = np.reshape(ridge.coef_, (targets.shape[1], images.shape[1]))
    intercept = np.broadcast_to(ridge.intercept_, targets.shape[1])
    return Foresight(pd.DataFrame(weights, targets.columns, images.columns), pd.Series(intercept, targets.columns))


@dataclass(frozen=True)
class Classifier:
    """A fitted similarity classifier.

    Attributes:
        advantage: By region, the regression of a donor's advantage on a patient over the other donors.
        level: By region, that of the mean over the donors.
        donors: What it knows of each donor: `donor`, `region`, `donor_mean` (mean advantage of its network over
            the others) and `donor_agreement` (the same of its agreement with the majority).
        foresight: By region, what an image alone says.
        images: Descriptions of the images of the donors.
        pooled: Features that the encoder makes of them.
    """

    advantage: Mapping[str, Linear]
    level: Mapping[str, Linear]
    donors: pd.DataFrame
    foresight: Mapping[str, Foresight]
    images: Standardised
    pooled: Standardised

    def predict(self, patients: Mapping[str, CaseSigns]) -> pd.DataFrame:
        """Predicts the Dice of every donor's network on patients, each by itself.

        Args:
            patients: What is known of each, by name, of the networks of these donors or of some of them.

        Returns:
            One row a patient, donor and region: `patient`, `donor`, `region`, the features, `advantage`
            (predicted, over the other donors) and `dice` (predicted, 0 to 1).
        """
        described = self.images.describe({name: signs.statistics for name, signs in patients.items()})
        known = pd.DataFrame({"patient": list(patients)}).merge(self.donors, how="cross")
        known = _with_foreseen(known, _foreseen(self.foresight, described))
        table = pair_features(patients, known, self.images, self.pooled)
        levels = level_features(patients).set_index(["region", "patient"])
        parts = [table.head(0).assign(advantage=0.0, dice=0.0)]
        for region, rows in table[table["region"].isin(list(self.advantage))].groupby("region", sort=False):
            predicted = pd.Series(self.advantage[str(region)].predict(rows), rows.index)
            advantage = predicted - predicted.groupby(rows["patient"]).transform("mean")
            own = levels.loc[region]
            level = rows["patient"].map(pd.Series(self.level[str(region)].predict(own), own.index))
            parts.append(rows.assign(advantage=advantage, dice=np.clip(level + advantage, 0, 1)))
        return pd.concat(parts[1:] or parts, ignore_index=True)


def pair_features(
    signs: Mapping[str, CaseSigns], known: pd.DataFrame, images: Standardised, pooled: Standardised
) -> pd.DataFrame:
    """What is known of each pair of a donor and a patient, relative to the other donors.

    Args:
        signs: What is known of the patients, by name.
        known: What is known of the donors for each of them: `patient`, `donor`, `region`, `donor_mean`,
            `donor_agreement` and `foreseen`, of the donors whose networks take part.
        images: Descriptions of the donors' images.
        pooled: Features that the encoder makes of them.

    Returns:
        One row a patient, donor and region: `patient`, `donor`, `region` and `PAIR_FEATURES`, each with mean zero
        over the donors.
    """
    networks = _networks_of(signs)
    table = networks[networks["model"] != BASELINE].rename(columns={"model": "donor"})
    near = pd.concat([_nearness(name, found, images, pooled) for name, found in signs.items()])
    table = table.merge(known, on=PLACE).merge(near, on=["patient", "donor"])
    groups = table.groupby(["patient", "region"])
    for name, source in (("volume_ratio", "volume"), ("extent_ratio", "extent")):
        usual = groups[source].transform("median")
        table[name] = -np.abs(np.log((table[source] + 1) / (usual + 1)))
    features = list(PAIR_FEATURES)
    table[features] = table[features] - table.groupby(["patient", "region"])[features].transform("mean")
    return table[[*PLACE, *features]]


def level_features(signs: Mapping[str, CaseSigns]) -> pd.DataFrame:
    """What the level of patients is predicted from.

    Args:
        signs: What is known of the patients, by name.

    Returns:
        One row a patient and region: `patient`, `region` and `LEVEL_FEATURES`.
    """
    networks = _networks_of(signs)
    is_baseline, place = networks["model"] == BASELINE, ["patient", "region"]
    donors = networks[~is_baseline].groupby(place, sort=False)[["with_others", "confidence", "turned"]].mean()
    baseline = networks[is_baseline].set_index(place)["with_majority"].rename("baseline_agreement")
    return donors.join(baseline).reset_index()


def _networks_of(signs: Mapping[str, CaseSigns]) -> pd.DataFrame:
    tables = [found.networks.assign(patient=name) for name, found in signs.items()]
    return pd.concat(tables, ignore_index=True)


def _nearness(patient: str, signs: CaseSigns, images: Standardised, pooled: Standardised) -> pd.DataFrame:
    """How near the image of a patient is to that of each donor, in both descriptions."""
    near = {"image_distance": images.nearness(signs.statistics), "feature_distance": pooled.nearness(signs.pooled)}
    return pd.DataFrame(near).rename_axis("donor").reset_index().assign(patient=patient)


@dataclass(frozen=True)
class Played:
    """The study's own cases as patients, with what their labels say.

    Attributes:
        signs: By case: what is known of it without its label, its own network and those of the same patient left
            out.
        cells: The Dice of every network on every case: `donor`, `receiver`, `region`, `dice` (NaN where
            undefined).
        images: `statistics` and `pooled` of the donors, by donor.
        groups: Patient by case, where several cases are of one.
    """

    signs: Mapping[str, CaseSigns]
    cells: pd.DataFrame
    images: Mapping[str, CaseSigns]
    groups: Mapping[str, str]

    def group(self, case: str) -> str:
        """The patient of a case."""
        return self.groups.get(case, case)


def fit_classifier(played: Played, cases: Sequence[str]) -> Classifier:
    """Fits the classifier on some cases.

    Args:
        played: The study's cases.
        cases: Which of them it may learn from.

    Raises:
        ValueError: There are fewer than two.
    """
    if len(cases) < 2:
        raise ValueError(f"a similarity classifier needs two cases or more to learn from, not {len(cases)}")
    images = Standardised.of({name: signs.statistics for name, signs in played.images.items()})
    pooled = Standardised.of({name: signs.pooled for name, signs in played.images.items()})
    known = _known_cells(played, cases)
    described = images.describe({case: played.signs[case].statistics for case in cases})
    foreseen = _foreseen_out_of_fold(played, cases, known, described)
    pairs, levels = _learning_tables(played, cases, known, foreseen, images, pooled)
    counts = levels["region"].value_counts()
    regions = [name for name in dict.fromkeys(pairs["region"]) if counts[name] >= FEWEST]
    return Classifier(
        advantage={name: fit_linear(pairs[pairs["region"] == name], PAIR_FEATURES, "target") for name in regions},
        level={name: fit_linear(levels[levels["region"] == name], LEVEL_FEATURES, "target") for name in regions},
        donors=_donor_means(known),
        foresight=_foresight(known, described),
        images=images,
        pooled=pooled,
    )


def _learning_tables(
    played: Played,
    cases: Sequence[str],
    known: pd.DataFrame,
    foreseen: pd.DataFrame,
    images: Standardised,
    pooled: Standardised,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to learn from: one a pair of donor and patient, and one a patient, of each region."""
    signs = {case: played.signs[case] for case in cases}
    donors = _with_foreseen(_donor_means_without(known), foreseen)
    pairs = pair_features(signs, donors, images, pooled).merge(known[[*PLACE, "target"]], on=PLACE)
    dice = known.groupby(["patient", "region"], sort=False)["dice"].mean().rename("target").reset_index()
    return pairs, level_features(signs).merge(dice, on=["patient", "region"])


def _known_cells(played: Played, cases: Sequence[str]) -> pd.DataFrame:
    """Cells of these cases with the networks that may be asked: Dice, and advantage over the others as target."""
    agreement = pd.concat(
        [
            played.signs[case].networks[["model", "region", "with_majority", "with_others"]].assign(patient=case)
            for case in cases
        ]
    ).rename(columns={"model": "donor"})
    cells = played.cells.rename(columns={"receiver": "patient"})[[*PLACE, "dice"]]
    table = agreement.merge(cells[cells["dice"].notna()], on=PLACE)
    groups = table.groupby(["patient", "region"])
    return table.assign(
        target=table["dice"] - groups["dice"].transform("mean"),
        agreed=table["with_majority"] - groups["with_majority"].transform("mean"),
        group=table["patient"].map(played.group),
    )


def _donor_means(known: pd.DataFrame) -> pd.DataFrame:
    """What is known of each donor: its mean advantage, and that of its agreement with the majority."""
    means = known.groupby(["donor", "region"], sort=False)[["target", "agreed"]].mean().reset_index()
    return means.rename(columns={"target": "donor_mean", "agreed": "donor_agreement"})


def _donor_means_without(known: pd.DataFrame) -> pd.DataFrame:
    """The same for each case, from the cases of other patients: with `patient`."""
    cases = known[["patient", "group"]].drop_duplicates()
    table = cases.merge(_sums(known, ["donor", "region"]), how="cross")
    own = _sums(known, ["group", "donor", "region"])
    table = table.merge(own, on=["group", "donor", "region"], how="left", suffixes=("", "_own")).fillna(0)
    count = table["count"] - table["count_own"]
    means = table.assign(
        donor_mean=(table["target"] - table["target_own"]) / count,
        donor_agreement=(table["agreed"] - table["agreed_own"]) / count,
    )
    return means.loc[count > 0, [*PLACE, "donor_mean", "donor_agreement"]]


def _sums(known: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    summed = known.groupby(by, sort=False).agg(
        target=("target", "sum"), agreed=("agreed", "sum"), count=("target", "size")
    )
    return summed.reset_index()


def _foresight(known: pd.DataFrame, described: pd.DataFrame) -> dict[str, Foresight]:
    """By region that enough of the cases have, what images say of the donors' advantages."""
    found = {}
    for region, cells in known.groupby("region", sort=False):
        advantages = cells.pivot(index="patient", columns="donor", values="target")
        if len(advantages) >= FEWEST:
            found[str(region)] = fit_foresight(described, advantages)
    return found


def _foreseen(foresight: Mapping[str, Foresight], described: pd.DataFrame) -> pd.DataFrame:
    """What images say, one row a case, donor and region: `patient`, `donor`, `region`, `foreseen`."""
    tables = [pd.DataFrame(columns=[*PLACE, "foreseen"]).astype({"foreseen": float})]
    for region, found in foresight.items():
        advantages = found.predict(described).rename_axis(index="patient", columns="donor")
        tables.append(advantages.stack().rename("foreseen").reset_index().assign(region=region))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def _foreseen_out_of_fold(
    played: Played, cases: Sequence[str], known: pd.DataFrame, described: pd.DataFrame
) -> pd.DataFrame:
    """The same of cases to learn from, each said by what was learned from other patients."""
    return pd.concat(
        [
            _foreseen(_foresight(known[known["patient"].isin(outside)], described), described.loc[inside])
            for inside, outside in _folds(played, cases, FOLDS)
        ],
        ignore_index=True,
    )


def _with_foreseen(donors: pd.DataFrame, foreseen: pd.DataFrame) -> pd.DataFrame:
    """What is known of the donors, and what images say of them; nothing where too few cases were there."""
    found = donors.merge(foreseen, on=PLACE, how="left")
    return found.assign(foreseen=found["foreseen"].fillna(0.0))


def _folds(played: Played, cases: Sequence[str], folds: int) -> Iterator[tuple[list[str], list[str]]]:
    """Parts of cases and what is outside each; the cases of one patient are in one part."""
    groups = sorted({played.group(case) for case in cases})
    folds = min(folds, len(groups))
    part = {group: number % folds for number, group in enumerate(groups)}
    for fold in range(folds):
        inside = [case for case in cases if part[played.group(case)] == fold]
        yield inside, [case for case in cases if part[played.group(case)] != fold]


def predictions_out_of_fold(played: Played, cases: Sequence[str], folds: int = FOLDS) -> pd.DataFrame:
    """Predicts the Dice on each case with a classifier that has not learned from its patient.

    Args:
        played: The study's cases.
        cases: Those to learn from and to predict, in turn.
        folds: Parts that their patients are divided into, in the order of their names.

    Returns:
        As of `Classifier.predict`, of all cases.
    """
    tables = []
    for inside, outside in _folds(played, cases, folds):
        classifier = fit_classifier(played, outside)
        tables.append(classifier.predict({case: played.signs[case] for case in inside}))
    return pd.concat(tables, ignore_index=True)


def correlation_by_patient(predicted: pd.DataFrame, column: str, truth: pd.DataFrame) -> pd.Series:
    """Spearman's correlation of a prediction with the true Dice over the donors, of each patient.

    Args:
        predicted: Rows with `patient`, `donor` and the column, one a pair.
        column: The prediction.
        truth: Rows with `patient`, `donor` and `truth`.

    Returns:
        By patient; NaN where one of the two does not vary.
    """
    table = predicted.merge(truth, on=["patient", "donor"])
    found = {}
    for patient, rows in table.groupby("patient"):
        varies = rows[column].nunique() > 1 and rows["truth"].nunique() > 1
        found[str(patient)] = float(spearmanr(rows[column], rows["truth"]).statistic) if varies else float("nan")
    return pd.Series(found)
