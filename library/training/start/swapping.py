"""--blocks_to_swap: which of the model's blocks come and go."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from library.models.swapping.plan import plan_swap
from library.problems import Problem, UserError, warn
from library.training.job import Job
from library.training.memory.estimate import Memory
from library.training.memory.forecast import device_memory, largest_batch, run_memory, with_swapping

# The planner does not count what libraries take for themselves, nor gaps between tensors.
ROOM = 0.85  # of the memory that is free


def plan_swapping(job: Job) -> None:
    """Choose the blocks that come and go, after a line about them, and have activations recomputed. The model
    is otherwise set up, and not yet in its place.

    Raises UserError where it does not work with what is trained.
    """
    asked = job.run.training.blocks_to_swap
    if not asked:
        return
    model = job.task.model
    blocks = model.transformer_blocks()
    if plan_swap(blocks, len(blocks)).trains:
        _check_trained(job)
    count, why = _fewest(job, blocks) if asked == "auto" else (asked, "")
    if count is None:
        job.session.say(f"all {len(blocks)} transformer blocks stay on the {job.session.device.type}{why}")
        return
    model.swap_plan = plan_swap(blocks, count)
    # Without it, gradients of blocks that come and go would be wrong.
    job.task.use_gradient_checkpointing(True)
    how_many = f"{count} of {len(blocks)}" if count < len(blocks) else f"all {len(blocks)}"
    more = f" (there are no {count})" if count > len(blocks) else ""
    is_on = job.run.training.gradient_checkpointing
    checkpointing = "" if is_on else "; --gradient_checkpointing is turned on"
    size = model.swap_plan.main_bytes() / 2**20
    job.session.say(
        f"{how_many} transformer blocks{more} come and go, {size:,.0f} MB in main memory{why}{checkpointing}"
    )


def _check_trained(job: Job) -> None:
    """Raises UserError for what does not work with blocks that come and go and are trained."""
    run, problems = job.run, []
    if not run.optimizer.fused_backward_pass:
        cause = "needs --fused_backward_pass where the U-Net is trained: a block is stepped while it is there"
        problems.append(Problem("--blocks_to_swap", cause, "give both"))
    if run.averaging.use_ema and job.session.device.type == "cuda" and run.averaging.ema_device != "cpu":
        cause = "needs --ema_device cpu with --use_ema where the U-Net is trained"
        problems.append(Problem("--blocks_to_swap", cause, "give both"))
    if problems:
        raise UserError(problems)


def _fewest(job: Job, blocks: Sequence[nn.Module]) -> tuple[int | None, str]:
    """The smallest number of blocks that may come and go for the run to fit into the device's free memory,
    and why; None: none need to, and nothing else has to change.
    """
    free, _ = device_memory(job.session.device)
    room = ROOM * free
    try:
        batch = largest_batch(job)
        memory = run_memory(job.task, job.run, job.session, batch)
        if _most(memory) <= room:
            return None, _beside(memory, free)
        if not job.run.training.gradient_checkpointing:
            job.task.use_gradient_checkpointing(True)
            memory = run_memory(job.task, job.run, job.session, batch)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        warn(f"--blocks_to_swap auto: the memory of this run cannot be told ({reason}): all blocks are taken")
        return len(blocks), ""
    for count in range(len(blocks) + 1):
        found = with_swapping(memory, plan_swap(blocks, count))
        if _most(found) <= room:
            return count, _beside(found, free)
    warn(f"--blocks_to_swap auto: even with all blocks the run may not fit{_beside(found, free)}")
    return len(blocks), ""


def _most(memory: Memory) -> int:
    """The most bytes of the run: in a step, or while caches are filled."""
    return max(memory.peak, memory.weights + memory.caching)


def _beside(memory: Memory, free: int) -> str:
    return f": the run needs about {_most(memory) / 2**30:.2f} GB, {free / 2**30:.2f} GB are free"
