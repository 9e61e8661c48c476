"""Results on the Hugging Face hub, and states from there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from library.options.fields import option, refuse, warn_when
from library.secrets import Secret

RepoType = Literal["model", "dataset", "space"]
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class HubOptions:
    """Hugging Face hub."""

    huggingface_repo_id: str | None = option(
        None, "upload every result to this repository; made if it is not there", metavar="OWNER/NAME"
    )
    huggingface_repo_type: RepoType | None = option(None, "its kind (default model)")
    huggingface_path_in_repo: str | None = option(
        None, "folder in it that results go to (default: its top)", metavar="FOLDER"
    )
    huggingface_repo_visibility: Literal["public", "private"] | None = option(
        None, "who sees a repository that is made (default private)"
    )
    huggingface_token: Secret | None = option(
        None,
        "token; better in the environment (HF_TOKEN), or log in: hf auth login",
        metavar="TOKEN",
    )
    async_upload: bool = option(False, "train on while uploads are under way")
    save_state_to_huggingface: bool = option(False, "upload saved states too")
    resume_from_huggingface: bool = option(
        False, "--resume is a state on the hub: OWNER/NAME/FOLDER[:REVISION[:TYPE]]"
    )

    def __post_init__(self) -> None:
        repo, folder = self.huggingface_repo_id, self.huggingface_path_in_repo or ""
        refuse(
            (
                repo is not None and not REPO_ID.fullmatch(repo),
                "huggingface_repo_id",
                f"is written OWNER/NAME, not {repo}",
            ),
            (
                ".." in folder.split("/") or "\\" in folder,
                "huggingface_path_in_repo",
                "must be a folder inside the repository, with / between its parts",
            ),
        )
        needs_repo = {
            "huggingface_repo_type": self.huggingface_repo_type,
            "huggingface_path_in_repo": self.huggingface_path_in_repo,
            "huggingface_repo_visibility": self.huggingface_repo_visibility,
            "async_upload": self.async_upload,
            "save_state_to_huggingface": self.save_state_to_huggingface,
        }
        nothing = "has no effect without --huggingface_repo_id"
        uses_token = repo is not None or self.resume_from_huggingface
        warn_when(
            *((value and repo is None, name, nothing) for name, value in needs_repo.items()),
            (
                self.huggingface_token is not None and not uses_token,
                "huggingface_token",
                f"{nothing} or --resume_from_huggingface",
            ),
        )
