"""Shares come together in the first process, one weight at a time, when that process asks for them.

A result or state is written by the first process alone, by the code that writes it in every run; the others
serve it meanwhile: they wait to be asked for a weight. So nothing has to be agreed on while something is
written, and a full disk ends it like anywhere else. Weights travel over the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from library.models.deferred import Deferred
from library.training.session import Session
from library.training.sharding.shares import Share, rows_each
from library.training.sharding.whole import AsResult

Name = tuple[str | int, ...]  # of a tensor that is shared out like a weight: what it is, of which weight
# What each process has of it.
Lookup = Callable[[Name], tuple[Share, Tensor]]

DONE, FAILED, ENTER, LEAVE = "done", "failed", "enter", "leave"


class PeerFailed(SystemExit):
    """The first process could not go on; it says why."""


class Gathering:
    """Brings shares together. lookup: the weight of a name, and this process's rows of what is asked for."""

    def __init__(self, session: Session, lookup: Lookup) -> None:
        self.session, self.lookup = session, lookup
        self.group, self.is_open = session.cpu_group(), False

    @contextmanager
    def open(self, as_result: AsResult) -> Iterator[bool]:
        """Context manager, entered by all processes: True in the first one, where `deferred` tensors can be
        computed inside it; False in the others, which begin it once the first has ended it.

        as_result: what the others enter while the first one is in `everywhere`.
        Raises PeerFailed in the others when the first one raised something.
        """
        if not self.session.is_main:
            self._serve(as_result, until=DONE)
            yield False
            return
        outcome, self.is_open = FAILED, True
        try:
            yield True
            outcome = DONE
        finally:
            self.is_open = False
            self._send(outcome)

    @contextmanager
    def everywhere(self, as_result: AsResult) -> Iterator[None]:
        """`as_result` in this process, and while the others serve it in them too."""
        if not self.is_open:
            with as_result():
                yield
            return
        self._send(ENTER)
        try:
            with as_result():
                yield
        finally:
            self._send(LEAVE)

    def deferred(self, name: Name, share: Share, like: Tensor, **more: Any) -> Deferred:
        """The whole tensor of a name. like: this process's rows of it."""
        outline = torch.empty(share.shape, dtype=like.dtype, device="meta")
        return Deferred(outline, lambda: self._ask(name), **more)

    def _ask(self, name: Name) -> Tensor:
        self._send(name)
        whole = self._gather(name)
        assert whole is not None
        return whole

    def _serve(self, as_result: AsResult, *, until: str) -> None:
        while (asked := self._receive()) != until:
            if asked == FAILED:
                raise PeerFailed(2)
            if asked == ENTER:
                with as_result():
                    self._serve(as_result, until=LEAVE)
            else:
                self._gather(asked)

    def _gather(self, name: Name) -> Tensor | None:
        """The whole tensor in the first process, on the CPU; None in the others."""
        share, own = self.lookup(name)
        processes = self.session.accelerator.num_processes
        each = rows_each(share.shape, processes)
        piece = torch.zeros((each, *share.shape[1:]), dtype=own.dtype)  # all of one size
        piece[: len(own)] = own.detach().cpu()
        if not self.session.is_main:
            distributed.gather(_bytes(piece), dst=0, group=self.group)
            return None
        whole = torch.empty((processes * each, *share.shape[1:]), dtype=own.dtype)
        distributed.gather(_bytes(piece), list(_bytes(whole).chunk(processes)), dst=0, group=self.group)
        return whole[: share.shape[0]]

    def _send(self, message: Any) -> None:
        distributed.broadcast_object_list([message], src=0, group=self.group)

    def _receive(self) -> Any:
        messages: list[Any] = [None]
        distributed.broadcast_object_list(messages, src=0, group=self.group)
        return messages[0]


def _bytes(tensor: Tensor) -> Tensor:
    """gloo knows no types of 16 bits on some systems."""
    return tensor.view(-1).view(torch.uint8)
