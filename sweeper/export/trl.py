"""A YAML file for TRL 1.16's commands: ``trl sft``, ``dpo``, ``kto``, ``reward``, ``grpo``, ``rloo``.

Its keys are the fields of TRL's ``ScriptArguments``, ``ModelConfig`` and the technique's own config. The data is named
as a folder with one file a split, not under ``datasets:``, because TRL takes an evaluation split only from the former.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from sweeper.config.adapter import QuantisedBase
from sweeper.config.backend import TRL
from sweeper.config.evaluation import LOSSES
from sweeper.config.technique import SFT, Policy, Technique
from sweeper.errors import ExportError
from sweeper.export import recipe, trl_rewards
from sweeper.export.rows import Renderer, Row, check_row_counts, copy_splits, has_completions, in_tokens, shape_of
from sweeper.export.source import ExportSource

TITLE = "TRL recipe that retrains the adapter"
FILE = "trl.yaml"
DATA = "data"


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Write ``trl.yaml`` and its data."""
    recipe.require_trainable(source, "TRL's command line", inits=(), lora_plus=False)
    kind = _kind(source)
    copy_splits(source, folder / DATA, _reshaped(source))
    command = f"trl {kind} --config {out / FILE}"
    if source.policy:
        trl_rewards.write_rewards(source, source.policy, folder)
        command = f"cd {out} && trl {kind} --config {FILE}"
    notes = recipe.begun_elsewhere(source)
    recipe.write_yaml(
        folder / FILE, recipe.heading(source, "TRL 1.16", command) + notes + _remarks(source), _values(source, out)
    )
    return [
        f"train it again: {command}",
        *notes,
        *(trl_rewards.remarks(source, source.policy) if source.policy else []),
    ]


def _reshaped(source: ExportSource) -> Callable[[Row], Row] | None:
    """Return what makes TRL's rows of the prepared ones; None where they are the same."""
    if not isinstance(source.spec.technique, SFT):
        return None
    if in_tokens(source):
        return Renderer(source).tokens
    return dict if shape_of(source.train.path) == "messages" and has_completions(source) else None


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Read the file with TRL's own parser, as its command line does, and compare the fields."""
    check_row_counts(source, folder / DATA)
    script, training, model = _parse(source.spec.technique, folder / FILE)
    chosen = trl_rewards.script_fields(source.policy) if source.policy else {}
    wanted = {**chosen, **_hyperparameters(source), **_model(source), "dataset_train_split": "train"}
    found = {**vars(script), **vars(training), **vars(model)}
    recipe.compare(wanted, {key: _plain(found.get(key)) for key in wanted}, FILE)
    return []


def _kind(source: ExportSource) -> str:
    technique = source.spec.technique
    if not technique.trl_command:
        raise ExportError(
            f"TRL's command line has no {technique.kind}; export the winner as adapter or merged, or train it again "
            "with sweeper"
        )
    return technique.kind


def _values(source: ExportSource, out: Path) -> dict[str, Any]:
    return {
        **_model(source),
        "dataset_name": str(out / DATA),
        "dataset_train_split": "train",
        "dataset_test_split": "validation",
        **_hyperparameters(source),
        **recipe.bookkeeping(source, out),
        **(
            {**trl_rewards.script_fields(source.policy), **trl_rewards.evaluation_fields(source)}
            if source.policy
            else {}
        ),
    }


def _model(source: ExportSource) -> dict[str, Any]:
    """Return the fields of TRL's ``ModelConfig``."""
    return {
        "model_name_or_path": str(source.base.folder),
        # Weights that are trained themselves stay in float32, whatever the products are computed in.
        "dtype": "float32" if source.spec.adapter.is_full else _dtype(source),
        "attn_implementation": source.attention,
        **_adapter(source),
        **_quantisation(source),
    }


def _adapter(source: ExportSource) -> dict[str, Any]:
    hyperparameters, lora = source.hyperparameters, source.lora
    if lora is None:
        return {"use_peft": False}
    return {
        "use_peft": True,
        "lora_r": hyperparameters.lora_rank,
        "lora_alpha": recipe.number(hyperparameters.lora_alpha),
        "lora_dropout": hyperparameters.lora_dropout,
        "lora_target_modules": _target_modules(hyperparameters.target_modules),
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        **({"lora_task_type": "SEQ_CLS", "lora_modules_to_save": ["score"]} if source.is_reward_model else {}),
    }


def _dtype(source: ExportSource) -> str:
    """Return TRL's compute type: it rounds a trained head on a quantised base to bfloat16, and float32 then fails."""
    rounded = source.is_reward_model and source.quantised is not None and source.dtype == "float32"
    return "bfloat16" if rounded else source.dtype


def _quantisation(source: ExportSource) -> dict[str, Any]:
    """Return the fields for the quantisation of the base."""
    quantised = source.quantised
    if quantised is None:
        return {"load_in_8bit": False, "load_in_4bit": False}
    if source.is_reward_model:
        return {"model_init_kwargs": {"quantization_config": _with_dense_head(source, quantised)}}
    four = {"bnb_4bit_quant_type": quantised.quantization, "use_bnb_nested_quant": quantised.double_quantization}
    return {
        "load_in_8bit": not source.four_bit,
        "load_in_4bit": source.four_bit,
        **(four if source.four_bit else {}),
    }


