"""The whole model that full fine-tuning trained: without an adapter, and with nothing to merge."""

from __future__ import annotations

import shutil
from pathlib import Path

from sweeper.errors import ExportError
from sweeper.export.card import check_private, write_card
from sweeper.export.source import ExportSource

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Copy the model with its tokenizer, and write the card."""
    for name in (CONFIG, WEIGHTS):
        if not (source.adapter_folder / name).is_file():
            raise ExportError(f"{source.adapter_folder} has no {name}; the registered model is damaged")
    for file in sorted(source.adapter_folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".jinja", ".txt", ".model"):
            shutil.copyfile(file, folder / file.name)
    write_card(source, folder, "merged", loading_code(source, source.dtype))
    return [f"every weight was trained, so this is a whole model: load it with transformers from {out}"]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Load it with plain transformers, every weight from the file, and check that all values are finite."""
    from safetensors.torch import load_file

    check_private(source, folder)
    for name, tensor in load_file(folder / WEIGHTS).items():
        if not tensor.isfinite().all():
            raise ExportError(f"the model has values in {name} that are not finite; it cannot be used")
    remote = source.spec.model.trust_remote_code
    _, found = source.loader_class().from_pretrained(folder, trust_remote_code=remote, output_loading_info=True)
    wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
    if wrong:
        raise ExportError(f"the export does not verify: {wrong[0]} does not match the model's configuration")
    return ["verified: plain transformers loads every weight from it"]


def loading_code(source: ExportSource, dtype: str) -> str:
    """Return Python that loads a whole model from its folder."""
    name, loader = source.adapter_name, source.loader
    return (
        f"import torch\nfrom transformers import {loader}, AutoTokenizer\n\n"
        f'model = {loader}.from_pretrained("{name}", dtype=torch.{dtype})  # this folder\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
    )
