"""What a run that ends for lack of memory says: the options that would make it fit."""

from __future__ import annotations

import torch

from library.faults import reason_of
from library.problems import UserError
from library.training.dry_run.proposing import in_a_line, offer
from library.training.job import Job
from library.training.memory.forecast import largest_batch

WITHOUT = "use a smaller batch or resolution (--dry_run proposes options)"


def lacks_memory(job: Job, error: BaseException) -> UserError:
    """The error to show for one of a device without memory. Nothing of the run is needed any more."""
    device = job.session.device
    cause = reason_of(error)
    if "allowed;" in cause:  # torch's word where the allocator is limited
        cause = f"{cause} (--allow_shared_memory lets it go on in main memory, many times slower)"
    return UserError.of(f"memory of the {device.type}", cause, _fix(job))


def _fix(job: Job) -> str:
    if job.session.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        found = offer(job, largest_batch(job), did_not_fit=True)
    except Exception:  # it is about an error already, and this is only advice
        return WITHOUT
    if found.proposal is None or not found.proposal.prices:
        return WITHOUT
    return f"as estimated, it fits with {in_a_line(found.proposal)}"
