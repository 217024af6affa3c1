"""Validate real exports with Axolotl's and LLaMA-Factory's own parsers, each in a virtual environment of its own.

    python tests/export/check_peers.py [FOLDER FOR THE ENVIRONMENTS]

Not a test that runs by itself: the environments are several GB and pin other versions than sweeper. For each tool, row
shape and adapter it exports, lets the tool parse its YAML, tokenise the data, and compares tokens and labels with what
TRL's ``SFTTrainer`` makes of the same study.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import conftest
import tiny

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.export import ExportSource, export
from sweeper.export.rows import as_trained, has_completions, read_rows

PACKAGES = {
    "axolotl": (
        "axolotl==0.19.0",
        """torch peft==0.20.0 transformers==5.16.1 accelerate==1.13.0 datasets==4.8.4 trl==1.9.0 pydantic==2.12.5
        bitsandbytes==0.50.2 kernels<0.17 torchao==0.17.0 posthog==6.7.11 addict art colorama einops evaluate fire
        mistral-common numpy nvidia-ml-py psutil python-dotenv requests schedulefree scipy sentencepiece zstandard""",
    ),
    "llama-factory": (
        "llamafactory==0.9.5",
        """torch torchvision accelerate<=1.11.0 datasets<=4.0.0 peft<=0.18.1 trl<=0.24.0 bitsandbytes
        transformers<=5.6.0,!=4.57.0 av<=16.0.0 torchdata<=0.11 tyro<0.9.0 einops fastapi fire hf-transfer matplotlib
        modelscope numpy omegaconf pandas protobuf pydantic scipy sentencepiece sse-starlette tiktoken uvicorn""",
    ),
}
"""Per tool: what is installed without its dependencies (they ask for CUDA builds), and the dependencies that matter."""

AXOLOTL = """
import json, sys, yaml
from axolotl.utils.dict import DictDefault
from axolotl.utils.config import validate_config
from axolotl.utils.schemas.config import AxolotlInputConfig
values = yaml.safe_load(open(sys.argv[1]))
unknown = sorted(set(values) - set(AxolotlInputConfig.model_fields))
assert not unknown, f"unknown keys {unknown}"
config = validate_config(DictDefault(values))
assert config.adapter == values["adapter"] and config.lora_r == values["lora_r"]
from transformers import AutoTokenizer
from axolotl.prompt_strategies import load
tokenizer = AutoTokenizer.from_pretrained(values["base_model"])
strategy = load(values["datasets"][0]["type"], tokenizer, config, config.datasets[0])
rows = [strategy.tokenize_prompt(json.loads(line)) for line in open(values["datasets"][0]["path"])]
print("ROWS" + json.dumps([[list(row["input_ids"]), list(row["labels"])] for row in rows]))
"""

LLAMA_FACTORY = """
import json, sys, yaml
# Needed for sound only, and its wheels seldom match the newest torch.
from importlib.machinery import ModuleSpec
from types import ModuleType
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
from llamafactory.hparams import get_train_args
values = yaml.safe_load(open(sys.argv[1]))
model, data, training, finetuning, _ = get_train_args(dict(values))
assert finetuning.lora_rank == values["lora_rank"] and training.learning_rate == values["learning_rate"]
assert finetuning.lora_alpha == values["lora_alpha"] and training.warmup_steps == values["warmup_steps"]
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.model import load_tokenizer
module = load_tokenizer(model)
template = get_template_and_fix_tokenizer(module["tokenizer"], data)
sets = get_dataset(template, model, data, training, stage="sft", **module)
print("ROWS" + json.dumps([[row["input_ids"], row["labels"]] for row in sets["train_dataset"]]))
assert len(sets["eval_dataset"]) > 0
"""


def environment(tool: str, folder: Path) -> Path:
    """Return the Python of the tool's environment, made when it is not there."""
    python = folder / tool / "bin" / "python"
    if not python.exists():
        bare, dependencies = PACKAGES[tool]
        subprocess.run([sys.executable, "-m", "venv", str(folder / tool)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *dependencies.split()], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", bare], check=True)
    return python


def rows_of_tool(python: Path, script: str, file: Path) -> list[Any]:
    """Let the tool parse the file and tokenise its training data."""
    done = subprocess.run([str(python), "-c", script, str(file)], capture_output=True, text=True, cwd=file.parent)
    if done.returncode:
        raise SystemExit(f"{file}: {done.stderr[-4000:]}")
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ROWS"))[4:])


def rows_of_trl(source: ExportSource) -> list[Any]:
    """Return tokens and labels as TRL's trainer makes them."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    completion_only = source.spec.technique.completion_only if has_completions(source) else None
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(source.base.folder),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_length=source.spec.technique.max_length,
            completion_only_loss=completion_only,
        ),
        train_dataset=Dataset.from_list([as_trained(source, row) for row in read_rows(source.train.path)]),
        processing_class=AutoTokenizer.from_pretrained(source.base.folder),
    )
    return [[row["input_ids"], row.get("labels") or row["input_ids"]] for row in trainer.train_dataset]


def sources(folder: Path) -> list[tuple[str, ExportSource]]:
    """Return a study of every row shape and adapter kind."""
    base = tiny.build_model(folder / "tiny-llama")
    adapter = conftest.build_adapter(base, folder / "v1")
    cases = [
        ("prompt_completion", QLoRA(), {}),
        ("prompt_completion_chat", QLoRA(quantization="int8"), {"lr_scheduler": "linear", "warmup_steps": 2}),
        ("messages", LoRA(rslora=True), {"target_modules": ("q_proj",), "trl": {"adam_beta2": 0.95}}),
        ("text", QLoRA(quantization="fp4"), {"target_modules": ("q_proj", "v_proj")}),
    ]
    return [
        (f"{shape}-{kind.kind}", conftest.build_source(base, adapter, folder, shape, kind, hyperparameters=changes))
        for shape, kind, changes in cases
    ]


def main() -> None:
    """Check every tool with every source."""
    folder = Path(tempfile.mkdtemp(prefix="check-peers-"))
    environments = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else folder
    for name, source in sources(folder):
        expected = rows_of_trl(source)
        for tool, script in (("axolotl", AXOLOTL), ("llama-factory", LLAMA_FACTORY)):
            out = export(source, tool, folder / f"{name}-{tool}").folder
            file = next(out.glob("*.yaml"))
            found = rows_of_tool(environment(tool, environments), script, file)
            same = sum(a == b for a, b in zip(found, expected, strict=True))
            keys = len(yaml.safe_load(file.read_text()))
            print(
                f"{tool:14} {name:28} {keys} keys accepted; {same} of {len(expected)} rows the same as TRL's",
                flush=True,
            )
            if same != len(expected):
                print("  first of theirs:", found[0], "\n  first of TRL's: ", expected[0])


if __name__ == "__main__":
    main()
