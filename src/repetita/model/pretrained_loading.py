"""The weights of a model that somebody else trained, brought into memory: which class, where, how exactly."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from repetita.errors import DamagedError, RepetitaError, SpecError, first_line
from repetita.model.device import present
from repetita.model.memory import free_bytes
from repetita.model.pretrained_files import PretrainedFiles

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Objective = Literal["causal", "masked"]
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]

SHARE = 0.8
"""Of free memory, what weights may take."""

HALF = (torch.bfloat16, torch.float16)

CAUSAL_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
MASKED_CLASSES = ("ForMaskedLM", "ForPreTraining")
"""How transformers' classes with a language-model head end; weights that lack it are found out later."""

OTHERWISE = ("ForConditionalGeneration", "ForSeq2SeqLM", "ForImageTextToText")
"""How classes end whose head predicts tokens of a text behind another one, or behind pictures or sound."""


class Kind(NamedTuple):
    """Which of transformers' classes reads a model."""

    objective: Objective
    model_class: type["PreTrainedModel"]
    config: "PreTrainedConfig"


class Placement(NamedTuple):
    """Where weights go and in which numbers."""

    device: torch.device
    dtype: torch.dtype
    max_memory: dict[int | str, int] | None
    """Bytes by device, where they do not all fit on one: accelerate then deals them out, at last to disk."""


class Loaded(NamedTuple):
    """A model in memory, in evaluation mode."""

    model: "PreTrainedModel"
    kind: Kind
    placement: Placement
    n_params: int
    """Tied weights count once."""
    unused: tuple[str, ...]
    """Weights of the files that the model's class has no place for, such as another head's."""
    spill: tempfile.TemporaryDirectory[str] | None
    """What had to be put on disk; it goes with the model."""


def load_pretrained(
    files: PretrainedFiles,
    /,
    *,
    device: str = "auto",
    dtype: DTypeName = "auto",
    weights: Mapping[str, torch.Tensor] | None = None,
    dropout: float | None = None,
) -> Loaded:
    """The language model of these files; see `open_pretrained` for what it raises.

    `weights` are taken instead of those in the files, and `dropout` instead of what the config says.
    """
    with quiet():
        kind = find_kind(files)
        if dropout is not None:
            _set_dropout(kind.config, dropout, name=files.name)
        with understood(files):
            n_params = _count(kind)
        placement = place(n_params, stored=_stored(kind.config), device=device, dtype=dtype)
        spill = tempfile.TemporaryDirectory(prefix="repetita-") if placement.max_memory else None
        options: dict[str, Any] = {"device_map": {"": placement.device}}
        if placement.max_memory and spill:
            options = {
                "device_map": "auto",
                "max_memory": placement.max_memory,
                "offload_folder": spill.name,
            }
        if weights is not None:
            options["state_dict"] = dict(weights)
        model, info = _read(files, kind, dtype=placement.dtype, **options)
    missing, trunk = sorted(info["missing_keys"]), f"{model.base_model_prefix}."
    if lost := [name for name in missing if name.startswith(trunk)]:
        raise DamagedError(
            f"the weights of {files.name} lack {lost[0]} (of {len(lost)} in all), which its config asks for; "
            f"copy them and the config again"
        )
    if missing:
        raise headless(files, kind.config, lacking=missing[0])
    model.requires_grad_(False)
    return Loaded(model, kind, placement, n_params, tuple(sorted(info["unexpected_keys"])), spill)


def find_kind(files: PretrainedFiles, /) -> Kind:
    """What kind of language model a config describes; SpecError where it is none, or only by remote code."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    options: dict[str, Any] = {} if files.gguf is None else {"gguf_file": files.gguf}
    try:
        config = AutoConfig.from_pretrained(
            str(files.folder), local_files_only=True, trust_remote_code=False, **options
        )
    except ImportError as error:
        raise SpecError(
            f"reading {files.name} needs a package that is not installed ({first_line(error)}); run: pip "
            f"install 'repetita[hf]'"
        ) from None
    except Exception as error:  # noqa: BLE001 - the library raises whatever the file makes it stumble over.
        if "trust_remote_code" in str(error):
            raise SpecError(
                f"{files.name} needs code that comes with it, which is not run here; give a model of a class "
                f"that transformers has"
            ) from None
        raise SpecError(
            f"transformers cannot read the config of {files.name} ({first_line(error)}); copy it again, or "
            f"update transformers"
        ) from None
    classes = {
        "masked": _class(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING, config),
        "causal": _class(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING, config),
    }
    objective = _objective(config, **classes)
    found = None if objective is None else classes[objective]
    if objective is None or found is None or getattr(config, "is_encoder_decoder", False):
        raise headless(files, config)
    return Kind(objective, found, config)


def place(n_params: int, /, *, stored: torch.dtype, device: str, dtype: DTypeName) -> Placement:
    """Where so many parameters go. `auto` is the first GPU, else the CPU; and float32 where that fits, else
    the 16 bits that they are stored in (bfloat16 for what is stored in 32)."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    there = present(device)
    room = int(SHARE * free_bytes(there))
    if dtype == "auto":
        small = stored if stored in HALF else torch.bfloat16
        number = torch.float32 if 4 * n_params <= room else small
    else:
        number = getattr(torch, dtype)
    if n_params * number.itemsize <= room:
        return Placement(there, number, None)
    if there.type == "cpu":
        return Placement(there, number, {"cpu": room})
    if there.type != "cuda":
        raise SpecError(
            f"the model does not fit into the memory of {device}; use device cpu or a smaller dtype"
        )
    cpu = int(SHARE * free_bytes(torch.device("cpu")))
    return Placement(there, number, {there.index or 0: room, "cpu": cpu})


