"""Greedy extraction from texts: k-extractable, verbatim length, memorization score, extraction strength.

Shapes: B texts of a batch, S texts of a set, N suffixes asked for, M tokens of a text, T tokens of a suffix.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repetita.journal.records import Reading
from repetita.measure.extraction import MASKED, NOT_ASKED, continued, exact_prefix
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet
from repetita.measure.shown import read_before, room, start_of, suffix_rows
from repetita.measure.suffixes import Ints, SuffixProbe, n_tokens_of, numbers_of, texts_of
from repetita.subject import Continuing, Mask, Subject, Tokens

WRITES_NOTHING = {"why": "not applicable: this subject does not write on, it only scores what is written"}


def matches(subject: Continuing, text_NM: Tokens, /, *, prompt: int, start: int | None) -> Mask:
    """Which tokens after the first `prompt` greedy decoding returns, place by place, shape (N, T).

    The text itself is the guess at what is written, so that little is decoded of one that is known by heart.
    """
    read, text_NT = read_before(text_NM[:, :prompt], start=start), text_NM[:, prompt:]
    return np.asarray(subject.continue_(read, n_tokens=text_NT.shape[1], guess=text_NT) == text_NT)


def shortest_prompts(subject: Subject, text_BM: Tokens, /, *, inside: Mask, start: int | None) -> Ints:
    """The fewest first tokens of each text from which greedy decoding returns all others, shape (B,).

    Decoding from a prompt returns the rest exactly when each token of the rest is the most likely one behind
    all true tokens before it. So one teacher-forced pass answers it for every prompt at once: the shortest
    ends with the last miss. 0 where the start token alone is enough, all tokens where the last is missed; a
    first token that nothing stands before is always a part of the prompt. NOT_ASKED for what is not one text
    from its first token on (`inside`: True on it, False behind its end).
    """
    n_tokens = inside.sum(axis=1)
    whole = (inside == (np.arange(inside.shape[1]) < n_tokens[:, None])).all(axis=1) & (n_tokens > 0)
    first = 0 if start is not None else 1
    rows = suffix_rows(text_BM, prompt=first, start=start)
    scored = rows.scored.copy()
    scored[:, scored.shape[1] - (text_BM.shape[1] - first) :] &= (inside & whole[:, None])[:, first:]
    missed_BM = inside.copy()
    if scored.any():
        hit = subject.score(rows._replace(scored=scored)).hit
        missed_BM[:, first:] &= ~hit[:, hit.shape[1] - (text_BM.shape[1] - first) :]
    prompt = np.where(missed_BM.any(axis=1), inside.shape[1] - missed_BM[:, ::-1].argmax(axis=1), 0)
    return np.where(whole, prompt, NOT_ASKED)


class ContinuationProbe(SuffixProbe):
    """What greedy decoding writes behind k tokens of each text; see `SuffixProbe` for what is asked.

    With its defaults the memorization score is that of Biderman et al. 2023, "Emergent and predictable
    memorization in large language models", given texts that begin where training sequences did and
    `starts = (32,)`. With `prompts = (50,)` and `suffixes = (50,)` `extractable` is the measure of Carlini et
    al. 2022 (section 3.1). Neither puts a start token before a prompt: texts are then to be read with
    `ReadingRule(bos="never")`.
    """

    name: str = "continuation"

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """As `SuffixProbe.cost_tokens`, and a pass; not what is decoded behind a first wrong token."""
        sizes = [n_tokens_of(over).clip(max=room(over.sequences)) for over in self.chosen(sets)]
        return super().cost_tokens(sets) + sum(int(of.sum()) for of in sizes)

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each set, by prompt k and length of the suffix s; n counts suffixes, of the last metric texts.

        `extractable_k_s`: share of the suffixes that greedy decoding returns exactly. `verbatim_length_k`:
        mean number of tokens right before the first wrong one, at most `suffixes[-1]` (`detail`: `longest`
        and how many are `at_cap`). `memorization_score_k_s`: mean share of the s tokens that greedy decoding
        returns in their place, whatever it wrote before; None for a subject that does not write on.
        `extraction_strength`: mean of 1 - (shortest prompt / tokens), see `shortest_prompts` (Wang et al.
        2024, "Towards effective evaluations and comparisons for LLM unlearning methods"); a text longer than
        what is read at once counts with as much of it as that (`detail`: how many are `cut`). Value None
        where nothing is asked for, and of a masked subject.

        Items by suffix, shape (N,): `sequence` (its text, see `suffixes.Texts`), `start` (tokens of the text
        before it), `exact_k`, `matched_k_s` (tokens in place). By text, shape (S,): `text`, `tokens`,
        `shortest_prompt`, NOT_ASKED where it is not one text.
        """
        for over in self._named(sets) if subject.mask_id is not None else self.chosen(sets):
            if subject.mask_id is not None:
                yield from (Reading(name, over.name, None, 0, dict(MASKED)) for name in self._metrics())
                continue
            items = self._suffixes(subject, over) | _strengths(subject, over)
            values, details = self._values(items), self._details(items)
            for metric in self._metrics():
                kept = items if metric == self._metrics()[0] else None
                if metric not in values:
                    yield Reading(metric, over.name, None, 0, dict(WRITES_NOTHING), kept)
                elif not len(values[metric]):
                    yield Reading(metric, over.name, None, 0, dict(NOTHING_SCORED), kept)
                else:
                    of = values[metric]
                    detail = {"start_id": start_of(over.sequences)} | details.get(metric, {})
                    yield Reading(metric, over.name, float(of.mean()), len(of), detail, kept)

    def _metrics(self) -> list[str]:
        return [
            *(f"extractable_{one}" for one in self.lengths),
            *(f"verbatim_length_{k}" for k in self.prompts),
            *(f"memorization_score_{one}" for one in self.lengths),
            "extraction_strength",
        ]

    def _suffixes(self, subject: Subject, over: EvalSet) -> dict[str, NDArray[Any]]:
        names = ["sequence", "start", *(f"exact_{k}" for k in self.prompts)]
        if isinstance(subject, Continuing):
            names += [f"matched_{one}" for one in self.lengths]
        parts: dict[str, list[Ints]] = {name: [np.zeros(0, np.int64)] for name in names}
        start = start_of(over.sequences)
        for asked in self.asked(over):
            parts["sequence"].append(asked.number)
            parts["start"].append(asked.start)
            for k in self.prompts:
                text = asked.text[:, self.prompts[-1] - k :]
                if isinstance(subject, Continuing):
                    right = matches(subject, text, prompt=k, start=start)
                    parts[f"exact_{k}"].append(exact_prefix(right))
                    for s in self.suffixes:
                        parts[f"matched_{k}_{s}"].append(right[:, :s].sum(axis=1))
                else:
                    parts[f"exact_{k}"].append(continued(subject, text, prompt=k, start=start))
        return {name: np.concatenate(of) for name, of in parts.items()}

    def _values(self, items: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What each metric is the mean of."""
        found: dict[str, NDArray[Any]] = {}
        for k in self.prompts:
            found[f"verbatim_length_{k}"] = items[f"exact_{k}"]
            for s in self.suffixes:
                found[f"extractable_{k}_{s}"] = items[f"exact_{k}"] >= s
                if f"matched_{k}_{s}" in items:
                    found[f"memorization_score_{k}_{s}"] = items[f"matched_{k}_{s}"] / s
        asked = items["shortest_prompt"] != NOT_ASKED
        found["extraction_strength"] = 1 - items["shortest_prompt"][asked] / items["tokens"][asked]
        return found

    def _details(self, items: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
        cap = self.suffixes[-1]
        found: dict[str, dict[str, Any]] = {"extraction_strength": {"cut": int(items["cut"].sum())}}
        for k in self.prompts:
            exact = items[f"exact_{k}"]
            longest, at_cap = int(exact.max(initial=0)), int((exact == cap).sum())
            found[f"verbatim_length_{k}"] = {"longest": longest, "cap": cap, "at_cap": at_cap}
        return found


def _strengths(subject: Subject, over: EvalSet) -> dict[str, NDArray[Any]]:
    start, none = start_of(over.sequences), np.zeros(0, np.int64)
    tokens, prompts = [none], [none]
    for texts in texts_of(over):
        tokens.append(np.asarray(texts.inside.sum(axis=1)))
        prompts.append(shortest_prompts(subject, texts.tokens, inside=texts.inside, start=start))
    return {
        "text": numbers_of(over),
        "tokens": np.concatenate(tokens),
        "shortest_prompt": np.concatenate(prompts),
        "cut": n_tokens_of(over) > room(over.sequences),
    }
