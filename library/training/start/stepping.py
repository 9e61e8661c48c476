"""What takes the steps of a run, made from its options."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from library.models.compiling import GraphSteps, captures_graphs
from library.options.model import ModelOptions
from library.options.training import TrainingOptions
from library.problems import UserError
from library.training.job import Job
from library.training.learner import Learner
from library.training.optimization.ema import make_average
from library.training.optimization.guard import Guard
from library.training.optimization.ledger import Ledger
from library.training.optimization.optimizers import make_optimizer
from library.training.optimization.rounding import RoundedOptimizer
from library.training.optimization.schedules import make_schedule
from library.training.optimization.self_tuning import is_schedule_free
from library.training.optimization.update import Update
from library.training.optimization.update_in_backward import make_update_in_backward
from library.training.pace.clock import make_clock
from library.training.sharding.whole import Weights
from library.training.stepper import Stepper


def make_stepper(job: Job, weights: Weights) -> Stepper:
    """What takes the steps of a run whose model is in its place. weights: how the processes hold it."""
    run, session, task = job.run, job.session, job.task
    # Every process has read the frozen weights, and not every way between processes takes float8.
    frozen = [name for name, parameter in task.named_parameters() if not parameter.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(task, frozen)
    bare = _make_optimizer(job, weights)
    if task.model.swap_plan.trains and is_schedule_free(bare):
        cause = f"does not work with {run.optimizer.optimizer_name}, which moves all weights between steps"
        raise UserError.of("--blocks_to_swap", cause, "choose another --optimizer_type")
    schedule = make_schedule(bare, run.schedule, job.plan.last_step)
    # The task is placed, and parts of it leave the device when they are done.
    prepared: nn.Module = task
    if weights.is_sharded:  # FSDP exchanges gradients, not DDP
        optimizer = session.accelerator.prepare(bare, device_placement=[False])
    else:
        prepared, optimizer = session.accelerator.prepare(task, bare, device_placement=[False, False])
    average = make_average(task, run.averaging, session, weights)
    weights.hold(bare, average.values if average is not None else [])
    update = _make_update(job, optimizer, weights)
    return Stepper(
        session=session,
        prepared=prepared,
        learner=Learner(task, optimizer, session.accelerator.scaler, average, update.ledger, weights),
        schedule=schedule,
        update=update,
        saved_activations=_saved_activations(run.training, session.device),
        clock=make_clock(session.device),
        done=job.plan.first_step,
        graph_steps=_graph_steps(run.model, task.model.denoiser, session.device),
    )


def _make_optimizer(job: Job, weights: Weights) -> torch.optim.Optimizer:
    """The optimizer of a run over what its task trains. With 16-bit weights it clips gradients by itself."""
    run, groups = job.run, weights.own_groups(job.task.param_groups())
    if not run.training.trains_in_16_bits:
        return make_optimizer(groups, run.optimizer)
    make = partial(make_optimizer, options=run.optimizer)
    return RoundedOptimizer(groups, make, seed=job.session.seed, max_grad_norm=run.training.max_grad_norm)


def _make_update(job: Job, optimizer: torch.optim.Optimizer, weights: Weights) -> Update:
    """What takes the optimizer's steps. Broken ones are counted on from the state. The task's weights are as
    they begin.
    """
    run, session, task = job.run, job.session, job.task
    bad_in_a_row = session.resumed.bad_steps if session.resumed else 0.0
    count = torch.tensor(bad_in_a_row, dtype=torch.float32, device=session.device)
    update = Update(
        session=session,
        optimizer=optimizer,
        guard=Guard(session, task, optimizer, run.training.max_bad_steps, count),
        ledger=Ledger(task.components(), job.plan.first_step, weights, task.model.masters),
        weights=weights,
        # Gradients of 16 bits are clipped by the optimizer, in float32.
        max_grad_norm=0.0 if run.training.trains_in_16_bits else run.training.max_grad_norm,
    )
    if not run.optimizer.steps_in_backward:
        return update
    swapped = task.model.swapped if task.model.swap_plan.trains else None
    return make_update_in_backward(update, run.optimizer, swapped)


def _graph_steps(options: ModelOptions, denoiser: nn.Module, device: torch.device) -> GraphSteps | None:
    """What tells CUDA graphs where steps begin; None where there are none."""
    backend, mode = options.dynamo_backend, options.torch_compile_mode
    captures = options.torch_compile and captures_graphs(backend, mode, device)
    return GraphSteps(denoiser) if captures else None


def _saved_activations(options: TrainingOptions, device: torch.device) -> AbstractContextManager[None]:
    """Context manager for the forward pass, to be entered anew for each batch. If asked, it offloads what the
    backward pass needs to the CPU.

    Checkpointed blocks keep no more than their inputs, so with --gradient_checkpointing it is little.
    """
    if not options.cpu_offload_checkpointing:
        return nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda")
