"""The probes of an audit, by name."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repetita.corpus.canaries import read_canaries
from repetita.corpus.taggers import find_tagger
from repetita.errors import SpecError
from repetita.measure.canaries import CanaryProbe
from repetita.measure.continuation import ContinuationProbe
from repetita.measure.copying import CopyingProbe
from repetita.measure.induction import InContextProbe, InductionProbe
from repetita.measure.membership import MembershipProbe
from repetita.measure.memorization import ScoreProbe
from repetita.measure.parts_of_speech import PartsOfSpeechProbe
from repetita.measure.probabilistic import ProbabilisticProbe
from repetita.measure.probe import PassProbe
from repetita.measure.unit_length import UnitLengthProbe
from repetita.spec import fingerprint
from repetita.study.audit_eidetic import EideticProbe
from repetita.study.audit_rows import SEMANTICS, TEXTS

if TYPE_CHECKING:
    from repetita.study.audit import Audit

ProbeName = Literal[
    "score",
    "unit_length",
    "extraction",
    "membership",
    "probabilistic",
    "copying",
    "heads",
    "parts_of_speech",
    "canaries",
    "in_context",
]
DEFAULT: tuple[ProbeName, ...] = ("score", "unit_length", "extraction", "membership")
"""Loss, M(f) and bits a byte; memory unit length; greedy extraction; membership scores."""

ON = (TEXTS,)


SCORE = ScoreProbe(on=ON)


def probes_of(audit: "Audit", /) -> list[PassProbe]:
    """The probes that an audit names, in its order, but for that of `eidetic`, which reads a corpus.

    Raises SpecError for options that none of them heeds.
    """
    _check_heeded(audit)
    return [_MADE[name](audit) for name in audit.probes]


def eidetic_of(audit: "Audit", /) -> list[EideticProbe]:
    """The probe that counts in the corpus which an audit names. Raises CorpusError where there is none."""
    if audit.eidetic is None:
        return []
    asked = {"on": ON, "prompts": audit.prompts, "suffixes": audit.suffixes}
    return [EideticProbe.of(audit.eidetic, text_field=audit.text_field, **asked)]


def key_of(probe: PassProbe, /) -> str:
    """What a probe's rows are kept under: its fingerprint, the tagger where parts of speech are read, and
    how rows are made of what it finds."""
    tagger = list(find_tagger()) if probe.needs_tags else []
    return fingerprint([probe.fingerprint, tagger, SEMANTICS])[:12]


def _check_heeded(audit: "Audit") -> None:
    drawn: Iterable[str] = ("temperature", "top_k", "top_p")
    readers: dict[str, tuple[ProbeName, ...]] = {
        "prompts": ("extraction", "probabilistic"),
        "suffixes": ("extraction", "probabilistic"),
        **dict.fromkeys(drawn, ("probabilistic",)),
        "canaries": ("canaries",),
        "indices": ("in_context",),
    }
    heeded = set(audit.probes) | ({"extraction"} if audit.eidetic is not None else set())
    for option, names in readers.items():
        if getattr(audit, option) != type(audit).model_fields[option].default and not set(names) & heeded:
            raise SpecError(
                f"Audit: {option} has no effect without the probe {' or '.join(names)}; name it, or leave "
                f"{option} out"
            )
    if "canaries" in audit.probes and audit.canaries is None:
        raise SpecError(
            "Audit: the probe canaries needs the key to them; give canaries = canaries.json (--canaries)"
        )


_MADE: dict[ProbeName, Callable[["Audit"], PassProbe]] = {
    "score": lambda _: SCORE,
    "unit_length": lambda _: UnitLengthProbe(on=ON),
    "extraction": lambda audit: ContinuationProbe(on=ON, prompts=audit.prompts, suffixes=audit.suffixes),
    "membership": lambda _: MembershipProbe(on=ON),
    "probabilistic": lambda audit: ProbabilisticProbe(
        on=ON,
        prompts=audit.prompts,
        suffixes=audit.suffixes,
        temperature=audit.temperature,
        top_k=audit.top_k,
        top_p=audit.top_p,
    ),
    "copying": lambda _: CopyingProbe(on=ON),
    # What such a model has trained on is not known: tokens are counted in the texts themselves.
    "parts_of_speech": lambda _: PartsOfSpeechProbe(on=ON, frequencies=TEXTS),
    "heads": lambda _: InductionProbe(on=ON),
    "in_context": lambda audit: InContextProbe(on=ON, early=audit.indices[0], late=audit.indices[1]),
    "canaries": lambda audit: CanaryProbe(on=ON, canaries=read_canaries(Path(str(audit.canaries)))),
}
