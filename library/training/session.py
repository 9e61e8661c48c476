"""A run on this machine: the accelerator, the seed, the precision, and the state that it resumes."""

from __future__ import annotations

import os
import platform
import random
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list

from library.console import say
from library.models import load_model
from library.models.base import Model
from library.models.embeddings import add_embeddings
from library.options.launched_sharding import USE_FSDP
from library.options.model import ModelOptions
from library.options.processes import ProcessOptions
from library.options.training import MixedPrecision, TrainingOptions
from library.problems import UserError, warn
from library.sharing import ALONE, Sharing
from library.training.position import StateInfo, read_state_info
from library.training.processes import check_environment, gpus

# Ways to shard weights across processes, as accelerate launch passes them on: --shard does it, in a way in
# which states can be resumed exactly.
SHARDING = ("DEEPSPEED", "MEGATRON_LM")
_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "float": torch.float32}


def dtype_of(precision: str | None) -> torch.dtype | None:
    """The torch type of a precision name ("no", "float", "fp16", "bf16"); None for None."""
    return None if precision is None else _DTYPES[precision]


@dataclass
class Session:
    """Where and how a run runs.

    seed: of all random draws, the same in all processes.
    resumed: position of the state that is resumed; None for a new run.
    swaps_blocks: whether blocks of the model come and go, so that it is read into main memory.
    """

    accelerator: Accelerator
    seed: int
    resumed: StateInfo | None
    swaps_blocks: bool = False
    _cpu_group: torch.distributed.ProcessGroup | None = None

    @classmethod
    def start(
        cls,
        options: TrainingOptions,
        processes: ProcessOptions,
        resume: Path | None,
        *,
        may_skip_parameters: bool = False,
    ) -> Session:
        """Start accelerate and agree on a seed. Raises UserError for a state folder that cannot be resumed,
        and for what this machine or several processes cannot do.

        may_skip_parameters: whether a step may leave trained parameters without a gradient (DDP has to know).
        """
        resumed = read_state_info(resume) if resume else None
        accelerator = make_accelerator(options.mixed_precision, processes, may_skip_parameters)
        if accelerator.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        seed = _agree_on_seed(options.seed, resumed)
        return cls(accelerator, seed, resumed, swaps_blocks=bool(options.blocks_to_swap))

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def frozen_dtype(self) -> torch.dtype:
        """The type of weights that are not trained."""
        return _DTYPES[self.accelerator.mixed_precision]

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def agrees_to_stop(self, requested: bool, step_closes: bool) -> bool:
        """Whether all processes stop here: a single one at once, several together at the end of a step.

        They agree over the CPU, so that no process waits for its device.
        """
        is_alone = self.accelerator.num_processes == 1
        return self.any_wants(requested) if step_closes or is_alone else False

    def any_wants(self, wanted: bool) -> bool:
        """Whether one of the processes, which all ask at this moment, wants something."""
        if self.accelerator.num_processes == 1:
            return wanted
        flag = torch.tensor([int(wanted)])
        torch.distributed.all_reduce(flag, group=self.cpu_group())
        return bool(flag)

    def sharing(self) -> Sharing:
        """How the processes share the work that comes before training."""
        accelerator = self.accelerator
        if accelerator.num_processes == 1:
            return ALONE
        return Sharing(accelerator.process_index, accelerator.num_processes, self._gather)

    def _gather(self, value: Any) -> list[Any]:
        """The value of every process, in their order. Waits for all of them."""
        found = [None] * self.accelerator.num_processes
        torch.distributed.all_gather_object(found, value, group=self.cpu_group())
        return found

    def cpu_group(self) -> torch.distributed.ProcessGroup:
        """The processes, as they exchange things over the CPU."""
        if self._cpu_group is None:
            # A week, as one process may cache for hours longer than another.
            self._cpu_group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
        return self._cpu_group

    def say(self, message: str) -> None:
        """Print a line on stdout, from the first process only."""
        if self.is_main:
            say(message)


