"""Train a slider: a network that learns a direction between prompts, without a single picture (LECO).

accelerate launch train_leco.py --pretrained_model_name_or_path model.safetensors --prompts_file age.toml
    --network_dim 4 --network_alpha 1 --learning_rate 1e-4 --mixed_precision bf16 --max_train_steps 500
    --output_dir outputs --output_name age

age.toml:
    [slider]
    resolutions = [512]
    [[slider.targets]]
    target_class = "person"
    positive = "old person"
    negative = "young person"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.options.fields import warn_when
from library.options.sliders import (
    SliderCachingOptions,
    SliderDataOptions,
    SliderNetworkOptions,
    SliderOptions,
    SliderValidationOptions,
)
from library.problems import run_command
from library.training.run import TrainingRun
from library.training.start.command import begin_with

if TYPE_CHECKING:
    from library.latent_space import LatentSpace
    from library.options.parser import Reading
    from library.training.output import Output
    from library.training.session import Session
    from library.training.start.concepts import Concepts
    from library.training.tasks.slider import SliderTask


@dataclass(frozen=True)
class Run(TrainingRun):
    data: SliderDataOptions
    caching: SliderCachingOptions
    validation: SliderValidationOptions
    network: SliderNetworkOptions
    slider: SliderOptions

    @property
    def trains_text(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        objective, why = self.objective, "has no effect: a sample comes from denoising a while"
        names = ("min_timestep", "max_timestep", "ip_noise_gamma", "adaptive_noise_scale")
        warn_when(
            *((getattr(objective, name) is not None, name, why) for name in names),
            (objective.timestep_distribution != "uniform", "timestep_distribution", why),
            (objective.stratified_timesteps, "stratified_timesteps", why),
        )


def main() -> None:
    train_slider(Run, __doc__)


def train_slider(run_type: type[Run], doc: str | None, *, family: str | None = None) -> None:
    """The whole command. family: the only one it takes, by its name in FAMILIES; None: any."""
    run, concepts = begin_with(read_concepts, run_type, doc, family=family)

    from library.network.loading import may_skip_layers
    from library.training.loop import train
    from library.training.session import Session

    may_skip = may_skip_layers(run.network.network_module)
    session = Session.start(run.training, run.processes, run.saving.resume, may_skip_parameters=may_skip)
    task, output = make_task(run, session, concepts)
    train(run, session, task, concepts, output)


def read_concepts(reading: Reading[Run], latent_space: LatentSpace) -> Concepts:
    """What the command line's --prompts_file teaches."""
    from library.training.start.concepts import read_for_run

    return read_for_run(reading, latent_space)


def make_task(run: Run, session: Session, concepts: Concepts) -> tuple[SliderTask, Output]:
    """The network beside its model, and what is written of it."""
    from library.network.hashes import network_hashes
    from library.training.output import Output
    from library.training.saving.metadata import describe_network
    from library.training.session import open_model
    from library.training.tasks.slider import SliderTask

    task = SliderTask(
        open_model(run.model, session),
        run.objective,
        run.network,
        run.slider,
        learning_rate=run.optimizer.learning_rate,
        clip_skip=run.model.clip_skip,
        seed=session.seed,
    )
    output = Output(
        form=run.network.save_model_as,
        tracker_name="leco_train",
        describe=lambda moment: describe_network(run, run.network, task, concepts, session.seed, moment),
        hashes=network_hashes,
    )
    return task, output


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
