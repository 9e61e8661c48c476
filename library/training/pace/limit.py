"""Keeps a run within its card where the system would lend it main memory: what does not fit is then an error
that says so, instead of a night that takes a week.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from library.training.pace.shared_memory import lends_main_memory

if TYPE_CHECKING:
    import torch

# Left to Windows and to what CUDA takes beside torch's allocator, which alone is limited (pytorch#58466).
MARGIN, MARGIN_OF_LARGE = 600 * 2**20, 700 * 2**20
LARGE = 15 * 2**30  # bytes of a card


def limit_memory(device: torch.device, allow_shared_memory: bool) -> float | None:
    """Limit what torch takes of a card to what is free on it now, where the system lends main memory. Returns
    the share of the card; None without a limit.
    """
    if device.type != "cuda" or allow_shared_memory or not lends_main_memory():
        return None
    import torch

    free, total = torch.cuda.mem_get_info(device)
    share = share_of_card(free + torch.cuda.memory_reserved(device), total)
    torch.cuda.set_per_process_memory_fraction(share, device)
    return share


def share_of_card(free: int, total: int) -> float:
    """The part of a card, 0 to 1, that a run may take. free: bytes that are free or its own already, beside
    what CUDA keeps for itself.
    """
    margin = MARGIN_OF_LARGE if total > LARGE else MARGIN
    return max(0.0, (free - margin) / total)
