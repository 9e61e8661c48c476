"""Pictures with regions while they are drawn: each part of the prompt is looked at, and each network counts,
where its mask says.

A picture has one row for its prompt, with the texts of all parts behind one another. Cross-attention attends
to each of them by itself, and the results are mixed by the masks in the layer's size (as in Omost's and
MultiDiffusion's regional attention, on features instead of predictions). Of a network

* text encoders count for the text of its part alone,
* keys and values of cross-attention for the tokens of its part alone, not for the negative prompt,
* other layers by the mask, in the size of what they give; where that has no places (embeddings of the time
  and of sizes), all networks count equally, together as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import Transformer2DModel
from torch import Tensor, nn

from library.generation.editing import sub_prompts
from library.generation.regions import masks_of
from library.generation.request import PromptRequest
from library.generation.texts import PartText
from library.models.condition import Condition
from library.models.plain_attention import PlainAttention
from library.network.module import NetworkModule
from library.network.network import Network

_TOKENS = (".attn2.to_k", ".attn2.to_v")  # layers that are given text states
Size = tuple[int, int]


class Regional:
    """The regions of a batch of pictures with one mask and equally many parts.

    masks: (parts, height, width) in 0..1.
    weights: of the parts in what cross-attention gives, as the prompt has them behind its parts.
    pictures: how many there are.
    networks: how many count by regions.
    """

    def __init__(self, masks: Tensor, weights: Sequence[float], pictures: int, networks: int) -> None:
        self.masks, self.pictures, self.networks = masks, pictures, networks
        self.weights = torch.tensor(weights, device=masks.device).view(-1, 1, 1)
        self._part: int | None = None  # whose text is encoded
        self._size: Size | None = None  # of the features that the layers of a transformer are given
        self._kept: dict[tuple[object, ...], Tensor] = {}

    @property
    def parts(self) -> int:
        return len(self.masks)

    def encoded(self, texts: Sequence[PartText], encode: Callable[[list[str]], Condition]) -> Condition:
        """The texts' states, each with the networks of its own part."""
        places: dict[int | None, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(text.part, []).append(place)
        found = []
        for part, own in places.items():
            self._part = part
            found.append(encode([texts[place].text for place in own]))
        order = [place for own in places.values() for place in own]
        return Condition.joined(found).rows([order.index(place) for place in range(len(texts))])

    def set_size(self, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """What a transformer is told before each call."""
        features = inputs[0] if inputs else named["hidden_states"]
        self._size = (features.shape[2], features.shape[3])

    def mixed(self, by_part: Sequence[Tensor]) -> Tensor:
        """What cross-attention gives: of each part (rows, heads, places, width) -> the same shape."""
        shares = self._kept_as(("shares", self._size), self._shares).to(by_part[0])
        return torch.stack([share * one for share, one in zip(shares, by_part, strict=True)]).sum(0)

    def _shares(self) -> Tensor:
        """How much of each part is looked at, (parts, places, 1); they add up to 1 at every place."""
        assert self._size is not None
        asked = _resized(self.masks, self._size) * self.weights
        total = asked.sum(0, keepdim=True)
        return torch.where(total > 1e-4, asked / total.clamp_min(1e-4), 1 / self.parts).flatten(1)[..., None]

    def of_text(self, parts: frozenset[int], out: Tensor) -> Tensor:
        """How strongly a network of these parts counts in a text encoder."""
        return out.new_full((), float(self._part in parts))

    def of_tokens(self, parts: frozenset[int], out: Tensor) -> Tensor:
        """The same at every token, (rows, tokens, 1). The last rows are those of the prompts."""
        length = out.shape[1] // self.parts
        factors = out.new_zeros(*out.shape[:2], 1)
        for part in parts:
            factors[-self.pictures :, part * length : (part + 1) * length] = 1
        return factors

    def of_places(self, parts: frozenset[int], out: Tensor) -> Tensor:
        """The same at every place of features (rows, channels, h, w) or (rows, places, width)."""
        if out.ndim == 4:
            return self._mask(parts, (out.shape[2], out.shape[3]), out)[None, None]
        if out.ndim == 3 and self._size is not None and out.shape[1] == self._size[0] * self._size[1]:
            return self._mask(parts, self._size, out).view(1, -1, 1)
        return out.new_full((), 1 / self.networks)

    def _mask(self, parts: frozenset[int], size: Size, like: Tensor) -> Tensor:
        masks = self.masks[sorted(parts)].sum(0, keepdim=True).clamp(max=1)
        return self._kept_as((parts, size), partial(_resized, masks, size))[0].to(like)

    def _kept_as(self, key: tuple[object, ...], make: Callable[[], Tensor]) -> Tensor:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@contextmanager
def regions_of(
    batch: Sequence[PromptRequest],
    networks: Mapping[Network, frozenset[int]],
    modules: Sequence[Any],
    device: torch.device,
) -> Iterator[Regional | None]:
    """Inside it, pictures are drawn with the regions of the batch; None: it has none.

    networks: the parts that each belongs to.
    modules: the U-Net, and ControlNets beside it.
    """
    regions = batch[0].regions
    if regions is None:
        yield None
        return
    parts = sub_prompts(batch[0].prompt)
    masks = torch.from_numpy(masks_of(regions, len(parts))).to(device)
    regional = Regional(masks, [weight for _, weight in parts], len(batch), max(1, len(networks)))
    with ExitStack() as undo:
        for module in modules:
            undo.callback(module.set_attn_processor, module.attn_processors)
            module.set_attn_processor(_processors(module, regional))
            for layer in module.modules():
                if isinstance(layer, Transformer2DModel):
                    hook = layer.register_forward_pre_hook(regional.set_size, with_kwargs=True)
                    undo.callback(hook.remove)
        for network, own in networks.items():
            for one in network.by_name.values():
                undo.callback(setattr, one, "region", one.region)
                one.region = partial(_function(regional, one), own)
        yield regional


class _RegionalAttention(PlainAttention):
    """Cross-attention to the texts of all parts."""

    def __init__(self, attention: Any, regional: Regional) -> None:
        super().__init__(attention)
        self._regional = regional

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        count = self._regional.parts
        masks = [None] * count if mask is None else mask.chunk(count, -1)
        return self._regional.mixed(
            [
                F.scaled_dot_product_attention(q, own_k, own_v, own_mask)
                for own_k, own_v, own_mask in zip(k.chunk(count, 2), v.chunk(count, 2), masks, strict=True)
            ]
        )


def _processors(module: Any, regional: Regional) -> dict[str, Any]:
    return {
        name: _RegionalAttention(layer, regional) if layer.is_cross_attention else processor
        for name, processor in module.attn_processors.items()
        for layer in [module.get_submodule(name.removesuffix(".processor"))]
    }


def _function(regional: Regional, module: NetworkModule) -> Callable[[frozenset[int], Tensor], Tensor]:
    if module.part == "te":
        return regional.of_text
    paths = (module.points[0].path, module.points[0].other_path or "")
    return regional.of_tokens if any(path.endswith(_TOKENS) for path in paths) else regional.of_places


def _resized(masks: Tensor, size: Size) -> Tensor:
    """(n, height, width) -> (n, *size), each place the mean of what it covers, by bilinear weights."""
    return F.interpolate(masks[None], size, mode="bilinear", antialias=True)[0]
