"""What heads add to logits and what their weights make of tokens, whosever model they are in.

Norms are linear once their scale is held: they centre (LayerNorm does, RMSNorm does not) and multiply by
their gain. Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Olsson et al. 2022.

Shapes: B rows, L tokens, D width of the model, H heads, K width of a head, V vocabulary, C = H * K.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

VOCABULARY_AT_ONCE = 8192
"""Rows of embedding and output matrix that are in double precision at once."""


class Reading(NamedTuple):
    """What a layer's heads read and write, in double precision."""

    query_HKD: Tensor
    key_HKD: Tensor
    value_HKD: Tensor
    """Of the stream as the norm before centres it, its gain included; shared heads are repeated."""
    out_DC: Tensor
    scale: float
    """What scores are multiplied by before the softmax."""


class Norm(NamedTuple):
    """A norm with its scale left out."""

    gain_D: Tensor
    centres: bool

    def centred(self, x_xD: Tensor) -> Tensor:
        """Less its mean over the width, where the norm takes that off."""
        return x_xD - x_xD.mean(-1, keepdim=True) if self.centres else x_xD


class Vocabulary:
    """Where tokens enter a model and where logits leave it, logits counted from their mean over tokens.

    What is worked out from the weights alone is in double precision, at `place`.
    """

    def __init__(self, *, embedding_VD: Tensor, output_VD: Tensor, norm: Norm, place: torch.device) -> None:
        self._embedding_VD, self._output_VD, self._norm, self._place = embedding_VD, output_VD, norm, place
        self._mean_D = output_VD.mean(0, dtype=torch.float32)

    def out(self, ids: Tensor | slice, /) -> Tensor:
        """What the final norm's scaled stream is multiplied by for the logits of these ids (x D)."""
        if isinstance(ids, Tensor):
            ids = ids.to(self._output_VD.device)
        out_xD = (self._output_VD[ids].float() - self._mean_D) * self._norm.gain_D.to(self._mean_D)
        return self._norm.centred(out_xD)

    def between(self) -> Tensor:
        """Output times embedding over all tokens (D D): from what a head reads to what its logits want."""
        return self._total(lambda part: self.out(part).to(self._place).double().T @ self._read(part))

    def gram(self) -> Tensor:
        """Embedding times embedding over all tokens (D D)."""
        return self._total(lambda part: self._read(part).T @ self._read(part))

    def _read(self, part: slice) -> Tensor:
        """Embeddings as a norm centres them."""
        return self._norm.centred(self._embedding_VD[part].to(self._place).double())

    def _total(self, of: Callable[[slice], Tensor]) -> Tensor:
        total_DD, n = of(slice(0, VOCABULARY_AT_ONCE)), len(self._embedding_VD)
        for start in range(VOCABULARY_AT_ONCE, n, VOCABULARY_AT_ONCE):
            total_DD += of(slice(start, start + VOCABULARY_AT_ONCE))
        return total_DD


class Direct:
    """The direct path from each head to the logits, for some rows of tokens.

    The final norm is held at the scale that the stream has with all heads at work.
    """

    def __init__(
        self,
        *,
        mixed: Sequence[Tensor],
        outs: Sequence[Tensor],
        scale_BL1: Tensor,
        vocabulary: Vocabulary,
    ) -> None:
        """By layer the values as heads mix them (B L H K) and what writes them (D C)."""
        self._layers = list(zip(mixed, outs, strict=True))
        self._scale_BL1, self._vocabulary = scale_BL1, vocabulary

    def to_targets(self, targets_BL: Tensor, /) -> Iterator[Tensor]:
        """By layer what each head adds to the logit of the target (B L H)."""
        out_BLD = self._vocabulary.out(targets_BL)
        wanted_BLD = out_BLD / self._scale_BL1.to(out_BLD.device)
        for mixed_BLHK, out_DC in self._layers:
            wanted_BLHK = (wanted_BLD.to(mixed_BLHK.device) @ out_DC.float()).view(mixed_BLHK.shape)
            yield (mixed_BLHK.float() * wanted_BLHK).sum(-1)

    def to_tokens(self, tokens_BL: Tensor, /) -> Iterator[Tensor]:
        """By layer what each head at token i adds to the logit of token j's id (B H L L)."""
        wanted_BLD = self._vocabulary.out(tokens_BL)
        for mixed_BLHK, out_DC in self._layers:
            wanted_BLHK = (wanted_BLD.to(mixed_BLHK.device) @ out_DC.float()).view(mixed_BLHK.shape)
            written_BLHK = mixed_BLHK.float() / self._scale_BL1[..., None].to(mixed_BLHK.device)
            yield written_BLHK.transpose(1, 2) @ wanted_BLHK.permute(0, 2, 3, 1)


def ov_copying(vocabulary: Vocabulary, /, *, layers: Sequence[Callable[[], Reading]]) -> Tensor:
    """sum(lambda) / sum |lambda| of each head's full OV circuit (n_layer H); see `Circuits.ov_copying`.

    The circuit (V V) is a product of (V K) and (K V), so that its eigenvalues other than 0 are those of the
    product (K K) in the other order.
    """
    between_DD = vocabulary.between()
    found = []
    for layer in layers:
        reading = layer()
        value_HKD = reading.value_HKD
        out_HDK = reading.out_DC.T.reshape(value_HKD.shape).mT
        small_HKK = value_HKD @ between_DD.T @ out_HDK
        values_HK = torch.linalg.eigvals(small_HKK.cpu())
        found.append(values_HK.sum(-1).real / values_HK.abs().sum(-1))
    return torch.stack(found)


def k_composition(
    vocabulary: Vocabulary, /, *, layers: Sequence[Callable[[], Reading]], norm: Norm
) -> Tensor:
    """Traces of the QK circuits through earlier heads (n_layer H n_layer H); see `Circuits.k_composition`.

    Both sides of rotary positions are taken unturned, as a token reading itself.
    """
    gram_DD = vocabulary.gram()
    rows = []
    for later, layer in enumerate(layers):
        reading = layer()
        H, K, _ = reading.query_HKD.shape
        query_CD = reading.query_HKD.flatten(0, 1) @ gram_DD
        # What an earlier head wrote is centred by the norm before it is read.
        key_CD = norm.centred(reading.key_HKD).flatten(0, 1)
        row_HYH = torch.zeros((H, len(layers), H), dtype=torch.float64)
        for earlier in range(later):
            other = layers[earlier]()
            seen_CC = query_CD @ other.value_HKD.flatten(0, 1).T
            product_HKHK = (seen_CC * (key_CD @ other.out_DC)).view(H, K, H, K)
            row_HYH[:, earlier] = (product_HKHK.sum((1, 3)) * reading.scale).cpu()
        rows.append(row_HYH)
    return torch.stack(rows)
