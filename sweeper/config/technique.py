"""How the model is tuned: one class a technique, tagged by ``kind``; TRL's trainers do the training."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator

from sweeper.config.base import Frozen, kind_of, word_is_kind
from sweeper.config.rewards import Reward

Rows = Literal["answers", "pairs", "labelled", "prompts"]
"""What a technique learns from: right answers (or plain text), better and worse answers, answers called good or bad,
or prompts alone."""


class _Technique(Frozen):
    """What all techniques share.

    ``max_length`` is in tokens, prompt and completion together.
    ``gradient_checkpointing: auto`` is on for CUDA and off for the CPU, where it only costs time.
    """

    rows: ClassVar[Rows]
    metric: ClassVar[str] = "preference_accuracy"
    """What decides the search where the study names nothing."""
    metrics: ClassVar[tuple[str, ...]] = ("preference_accuracy", "preference_margin")
    """The final comparison where the study names nothing."""
    has_reference: ClassVar[bool] = False
    """Whether the loss looks at the model as it was before: the base without its adapter."""
    drops_long: ClassVar[bool] = False
    """Whether rows longer than ``max_length`` are left out, rather than cut at the end."""
    head: ClassVar[Literal["language", "score"]] = "language"
    """What the base model ends in: the vocabulary, or a single number."""

    max_length: int = Field(default=1024, ge=8)
    gradient_checkpointing: bool | Literal["auto"] = "auto"

    def tokens_per_row(self, longest: int) -> int:
        """Return the most tokens that a row takes through the model, where the longest has ``longest``."""
        answers = 2 if self.rows == "pairs" else 1
        return answers * min(longest, self.max_length)


class SFT(_Technique):
    """Supervised fine-tuning (instruction tuning) with TRL's ``SFTTrainer``.

    Rows longer than ``max_length`` are cut at the end.
    ``completion_only`` takes the loss on the completion only (of a conversation: on its last turn); it has no meaning
    for plain text. ``assistant_only`` takes it on every turn of the assistant's instead, and needs conversations and a
    chat template that marks those turns (``{% generation %}``).
    NEFTune is ``neftune_noise_alpha`` in the search space (Jain et al. 2023, arXiv:2310.05914).
    """

    rows: ClassVar[Rows] = "answers"
    metric: ClassVar[str] = "eval_loss"
    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "token_f1")

    kind: Literal["sft"] = "sft"
    completion_only: bool = True
    assistant_only: bool = False
    packing: bool = False

    def tokens_per_row(self, longest: int) -> int:
        """Return the most tokens that a row takes through the model; packed rows are filled up."""
        return self.max_length if self.packing else min(longest, self.max_length)


class DPO(_Technique):
    """Direct preference optimisation on pairs (Rafailov et al. 2023, arXiv:2305.18290).

    ``beta`` and ``loss_type`` are TRL's fields and can be searched: ``loss_type: ipo`` is IPO (Azar et al. 2023,
    arXiv:2310.12036). Rows whose prompt fills ``max_length`` are dropped, longer answers cut at the end.
    """

    rows: ClassVar[Rows] = "pairs"
    has_reference: ClassVar[bool] = True

    kind: Literal["dpo"] = "dpo"


class KTO(_Technique):
    """Kahneman-Tversky optimisation: answers called good or bad, unpaired (Ethayarajh et al. 2024, arXiv:2402.01306).

    Its reference point is estimated over the rows of a forward pass, so the micro-batch changes it a little.
    """

    rows: ClassVar[Rows] = "labelled"
    has_reference: ClassVar[bool] = True

    kind: Literal["kto"] = "kto"


class ORPO(_Technique):
    """Odds-ratio preference optimisation: pairs, without a reference model (Hong et al. 2024, arXiv:2403.07691)."""

    rows: ClassVar[Rows] = "pairs"

    kind: Literal["orpo"] = "orpo"


class CPO(_Technique):
    """Contrastive preference optimisation: pairs, without a reference model (Xu et al. 2024, arXiv:2401.08417).

    ``loss_type: simpo`` in the search space is SimPO (Meng et al. 2024, arXiv:2405.14734).
    """

    rows: ClassVar[Rows] = "pairs"

    kind: Literal["cpo"] = "cpo"


class RewardModel(_Technique):
    """A reward model from pairs that people ranked (Ouyang et al. 2022, arXiv:2203.02155, section 3.5).

    The base gets a head that gives one number; a pair's ``margin``, where the data have one, is how much better the
    chosen answer is (Touvron et al. 2023, arXiv:2307.09288, section 3.2.2). Longer rows are dropped, never cut.
    """

    rows: ClassVar[Rows] = "pairs"
    drops_long: ClassVar[bool] = True
    head: ClassVar[Literal["language", "score"]] = "score"

    kind: Literal["reward"] = "reward"


class _Policy(_Technique):
    """What GRPO and RLOO share: a policy that answers prompts and learns from the rewards of its answers.

    ``batch_size`` counts prompts; each is answered ``num_generations`` times (a field of TRL's, which can be searched).
    The current TRL has no PPO trainer; these two optimise a policy without a value model. ``max_length`` is that of a
    prompt here; longer ones are dropped.

    Attributes:
        rewards: What an answer earns, added up with their weights.
        max_completion_length: Longest answer while training, in tokens.
    """

    rows: ClassVar[Rows] = "prompts"
    metric: ClassVar[str] = "mean_reward"
    metrics: ClassVar[tuple[str, ...]] = ("mean_reward", "kl")
    has_reference: ClassVar[bool] = True
    drops_long: ClassVar[bool] = True

    rewards: tuple[Reward, ...]
    max_completion_length: int = Field(default=256, ge=1)

    @field_validator("rewards")
    @classmethod
    def _something_earns(cls, rewards: tuple[Reward, ...]) -> tuple[Reward, ...]:
        if not rewards:
            raise ValueError("needs at least one reward, for example {kind: exact_match}")
        if all(reward.weight == 0 for reward in rewards):
            raise ValueError("every reward has weight 0, so nothing can be learned; give at least one another weight")
        return rewards

    def tokens_per_row(self, longest: int) -> int:
        """Return the most tokens that a prompt takes with one of its answers."""
        return min(longest, self.max_length) + self.max_completion_length


class GRPO(_Policy):
    """Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300)."""

    kind: Literal["grpo"] = "grpo"


class RLOO(_Policy):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740)."""

    kind: Literal["rloo"] = "rloo"


Technique = Annotated[
    Annotated[SFT, Tag("sft")]
    | Annotated[DPO, Tag("dpo")]
    | Annotated[KTO, Tag("kto")]
    | Annotated[ORPO, Tag("orpo")]
    | Annotated[CPO, Tag("cpo")]
    | Annotated[RewardModel, Tag("reward")]
    | Annotated[GRPO, Tag("grpo")]
    | Annotated[RLOO, Tag("rloo")],
    Discriminator(kind_of),
    BeforeValidator(word_is_kind),
]
"""The next technique is one more class here and one more file in ``training.techniques``."""

TECHNIQUES: dict[str, type[_Technique]] = {
    technique.model_fields["kind"].default: technique
    for technique in (SFT, DPO, KTO, ORPO, CPO, RewardModel, GRPO, RLOO)
}
"""Every technique by its kind."""


def technique_class(technique: Any) -> type[_Technique]:
    """Return the class of a technique as a study file may write it; that of the default for what is none."""
    kind = technique if isinstance(technique, str) else kind_of(technique)
    return TECHNIQUES.get(str(kind), SFT)
