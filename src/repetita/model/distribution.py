"""What a model's distribution over the next token says of a target: truncated, and beside its own tokens.

Shapes: C tokens of one chunk, V vocabulary.
"""

import torch
from torch import Tensor

from repetita.errors import SpecError
from repetita.subject import Sampling


def check_sampling(sampling: Sampling) -> None:
    """Raises SpecError for a temperature, rank or mass that no token can be drawn with."""
    if not sampling.temperature > 0:
        raise SpecError(
            f"temperature = {sampling.temperature} draws nothing; give one above 0 (greedy decoding has none)"
        )
    if sampling.top_k is not None and sampling.top_k < 1:
        raise SpecError(f"top_k = {sampling.top_k} leaves no token; give 1 or more, or None for all")
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        raise SpecError(f"top_p = {sampling.top_p} is no share of the mass; give one above 0 and up to 1")


def sampled_log_probs(logits_CV: Tensor, *, target_C: Tensor, sampling: Sampling) -> Tensor:
    """Log probability of each target under `sampling` (C,), nats; -inf where it is cut off.

    As transformers' `generate`: divide by the temperature, keep the `top_k` largest and what ties with the
    last of them, then of the distribution over these the fewest most likely tokens that reach `top_p` of the
    mass, at least one; of equal ones there the higher ids are kept. Writes over the logits.
    """
    scores_CV = logits_CV.div_(sampling.temperature) if sampling.temperature != 1 else logits_CV
    if sampling.top_k is not None and sampling.top_k < scores_CV.shape[1]:
        least_C1 = scores_CV.topk(sampling.top_k, dim=1).values[:, -1:]
        scores_CV.masked_fill_(scores_CV < least_C1, -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        _cut_by_mass(scores_CV, sampling.top_p)
    own_C1 = scores_CV.gather(1, target_C[:, None])
    return (own_C1 - scores_CV.logsumexp(dim=1, keepdim=True))[:, 0]


def _cut_by_mass(scores_CV: Tensor, top_p: float) -> None:
    """Writes -inf over all but the most likely tokens that together reach `top_p`."""
    n_left = int((scores_CV > -torch.inf).sum(dim=1).max())
    # After a cut by rank only a few columns are left to be sorted; among them ids rise, so that ties fall as
    # in the sort of all.
    few_Cn = (
        None if n_left == scores_CV.shape[1] else scores_CV.topk(n_left, dim=1).indices.sort(dim=1).values
    )
    left_Cn = scores_CV if few_Cn is None else scores_CV.gather(1, few_Cn)
    rising_Cn, order_Cn = left_Cn.sort(dim=1, stable=True)
    out_Cn = rising_Cn.softmax(dim=1).cumsum(dim=1) <= 1 - top_p
    out_Cn[:, -1] = False
    left_Cn = left_Cn.masked_fill(out_Cn.scatter(1, order_Cn, out_Cn), -torch.inf)
    if few_Cn is None:
        scores_CV.copy_(left_Cn)
    else:
        scores_CV.scatter_(1, few_Cn, left_Cn)


def described(logits_CV: Tensor, *, target_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log probability of each target, and mean and standard deviation of that of a token of the model's own.

    Each (C,), nats. The deviation is summed around the mean: as the difference of two sums it would lose its
    digits where the model is sure.
    """
    log_prob_CV = logits_CV.log_softmax(dim=1)
    prob_CV = log_prob_CV.exp()
    own_C = log_prob_CV.gather(1, target_C[:, None])[:, 0]
    # A token that cannot come has weight 0 and log probability -inf.
    log_prob_CV.masked_fill_(prob_CV == 0, 0.0)
    mean_C = (prob_CV * log_prob_CV).sum(dim=1)
    variance_C = (prob_CV * (log_prob_CV - mean_C[:, None]).square_()).sum(dim=1)
    return own_C, mean_C, variance_C.sqrt()
