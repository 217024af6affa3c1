"""DeepSpeed's ZeRO through accelerate: gradients, optimizer and (stage 3) weights sharded over processes."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import deepspeed
import torch
from accelerate import PartialState
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from transformers.integrations import HfDeepSpeedConfig

from sweeper.config.backend import DeepSpeed
from sweeper.training.backends.base import TrainingBackend
from sweeper.training.ranks import Ranks


class DeepSpeedBackend(TrainingBackend):
    """One rank of a trial under ZeRO, within an existing process group."""

    keeps = False

    def __init__(self, config: DeepSpeed, ranks: Ranks, device: str, dtype: torch.dtype, batch_size: int) -> None:
        super().__init__(ranks=ranks)
        self._deepspeed = config
        self._settings = settings(config, dtype, batch_size, ranks.size)
        # Accelerate takes a run on the CPU for plain data-parallel training unless the state is made here, by hand.
        os.environ |= {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "RANK": str(ranks.rank),
            "LOCAL_RANK": str(ranks.rank),
            "WORLD_SIZE": str(ranks.size),
        }
        if device == "cpu":
            # Shared memory in place of gloo: its kernel would be compiled first, which takes a minute and a compiler.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        PartialState(backend="gloo" if device == "cpu" else "nccl")
        # As long as it exists, transformers shards the weights as it loads them.
        self._loading = HfDeepSpeedConfig(self._settings) if config.stage == 3 else None

    def load_arguments(self, device: str) -> dict[str, Any]:
        """Return where the weights go; stage 3 places them itself."""
        return {} if self._deepspeed.stage == 3 else super().load_arguments(device)

    def arguments(self) -> dict[str, Any]:
        """Return the fields of TRL's configuration that switch ZeRO on, for one more trainer.

        A trial has two, one of which only prepares the rows, and accelerate takes settings once.
        """
        AcceleratorState._reset_state(reset_partial_state=False)
        return {
            "deepspeed": self._settings,
            "accelerator_config": {"use_configured_state": True},
            "average_tokens_across_devices": False,  # the trainer gets the tokens of all ranks already
            "use_cpu": False,  # with it, the configuration above is silently ignored
        }

    def prepare(self, trainer: Any) -> None:
        """Give every rank the whole batches, which the ranks share out themselves, and the model one type of numbers.

        ZeRO keeps what it updates in float32 itself, and stage 3 gathers weights of one type only (TRL attaches its
        adapters in the base's type for the same reason: github.com/deepspeedai/DeepSpeed/issues/8072).
        """
        for parameter in trainer.model.parameters():
            if parameter.requires_grad and (trainer.args.bf16 or trainer.args.fp16):
                parameter.data = parameter.data.to(torch.bfloat16 if trainer.args.bf16 else torch.float16)
        accelerator = trainer.accelerator
        accelerator.prepare_data_loader = partial(
            _whole_batches, device=accelerator.device, data_seed=accelerator.dataloader_config.data_seed
        )


def _whole_batches(
    loader: torch.utils.data.DataLoader[Any], *, device: torch.device, data_seed: int | None, **_: Any
) -> torch.utils.data.DataLoader[Any]:
    """Return a loader that does on every rank what accelerate's does where there is one: the same order of rows."""
    prepared = prepare_data_loader(
        loader, device, num_processes=1, process_index=0, use_seedable_sampler=True, data_seed=data_seed
    )
    assert isinstance(prepared, torch.utils.data.DataLoader)
    return prepared


def settings(config: DeepSpeed, dtype: torch.dtype, batch_size: int, processes: int) -> dict[str, Any]:
    """Return DeepSpeed's own configuration; ``auto`` is filled in from TRL's."""
    zero: dict[str, Any] = {"stage": config.stage}
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload == "parameters":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # the trial's own, and not DeepSpeed's
        "zero_force_ds_cpu_optimizer": False,
        # Bookkeeping only: sweeper splits the batch itself, and tells DeepSpeed which backward pass is the last.
        "train_micro_batch_size_per_gpu": batch_size,
        "gradient_accumulation_steps": 1,
        "train_batch_size": batch_size * processes,
        "gradient_clipping": "auto",
        "bf16": {"enabled": dtype is torch.bfloat16},  # said, for weights are loaded before TRL could fill it in
        "fp16": {"enabled": dtype is torch.float16},
    }
