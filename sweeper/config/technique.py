"""Techniques of tuning, one class each, tagged by ``kind``; TRL's trainers do the training.

A technique is a class here, in the union below, and a trainer in ``training.techniques``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sweeper.config.adapter import AnyAdapter
from sweeper.config.base import Frozen, kind_of, kinds, word_is_kind
from sweeper.config.parameters import Parameter, table
from sweeper.config.rewards import Reward

Rows = Literal["answers", "pairs", "labelled", "prompts"]
"""The training data of a technique: correct answers (or plain text), better and worse answers, answers labelled good
or bad, or prompts alone."""


View = Literal["answer", "pair", "pair_as_text", "labelled", "scored", "prompt"]
"""The form in which ``data.as_trained`` shows a row: an answer; a pair; a pair that TRL tokenises as text; one answer
labelled good or bad; a pair scored at its last tokens; a prompt alone."""


_DPO_LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
)
_BETA = Parameter("beta", "float", 0.1, low=0, low_open=True)


def _policy_parameters(beta: float, generations: int) -> dict[str, Parameter]:
    """Return the parameters of GRPO and RLOO, with their defaults."""
    return table(
        Parameter("beta", "float", beta, low=0),
        Parameter("num_generations", "int", generations, low=2, high=1024),
        Parameter("temperature", "float", 1.0, low=0, low_open=True),
    )


class AnyTechnique(Frozen):
    """The interface of all techniques.

    ``max_length`` is in tokens, prompt and completion together.
    ``gradient_checkpointing: auto`` is on for CUDA, where memory is scarce, and off for the CPU.
    """

    trainer: ClassVar[str]
    """The file in ``training.techniques`` and the function in it that builds the trainer."""
    trl_configs: ClassVar[tuple[str, ...]]
    """TRL's configuration class as ``module:Class``, after the one it inherits from, if any."""
    trl_command: ClassVar[bool] = False
    """Whether TRL's command line trains it."""
    rows: ClassVar[Rows]
    view: ClassVar[View]
    learning: ClassVar[str]
    """A sentence on what training learns from a row, shown beside rows."""
    tuned: ClassVar[str | None] = None
    """The tuning of the model, for its card; None for "tuned with" the kind."""
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    """Fields of TRL's configuration whose values are checked before anything runs; the defaults are TRL's own."""
    metric: ClassVar[str]
    """The default of ``evaluation.metric``."""
    metrics: ClassVar[tuple[str, ...]]
    """The default of ``evaluation.metrics``."""
    has_reference: ClassVar[bool] = False
    """Whether the loss needs the base without its adapter."""
    has_token_rows: ClassVar[bool] = False
    """Whether its trainer holds whole rows of tokens, which EVA's initialisation needs."""
    bears_virtual_tokens: ClassVar[bool] = True
    """Whether its trainer distinguishes virtual tokens before the first layer from those of an answer."""
    drops_long: ClassVar[bool] = False
    """Whether rows longer than ``max_length`` are dropped rather than truncated."""
    head: ClassVar[Literal["language", "score"]] = "language"
    """The output of the base model: the vocabulary, or a single number."""

    kind: str
    max_length: int = Field(default=1024, ge=8)
    gradient_checkpointing: bool | Literal["auto"] = "auto"

    def tokens_per_row(self, longest: int) -> int:
        """Return the most tokens of a row in the model, given the longest row of the data."""
        answers = 2 if self.rows == "pairs" else 1
        return answers * min(longest, self.max_length)

    def checkpoints(self, adapter: AnyAdapter, device: str) -> bool:
        """Return whether a trial with this adapter on this device uses gradient checkpointing."""
        asked = self.gradient_checkpointing
        return adapter.can_checkpoint and (device != "cpu" if asked == "auto" else asked)

    @property
    def generations(self) -> int:
        """Default number of answers to a prompt; 1 for techniques that generate none."""
        own = self.parameters.get("num_generations")
        return own.default if own is not None and isinstance(own.default, int) else 1


