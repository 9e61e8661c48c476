"""The Hugging Face hub: whether a run can upload its results there, and states to resume from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from library.options.hub import REPO_ID, HubOptions
from library.problems import UserError, warn
from library.secrets import Secret, hide_tokens

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TIMEOUT = 60.0  # seconds without an answer; the hub's own client waits forever
TYPES = ("model", "dataset", "space")


@dataclass(frozen=True)
class HubFolder:
    """A folder in a repository on the hub.

    repo: OWNER/NAME.
    path: of the folder in the repository.
    revision: a branch, tag or commit; None: the main branch.
    kind: one of TYPES.
    """

    repo: str
    path: str
    revision: str | None
    kind: str

    @classmethod
    def parse(cls, text: str) -> HubFolder:
        """From `OWNER/NAME/FOLDER[:REVISION[:TYPE]]`. Raises UserError if the text has another form."""
        place, *rest = text.replace("\\", "/").split(":")
        owner, _, inside = place.partition("/")
        name, _, path = inside.partition("/")
        revision, kind = [*rest, "", ""][:2]
        folder = cls(f"{owner}/{name}", path.strip("/"), revision or None, kind or "model")
        if len(rest) > 2 or not (REPO_ID.fullmatch(folder.repo) and folder.path and folder.kind in TYPES):
            cause = "with --resume_from_huggingface it is OWNER/NAME/FOLDER[:REVISION[:TYPE]]"
            raise UserError.of(f"--resume {text}", cause, f"a type is one of {', '.join(TYPES)}")
        return folder


def hub_api(token: Secret | None) -> HfApi:
    """The hub's client with this token; None: with the token of the environment or the login."""
    import huggingface_hub

    huggingface_hub.get_session().timeout = TIMEOUT
    return huggingface_hub.HfApi(token=token.reveal() if token else None)


def check_hub(options: HubOptions) -> None:
    """Raises UserError if a run uploads, and there is no token or the hub does not accept it.

    If the hub cannot be reached, that is a warning only: it may be back by the time of the first upload.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    if options.huggingface_repo_id is None:
        return
    if options.huggingface_token is None and huggingface_hub.get_token() is None:
        fix = "set HF_TOKEN in the environment, or run: hf auth login"
        raise UserError.of("--huggingface_repo_id", "there is no token for the hub", fix)
    unasked = "the token was not checked; uploads will be tried"
    try:
        found = hub_api(options.huggingface_token).whoami()
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            warn(f"the hub answered with an error ({error.response.status_code}): {unasked}")
            return
        cause = f"the hub does not accept the token ({error.response.status_code})"
        fix = "make a new one with write access at huggingface.co/settings/tokens"
        raise UserError.of("--huggingface_repo_id", cause, fix) from None
    except Exception as error:  # no connection, or any failure in between
        warn(f"the hub cannot be reached ({type(error).__name__}): {unasked}")
        return
    if found.get("auth", {}).get("accessToken", {}).get("role") == "read":
        fix = "make one with write access at huggingface.co/settings/tokens"
        raise UserError.of("--huggingface_repo_id", "the token can only read", fix)


def check_state_on_hub(text: str, token: Secret | None) -> None:
    """Raises UserError if there is no such state on the hub."""
    folder = HubFolder.parse(text)
    _download(folder, token, only="train_state.json")


def state_from_hub(text: str, token: Secret | None) -> Path:
    """The state `OWNER/NAME/FOLDER[:REVISION[:TYPE]]` on the hub, downloaded or from the hub's cache.

    Raises UserError if there is none or it cannot be downloaded.
    """
    folder = HubFolder.parse(text)
    return _download(folder, token) / folder.path


@cache
def _download(folder: HubFolder, token: Secret | None, only: str = "*") -> Path:
    """Download a state, unless it is cached. The folder in the hub's cache that holds the repository.

    only: the files of the state that are needed, as a glob pattern.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    where = f"--resume {folder.repo}/{folder.path}"
    try:
        found = hub_api(token).snapshot_download(
            folder.repo,
            repo_type=folder.kind,
            revision=folder.revision,
            allow_patterns=f"{folder.path}/{only}",
        )
    except OfflineModeIsEnabled:
        raise UserError.of(where, "HF_HUB_OFFLINE is set, and it is not in the hub's cache") from None
    except Exception as error:  # also failures of the network in between
        raise _not_found(where, folder, error, token) from None
    if not (Path(found) / folder.path / "train_state.json").is_file():
        raise UserError.of(where, "there is no such state folder in the repository", "check the path")
    return Path(found)


def _not_found(where: str, folder: HubFolder, error: Exception, token: Secret | None) -> UserError:
    causes = {
        "RepositoryNotFoundError": (
            f"there is no {folder.kind} repository {folder.repo}, or the token does not open it",
            "check the name; for private ones set HF_TOKEN or run: hf auth login",
        ),
        "GatedRepoError": ("is behind an agreement on the hub", "accept it there"),
        "RevisionNotFoundError": (f"the repository has no revision {folder.revision}", "check its name"),
        "LocalEntryNotFoundError": (
            "the hub cannot be reached, and it is not in the hub's cache",
            "check the connection",
        ),
    }
    fallback = (f"could not be downloaded ({tell_hub(error, token)})", "try again later")
    return UserError.of(where, *causes.get(type(error).__name__, fallback))


def tell_hub(error: Exception, token: Secret | None) -> str:
    """What went wrong with the hub, in one line without tokens."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        known = {401: "the token is not accepted", 403: "the token may not do that", 404: "not found"}
        return known.get(status, "the hub's own error" if status >= 500 else "refused") + f", {status}"
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    lines = str(cause).strip().splitlines()
    return hide_tokens(": ".join([type(cause).__name__, *lines[:1]]), token)
