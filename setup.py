"""Atelier as a package: after `pip install -e .`, `library` and `networks` can be imported from anywhere."""

from setuptools import find_packages, setup

setup(
    name="atelier",
    version="0.1.0",
    description="Train Stable Diffusion models from the command line",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["library*", "networks*", "tools*", "finetune*"]),
    package_data={
        "library.models": ["tokenizer/*"],
        "library.pages": ["page.html", "page.css"],
        "library.training.watching.report": ["report.css"],
    },
    install_requires=[
        "torch>=2.6,<3",
        "accelerate>=1.10,<2",
        "bitsandbytes>=0.46",
        "dadaptation>=3.2",
        "diffusers>=0.35,<1",
        "huggingface_hub>=1.0,<3",
        "lion-pytorch>=0.2",
        "numpy>=2.0,<3",
        "opencv-python-headless>=4.10",
        "pillow>=11.3",
        "prodigyopt>=1.1",
        "pyyaml>=6,<7",
        "safetensors>=0.5",
        "schedulefree>=1.4",
        "tensorboard>=2.15",
        "tomli>=2.0; python_version < '3.11'",
        "psutil>=5.9",
        "tqdm>=4.66",
        "transformers>=5.0,<6",
    ],
    extras_require={
        "lycoris": ["lycoris-lora>=3"],
        "wandb": ["wandb>=0.19"],
        "xformers": ["xformers"],
        "test": [
            "lycoris-lora>=4.1",
            "mypy>=2",
            "peft>=0.17",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "scipy>=1.11",
            "wandb>=0.19",
        ],
    },
)
