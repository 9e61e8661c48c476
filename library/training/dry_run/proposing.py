"""Proposals for a run: on the page of --dry_run, and when a run ends for lack of memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from library.console import activity
from library.data.batch import Batch
from library.training.dry_run.page import gigabytes, section
from library.training.dry_run.proposals import Choices, Proposal, propose, room_in
from library.training.job import Job
from library.training.memory.forecast import device_memory
from library.training.pace.work import Speeds, measured_speeds
from library.training.run import TrainingRun
from library.training.session import Session
from library.wording import columns

GB = 2**30
LEAST_SAVING = 0.9  # of the peak of a run that did not fit although the estimate says it does


@dataclass(frozen=True)
class Offer:
    """What a run is offered for a card.

    card: its bytes.
    proposal: None where no options help.
    speeds: by which times were estimated.
    """

    card: int
    proposal: Proposal | None
    speeds: Speeds


def offer(job: Job, batch: Batch, *, did_not_fit: bool = False) -> Offer:
    """The options for the card that is assumed or at hand, for a run whose largest batch is `batch`. The task
    stays unchanged.

    did_not_fit: a step was tried there, so what is proposed must take less than the estimate of the run.
    Raises RuntimeError (or a kind of it), NotImplementedError or TypeError where it cannot be estimated.
    """
    run, session = job.run, job.session
    options = run.training
    card = (
        device_memory(session.device)[1] if options.assume_vram is None else round(options.assume_vram * GB)
    )
    is_gpu = session.device.type == "cuda" or options.assume_vram is not None
    stays = run.preview.sample_prompts is not None or session.accelerator.num_processes > 1
    speeds = _speeds(run, session)
    choices = Choices(
        job.task,
        run,
        session,
        batch,
        speeds,
        leaves=is_gpu and not stays,
        could_cache=job.batches.could_be_cached(),
    )
    with activity("looking for options that fit"):
        room = room_in(card)
        if did_not_fit:
            room = min(room, round(LEAST_SAVING * choices.figures(())[0]))
        return Offer(card, propose(choices, room), speeds)


def _speeds(run: TrainingRun, session: Session) -> Speeds:
    tflops, gb_s = run.training.assume_tflops, run.training.assume_gb_s
    if tflops is not None and gb_s is not None:
        return Speeds(tflops, gb_s)
    measured = measured_speeds(session.device)
    return replace(measured, tflops=tflops or measured.tflops, gb_s=gb_s or measured.gb_s)


def about_offer(found: Offer) -> list[str]:
    """What is proposed, an option a line, with what each changes beside those above it."""
    card, speeds, proposal = gigabytes(found.card), found.speeds, found.proposal
    at = f"by {speeds.tflops:.3g} TFLOPS and {speeds.gb_s:.3g} GB/s"
    if proposal is None:
        lines = [f"no options of these make it fit in {card}: a smaller --resolution or network might"]
    elif not proposal.prices:
        lines = [f"fits in {card} as it is, and no option would be faster ({at})"]
    else:
        time = f"{proposal.seconds / proposal.before:.2g}x the time of a step"
        lines = [f"fits in {card} with these, {gigabytes(proposal.peak)} and {time} ({at}, as estimated)"]
        rows = [(f"  {one.option}", _memory(one.saved), f"{one.time:.2g}x time") for one in proposal.prices]
        lines += columns(rows, right=(1, 2))
    return section("proposal", lines)


def in_a_line(proposal: Proposal) -> str:
    """`--a (-1.2 GB, 0.9x time), --b (-3.1 GB, 1.4x time)`."""
    return ", ".join(f"{one.option} ({_memory(one.saved)}, {one.time:.2g}x time)" for one in proposal.prices)


def _memory(saved: int) -> str:
    return f"{'-' if saved >= 0 else '+'}{gigabytes(abs(saved))}"
