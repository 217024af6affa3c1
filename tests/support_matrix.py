"""``python -m tests.support_matrix``: prints which technique goes with which adapter and backend, for the guide.

The Markdown goes into ``studies/README.md``. The answers are those that a study gets: the rules of
``config.combinations`` and of ``compatibility``, asked for a machine with a GPU on which everything is installed. What
is said below the tables is the rule, not its message.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence

from sweeper import compatibility as support
from sweeper.compatibility import Case
from sweeper.config.adapter import IA3, AnyAdapter, Full, LoHa, LoRA, Prefix, Prompt, PTuning, QLoRA
from sweeper.config.backend import FSDP, TRL, Backend, DeepSpeed, Unsloth
from sweeper.config.combinations import RULES
from sweeper.config.model import ModelConfig
from sweeper.config.rewards import ExactMatchReward
from sweeper.config.technique import CPO, DPO, GMPO, GRPO, KTO, ORPO, RLOO, SFT, RewardModel, Technique
from sweeper.hardware import Gpu

_REWARDED = {"rewards": (ExactMatchReward(),)}

TECHNIQUES: tuple[Technique, ...] = (
    SFT(),
    DPO(),
    KTO(),
    ORPO(),
    CPO(),
    RewardModel(),
    GRPO(**_REWARDED),
    RLOO(**_REWARDED),
    GMPO(**_REWARDED),
)

ADAPTERS: Mapping[str, AnyAdapter] = {
    "lora": LoRA(),
    "lora, dora": LoRA(dora=True),
    "lora, pissa or olora": LoRA(init="pissa"),
    "lora, eva": LoRA(init="eva"),
    "qlora, nf4": QLoRA(),
    "qlora, fp4": QLoRA(quantization="fp4"),
    "qlora, int8": QLoRA(quantization="int8"),
    "prefix": Prefix(),
    "prompt": Prompt(),
    "p_tuning": PTuning(),
    "ia3": IA3(),
    "loha": LoHa(),
    "full": Full(),
}

BACKENDS: tuple[Backend, ...] = (TRL(), Unsloth(), DeepSpeed(stage=2), DeepSpeed(stage=3), FSDP())

_DEVICE, _GPUS = "cuda:0", (Gpu("any", capability=9.0),)


def reason(technique: Technique, adapter: AnyAdapter, backend: Backend) -> str | None:
    """Return why a combination is refused on a machine that has everything; None where it works."""
    rule = next((rule for rule in RULES if rule.applies(technique, adapter)), None)
    if rule is not None:
        return rule.reason.format(technique="the technique", adapter="the adapter")
    case = Case(technique, adapter, backend, ModelConfig(name="any"), _DEVICE, _GPUS)
    for part in support.RULES:
        found = part(case)
        if found is not None and support.NOT_INSTALLED not in found:
            return inspect.getdoc(part)
    return None


def tables() -> str:
    """Return both tables with the reasons below them."""
    reasons: dict[str, int] = {}
    techniques = [technique.kind for technique in TECHNIQUES]
    adapted = [
        [name, *(_cell(reason(technique, adapter, TRL()), reasons) for technique in TECHNIQUES)]
        for name, adapter in ADAPTERS.items()
    ]
    backed = [
        [name, *(_cell(reason(SFT(), adapter, backend), reasons) for backend in BACKENDS)]
        for name, adapter in ADAPTERS.items()
    ]
    notes = [f"{number}. {text}" for text, number in reasons.items()]
    return "\n".join(
        [
            *_table(["adapter", *(f"`{kind}`" for kind in techniques)], adapted),
            "",
            *_table(["adapter, with `sft`", *map(_name, BACKENDS)], backed),
            "",
            *notes,
        ]
    )


def _cell(found: str | None, reasons: dict[str, int]) -> str:
    """Return a cell: yes, or the number of the reason why not."""
    return "yes" if found is None else f"({reasons.setdefault(found, len(reasons) + 1)})"


def _name(backend: Backend) -> str:
    return f"`deepspeed` {backend.stage}" if isinstance(backend, DeepSpeed) else f"`{backend.kind}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    print(tables())