class SFT(AnyTechnique):
    """Supervised fine-tuning (instruction tuning) with TRL's ``SFTTrainer``.

    Rows longer than ``max_length`` are cut at the end.
    ``completion_only`` takes the loss on the answers only; it has no meaning for plain text. In a conversation the
    answers are the assistant's ``turns``: all of them, or the last alone; those with ``weight: 0`` are read and not
    learned.
    NEFTune is ``neftune_noise_alpha`` in the search space (Jain et al. 2023, arXiv:2310.05914).
    """

    trainer = "sft:build_sft"
    trl_configs = ("trl.trainer.sft_config:SFTConfig",)
    trl_command = True
    view = "answer"
    learning = "Training learns the tokens that are marked."
    tuned = "tuned on instructions"
    has_token_rows = True
    rows = "answers"
    metric = "eval_loss"
    metrics = ("exact_match", "token_f1")

    kind: Literal["sft"] = "sft"
    completion_only: bool = True
    turns: Literal["all", "last"] = "all"
    packing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _turns_of_former_studies(cls, data: Any) -> Any:
        """Read ``assistant_only``, without which former versions learned the last turn alone."""
        if not isinstance(data, dict) or not isinstance(data.get("assistant_only"), bool):
            return data
        rest = {name: value for name, value in data.items() if name != "assistant_only"}
        return (
            {**rest, "turns": "all", "completion_only": True} if data["assistant_only"] else {"turns": "last", **rest}
        )

    def tokens_per_row(self, longest: int) -> int:
        """Return the most tokens of a row in the model; packed rows are filled up."""
        return self.max_length if self.packing else min(longest, self.max_length)


class Preference(AnyTechnique):
    """The common part of the techniques that learn from rankings; the rows are pairs unless a technique says else."""

    trainer = "preferences:build_preference"
    rows: ClassVar[Rows] = "pairs"
    metric = "preference_accuracy"
    metrics = ("preference_accuracy", "preference_margin")
    learning = "The answers are compared by their marked tokens; the prompt is only read."


class DPO(Preference):
    """Direct preference optimisation on pairs (Rafailov et al. 2023, arXiv:2305.18290).

    ``beta`` and ``loss_type`` are TRL's fields and can be searched: ``loss_type: ipo`` is IPO (Azar et al. 2023,
    arXiv:2310.12036). Rows whose prompt fills ``max_length`` are dropped, longer answers cut at the end.
    """

    trl_configs = ("trl.trainer.dpo_config:DPOConfig",)
    trl_command = True
    view = "pair"
    has_token_rows = True
    parameters = table(
        _BETA,
        Parameter("loss_type", "text", "sigmoid", allowed=_DPO_LOSSES),
    )
    has_reference = True

    kind: Literal["dpo"] = "dpo"


class KTO(Preference):
    """Kahneman-Tversky optimisation: answers labelled good or bad, unpaired (Ethayarajh et al. 2024, arXiv:2402.01306).

    Its reference point is estimated over the rows of a forward pass, so the micro-batch changes it a little.
    """

    trl_configs = ("trl.trainer.kto_config:KTOConfig",)
    trl_command = True
    view = "labelled"
    parameters = table(
        _BETA,
        Parameter("loss_type", "text", "kto", allowed=("kto", "apo_zero_unpaired")),
        Parameter("desirable_weight", "float", 1.0, low=0),
        Parameter("undesirable_weight", "float", 1.0, low=0),
    )
    rows = "labelled"
    has_reference = True

    kind: Literal["kto"] = "kto"


class ORPO(Preference):
    """Odds-ratio preference optimisation: pairs, without a reference model (Hong et al. 2024, arXiv:2403.07691)."""

    trl_configs = ("trl.experimental.orpo.orpo_config:ORPOConfig",)
    view = "pair_as_text"
    learning = "Both answers are compared by their marked tokens; the whole row of the chosen one is learned too."
    parameters = table(_BETA)
    bears_virtual_tokens = False

    kind: Literal["orpo"] = "orpo"


class CPO(Preference):
    """Contrastive preference optimisation: pairs, without a reference model (Xu et al. 2024, arXiv:2401.08417).

    ``loss_type: simpo`` in the search space is SimPO (Meng et al. 2024, arXiv:2405.14734).
    """

    trl_configs = ("trl.experimental.cpo.cpo_config:CPOConfig",)
    view = "pair_as_text"
    parameters = table(
        _BETA,
        Parameter("loss_type", "text", "sigmoid", allowed=("sigmoid", "hinge", "ipo", "simpo", "alphapo")),
        Parameter("cpo_alpha", "float", 1.0, low=0),
        Parameter("simpo_gamma", "float", 0.5, low=0),
    )
    bears_virtual_tokens = False

    kind: Literal["cpo"] = "cpo"


