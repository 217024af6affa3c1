"""Training through bitsandbytes' 4-bit layers on the CPU: its gradients are right, also after an evaluation."""

from __future__ import annotations

import bitsandbytes as bnb
import pytest
import torch


def linear_layers(model):
    return [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]


def test_the_base_is_in_four_bits(qlora_base):
    layers = linear_layers(qlora_base.model)
    assert len(layers) == 2 * 7
    assert {layer.weight.quant_state.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers)


@pytest.mark.parametrize("rows", [1, 3, 32, 256])
def test_forward_and_gradient_are_those_of_the_dequantised_weights(qlora_base, rows):
    layer = linear_layers(qlora_base.model)[-1]
    for mode in (False, True):  # an evaluation before the gradient is what breaks it where weights are repacked
        layer.train(mode)
        with torch.no_grad():
            layer(torch.ones(1, layer.in_features))
        weights = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        x = torch.randn(rows, layer.in_features, generator=torch.Generator().manual_seed(rows), requires_grad=True)
        upstream = torch.randn(rows, layer.out_features, generator=torch.Generator().manual_seed(1))
        out = layer(x)
        torch.testing.assert_close(out, x @ weights.T, rtol=1e-4, atol=1e-5)
        (gradient,) = torch.autograd.grad(out, x, upstream)
        torch.testing.assert_close(gradient, upstream @ weights, rtol=1e-4, atol=1e-5)


def test_evaluations_in_between_change_nothing(new_base, train):
    _, often = train(new_base("qlora"), "qlora", points=6)
    _, once = train(new_base("qlora"), "qlora", points=1)
    assert len(often.evaluations) == 6
    assert len(once.evaluations) == 1
    assert often.of("loss") == once.of("loss")
    assert often.of("grad_norm") == once.of("grad_norm")
    assert often.of("eval_loss")[-1] == once.of("eval_loss")[-1]


def test_generating_in_between_changes_nothing(new_base, train, spec):
    from sweeper.data.splits import read_prepared
    from sweeper.evaluation.scorer import score

    base = new_base("qlora")
    _, plain = train(base, "qlora")
    rows = read_prepared(spec().validation)

    def evaluate(model):
        scores = score(model, base.tokenizer, rows, spec().evaluation)
        return {"exact_match": scores.metrics["exact_match"].value}

    _, generating = train(base, "qlora", evaluate=evaluate)
    assert generating.of("loss") == plain.of("loss")
    assert len(generating.of("exact_match")) == 3
