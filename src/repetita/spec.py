"""The base of every value a user writes: frozen, unknown keys refused, with a fingerprint."""

import hashlib
import json
import re
import textwrap
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from repetita.errors import SpecError, nearest

INTRODUCED = "introduced_default"


class Spec(BaseModel):
    """A frozen, keyword-only value. Bad input raises `SpecError` with one sentence.

    Validators of subclasses raise `SpecError` themselves; pydantic lets it through unchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SpecError(_sentence(type(self), error)) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The value that `canonical_json` or a user wrote; raises SpecError on anything else."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise SpecError(f"{cls.__name__}: not JSON ({error}); write an object of its fields") from None
        if not isinstance(values, dict):
            raise SpecError(f"{cls.__name__}: expected a JSON object, got {type(values).__name__}")
        return cls(**values)

    def edit(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self)(**({name: getattr(self, name) for name in self.model_fields_set} | changes))


def introduced(default: Any, **field: Any) -> Any:
    """A field added after the first release: left out of the fingerprint while it equals `default`.

    `default` is what the code did before the field existed, so an upgrade orphans no run.
    """
    return Field(default=default, json_schema_extra={INTRODUCED: default}, **field)


def exact_fraction(value: Any) -> Any:
    """A decimal or a ratio read exactly as written: 0.1 is 1/10, not the nearest binary number."""
    if isinstance(value, bool):
        raise SpecError(f"{value} is no fraction; write 0.1 or 1/10")
    if isinstance(value, Fraction | int):
        return Fraction(value)
    if isinstance(value, float | str):
        try:
            return Fraction(Decimal(repr(value) if isinstance(value, float) else value))
        except (InvalidOperation, ValueError, OverflowError):
            try:
                return Fraction(value)
            except (ValueError, ZeroDivisionError, OverflowError):
                raise SpecError(f"'{value}' is no fraction; write 0.1 or 1/10") from None
    return value


def _exact_field(value: Any) -> Any:
    """`exact_fraction` for a field: a ValueError lets pydantic say which one."""
    try:
        return exact_fraction(value)
    except SpecError:
        raise ValueError("this is no fraction; write 0.1 or 1/10") from None


ExactFraction = Annotated[Fraction, BeforeValidator(_exact_field), PlainSerializer(str, return_type=str)]


_PLAIN = frozenset({str, int, float, bool, type(None)})


def plain(value: Any) -> Any:
    """`value` as JSON types, fields that equal their introduction default left out."""
    if type(value) in _PLAIN:  # Most are, and the questions below take their time.
        return value
    if isinstance(value, Spec):
        fields = type(value).model_fields
        kept = {}
        for name, field in fields.items():
            extra = field.json_schema_extra
            item = getattr(value, name)
            if isinstance(extra, dict) and INTRODUCED in extra and extra[INTRODUCED] == item:
                continue
            kept[name] = plain(item)
        return kept
    if isinstance(value, dict | Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, Fraction):
        return str(value)
    return value


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _sentence(cls: type[BaseModel], error: ValidationError) -> str:
    """The first problem of a validation error as one sentence with the key and the fix."""
    problems = error.errors(include_url=False)
    # A key that is misspelt is also missing under its right name: the typo says more.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        hint = nearest(str(first["loc"][-1]), cls.model_fields)
        return f"{cls.__name__}: unknown key '{where}'; {hint}{more}"
    if first["type"] == "missing":
        return f"{cls.__name__}: '{where}' is missing; give it a value{more}"
    context, given = first.get("ctx", {}), first.get("input")
    if first["type"].startswith("union_tag") and isinstance(given, dict):
        tag = str(context["discriminator"]).strip("'")
        valid = re.findall(r"'([^']*)'", str(context.get("expected_tags", "")))
        if tag not in given:
            return f"{cls.__name__}: '{where}' has no '{tag}'; say which {tag} it is{more}"
        return f"{cls.__name__}: unknown {tag} '{given[tag]}' of '{where}'; {nearest(str(given[tag]), valid)}"
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "literal_error":
        hint = nearest(str(given), re.findall(r"'([^']*)'", str(context["expected"])))
        more = f"; {hint}{more}" if hint.startswith("did") else more
    shown = textwrap.shorten(repr(given), width=60, placeholder=" ...")
    return f"{cls.__name__}: '{where}' = {shown}: {message[0].lower()}{message[1:]}{more}"
