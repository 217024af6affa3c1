"""Adapters, one class each, tagged by ``kind``; full fine-tuning is one of them.

All but ``kind`` and how the base is quantised are options: a study may search them by their field name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sweeper.config.base import Frozen, kinds, word_is_kind
from sweeper.config.parameters import LORA_PARAMETERS

Quantization = Literal["nf4", "fp4", "int8"]
Initialisation = Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq", "eva"]

_OF_THE_BASE = frozenset({"kind", "quantization", "double_quantization"})


class AnyAdapter(Frozen):
    """What every adapter can be asked."""

    title: ClassVar[str]
    """What it is, for a model card."""
    hyperparameters: ClassVar[tuple[str, ...]] = ()
    """Those of ``LORA_PARAMETERS`` that it has."""

    kind: str

    @classmethod
    def options(cls) -> frozenset[str]:
        """Return the fields that may differ between the trials of a study; they share one base model."""
        return frozenset(cls.model_fields) - _OF_THE_BASE

    def with_options(self, chosen: Mapping[str, Any]) -> Self:
        """Return this adapter with those of its options that are among ``chosen``.

        Raises:
            ValidationError: If a value or a combination of values is not allowed.
        """
        own = {name: value for name, value in chosen.items() if name in self.options()}
        return type(self).model_validate({**self.model_dump(), **own})

    @property
    def is_prompt_learning(self) -> bool:
        """Whether it leaves the model's layers alone and puts trained virtual tokens in front of its input."""
        return isinstance(self, PromptLearning)

    @property
    def is_full(self) -> bool:
        """Whether it is no adapter: every weight of the base is trained."""
        return isinstance(self, Full)

    @property
    def can_merge(self) -> bool:
        """Whether the trained weights can become part of the base's; virtual tokens have no place there."""
        return not self.is_prompt_learning

    @property
    def can_checkpoint(self) -> bool:
        """Whether activations can be computed anew in the backward pass; a prefix lives in the cache, which cannot."""
        return not isinstance(self, Prefix)

    @property
    def changes_base(self) -> bool:
        """Whether its start is taken out of the base's weights."""
        return isinstance(self, LowRank) and self.init in ("pissa", "olora")

    @property
    def extra_tokens(self) -> int:
        """Virtual tokens in front of every row."""
        return self.virtual_tokens if isinstance(self, PromptLearning) else 0

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the layers that it needs the model to have; empty where it names none of its own."""
        return self.attention_modules + self.feedforward_modules if isinstance(self, IA3) else ()


class QuantisedBase(AnyAdapter):
    """An adapter whose base may be quantised with bitsandbytes; one quantisation for all trials of a study.

    ``double_quantization`` quantises the constants of NF4 and FP4 too (Dettmers et al. 2023, arXiv:2305.14314).
    """

    quantization: Quantization | None = None
    double_quantization: bool = True


class LowRank(AnyAdapter):
    """What LoRA and QLoRA have in common; the defaults are plain LoRA (Hu et al. 2021, arXiv:2106.09685), as in PEFT.

    Attributes:
        rslora: Scale by alpha / sqrt(rank) instead of alpha / rank, so that large ranks learn too (Kalajdzievski 2023,
            arXiv:2312.03732).
        dora: Train the length of each weight column apart from its direction (Liu et al. 2024, arXiv:2402.09353).
        init: How A and B begin. ``default`` is LoRA's own; ``gaussian`` draws A from a normal distribution;
            ``orthogonal`` begins with orthogonal rows, at even ranks; ``pissa`` begins with the base's largest singular
            vectors (Meng et al. 2024, arXiv:2404.02948), ``olora`` with its QR decomposition (Büyükakyüz 2024,
            arXiv:2406.01775); ``loftq`` with what quantising the base lost (Li et al. 2023, arXiv:2310.08659); ``eva``
            with the main directions of the training rows' activations (Paischer et al. 2024, arXiv:2410.07170).
        lora_plus: How many times A's learning rate B's is; 16 is its authors' advice, and 1 or nothing is plain LoRA
            (Hayou et al. 2024, arXiv:2402.12354).
    """

    title: ClassVar[str] = "A LoRA adapter"
    hyperparameters: ClassVar[tuple[str, ...]] = LORA_PARAMETERS

    rslora: bool = False
    dora: bool = False
    init: Initialisation = "default"
    lora_plus: float | None = Field(default=None, ge=1, le=1000)

    @property
    def raises_b(self) -> bool:
        """Whether B's learning rate is another than A's."""
        return self.lora_plus not in (None, 1)

    @model_validator(mode="after")
    def _dora_keeps_its_base(self) -> Self:
        if self.dora and self.changes_base:
            raise ValueError(
                f"init {self.init} takes its start out of the base's weights, and dora's magnitudes are those of the "
                "changed base, which nobody else has; use one of the two"
            )
        return self


class LoRA(LowRank):
    """Low-rank adapters on a dense base (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"

    @model_validator(mode="after")
    def _nothing_was_lost(self) -> Self:
        if self.init == "loftq":
            raise ValueError("init loftq makes up for what quantising the base lost; use it with adapter qlora")
        return self


class QLoRA(LowRank, QuantisedBase):
    """Low-rank adapters on a base quantised with bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

    kind: Literal["qlora"] = "qlora"
    quantization: Quantization = "nf4"

    @model_validator(mode="after")
    def _init_fits_the_base(self) -> Self:
        if self.changes_base:
            raise ValueError(
                f"init {self.init} changes the base's weights, and a quantised base would round the change away; use "
                "adapter lora, or init gaussian, loftq or eva"
            )
        if self.init == "orthogonal":
            raise ValueError("init orthogonal needs a dense base; use adapter lora, or init gaussian, loftq or eva")
        if self.init == "loftq" and self.quantization == "int8":
            raise ValueError("init loftq is made for bases in 4 bits; use quantization nf4 or fp4")
        if self.dora and self.quantization == "int8":
            raise ValueError(
                "dora measures the base's weights, and PEFT 0.21 spoils an int8 layer by reading it; use quantization "
                "nf4 or fp4"
            )
        return self


class PromptLearning(QuantisedBase):
    """What prefix tuning, prompt tuning and P-tuning have in common: trained virtual tokens before every row.

    ``virtual_tokens`` is 20 by default: TRL's page on PEFT advises 8 to 20, and Lester et al. (2021, arXiv:2104.08691)
    found little gain beyond 20.
    """

    virtual_tokens: int = Field(default=20, ge=1, le=10_000)


class Prefix(PromptLearning):
    """Prefix tuning: keys and values before those of every layer (Li and Liang 2021, arXiv:2101.00190).

    Attributes:
        projection: Train the prefix through a two-layer network that is thrown away afterwards, which its authors found
            steadier (section 4.3); PEFT's default is without.
        projection_size: Width of that network; nothing is the width of a key.
    """

    title: ClassVar[str] = "A prefix (prefix tuning)"
    kind: Literal["prefix"] = "prefix"
    projection: bool = False
    projection_size: int | None = Field(default=None, ge=1, le=65_536)


class Prompt(PromptLearning):
    """Prompt tuning: embeddings before the first layer (Lester et al. 2021, arXiv:2104.08691).

    ``init: vocabulary`` begins with embeddings of random tokens, ``text`` with those of ``init_text``, repeated or cut
    to the number of virtual tokens. Both beat ``random`` for small models (section 3.2 there).
    """

    title: ClassVar[str] = "A soft prompt (prompt tuning)"
    kind: Literal["prompt"] = "prompt"
    init: Literal["random", "vocabulary", "text"] = "random"
    init_text: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _text_is_named(self) -> Self:
        if self.init == "text" and self.init_text is None:
            raise ValueError("init text needs an init_text, such as a sentence that says what the task is")
        return self


class PTuning(PromptLearning):
    """P-tuning: embeddings before the first layer, trained through a network (Liu et al. 2021, arXiv:2103.10385).

    Attributes:
        encoder: The network, thrown away afterwards: a multilayer perceptron, or the authors' LSTM.
        encoder_size: Its width; nothing is the width of the model.
    """

    title: ClassVar[str] = "A soft prompt (P-tuning)"
    kind: Literal["p_tuning"] = "p_tuning"
    encoder: Literal["mlp", "lstm"] = "mlp"
    encoder_size: int | None = Field(default=None, ge=1, le=65_536)


class IA3(QuantisedBase):
    """(IA)³: a trained factor for each key, value and inner activation of the MLP (Liu et al. 2022, arXiv:2205.05638).

    The names of the layers are those of Llama, Mistral, Qwen, Gemma and SmolLM; other models may need others. Factors
    of ``attention_modules`` scale what a layer gives, those of ``feedforward_modules`` what it takes.
    """

    title: ClassVar[str] = "An (IA)³ adapter"
    kind: Literal["ia3"] = "ia3"
    attention_modules: tuple[str, ...] = Field(default=("k_proj", "v_proj"), min_length=1)
    feedforward_modules: tuple[str, ...] = ("down_proj",)

    @classmethod
    def options(cls) -> frozenset[str]:
        """Return nothing: the layers are the paper's."""
        return frozenset()


class LoHa(AnyAdapter):
    """Hadamard products of two low-rank updates: rank r reaches up to r², at twice the weights of LoRA.

    FedPara (Hyeon-Woo et al. 2022, arXiv:2108.06098), as LyCORIS has it (Yeh et al. 2024, arXiv:2309.14859); on a
    dense base, which PEFT 0.21 asks for.

    Attributes:
        rank_dropout: How much of the ranks is left out of a training step.
    """

    title: ClassVar[str] = "A LoHa adapter"
    hyperparameters: ClassVar[tuple[str, ...]] = ("lora_rank", "lora_alpha", "target_modules")

    kind: Literal["loha"] = "loha"
    rank_dropout: float = Field(default=0.0, ge=0, le=0.95)


class Full(AnyAdapter):
    """No adapter: every weight of a dense copy of the base is trained."""

    title: ClassVar[str] = "A copy, fully fine-tuned, of"
    kind: Literal["full"] = "full"


Adapter = Annotated[
    LoRA | QLoRA | Prefix | Prompt | PTuning | IA3 | LoHa | Full,
    Field(discriminator="kind"),
    BeforeValidator(word_is_kind),
]
"""An adapter as a study file names it."""

ADAPTERS: dict[str, type[AnyAdapter]] = kinds(Adapter)
