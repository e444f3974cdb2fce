"""Small Dice matrices, and clustering by its definition, for tests of what is decided from a matrix."""

import itertools

import numpy as np
import pandas as pd

# Two ways to add up the same numbers; values are of the order of 1.
ROUND_OFF = 1e-12


def square(values, names=None):
    values = np.asarray(values, float)
    names = names or [f"c{number:02d}" for number in range(len(values))]
    return pd.DataFrame(values, index=names, columns=names)


def random_square(seed, size):
    return square(np.random.default_rng(seed).random((size, size)))


def shuffled(matrix, seed):
    order = np.random.default_rng(seed).permutation(len(matrix))
    return matrix.iloc[order, order]


def row_distances(similarity):
    return np.sqrt(((similarity[:, None] - similarity[None]) ** 2).sum(axis=2))


def mirrored_distances(similarity):
    distances = 1 - (similarity + similarity.T) / 2
    np.fill_diagonal(distances, 0)
    return distances


def naive_upgma(distances):
    """Average linkage by its definition: the mean of all pairwise distances. Returns the cophenetic distances."""
    groups = [[leaf] for leaf in range(len(distances))]
    height = np.zeros_like(distances)
    while len(groups) > 1:
        first, second = min(
            itertools.combinations(groups, 2), key=lambda pair: distances[np.ix_(pair[0], pair[1])].mean()
        )
        merged_at = distances[np.ix_(first, second)].mean()
        height[np.ix_(first, second)] = merged_at
        height[np.ix_(second, first)] = merged_at
        groups = [group for group in groups if group not in (first, second)] + [first + second]
    return height


BAD = ["c03", "c07", "c08"]


def with_bad_donors(seed=0, size=12, bad=BAD):
    """Models of bad donors reach 0.3 where others reach 0.8, and every model does worse on bad cases."""
    rng = np.random.default_rng(seed)
    matrix = square(0.8 + 0.02 * rng.standard_normal((size, size)))
    matrix.loc[bad] -= 0.5
    matrix[bad] -= 0.2
    return matrix
