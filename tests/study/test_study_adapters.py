"""Every kind of adapter through the whole flow: searched, trained, scored, registered, exported or refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from variants import mostly_long

from sweeper.config.trial import Outcome
from sweeper.errors import ExportError
from sweeper.executors.listener import Listener
from sweeper.export import export
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.registry.provenance import export_source
from sweeper.store import Database
from sweeper.study.run import run_study

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TOOLS = ("trl", "axolotl", "llama-factory")
LORA = {"lora_rank": 4, "lora_dropout": 0.0}
# The adapter, what is searched of it, and the formats that refuse its winner.
KINDS = {
    "variants of lora": (
        {"kind": "lora", "rslora": True},
        {**LORA, "init": ["pissa", "olora"]},
        ("trl", "llama-factory"),
    ),
    "dora on 4 bits": ({"kind": "qlora", "dora": True}, {**LORA, "lora_plus": [4, 16]}, ("trl",)),
    "eva": ({"kind": "lora", "init": "eva"}, LORA, TOOLS),
    "prefix": ({"kind": "prefix", "projection": True, "quantization": "nf4"}, {"virtual_tokens": [3, 5]}, None),
    "prompt": ({"kind": "prompt", "init_text": "write"}, {"init": ["text", "vocabulary"], "virtual_tokens": 4}, None),
    "p_tuning": ("p_tuning", {"virtual_tokens": {"low": 2, "high": 4}, "encoder": ["mlp", "lstm"]}, None),
    "ia3": ({"kind": "ia3", "quantization": "nf4"}, {}, TOOLS),
    "ia3 on a dense base": ("ia3", {}, TOOLS),
    "loha": ({"kind": "loha"}, {"lora_rank": 4, "rank_dropout": [0.0, 0.1]}, TOOLS),
    "full": ("full", {}, ()),
}
RATES = {"prefix": 3e-2, "prompt": 3e-1, "p_tuning": 1e-2, "ia3": 3e-1, "full": 3e-3}


class Listening(Listener):
    def __init__(self):
        self.notes, self.specs = [], []

    def trial_started(self, candidate, spec, total_steps):
        self.specs.append(spec)

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize("name", mostly_long(KINDS, "dora on 4 bits", "eva", "prefix", "ia3", "loha", "full"))
def test_from_a_study_file_to_an_export(study_file, tmp_path, name):
    adapter, options, refused = KINDS[name]
    kind = adapter if isinstance(adapter, str) else adapter["kind"]
    rate = RATES.get(kind, 1e-2)
    space = {"learning_rate": [rate, rate / 3], "batch_size": 8, "epochs": 3, "warmup_ratio": 0.0, **options}
    search = {"space": space, "n_trials": 2, "confirm": 0, "pruner": "none"}
    evaluation = {"metric": "exact_match", "candidates": 1}
    file = study_file(adapter=adapter, shape="same_answer", search=search, evaluation=evaluation)
    listener = Listening()
    result = run_study(file, listener=listener, force=True)
    assert any(note.startswith("trials run one at a time: ") for note in listener.notes)
    assert len(listener.specs) == 2
    for spec in listener.specs:  # the options became the adapter, and nothing else
        assert not set(options) & set(spec.hyperparameters.trl)
        for option in set(options) & spec.adapter.options():
            assert spec.parameters[option] == getattr(spec.adapter, option)
    with Database.open(Home.current().database, create=False) as database:
        trials = database.trials.all("tiny")
        assert [trial.outcome for trial in trials] == [Outcome.COMPLETE] * 2, [trial.reason for trial in trials]
        registry = Registry(Home.current(), database)
        registry.verify("tiny", result.registered.version)
        source = export_source(Home.current(), database, result.registered)
    exported = export(source, "adapter", tmp_path / "adapter")
    card = (exported.folder / "README.md").read_text()
    assert str(tmp_path) not in card
    assert ("LoRA" in card) == ("lora_dropout" in source.spec.adapter.hyperparameters)
    if not source.spec.adapter.is_full:
        assert str(tmp_path) not in json.dumps(json.loads((exported.folder / "adapter_config.json").read_text()))
    _merged(source, tmp_path)
    for tool in TOOLS:
        if refused is None or tool in refused:
            with pytest.raises(
                ExportError, match=r"has no .* so it cannot train this winner again; export the trained"
            ):
                export(source, tool, tmp_path / tool)
            assert not (tmp_path / tool).exists()
        else:
            assert export(source, tool, tmp_path / tool).paths


def _merged(source, tmp_path):
    if source.spec.adapter.is_prompt_learning:
        with pytest.raises(ExportError, match="cannot be merged: its virtual tokens stand before the input"):
            export(source, "merged", tmp_path / "merged")
        return
    folder = export(source, "merged", tmp_path / "merged").folder
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        path.name for path in folder.iterdir()
    }
    if source.quantised is not None or source.spec.adapter.is_full:
        return  # compared by the export itself, and by tests/export
    base = AutoModelForCausalLM.from_pretrained(source.base.folder, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, source.adapter_folder).eval()(ids).logits
        torch.testing.assert_close(merged(ids).logits, adapted, rtol=1e-3, atol=1e-3)
    assert (plain - adapted).abs().max() > 0.01
