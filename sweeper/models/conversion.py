"""GGUF to safetensors, through transformers; the only file here that loads torch, and only when called."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from sweeper.models.cache import OnStage


def convert_gguf(gguf: Path, folder: Path, on_progress: OnStage) -> None:
    """Write the model of a GGUF file to ``folder`` as dense bfloat16 safetensors, with tokenizer and chat template.

    The quantised weights are dequantised once, so what was lost when the file was made stays lost.

    Args:
        gguf: The GGUF file.
        folder: An existing folder.
        on_progress: Told what is being done.
    """
    on_progress("loading torch and transformers", None)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # transformers draws its own bars on stderr here, even when told not to; a caller may be drawing a live view there.
    with contextlib.redirect_stderr(io.StringIO()):
        where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name, "local_files_only": True}
        on_progress("reading the tokenizer", None)
        AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
        on_progress("dequantising the weights (once; about half a minute)", None)
        dequantize = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16, quantization_config=dequantize)
        on_progress("writing safetensors", None)
        model.save_pretrained(folder)
