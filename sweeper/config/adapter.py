"""Adapters, one class each, tagged by ``kind``; full fine-tuning is one of them.

All but ``kind`` and how the base is quantised are options: a study may search them by their field name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sweeper.config.base import Frozen, kinds, word_is_kind
from sweeper.config.parameters import LORA_PARAMETERS, Hyperparameters

Quantization = Literal["nf4", "fp4", "int8"]
Initialisation = Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq", "eva"]

_OF_THE_BASE = frozenset({"kind", "quantization", "double_quantization"})


class AnyAdapter(Frozen):
    """The interface of all adapters."""

    title: ClassVar[str]
    """Its name on a model card."""
    peft: ClassVar[str | None]
    """PEFT's configuration class; None if every weight of the base is trained."""
    hyperparameters: ClassVar[tuple[str, ...]] = ()
    """Those of ``LORA_PARAMETERS`` that it has."""
    is_prompt_learning: ClassVar[bool] = False
    """Whether it trains virtual tokens in front of the input, which cannot be merged into the model's layers."""
    can_checkpoint: ClassVar[bool] = True
    """Whether activations can be recomputed in the backward pass."""

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

    def peft_options(self, parameters: Hyperparameters) -> dict[str, Any]:
        """Return the arguments of PEFT's configuration class, but for the task."""
        return {}

    @property
    def is_full(self) -> bool:
        """Whether it is full fine-tuning, without an adapter."""
        return self.peft is None

    @property
    def is_quantised(self) -> bool:
        """Whether the base below it is quantised."""
        return isinstance(self, QuantisedBase) and self.quantization is not None

    @property
    def changes_base(self) -> bool:
        """Whether its initial weights are subtracted from the base's."""
        return isinstance(self, LowRank) and self.init in ("pissa", "olora")

    @property
    def extra_tokens(self) -> int:
        """Number of virtual tokens in front of every row."""
        return self.virtual_tokens if isinstance(self, PromptLearning) else 0

    @property
    def modules(self) -> tuple[str, ...]:
        """Layers that the model must have; empty unless the adapter names its own."""
        return self.attention_modules + self.feedforward_modules if isinstance(self, IA3) else ()


class QuantisedBase(AnyAdapter):
    """An adapter whose base may be quantised with bitsandbytes; one quantisation for all trials of a study.

    ``double_quantization`` quantises the constants of NF4 and FP4 too (Dettmers et al. 2023, arXiv:2305.14314).
    """

    quantization: Quantization | None = None
    double_quantization: bool = True


class LowRank(AnyAdapter):
    """The common part of LoRA and QLoRA; the defaults are plain LoRA (Hu et al. 2021, arXiv:2106.09685), as in PEFT.

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

    title = "A LoRA adapter"
    peft = "LoraConfig"
    hyperparameters = LORA_PARAMETERS

    rslora: bool = False
    dora: bool = False
    init: Initialisation = "default"
    lora_plus: float | None = Field(default=None, ge=1, le=1000)

    @property
    def raises_b(self) -> bool:
        """Whether B's learning rate differs from A's."""
        return self.lora_plus not in (None, 1)

    def peft_options(self, parameters: Hyperparameters) -> dict[str, Any]:
        """Return LoRA's options; LoftQ starts as plain LoRA, and ``training.adapters`` fills it in."""
        return {
            "r": parameters.lora_rank,
            "lora_alpha": parameters.lora_alpha,
            "lora_dropout": parameters.lora_dropout,
            "target_modules": _targets(parameters),
            "use_rslora": self.rslora,
            "use_dora": self.dora,
            "init_lora_weights": True if self.init in ("default", "loftq") else self.init,
        }

    @model_validator(mode="after")
    def _dora_keeps_its_base(self) -> Self:
        if self.dora and self.changes_base:
            raise ValueError(
                f"init {self.init} subtracts its initial weights from the base, and dora's magnitudes would be those "
                "of the changed base, which is not saved; use one of the two"
            )
        return self