def headless(
    files: PretrainedFiles, config: "PreTrainedConfig", /, *, lacking: str | None = None
) -> SpecError:
    """That a model has no language-model head, and what it has instead."""
    named = (getattr(config, "architectures", None) or [f"model of type {config.model_type}"])[0]
    if getattr(config, "is_encoder_decoder", False) or (not lacking and named.endswith(OTHERWISE)):
        return SpecError(
            f"{files.name} holds a {named}, which predicts tokens behind another text, a picture or a sound; "
            f"give a causal or masked model of text alone"
        )
    why = f" (its weights lack {lacking})" if lacking else ""
    return SpecError(
        f"{files.name} holds a {named}{why}, which has no head that predicts tokens; give a model saved as "
        f"...ForCausalLM, ...LMHeadModel or ...ForMaskedLM"
    )


@contextmanager
def understood(files: PretrainedFiles, /) -> Iterator[None]:
    """Whatever transformers raises while it makes or tries a model, as a SpecError of one sentence."""
    try:
        yield
    except RepetitaError:
        raise
    except Exception as error:  # Each class stumbles over a config in its own way.
        raise SpecError(
            f"transformers cannot run {files.name} as its config says ({first_line(error)}); mend the "
            f"config, or update transformers"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no warnings of transformers: what matters of them is in the record or an error."""
    from transformers.utils import logging as own

    logging: Any = own

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _class(mapping: Any, config: "PreTrainedConfig") -> "type[PreTrainedModel] | None":
    """The class of a mapping of transformers that reads this config, None where it has none."""
    found: Any = mapping.get(type(config), None)
    first: type[PreTrainedModel] | None = found[0] if isinstance(found, tuple) else found
    return first


def _objective(
    config: "PreTrainedConfig",
    *,
    causal: "type[PreTrainedModel] | None",
    masked: "type[PreTrainedModel] | None",
) -> Objective | None:
    """By the class that the model was saved as, None where that is no language model; else by its type: one
    that has both is masked unless its config says that it decodes (BERT and its kin)."""
    names = getattr(config, "architectures", None) or []
    decodes = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    for name in names:
        if masked and masked is causal and name == masked.__name__:  # XLM
            return "causal" if decodes else "masked"
        if masked and (name == masked.__name__ or name.endswith(MASKED_CLASSES)):
            return "masked"
        if causal and (name == causal.__name__ or name.endswith(CAUSAL_CLASSES)):
            return "causal"
    if names or not (causal or masked):
        return None
    return "causal" if not masked or (causal and decodes) else "masked"


def _read(
    files: PretrainedFiles, kind: Kind, *, dtype: torch.dtype, **options: Any
) -> tuple["PreTrainedModel", dict[str, Any]]:
    from safetensors import SafetensorError

    # Named outright: a config that asks for another implementation could have it fetched from the hub.
    attention = "sdpa" if getattr(kind.model_class, "_supports_sdpa", False) else "eager"
    if files.gguf is None:
        options |= {"use_safetensors": files.format == "safetensors", "weights_only": True}
    else:
        options |= {"gguf_file": files.gguf}
    try:
        answer: Any = kind.model_class.from_pretrained(
            None if "state_dict" in options else str(files.folder),
            config=kind.config,
            local_files_only=True,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            **options,
        )
    except ImportError as error:
        raise SpecError(
            f"reading {files.name} needs a package that is not installed ({first_line(error)}); run: pip "
            f"install 'repetita[hf]'"
        ) from None
    except SafetensorError as error:
        raise DamagedError(f"the weights of {files.name} are damaged ({error}); copy them again") from None
    except torch.OutOfMemoryError:
        raise SpecError(
            f"{files.name} does not fit into the memory that is there; give a smaller dtype or device cpu"
        ) from None
    except Exception as error:  # noqa: BLE001 - unpickling, shapes, quantization: each raises its own.
        raise DamagedError(
            f"the weights of {files.name} cannot be read ({first_line(error)}); copy them again, or give "
            f"another model"
        ) from None
    return answer[0], answer[1]


def _set_dropout(config: "PreTrainedConfig", share: float, *, name: str) -> None:
    """Every dropout of a config becomes this one; SpecError where it has none and there is to be one.

    No layer is left out as a whole (`layerdrop`): that is another thing, which no recipe has.
    """
    shares = {
        key: value
        for key, value in config.to_dict().items()
        if "drop" in key and isinstance(value, int | float) and not isinstance(value, bool)
    }
    found = [
        key for key in shares if not any(other in key for other in ("layerdrop", "classifier", "summary"))
    ]
    if share and not found:
        raise SpecError(f"Recipe: dropout = {share} has no effect on {name}, which has none; leave it out")
    for key in shares:
        setattr(config, key, share if key in found else 0.0)


def _count(kind: Kind) -> int:
    """Parameters, counted without memory for one of them."""
    with torch.device("meta"):
        empty = kind.model_class(kind.config)
    return sum(parameter.numel() for parameter in empty.parameters())


def _stored(config: "PreTrainedConfig") -> torch.dtype:
    found = getattr(config, "dtype", None)
    return found if isinstance(found, torch.dtype) else torch.float32
