import pytest
import torch

from library.options.optimizer import OptimizerOptions
from library.problems import UserError
from library.training.optimization.arguments import read_arguments
from library.training.optimization.optimizers import describe_optimizer, make_optimizer


def group(lr: float = 0.1) -> list[dict]:
    return [{"params": [torch.nn.Parameter(torch.ones(64, 64))], "lr": lr, "name": "unet"}]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("", "torch.optim.adamw.AdamW"),
        ("adamw", "torch.optim.adamw.AdamW"),
        ("AdamW8bit", "bitsandbytes.optim.adamw.AdamW8bit"),
        ("lion", "lion_pytorch.lion_pytorch.Lion"),
        ("SGDNesterov", "torch.optim.sgd.SGD"),
        ("RMSprop", "torch.optim.rmsprop.RMSprop"),
        ("torch.optim.Adam", "torch.optim.adam.Adam"),
    ],
)
def test_names_and_dotted_paths_give_their_class(name: str, path: str) -> None:
    optimizer = make_optimizer(group(), OptimizerOptions(optimizer_type=name))
    assert f"{type(optimizer).__module__}.{type(optimizer).__name__}" == path


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam", "DAdaptation"])
def test_optimizers_print_nothing_of_their_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("decouple=True", "weight_decay=0.1")
    make_optimizer(group(1.0), OptimizerOptions(optimizer_type=name, optimizer_args=arguments))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("short", "name"), [({"use_8bit_adam": True}, "AdamW8bit"), ({"use_lion_optimizer": True}, "Lion")]
)
def test_short_options_name_an_optimizer(short: dict[str, bool], name: str) -> None:
    optimizer = make_optimizer(group(), OptimizerOptions(**short))
    assert type(optimizer).__name__ == name
    with pytest.raises(UserError, match="choose one of"):
        OptimizerOptions(optimizer_type="AdamW", **short)


def test_sgd_nesterov_has_its_momentum_unless_told_otherwise() -> None:
    defaults = make_optimizer(group(), OptimizerOptions(optimizer_type="SGDNesterov")).defaults
    assert (defaults["nesterov"], defaults["momentum"]) == (True, 0.9)
    other = OptimizerOptions(optimizer_type="SGDNesterov", optimizer_args=("momentum=0.5",))
    assert make_optimizer(group(), other).defaults["momentum"] == 0.5


def test_optimizer_args_are_python_values() -> None:
    read = read_arguments(
        "--optimizer_args", ("weight_decay=0.01", "betas=0.9,0.999", "amsgrad=True", "name='x=y'")
    )
    assert read == {"weight_decay": 0.01, "betas": (0.9, 0.999), "amsgrad": True, "name": "x=y"}


def test_bad_optimizer_args_are_all_named() -> None:
    with pytest.raises(UserError) as error:
        read_arguments("--optimizer_args", ("betas=abc", "eps=1e", "weight_decay=1"))
    assert [problem.where for problem in error.value.problems] == [
        "--optimizer_args betas",
        "--optimizer_args eps",
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("AdamX", "--optimizer_type AdamX: there is no AdamX in torch.optim"),
        ("no_package.Best", "--optimizer_type no_package.Best: cannot be imported"),
    ],
)
def test_what_is_no_optimizer_is_refused(name: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_optimizer(group(), OptimizerOptions(optimizer_type=name))


def test_arguments_an_optimizer_does_not_take_are_refused() -> None:
    with pytest.raises(UserError, match="does not take these arguments"):
        make_optimizer(group(), OptimizerOptions(optimizer_args=("speed=3",)))


def test_metadata_names_class_and_arguments() -> None:
    words = ("weight_decay=0.1", "eps=1e-6", "betas=0.9,0.99")
    options = OptimizerOptions(optimizer_type="adamw", optimizer_args=words)
    described = "torch.optim.adamw.AdamW(weight_decay=0.1,eps=1e-06,betas=(0.9, 0.99))"
    assert describe_optimizer(options) == described


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("false", False), ("False", False), ("TRUE", True), ("none", None), ("None", None), ("null", None)),
        *(('"0.1"', 0.1), ("'3'", 3), ("0.9,0.99", (0.9, 0.99)), ("'cosine'", "cosine")),
    ],
)
def test_arguments_are_read_as_other_programs_write_them(text: str, value: object) -> None:
    assert read_arguments("--optimizer_args", (f"x={text}",)) == {"x": value}


def test_an_argument_that_is_nothing_of_these_says_what_there_is() -> None:
    with pytest.raises(UserError) as error:
        read_arguments("--optimizer_args", ("x=yes", "y=no"))
    assert [str(problem) for problem in error.value.problems] == [
        "--optimizer_args x: 'yes' is no number, True, False, None, list or quoted text",
        "--optimizer_args y: 'no' is no number, True, False, None, list or quoted text",
    ]