class LoRA(LowRank):
    """Low-rank adapters on a dense base (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"

    @model_validator(mode="after")
    def _nothing_was_lost(self) -> Self:
        if self.init == "loftq":
            raise ValueError("init loftq compensates for the quantisation of the base; use it with adapter qlora")
        return self


class QLoRA(LowRank, QuantisedBase):
    """Low-rank adapters on a base quantised with bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

    kind: Literal["qlora"] = "qlora"
    quantization: Quantization = "nf4"

    @model_validator(mode="after")
    def _init_fits_the_base(self) -> Self:
        if self.changes_base:
            raise ValueError(
                f"init {self.init} changes the base's weights, and quantisation would round the change away; use "
                "adapter lora, or init gaussian, loftq or eva"
            )
        if self.init == "orthogonal":
            raise ValueError("init orthogonal needs a dense base; use adapter lora, or init gaussian, loftq or eva")
        if self.init == "loftq" and self.quantization == "int8":
            raise ValueError("init loftq needs a 4-bit base; use quantization nf4 or fp4")
        if self.dora and self.quantization == "int8":
            raise ValueError(
                "dora reads the base's weights, and PEFT 0.21 corrupts an int8 layer by reading it; use quantization "
                "nf4 or fp4"
            )
        return self


class PromptLearning(QuantisedBase):
    """The common part of prefix tuning, prompt tuning and P-tuning: trained virtual tokens before every row.

    ``virtual_tokens`` is 20 by default: TRL's page on PEFT advises 8 to 20, and Lester et al. (2021, arXiv:2104.08691)
    found little gain beyond 20.
    """

    is_prompt_learning = True
    virtual_tokens: int = Field(default=20, ge=1, le=10_000)

    def peft_options(self, parameters: Hyperparameters) -> dict[str, Any]:
        """Return the number of virtual tokens."""
        return {"num_virtual_tokens": self.virtual_tokens}


class Prefix(PromptLearning):
    """Prefix tuning: keys and values before those of every layer (Li and Liang 2021, arXiv:2101.00190).

    They live in the cache, which gradient checkpointing drops.

    Attributes:
        projection: Train the prefix through a two-layer network that is discarded afterwards, which its authors found
            more stable (section 4.3); PEFT's default is without.
        projection_size: Width of that network; by default the width of a key.
    """

    title = "A prefix (prefix tuning)"
    peft = "PrefixTuningConfig"
    can_checkpoint = False
    kind: Literal["prefix"] = "prefix"
    projection: bool = False
    projection_size: int | None = Field(default=None, ge=1, le=65_536)

    def peft_options(self, parameters: Hyperparameters) -> dict[str, Any]:
        """Return the number of virtual tokens, and the projection if there is one."""
        projection = {"prefix_projection": True, "encoder_hidden_size": self.projection_size}
        return super().peft_options(parameters) | (projection if self.projection else {})


class Prompt(PromptLearning):
    """Prompt tuning: embeddings before the first layer (Lester et al. 2021, arXiv:2104.08691).

    ``init: vocabulary`` begins with embeddings of random tokens, ``text`` with those of ``init_text``, repeated or cut
    to the number of virtual tokens. Both beat ``random`` for small models (section 3.2 there).
    """

    title = "A soft prompt (prompt tuning)"
    peft = "PromptTuningConfig"
    kind: Literal["prompt"] = "prompt"
    init: Literal["random", "vocabulary", "text"] = "random"
    init_text: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _text_is_named(self) -> Self:
        if self.init == "text" and self.init_text is None:
            raise ValueError("init text needs an init_text, such as a sentence that describes the task")
        return self

    def peft_options(self, parameters: Hyperparameters) -> dict[str, Any]:
        """Return the number of virtual tokens and their initialisation."""
        text = {"prompt_tuning_init_text": self.init_text} if self.init == "text" else {}
        inits = {"random": "RANDOM", "vocabulary": "SAMPLE_VOCAB", "text": "TEXT"}
        return super().peft_options(parameters) | {"prompt_tuning_init": inits[self.init], **text}


