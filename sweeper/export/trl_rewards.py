"""The rewards of a policy's study, as TRL's command line takes them: by the dotted path of a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeper.config.technique import Policy
from sweeper.export.source import ExportSource
from sweeper.files.atomic import write_json
from sweeper.training.rewards import unique_names

MODULE = "study_rewards"  # not `rewards`, as a user's module may be called

_TEXT = """\
\"\"\"The rewards of the study {study}, as `trl {kind}` calls them; needs sweeper {version}.\"\"\"

from pathlib import Path

from sweeper.training.rewards.stored import load_rewards

{names} = load_rewards(Path(__file__).with_suffix(".json"))
"""


def write_rewards(source: ExportSource, policy: Policy, folder: Path) -> None:
    """Write the module that TRL imports, and its functions' data beside it."""
    sources = source.spec.reward_sources
    text = _TEXT.format(
        study=source.study,
        kind=policy.kind,
        version=source.sweeper_version,
        names=", ".join(unique_names(policy.rewards)) + ("," if len(policy.rewards) == 1 else ""),
    )
    (folder / f"{MODULE}.py").write_text(text, encoding="utf-8")
    stored = {
        "rewards": [reward.model_dump(mode="json", by_alias=True) for reward in policy.rewards],
        "sources": sources.model_dump(mode="json") if sources is not None else None,
        "device": source.spec.device,
    }
    write_json(folder / f"{MODULE}.json", stored)


def script_fields(policy: Policy) -> dict[str, Any]:
    """Return the fields of TRL's script arguments that name the rewards."""
    return {"reward_funcs": [f"{MODULE}.{name}" for name in unique_names(policy.rewards)]}


def config_fields(source: ExportSource, policy: Policy) -> dict[str, Any]:
    """Return the fields of TRL's configuration for sampling and weighing answers."""
    return {
        "max_completion_length": policy.max_completion_length,
        "num_generations": source.spec.answers_per_row,
        "reward_weights": [reward.weight for reward in policy.rewards],
    }


def evaluation_fields(source: ExportSource) -> dict[str, Any]:
    """Return the fields by which TRL picks the best adapter: the mean reward of whole groups of sampled answers."""
    return {
        "per_device_eval_batch_size": source.spec.answers_per_row,
        "metric_for_best_model": "eval_reward",
        "greater_is_better": True,
    }


def remarks(source: ExportSource, policy: Policy) -> list[str]:
    """Return remarks for the reader of the file."""
    return [
        f"The rewards in {MODULE}.py are sweeper's own: sweeper must be installed, and the command run in this folder.",
        f"TRL leaves out the last prompts of an epoch that fill no batch of {source.hyperparameters.batch_size}, and "
        f"takes prompts longer than {policy.max_length} tokens; the study did neither.",
    ]
