"""The real thing, once: SmolLM2 in NF4."""

from __future__ import annotations

import pytest
import tiny

from sweeper.config.adapter import QLoRA
from sweeper.config.model import ModelConfig
from sweeper.config.trial import Outcome
from sweeper.training.base_model import load_base
from sweeper.training.trial import train_trial


@pytest.mark.pretrained
def test_smollm2_trains_in_four_bits(smollm2, tmp_path):
    base = load_base(smollm2, ModelConfig(name="smollm2-135m"), QLoRA(), "cpu")
    asked = tiny.trial_spec(
        smollm2, tmp_path, adapter=QLoRA(), rows=16, epochs=1.0, learning_rate=1e-3, points=2, lora_rank=16
    )
    curve = tiny.Curve()
    result = train_trial(asked, base, curve, 8)
    assert (result.outcome, result.steps) == (Outcome.COMPLETE, 2)
    assert curve.of("eval_loss")[1] < curve.of("eval_loss")[0] < 8
    assert result.adapter_bytes > 1_000_000