class PTuning(PromptLearning):
    """P-tuning: embeddings before the first layer, trained through a network (Liu et al. 2021, arXiv:2103.10385).

    Attributes:
        encoder: The network, discarded afterwards: a multilayer perceptron, or the authors' LSTM.
        encoder_size: Its width; by default the width of the model.
    """

    title = "A soft prompt (P-tuning)"
    peft = "PromptEncoderConfig"
    kind: Literal["p_tuning"] = "p_tuning"
    encoder: Literal["mlp", "lstm"] = "mlp"
    encoder_size: int | None = Field(default=None, ge=1, le=65_536)

    def peft_options(self, parameters: Hyperparameters) -> dict[str, Any]:
        """Return the number of virtual tokens and their network."""
        encoder = {"encoder_reparameterization_type": self.encoder.upper(), "encoder_hidden_size": self.encoder_size}
        return super().peft_options(parameters) | encoder


class IA3(QuantisedBase):
    """(IA)³: a trained factor for each key, value and inner activation of the MLP (Liu et al. 2022, arXiv:2205.05638).

    The names of the layers are those of Llama, Mistral, Qwen, Gemma and SmolLM; other models may need others. Factors
    of ``attention_modules`` scale a layer's output, those of ``feedforward_modules`` its input.
    """

    title = "An (IA)³ adapter"
    peft = "IA3Config"
    kind: Literal["ia3"] = "ia3"
    attention_modules: tuple[str, ...] = Field(default=("k_proj", "v_proj"), min_length=1)
    feedforward_modules: tuple[str, ...] = ("down_proj",)

    @classmethod
    def options(cls) -> frozenset[str]:
        """Return nothing: the layers are the paper's."""
        return frozenset()

    def peft_options(self, parameters: Hyperparameters) -> dict[str, Any]:
        """Return the layers."""
        return {"target_modules": list(self.modules), "feedforward_modules": list(self.feedforward_modules)}


class LoHa(AnyAdapter):
    """Hadamard products of two low-rank updates: rank r reaches up to r², at twice the weights of LoRA.

    FedPara (Hyeon-Woo et al. 2022, arXiv:2108.06098), as LyCORIS has it (Yeh et al. 2024, arXiv:2309.14859); on a
    dense base, which PEFT 0.21 requires.

    Attributes:
        rank_dropout: Part of the ranks that a training step leaves out.
    """

    title = "A LoHa adapter"
    peft = "LoHaConfig"
    hyperparameters = ("lora_rank", "lora_alpha", "target_modules")

    kind: Literal["loha"] = "loha"
    rank_dropout: float = Field(default=0.0, ge=0, le=0.95)

    def peft_options(self, parameters: Hyperparameters) -> dict[str, Any]:
        """Return LoHa's options."""
        own = {"rank_dropout": self.rank_dropout, "target_modules": _targets(parameters)}
        return {"r": parameters.lora_rank, "alpha": parameters.lora_alpha, **own}


class Full(AnyAdapter):
    """No adapter: every weight of a dense copy of the base is trained."""

    title = "A copy, fully fine-tuned, of"
    peft = None
    kind: Literal["full"] = "full"


def _targets(parameters: Hyperparameters) -> str | list[str]:
    return parameters.target_modules if isinstance(parameters.target_modules, str) else list(parameters.target_modules)


Adapter = Annotated[
    LoRA | QLoRA | Prefix | Prompt | PTuning | IA3 | LoHa | Full,
    Field(discriminator="kind"),
    BeforeValidator(word_is_kind),
]
"""An adapter as a study file names it."""

ADAPTERS: dict[str, type[AnyAdapter]] = kinds(Adapter)
