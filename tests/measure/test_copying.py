from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.copying import METRICS, CopyingProbe, write
from repetita.measure.passages import LONG, SHORT, Passage, RandomTokens
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet
from repetita.subject import Rows, Scores

FRESH, COPIED = 4.0, 0.5


class Copier:
    """Knows a token where the one before it was followed by it earlier in the row, as an induction head."""

    mask_id: ClassVar[int | None] = None

    def __init__(self) -> None:
        self.longest = 0

    def score(self, rows: Rows, /) -> Scores:
        self.longest = max(self.longest, rows.tokens.shape[1])
        loss = np.full(rows.targets.shape, FRESH, np.float32)
        for row, (tokens, targets) in enumerate(
            zip(rows.tokens.tolist(), rows.targets.tolist(), strict=True)
        ):
            seen: set[tuple[int, int]] = set()
            for at, pair in enumerate(zip(tokens, targets, strict=True)):
                loss[row, at] = COPIED if pair in seen else FRESH
                seen.add(pair)
        return Scores(np.where(rows.scored, loss, 0).astype(np.float32), rows.scored)


class Masked(UniformSubject):
    mask_id: ClassVar[int | None] = 300


def sets(length: int = 512) -> dict[str, EvalSet]:
    targets = np.random.default_rng(0).integers(1, 257, (40, length))
    return {"test": EvalSet.whole("test", sequences=PlantedSet(targets))}


def readings(
    probe: CopyingProbe, subject: object | None = None, *, length: int = 512
) -> dict[str, dict[str, Reading]]:
    found: dict[str, dict[str, Reading]] = {}
    for one in probe.measure(subject or Copier(), sets(length)):  # type: ignore[arg-type]
        found.setdefault(one.on, {})[one.metric] = one
    return found


def test_a_copier_of_random_tokens_has_the_losses_of_its_closed_form() -> None:
    probe = CopyingProbe(passages=(RandomTokens(n_tokens=20, n_samples=3),), n_copies=4)
    found = readings(probe)["random"]
    # The first token of copy 2 follows the last of copy 1 for the first time, and in copy 3 again.
    by_copy = [FRESH, (FRESH + 19 * COPIED) / 20, COPIED, COPIED]
    loss = found["copying_loss"]
    assert loss.detail is not None and loss.detail["by_copy"] == pytest.approx(by_copy)
    assert loss.value == pytest.approx(np.mean(by_copy))
    assert loss.n == 3 * 4 * 20
    assert found["first_copy_loss"].value == FRESH
    assert found["later_copies_loss"].value == pytest.approx(np.mean(by_copy[1:]))
    assert found["copy_gain"].value == pytest.approx(FRESH - np.mean(by_copy[1:]))
    assert found["copy_slope"].value == pytest.approx(np.polyfit([1, 2, 3, 4], by_copy, 1)[0])
    assert found["name_loss_exact"].value is None
    assert loss.items is not None and loss.items["tokens"].shape == (3, 4, 20)


def test_who_does_not_copy_has_no_gain_and_a_flat_loss() -> None:
    found = readings(CopyingProbe(passages=(SHORT,)), UniformSubject(vocab_size=257))["short"]
    assert found["copy_gain"].value == pytest.approx(0)
    assert found["copy_slope"].value == pytest.approx(0, abs=1e-6)
    assert found["copying_loss"].value == pytest.approx(np.log(257))


def test_as_many_copies_as_fit_and_the_separator_is_read_but_not_scored() -> None:
    subject = Copier()
    found = readings(CopyingProbe(passages=(SHORT,)), subject)["short"]["copying_loss"]
    # 125 bytes and a line break between two copies: 4 * 125 + 3 = 503 of 512.
    assert found.detail == found.detail | {"copies": 4, "tokens_per_copy": 125, "separator_tokens": 1}  # type: ignore[operator]
    assert (subject.longest, found.n) == (503, 500)
    probe = CopyingProbe(passages=(SHORT,), n_copies=3)
    assert readings(probe)["short"]["copying_loss"].n == 375
    assert probe.cost_tokens(sets()) == 512
    written = write(SHORT, over=sets()["test"], n_copies=3)
    rows, starts = written.rows()
    assert starts.tolist() == [0, 126, 252]
    assert not rows.scored[0, [125, 251]].any() and rows.scored.sum() == 375
    assert (rows.targets[0, 126:251] == rows.targets[0, :125]).all()


def test_a_passage_that_does_not_fit_twice_or_a_masked_model_is_not_applicable() -> None:
    probe = CopyingProbe(passages=(LONG, SHORT))
    found = readings(probe, length=300)
    assert found["long"].keys() == set(METRICS)
    assert all(one.value is None and one.n == 0 for one in found["long"].values())
    assert "2 copies of 1463 tokens do not fit" in found["long"]["copy_gain"].detail["why"]  # type: ignore[index]
    assert found["short"]["copy_gain"].value is not None
    masked = readings(probe, Masked(vocab_size=301))
    assert all(one.value is None for by_metric in masked.values() for one in by_metric.values())


def test_names_are_read_where_they_come_back() -> None:
    text = "We saw Quixotl today; Quixotl and the Quixotls, unQuixotlike as ever."
    found = readings(CopyingProbe(passages=(Passage(name="x", text=text),)))["x"]
    assert found["name_loss_first"].value == FRESH
    # The six bytes behind the first of the name; a copier knows all that follow what they followed.
    assert (found["name_loss_exact"].value, found["name_loss_exact"].n) == (COPIED, 6)
    assert found["name_loss_inflected"].value == COPIED
    assert (found["name_loss_embedded"].value, found["name_loss_embedded"].n) == (COPIED, 6)
    found = readings(CopyingProbe(passages=(LONG,)), length=3000)["long"]
    assert found["name_loss_embedded"].n == 8 + 7 + 7


def all_specs() -> Iterator[CopyingProbe]:
    yield CopyingProbe()
    yield CopyingProbe(n_copies=3)
    yield CopyingProbe(passages=(LONG, SHORT))
    yield CopyingProbe(passages=(LONG.edit(text=LONG.text + " "), SHORT))
    yield CopyingProbe(passages=(LONG.edit(separator=" "), SHORT))


def test_the_content_of_a_passage_is_the_identity_of_the_probe() -> None:
    prints = [probe.fingerprint for probe in all_specs()]
    assert len(set(prints)) == len(prints)
    assert CopyingProbe(passages=(LONG, SHORT)).fingerprint in prints


def test_mistakes_are_refused() -> None:
    with pytest.raises(SpecError, match="same name"):
        CopyingProbe(passages=(LONG, LONG.edit(text="other", names=())))
    with pytest.raises(SpecError, match="no effect"):
        CopyingProbe(max_sequences=4)
    with pytest.raises(SpecError):
        CopyingProbe(n_copies=1)
    with pytest.raises(SpecError, match="lacks"):
        list(CopyingProbe(on=("train",)).measure(Copier(), sets()))