def versions(device: torch.device) -> str:
    """What a bug report should name: Python, libraries, device."""
    libraries = ("torch", "accelerate", "diffusers", "transformers", "safetensors")
    found = [f"Python {platform.python_version()} on {platform.system()}"]
    found += [f"{name} {version(name)}" for name in libraries]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return ", ".join([*found, f"{device.type} {card}"])


def make_accelerator(
    mixed_precision: MixedPrecision, processes: ProcessOptions, may_skip_parameters: bool
) -> Accelerator:
    """The run's accelerator; its arguments are those of `Session.start`. Raises UserError for a configuration
    that does not work here.
    """
    for name in SHARDING:
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true":
            fix = "start it with plain accelerate launch (--multi_gpu), and give --shard full to the trainer"
            raise UserError.of("accelerate's configuration", f"asks for {name}, which is not supported", fix)
    os.environ.pop(USE_FSDP, None)  # which is --shard: accelerate would wrap the task itself
    if processes.ddp_static_graph and may_skip_parameters:
        cause = "does not hold with --stop_text_encoder_training: what is trained changes"
        raise UserError.of("--ddp_static_graph", cause, "leave one of them out")
    ddp = DistributedDataParallelKwargs(
        broadcast_buffers=False,  # buffers are constants here
        find_unused_parameters=may_skip_parameters,
        gradient_as_bucket_view=processes.ddp_gradient_as_bucket_view,
        static_graph=processes.ddp_static_graph,
    )
    asked = check_environment()
    minutes = processes.ddp_timeout
    group = InitProcessGroupKwargs(timeout=timedelta(minutes=minutes) if minutes else None)
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        cpu=asked > 1 and gpus() == 0,  # else accelerate looks for GPUs, and lets each process train alone
        dynamo_backend="no",  # --torch_compile compiles block by block, whatever accelerate was told
        kwargs_handlers=[ddp, group],
    )
    if accelerator.num_processes != asked:
        cause = f"says {asked} processes, but accelerate knows {accelerator.num_processes}"
        raise UserError.of("WORLD_SIZE", cause, "start them as docs/many_devices.md shows")
    accelerator.gradient_accumulation_steps = 1  # whatever accelerate was told: the loop divides the loss
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError.of("--mixed_precision fp16", "needs a GPU", "use bf16 or no")
    if accelerator.num_processes == 1:
        for name in processes.given:
            warn(f"--{name} has no effect with one process")
    return accelerator


def _agree_on_seed(asked: int | None, resumed: StateInfo | None) -> int:
    """The state's seed when resuming, else the one asked for, else a random one; equal in all processes."""
    if resumed is not None:
        if asked not in (None, resumed.seed):
            raise UserError.of(
                "--seed",
                f"is {asked}, but the state was made with {resumed.seed}",
                "leave it out to go on exactly",
            )
        return resumed.seed
    seeds = [random.SystemRandom().randrange(2**31) if asked is None else asked]
    return broadcast_object_list(seeds)[0]


def open_model(options: ModelOptions, session: Session, *, keeps_others: bool = False) -> Model:
    """The run's model in the precision of its file; on the CPU, or with --lowram on the run's device at once.

    keeps_others: as for `load_model`.
    Raises UserError when it cannot be used.
    """
    model = load_model(
        options.pretrained_model_name_or_path,
        vae=options.vae,
        dtype="stored",
        device=session.device if options.lowram and not session.swaps_blocks else "cpu",
        v_parameterization=options.v_parameterization,
        keeps_others=keeps_others,
    )
    model.check_clip_skip(options.clip_skip)
    add_embeddings(model, options.embeddings)
    if options.train_inpainting and not model.is_inpainting:
        model.make_inpainting()
        session.say(
            f"{options.pretrained_model_name_or_path} becomes an inpainting model: its first layer gets "
            "weights of 0 for the mask and the rest of the picture"
        )
    elif model.is_inpainting and not options.train_inpainting:
        session.say(f"{options.pretrained_model_name_or_path} is an inpainting model and is trained as one")
    return model