class RewardModel(Preference):
    """A reward model from pairs that people ranked (Ouyang et al. 2022, arXiv:2203.02155, section 3.5).

    The base gets a head that gives one number; a pair's ``margin``, where the data have one, is how much better the
    chosen answer is (Touvron et al. 2023, arXiv:2307.09288, section 3.2.2). Longer rows are dropped, never cut.
    """

    trl_configs = ("trl.trainer.reward_config:RewardConfig",)
    trl_command = True
    view = "scored"
    learning = "A reward model reads both answers in full; the score is taken at the marked token, the last."
    tuned = "made a reward model: it scores answers"
    parameters = table(Parameter("center_rewards_coefficient", "float", None, low=0))
    has_token_rows = True
    drops_long = True
    head = "score"

    kind: Literal["reward"] = "reward"


class Policy(AnyTechnique):
    """A policy that answers prompts and learns from the rewards of its answers.

    ``batch_size`` counts prompts; each is answered ``num_generations`` times (a field of TRL's, which can be searched).
    The current TRL has no PPO trainer; these optimise a policy without a value model. ``max_length`` is that
    of a prompt here; longer ones are dropped.

    Attributes:
        rewards: Rewards of an answer, summed with their weights.
        max_completion_length: Longest answer while training, in tokens.
    """

    trainer = "policy:build_policy"
    view = "prompt"
    learning = "The policy answers the prompt; the loss is on its own answers."
    rows = "prompts"
    metric = "mean_reward"
    metrics = ("mean_reward", "kl")
    has_reference = True
    drops_long = True

    rewards: tuple[Reward, ...]
    max_completion_length: int = Field(default=256, ge=1)

    @field_validator("rewards")
    @classmethod
    def _something_earns(cls, rewards: tuple[Reward, ...]) -> tuple[Reward, ...]:
        if not rewards:
            raise ValueError("needs at least one reward, for example {kind: exact_match}")
        if all(reward.weight == 0 for reward in rewards):
            raise ValueError("every reward has weight 0, so nothing can be learned; give one a different weight")
        return rewards

    def tokens_per_row(self, longest: int) -> int:
        """Return the most tokens of a prompt with one of its answers."""
        return min(longest, self.max_length) + self.max_completion_length


class GRPO(Policy):
    """Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300)."""

    trl_configs = ("trl.trainer.grpo_config:GRPOConfig",)
    trl_command = True
    parameters = _policy_parameters(beta=0.0, generations=8)

    kind: Literal["grpo"] = "grpo"


class RLOO(Policy):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740)."""

    trl_configs = ("trl.trainer.rloo_config:RLOOConfig",)
    trl_command = True
    parameters = _policy_parameters(beta=0.05, generations=2)

    kind: Literal["rloo"] = "rloo"


class GMPO(Policy):
    """Geometric-mean policy optimisation: GRPO with steadier updates (Zhao et al. 2025, arXiv:2507.20673).

    ``epsilon`` in the search space clips the logarithm of a token's importance ratio.
    """

    trl_configs = (*GRPO.trl_configs, "trl.experimental.gmpo.gmpo_config:GMPOConfig")
    parameters = table(*GRPO.parameters.values(), Parameter("epsilon", "float", 0.4, low=0))

    kind: Literal["gmpo"] = "gmpo"


Technique = Annotated[
    SFT | DPO | KTO | ORPO | CPO | RewardModel | GRPO | RLOO | GMPO,
    Field(discriminator="kind"),
    BeforeValidator(word_is_kind),
]
"""A technique as a study file names it."""

TECHNIQUES: dict[str, type[AnyTechnique]] = kinds(Technique)


def technique_class(technique: Any) -> type[AnyTechnique]:
    """Return the class of a technique as a study file may write it; SFT for anything unknown."""
    kind = technique if isinstance(technique, str) else kind_of(technique)
    return TECHNIQUES.get(str(kind), SFT)
