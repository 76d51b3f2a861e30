"""An adopted model in its own class of transformers again: the layout that it came in, with other weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from repetita import seeds
from repetita.errors import RepetitaError
from repetita.journal.disk import storage_errors
from repetita.model.adopted import Adopted, text_files
from repetita.model.export import CHECK_TOKENS, TOLERANCE, Exported, new_folder, no_bars


def export_adopted(model: Adopted, *, to: Path, card: str = "") -> Exported:
    """Writes a model and the tokenizer that it came with into the new folder `to`; compares logits.

    Weights are float32 safetensors under the names of its class; ids are the model's own. `card` is the text
    of its README.md. Raises SpecError where `to` is there already, and StorageError.
    """
    from transformers import GenerationConfig

    with new_folder(to) as hidden:
        with storage_errors(to), no_bars():
            # Its own is copied: it may say of sampling what the library does not write again.
            module: Any = model.module
            module.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
            module.save_pretrained(hidden)
            for file in text_files(model.files.folder):
                if file.name != "config.json":
                    (hidden / file.name).write_bytes(file.read_bytes())
            (hidden / "README.md").write_text(card, encoding="utf-8")
        with no_bars():
            difference = _difference(model, hidden)
    return Exported(to, model.config.architecture, difference)


@torch.no_grad()
def _difference(model: Adopted, folder: Path) -> float:
    """Largest difference of logits between the model and what was written, on rows of drawn ids.

    Raises RepetitaError where they are not the same function.
    """
    module: Any = model.module
    kind: Any = type(module)
    other = kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    length = min(CHECK_TOKENS, model.config.context)
    drawn = seeds.words(np.arange(2 * length), key=seeds.key(0, "export")).reshape(2, length)
    ids_2L = torch.from_numpy((drawn % np.uint64(model.config.vocab_size - 1)).astype(np.int64))
    own_2LV = module(input_ids=ids_2L.to(module.device)).logits.cpu()
    difference = float((other(input_ids=ids_2L).logits - own_2LV).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(own_2LV.abs().max())):
        raise RepetitaError(
            f"the exported model's logits differ by {difference:.2g}, so nothing was written; use the "
            f"version of transformers in the run's run.json"
        )
    return difference