def _with_dense_head(source: ExportSource, quantised: QuantisedBase) -> dict[str, Any]:
    """Return it as transformers has it: by the fields of ``ModelConfig`` TRL would quantise the new head too."""
    four = {
        "bnb_4bit_quant_type": quantised.quantization,
        "bnb_4bit_use_double_quant": quantised.double_quantization,
        "bnb_4bit_compute_dtype": _dtype(source),
    }
    return {
        "quant_method": "bitsandbytes",
        **({"load_in_4bit": True, **four} if source.four_bit else {"load_in_8bit": True}),
        "llm_int8_skip_modules": ["score"],
    }


def _target_modules(modules: str | tuple[str, ...]) -> str | list[str]:
    """Return a list, or a pattern: TRL makes a string of a list of one, which PEFT matches with the whole path."""
    if isinstance(modules, str):
        return modules
    return list(modules) if len(modules) > 1 else rf"(.*\.)?{re.escape(modules[0])}"


def _hyperparameters(source: ExportSource) -> dict[str, Any]:
    """Return the fields of the technique's config that influence learning."""
    hyperparameters = source.hyperparameters
    warmup = hyperparameters.warmup_steps
    return {
        **recipe.training(source),
        "warmup_steps": warmup if warmup is not None else (hyperparameters.warmup_ratio or 0),
        "bf16": _dtype(source) == "bfloat16",
        **_technique(source),
        "activation_checkpointing": source.checkpointing,
        "trust_remote_code": source.spec.model.trust_remote_code,
        **_backend(source),
        **{name: _listed(name, value) for name, value in hyperparameters.trl.items()},
    }


def _backend(source: ExportSource) -> dict[str, Any]:
    """Return the study's additions to TRL's trainer; sharing a trial among processes changes nothing in learning."""
    backend = source.spec.backend
    if not isinstance(backend, TRL) or backend.is_plain:
        return {}
    return {"use_liger_kernel": backend.liger, "torch_compile": backend.compile}


def _technique(source: ExportSource) -> dict[str, Any]:
    technique = source.spec.technique
    if isinstance(technique, SFT):
        whole = in_tokens(source) or not has_completions(source)
        return {
            "max_length": technique.max_length,
            "packing": technique.packing,
            "eval_packing": False,
            # TRL ignores the field where there is no completion, or refuses it.
            "completion_only_loss": None if whole else technique.completion_only,
        }
    own = trl_rewards.config_fields(source, source.policy) if source.policy else {"max_length": technique.max_length}
    return {**own, "disable_dropout": source.hyperparameters.lora_dropout == 0}


def _listed(name: str, value: Any) -> Any:
    """Return a field as TRL's parser returns it; DPO may mix several losses, and its field is a list."""
    return [value] if name == "loss_type" and isinstance(value, str) else value


def _remarks(source: ExportSource) -> list[str]:
    metric = source.spec.evaluation.metric
    what = "model" if source.spec.adapter.is_full else "adapter"
    found = [f"The {what} of the best evaluation is kept in trained/ at the end."]
    if metric not in LOSSES:
        measure = "eval_reward, of sampled answers" if source.policy else "eval_loss"
        found.append(f"TRL picks it by {measure}; the study picked by {metric}, which TRL cannot measure.")
    if source.on_cpu and source.four_bit:
        found.append(
            "It evaluates at the end only: bitsandbytes 0.50 spoils 4-bit training on some CPUs by evaluating."
        )
    if source.quantised is not None and source.dtype == "float32":
        found.append("TRL keeps the adapter of a quantised base in bfloat16, where the study kept float32.")
        if source.is_reward_model:
            found.append(
                "TRL keeps the head in bfloat16 too, so it computes in bfloat16, where the study did in float32."
            )
    return [*found, *(trl_rewards.remarks(source, source.policy) if source.policy else [])]


def _parse(technique: Technique, file: Path) -> tuple[Any, Any, Any]:
    """Parse as TRL's command does; on the CPU, because the training may run on another machine."""
    import trl

    config = getattr(trl, technique.trl_configs[-1].partition(":")[2])
    classes = (_script_arguments(technique), config, trl.ModelConfig, trl.DatasetMixtureConfig)
    parser = trl.TrlParser(classes, prog=f"trl {technique.kind}")
    try:
        script, training, model, _ = parser.parse_args_and_config(["--config", str(file), "--use_cpu", "true"])
    except (SystemExit, ValueError, TypeError) as error:
        raise ExportError(f"the export does not verify: TRL refuses {file.name}: {error}") from error
    return script, training, model


def _script_arguments(technique: Technique) -> Any:
    """Return the class of a command's own arguments; commands that take rewards have one each."""
    import trl

    if not isinstance(technique, Policy):
        return trl.ScriptArguments
    kind = technique.kind
    return getattr(import_module(f"trl.scripts.{kind}"), f"{kind.upper()}ScriptArguments")


def _plain(value: Any) -> Any:
    """Return an enumeration's value, and anything else unchanged."""
    return getattr(value, "value", value)
