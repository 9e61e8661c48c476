"""Moving averages: their formula, where they are kept, what uses them, and where they start."""

from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from safetensors.torch import load_file, save_file
from torch import nn

from library.problems import UserError
from library.training.optimization.ema import Average

CPU = torch.device("cpu")


def test_each_step_moves_the_average_by_its_share() -> None:
    weight = nn.Parameter(torch.tensor([0.0, 10.0]))
    average = Average(nn.ParameterList([weight]), [weight], 0.5, CPU)
    weight.data = torch.tensor([4.0, 10.0])
    average.update()  # (1 + 1) / (10 + 1) is below 0.5
    assert average.values[0].tolist() == pytest.approx([4 * 9 / 11, 10.0])
    average.updates, average.values[0] = 1000, torch.tensor([4.0, 10.0])
    weight.data = torch.tensor([8.0, 0.0])
    average.update()
    assert average.values[0].tolist() == [6.0, 5.0]


def test_inside_shown_the_parameters_are_the_averages_and_afterwards_themselves() -> None:
    module = nn.ParameterList(torch.ones(2, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    weights = list(module)
    average = Average(module, weights, 0.9, CPU)
    average.values = [torch.full((2,), 3.0), torch.full((2,), 5.0)]
    with average.in_place():
        assert [weight.tolist() for weight in module] == [[3, 3], [5, 5]]
        assert module[0].data_ptr() == average.values[0].data_ptr()
        assert [weight.dtype for weight in module] == [torch.float32, torch.bfloat16]
        assert all(weight.requires_grad for weight in module)
    with average.in_place(torch.float16):
        assert [weight.dtype for weight in module] == [torch.float16] * 2
    with pytest.raises(RuntimeError), average.in_place():
        raise RuntimeError("a preview breaks")
    assert all(weight is other for weight, other in zip(module, weights, strict=True))
    assert [weight.tolist() for weight in module] == [[1, 1], [1, 1]]


def test_hooks_on_gradients_stay_when_averages_of_another_type_are_shown() -> None:
    """DDP hooks nodes that accumulate gradients, which torch makes anew for data of another type."""
    module = nn.ParameterList([torch.ones(2)])
    node = module[0].expand_as(module[0]).grad_fn.next_functions[0][0]
    calls = []
    node.register_hook(lambda *_: calls.append(1))
    with Average(module, list(module), 0.9, CPU).in_place(torch.float16):
        pass
    module[0].sum().backward()
    assert calls == [1]


def test_averages_of_16_bit_weights_keep_what_16_bits_would_lose() -> None:
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    average = Average(nn.ParameterList([weight]), [weight], 0.9999, CPU)
    average.updates = 10**9
    weight.data = torch.full((1,), 2.0, dtype=torch.bfloat16)
    average.update()
    assert average.values[0].item() == pytest.approx(1.0001, abs=1e-7)


def test_results_have_more_of_an_average_than_16_bit_weights_do(
    tiny_model_file: Path, tmp_path: Path
) -> None:
    """--full_bf16 trains bfloat16 weights; a float32 result is the float32 average itself."""
    sixteen = ("--full_bf16", "--mixed_precision", "bf16", "--save_precision", "float")
    words = ("--use_ema", "--use_safetensors", "--save_state_on_train_end", "--max_train_steps", 2, *sixteen)
    run_here("fine_tune.py", *options(tiny_model_file, tmp_path / "out", *words))
    kept = load_file(tmp_path / "out" / "x-state" / "ema.safetensors").values()
    result = load_file(tmp_path / "out" / "x.safetensors")["model.diffusion_model.out.2.weight"]
    assert not torch.equal(result, result.bfloat16().float())
    assert any(value.shape == result.shape and torch.equal(value, result) for value in kept)


def options(model: Path, out: Path, *more: object) -> list[object]:
    pictures = out.parent / "pictures"
    if not pictures.exists():
        make_pictures(pictures / "1_sks", 4)
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--output_name", "x", "--seed", 3, "--learning_rate", 1e-2, *more),
        *("--max_data_loader_n_workers", 0, "--optimizer_type", "SGDNesterov"),
    ]


def test_the_result_is_the_average_of_what_the_states_hold(tiny_model_file: Path, tmp_path: Path) -> None:
    """Computed again from the plain weights of every step."""
    words = ("--use_ema", "--ema_decay", 0.3, "--save_state", "--save_every_n_steps", 1)
    common = options(tiny_model_file, tmp_path / "out", "--use_safetensors", *words, "--max_train_steps", 4)
    run_here("fine_tune.py", *common)
    states = [tmp_path / "out" / f"x-step{step:08d}-state" for step in (1, 2, 3, 4)]
    name = "model.diffusion_model.out.2.weight"
    average = load_file(tiny_model_file)[name]
    for step, state in enumerate(states, start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * load_file(state / "model.safetensors")[name]
        saved = load_file(tmp_path / "out" / f"x-step{step:08d}.safetensors")[name]
        torch.testing.assert_close(saved, average)
    assert not torch.equal(saved, load_file(states[-1] / "model.safetensors")[name])


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_network_is_averaged_and_learns_the_same(
    device: str | None, tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one --w 64 --h 64 --s 1 --d 1\n")
    looks = ("--sample_prompts", prompts, "--sample_every_n_steps", 1, "--validation_split", 0.25)
    network = ("--network_module", "networks.lora", "--max_train_steps", 3, "--save_state", *looks)
    run_here("train_network.py", *options(tiny_model_file, tmp_path / "plain", *network))
    ema = ["--use_ema", *(("--ema_device", device) if device else ())]
    run_here("train_network.py", *options(tiny_model_file, tmp_path / "averaged", *network, *ema))
    printed = capsys.readouterr().out.splitlines()
    measured = [
        line.split("loss ")[1].split(",")[0] for line in printed if line.startswith("validation after step 3")
    ]
    assert len(set(measured)) == 2  # validation measures the average
    plain, averaged = (load_file(tmp_path / name / "x.safetensors") for name in ("plain", "averaged"))
    learned = load_file(tmp_path / "averaged" / "x-state" / "model.safetensors")
    assert all(torch.equal(plain[key], learned[key]) for key in plain)
    assert any(not torch.equal(plain[key], averaged[key]) for key in plain)
    first, second = (
        sorted((tmp_path / name / "sample").iterdir())[-1].read_bytes() for name in ("plain", "averaged")
    )
    assert first != second  # previews show the average


def test_it_starts_from_the_averages_of_the_checkpoint(
    tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Also of weights in blocks that come and go, which have no place of their own while they are away."""
    tensors = load_file(tiny_model_file)
    names = ("out.2.weight", "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight")
    unet = [key for key in tensors if key.startswith("model.diffusion_model.")]
    averages = {f"model_ema.{key.removeprefix('model.').replace('.', '')}": tensors[key] + 1 for key in unet}
    source = tmp_path / "full.safetensors"
    save_file(
        tensors | averages | {"model_ema.num_updates": torch.tensor(10**6)},
        source,
        from_file(tiny_model_file),
    )
    words = ("--use_ema", "--ema_decay", 0.75, "--max_train_steps", 1, "--save_state")
    words += ("--blocks_to_swap", 99, "--fused_backward_pass", "--max_grad_norm", 0)
    run_here("train_db.py", *options(source, tmp_path / "out", *words))
    assert f"the average starts from the checkpoint's own: {len(unet)} tensors" in capsys.readouterr().out
    result, state = (
        load_file(tmp_path / "out" / path) for path in ("x.safetensors", "x-state/model.safetensors")
    )
    for name in (f"model.diffusion_model.{name}" for name in names):
        torch.testing.assert_close(result[name], 0.75 * (tensors[name] + 1) + 0.25 * state[name])
    with pytest.raises(UserError, match="--ema_device cuda: this run is on the cpu"):
        run_here("train_db.py", *options(source, tmp_path / "out", *words, "--ema_device", "cuda"))


def from_file(path: Path) -> dict[str, str]:
    from library.models.weights import read_header

    return read_header(path).metadata


def test_going_on_with_or_without_an_average_says_what_becomes_of_it(
    tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    network = ("--network_module", "networks.lora", "--max_train_steps", 1, "--save_state")
    run_here("train_network.py", *options(tiny_model_file, tmp_path / "a", *network, "--use_ema"))
    run_here("train_network.py", *options(tiny_model_file, tmp_path / "b", *network))
    assert not (tmp_path / "b" / "x-state" / "ema.safetensors").exists()
    on = (*network, "--max_train_steps", 2, "--resume")
    run_here("train_network.py", *options(tiny_model_file, tmp_path / "c", *on, tmp_path / "a" / "x-state"))
    assert "moving averages, which are left behind without --use_ema" in capsys.readouterr().err
    more = (*on, tmp_path / "b" / "x-state", "--use_ema")
    run_here("train_network.py", *options(tiny_model_file, tmp_path / "d", *more))
    assert "has no moving averages: they start from its weights" in capsys.readouterr().err


@pytest.mark.parametrize("more", [("--ema_decay", 0.9), ("--ema_device", "cpu")])
def test_what_has_no_effect_is_told(more: tuple, capsys: pytest.CaptureFixture) -> None:
    from library.options.averaging import AveragingOptions

    AveragingOptions(**{more[0].removeprefix("--"): more[1]})
    assert f"{more[0]} has no effect without --use_ema" in capsys.readouterr().err
    with pytest.raises(UserError, match="--ema_decay: is a share from 0 to below 1"):
        AveragingOptions(use_ema=True, ema_decay=1.0)
