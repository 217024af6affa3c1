"""The model card: Hub-style front matter, then the origin of the weights.

A card is published, so it names no path of this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from sweeper.errors import ExportError
from sweeper.export.recipe import number
from sweeper.export.source import ExportSource

CARD = "README.md"
Kind = Literal["adapter", "merged"]


def write_card(
    source: ExportSource, folder: Path, kind: Kind, loading: str, remarks: Sequence[str] = (), language: str = "python"
) -> None:
    """Write the card of an adapter or a whole model as Markdown.

    ``loading`` is code in ``language`` that loads it, ``remarks`` are paragraphs on the weights.
    """
    front = yaml.safe_dump(_front_matter(source, kind), sort_keys=False, allow_unicode=True)
    versions = [("sweeper", source.sweeper_version), *sorted(source.versions.items())]
    sections = [
        f"---\n{front}---\n\n# {source.adapter_name} version {source.version}",
        _summary(source, kind),
        *remarks,
        f"## Scores\n\n{_scores(source)}",
        f"## How to load\n\n```{language}\n{loading}```",
        f"## Hyperparameters\n\n{_table(('parameter', 'value'), _hyperparameters(source))}",
        f"## Data\n\n{_table(('split', 'rows', 'SHA-256 of the prepared rows'), _data(source))}",
        f"## Base\n\n{_table(('', ''), _base(source))}",
        f"## Made with\n\n{_table(('package', 'version'), versions)}",
    ]
    (folder / CARD).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def check_private(source: ExportSource, folder: Path) -> None:
    """Refuse text files with paths of this machine.

    Raises:
        ExportError: If one names the base's, the adapter's, the data's or the user's folder.
    """
    private = {str(path) for path in (source.base.folder, source.adapter_folder, source.train.path.parent, Path.home())}
    private = {path for path in private if len(Path(path).parts) > 2 or path == str(Path.home())} - {"/"}
    for file in sorted(folder.glob("*")):
        if file.suffix not in (".md", ".json", ".jinja") or file.name == "tokenizer.json":
            continue
        text = file.read_text(encoding="utf-8")
        for path in private:
            if path in text:
                raise ExportError(f"the export does not verify: {file.name} names {path}, a folder of this machine")


def _front_matter(source: ExportSource, kind: Kind) -> dict[str, Any]:
    base = source.base
    front: dict[str, Any] = {"base_model": base.public_name}
    if kind == "merged":
        front["base_model_relation"] = "finetune"
    front["library_name"] = "peft" if kind == "adapter" else "transformers"
    if base.licence:
        front["license"] = base.licence
    front["pipeline_tag"] = "text-classification" if source.is_reward_model else "text-generation"
    front["tags"] = [
        source.spec.technique.kind,
        source.spec.adapter.kind,
        "sweeper",
        *(["lora"] if source.spec.adapter.kind == "qlora" else []),  # the Hub's word for it
    ]
    return front


def _summary(source: ExportSource, kind: Kind) -> str:
    whole = source.spec.adapter.is_full
    name = source.spec.adapter.title
    what = name if whole else f"{name} for" if kind == "adapter" else f"{name} merged into"
    licence = f"licence {source.base.licence}" if source.base.licence else "licence not known: ask its publisher"
    tuned = source.spec.technique.tuned or f"tuned with {source.spec.technique.kind.upper()}"
    kept = ""
    if source.best_step:
        kept = f" The {'model' if whole else 'adapter'} of step {source.best_step} of {source.steps} was kept."
    return (
        f"{what} **{source.base.public_name}** ({licence}), {tuned}. It is the {source.search}, found by "
        f"sweeper {source.sweeper_version} in the study `{source.study}`, trial {source.spec.number}.{kept}"
    )


def _scores(source: ExportSource) -> str:
    if not source.scores:
        return "It was registered without final scores."
    tuned = "tuned" if source.spec.adapter.is_full else "with the adapter"
    header = ("metric", "split", f"{tuned} (95 % interval)", "base alone", "difference, paired (95 % interval)")
    rows = [
        (
            score.metric,
            score.split,
            f"{score.score:.4g} ({score.low:.4g} to {score.high:.4g})",
            f"{score.base_score:.4g}",
            f"{score.score - score.base_score:+.4g} ({score.difference_low:+.4g} to {score.difference_high:+.4g})",
        )
        for score in source.scores
    ]
    return _table(header, rows)


def _hyperparameters(source: ExportSource) -> list[tuple[str, str]]:
    hyperparameters, quantised = source.hyperparameters, source.quantised
    warmup = hyperparameters.warmup_steps
    rows = {
        "learning rate": hyperparameters.learning_rate,
        "effective batch": f"{source.spec.rows_per_step} ({source.accumulation} x {source.rows_per_pass})",
        "epochs": number(hyperparameters.epochs),
        "optimizer steps": source.steps,
        "warmup": f"{warmup} steps" if warmup is not None else f"{hyperparameters.warmup_ratio or 0:g} of the steps",
        "scheduler": hyperparameters.lr_scheduler,
        "weight decay": hyperparameters.weight_decay,
        "gradient norm at most": hyperparameters.max_grad_norm,
        **_adapter(source),
        "base in training": _precision(source) if quantised else source.dtype,
        "length at most": f"{source.spec.technique.max_length} tokens",
        "seed": source.spec.seed,
        **{
            f"reward {place}": reward.model_dump_json(by_alias=True)
            for place, reward in enumerate(getattr(source.spec.technique, "rewards", ()), start=1)
        },
        **hyperparameters.trl,
    }
    return [(name, str(value)) for name, value in rows.items()]


def _adapter(source: ExportSource) -> dict[str, Any]:
    """Return the adapter's kind, LoRA's hyperparameters, and the options that are set."""
    hyperparameters, adapter = source.hyperparameters, source.spec.adapter
    options = {
        name.replace("_", " "): value
        for name, value in sorted(adapter.model_dump(include=set(adapter.options())).items())
        if value is not None
    }
    if not adapter.hyperparameters:
        layers = {"layers": ", ".join(adapter.modules)} if adapter.modules else {}
        return {"adapter": adapter.kind, **layers, **options}
    modules = hyperparameters.target_modules
    named = [f"{hyperparameters.lora_rank}", f"{hyperparameters.lora_alpha:g}", f"{hyperparameters.lora_dropout:g}"]
    if "lora_dropout" in adapter.hyperparameters:
        sizes = {"LoRA rank, alpha, dropout": ", ".join(named)}
    else:
        sizes = {"adapter": adapter.kind, "rank, alpha": ", ".join(named[:2])}
    return {**sizes, "target modules": modules if isinstance(modules, str) else ", ".join(modules), **options}


def _precision(source: ExportSource) -> str:
    quantised = source.quantised
    if quantised is None:
        return source.dtype
    double = " with double quantisation" if quantised.double_quantization and quantised.quantization != "int8" else ""
    return f"{quantised.quantization}{double} (bitsandbytes), computing in {source.dtype}"


def _data(source: ExportSource) -> list[tuple[str, ...]]:
    named = (("train", source.train), ("validation", source.validation), ("test", source.test))
    return [(name, str(split.rows), f"`{split.sha256}`") for name, split in named if split is not None]


def _base(source: ExportSource) -> list[tuple[str, str]]:
    base = source.base
    rows = [("name", base.public_name), ("fingerprint (SHA-256 of its weights)", f"`{base.fingerprint}`")]
    rows += [("revision", base.revision)] if base.revision else []
    rows += [] if base.hub_id else [("where", "a local folder of its author; compare the fingerprint with yours")]
    return rows


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
