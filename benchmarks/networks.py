"""What each kind of network costs in a step, against LyCORIS' module of the kind and PEFT's LoRA, in turns.

  python benchmarks/networks.py            every kind
  python benchmarks/networks.py loha oft   some

Forward and backward of a U-Net with the widths of SD 1.x and two levels, linear layers only, float32. A JSON
line for each: seconds as a ratio to the other program's, operators (views and allocations do not count), and
the most bytes of tensors that are alive at once beside the model, which no allocator blurs.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from benchmarks.measuring import in_turns, say, seconds  # noqa: E402

SIDE = 32  # of the latents
RANK = 16
PEFT_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
# A kind -> its --network_args and --network_dim, and LyCORIS' arguments for the same.
KINDS: dict[str, tuple[dict[str, str], int | None, dict[str, str] | None]] = {
    "lora": ({}, RANK, {"algo": "lora"}),
    "lora_fa": ({}, RANK, None),
    "dylora": ({"unit": "4"}, RANK, {"algo": "dylora"}),
    "dora": ({"dora_wd": "true"}, RANK, {"algo": "lora", "dora_wd": "True", "wd_on_output": "False"}),
    "loha": ({}, RANK, {"algo": "loha"}),
    "lokr": ({"factor": "8"}, RANK, {"algo": "lokr", "factor": "8"}),
    "oft": ({"enable_all_linear": "true"}, 20, None),
    "diag_oft": ({}, RANK, {"algo": "diag-oft"}),
    "lycoris_boft": ({}, RANK, {"algo": "boft"}),
    "oft_v2": ({}, RANK, None),
    "boft": ({}, 8, None),
    "ia3": ({}, None, {"algo": "ia3"}),
    "glora": ({}, RANK, {"algo": "glora"}),
}


def main(_: Path | None = None, *chosen: str) -> None:
    for name in chosen or KINDS:
        ours = _step_with(_ours(name))
        others = {"LyCORIS": _lycoris(name)}
        if name == "lora":
            others["PEFT"] = _peft
        for program, make in others.items():
            theirs = None if make is None else _step_with(make)
            ratio = None if theirs is None else in_turns(lambda: seconds(ours), lambda: seconds(theirs))[0]  # noqa: B023
            say(
                "networks",
                kind=name,
                operators=_operators(ours),
                peak_mb=_peak(ours) / 2**20,
                against=None if theirs is None else program,
                seconds_ratio=ratio,
                their_operators=None if theirs is None else _operators(theirs),
                their_peak_mb=None if theirs is None else _peak(theirs) / 2**20,
            )


def _step_with(add: Callable[[Any], object]) -> Callable[[], None]:
    """Forward and backward of a model that a network is added to. add: adds it."""
    model = _model()
    kept = add(model)
    text = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(1))
    x = torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    model.denoiser.train()

    def step() -> None:
        out = model.denoiser(x, torch.tensor([300]), text, return_dict=False)[0]
        out.square().mean().backward()
        for parameter in kept.parameters() if isinstance(kept, torch.nn.Module) else ():
            parameter.grad = None

    step()
    return step


def _model() -> Any:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from full_size import TEXTS, text_encoder

    from library.models import FAMILIES

    kind, layout = importlib.import_module(FAMILIES["sd1"].module).MODELS["sd1"]
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(320, 640),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=768,
    )
    part = next(part for part in layout.parts.values() if part.is_text_encoder)
    narrow = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    texts = [text_encoder(part, TEXTS["sd1"][0] | narrow)]
    return kind(unet, texts, vae, layout=layout).requires_grad_(False)


def _ours(name: str) -> Callable[[Any], object]:
    arguments, dim, _ = KINDS[name]

    def add(model: Any) -> object:
        kind = importlib.import_module(f"networks.{'lora' if name == 'dora' else name}")
        asked = {"dim": dim, "alpha": None, "dropout": None, "parts": ("unet",), "seed": 1}
        return _attached(kind.create(model, **asked, arguments=arguments))

    return add


def _lycoris(name: str) -> Callable[[Any], object] | None:
    arguments = KINDS[name][2]
    if arguments is None:
        return None
    from library.network.loading import load_network_module

    def add(model: Any) -> object:
        asked = {"dim": RANK, "alpha": RANK, "dropout": None, "parts": ("unet",), "seed": 1}
        factory = load_network_module("lycoris.kohya")
        return _attached(factory.create(model, **asked, arguments=arguments | {"preset": "attn-mlp"}))

    return add


def _attached(network: Any) -> object:
    network.train().attach()
    network.param_groups({"unet": 1e-4})  # LyCORIS turns gradients on there
    return network


def _peft(model: Any) -> object:
    from peft import LoraConfig, inject_adapter_in_model

    # Not diffusers' own `add_adapter`: it is told that there is no peft (see unused_packages.py).
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=PEFT_LAYERS), model.denoiser)
    return torch.nn.ParameterList([one for one in model.denoiser.parameters() if one.requires_grad])


def _operators(step: Callable[[], None]) -> int:
    from operator_counts import CountOperators

    with CountOperators() as counting:
        step()
    return counting.found.total


class _Alive(TorchDispatchMode):
    """Context manager; inside it the bytes of tensors that are made and still alive are followed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        found = func(*given, **(named or {}))
        for tensor in [] if func.is_view else torch.utils._pytree.tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return found

    def _follow(self, storage: Any) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if not place or place in self._known:
            return
        self._known.add(place)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def _peak(step: Callable[[], None]) -> int:
    with _Alive() as alive:
        step()
    return alive.most


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(None, *sys.argv[1:])
