"""One network of several: the baseline plus the weighted mean of what each fine-tuning changed of it."""

from collections.abc import Mapping

from idal_assets.nnunet.training import Weights


def merged_weights(baseline: Weights, models: Mapping[str, Weights], shares: Mapping[str, float]) -> Weights:
    """Merges fine-tuned networks (model soups, Wortsman et al. 2022; task arithmetic, Ilharco et al. 2023).

    Args:
        baseline: The weights that all of them started from.
        models: Weights by name; one at a time is asked for.
        shares: How much each of them counts, in all 1.

    Returns:
        Weights of a network of the same plans.
    """
    kept = 1.0 - sum(shares.values())
    merged = {name: kept * value.double() for name, value in baseline.items() if value.is_floating_point()}
    for model, share in shares.items():
        weights = models[model]
        for name, value in merged.items():
            value.add_(weights[name], alpha=share)
    return {name: merged[name].to(value.dtype) if name in merged else value for name, value in baseline.items()}
