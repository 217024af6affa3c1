"""The adapter for ``vllm serve --enable-lora``, with the command in its README.

The rules are those of vLLM 0.26: ``PEFTHelper.validate_legal`` in its ``lora/peft_helper.py`` refuses DoRA, biases and
``modules_to_save``, it scales every layer by the one alpha and rank, and ``LoRAConfig`` has a list of ranks. Its
bitsandbytes loader quantises a dense base to NF4 with double quantisation, and to nothing else.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import ExportError
from sweeper.export import adapter
from sweeper.export.card import CARD, write_card
from sweeper.export.rows import load_tokenizer
from sweeper.export.source import ExportSource
from sweeper.files.atomic import read_json

TITLE = "PEFT adapter with the command that serves it with vLLM"
TEMPLATE = "chat_template.jinja"

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of ``--max-lora-rank``; an adapter may have any rank up to it."""

UNSUPPORTED = {
    "use_dora": "DoRA",
    "modules_to_save": "layers that were trained in full",
    "rank_pattern": "a rank for each layer",
    "alpha_pattern": "an alpha for each layer",
    "lora_bias": "biases",
}
"""What vLLM cannot serve, by the field of PEFT's configuration that asks for it."""


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Copy the adapter, write the base's chat template if it has one, and a README with the command."""
    _require_lora(source)
    config = adapter.copy_adapter(source, folder)
    _require_supported(config)
    if template := _template(source):
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
    portable = _command(source, config, source.base.public_name, ".")
    remarks = [*adapter.remarks(source), _usage(source), *_precision(source)]
    write_card(source, folder, "adapter", f"{portable}  # in this folder\n", remarks, "bash")
    return [f"serve it: {_command(source, config, str(source.base.folder), str(out))}", *_precision(source)]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Load the adapter with plain PEFT, and check the written configuration, template and command."""
    notes = adapter.verify(source, folder)
    config = read_json(folder / adapter.CONFIG)
    _require_supported(config)
    written = (folder / TEMPLATE).read_text(encoding="utf-8") if (folder / TEMPLATE).is_file() else None
    if written != _template(source):
        raise ExportError(f"the export does not verify: {TEMPLATE} is not the base's")
    if _command(source, config, source.base.public_name, ".") not in (folder / CARD).read_text(encoding="utf-8"):
        raise ExportError(f"the export does not verify: {CARD} has not the command for this adapter")
    return notes


def _require_lora(source: ExportSource) -> None:
    if source.spec.adapter.is_full:
        raise ExportError(
            "every weight was trained, so there is no adapter: use --format merged, and `vllm serve` that folder"
        )
    if source.lora is None:
        virtual = source.spec.adapter.is_prompt_learning
        remedy = "use --format adapter and plain PEFT" if virtual else "use --format merged"
        raise ExportError(f"vLLM serves LoRA adapters only, and this is {source.spec.adapter.kind}: {remedy}")


def _require_supported(config: Mapping[str, Any]) -> None:
    found = [words for name, words in UNSUPPORTED.items() if config.get(name)]
    if config.get("bias", "none") != "none":
        found.append("biases")
    if config["r"] > RANKS[-1]:
        found.append(f"rank {config['r']} (at most {RANKS[-1]})")
    if found:
        raise ExportError(
            f"vLLM cannot serve this adapter: it does not support {', '.join(found)}; use --format merged"
        )


def _template(source: ExportSource) -> str | None:
    tokenizer = load_tokenizer(source)
    return str(tokenizer.get_chat_template()) if tokenizer.chat_template else None


def _command(source: ExportSource, config: Mapping[str, Any], base: str, folder: str) -> str:
    """Return the command that serves ``base`` and the adapter in ``folder``."""
    from_hub = source.base.revision is not None and base == source.base.hub_id
    words = [
        *("vllm", "serve", base),
        *(("--revision", str(source.base.revision)) if from_hub else ()),
        *("--dtype", source.dtype),
        *(("--quantization", "bitsandbytes") if _is_qlora(source) else ()),
        *(("--trust-remote-code",) if source.spec.model.trust_remote_code else ()),
        *("--enable-lora", "--max-lora-rank", str(next(rank for rank in RANKS if rank >= config["r"]))),
        *("--lora-modules", f"{source.adapter_name}={folder}"),
        *(("--chat-template", str(Path(folder) / TEMPLATE)) if _template(source) else ()),
    ]
    return shlex.join(words)


def _is_qlora(source: ExportSource) -> bool:
    """Return whether the base was quantised as vLLM quantises it."""
    quantised = source.quantised
    return quantised is not None and quantised.quantization == "nf4" and quantised.double_quantization


def _usage(source: ExportSource) -> str:
    return (
        f"Requests name the adapter as their model (`{source.adapter_name}`). vLLM must support LoRA for the "
        "architecture of the base."
    )


def _precision(source: ExportSource) -> list[str]:
    quantised = source.quantised
    if quantised is None or _is_qlora(source):
        return []
    return [
        f"The adapter was trained on the base quantised to {quantised.quantization}, which vLLM cannot do while "
        "loading: it serves the dense base, so answers may differ from those that were scored."
    ]
