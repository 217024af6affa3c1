"""Base models on the Hugging Face Hub and in its local cache."""

from __future__ import annotations

from pathlib import Path

from sweeper.errors import ModelNotFoundError
from sweeper.models.cache import OnStage

_TIMEOUT_S = 5.0
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]


def switched_off() -> bool:
    """Return whether the user wants no network (``HF_HUB_OFFLINE``)."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def cached(repo: str, revision: str | None) -> Path:
    """Return the folder of a model in the Hub's local cache; ModelNotFoundError if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise ModelNotFoundError(f"{repo!r} cannot be a Hub name") from error
    except OSError as error:
        raise ModelNotFoundError("not there") from error


def download(repo: str, revision: str | None, on_progress: OnStage, *, with_code: bool = False) -> Path:
    """Download a model's safetensors, configuration and tokenizer, never a pickle, and return its folder.

    The Hub draws its own progress bars for the files. ``with_code`` adds the model's Python files.

    Raises:
        ModelNotFoundError: If the Hub is switched off, cannot be reached, or refuses the model.
    """
    from huggingface_hub import HfApi, snapshot_download

    if switched_off():
        raise ModelNotFoundError("switched off by HF_HUB_OFFLINE")
    on_progress(f"looking for {repo} on the Hub", None)
    try:
        # First with a short timeout, so that it fails within seconds if there is no network.
        HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT_S)
        on_progress(f"downloading {repo} from the Hub", None)
        patterns = [*_WANTED, "*.py"] if with_code else _WANTED
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"], etag_timeout=_TIMEOUT_S
        )
    except Exception as error:  # the Hub's client raises its own errors, its HTTP library's and the system's
        raise ModelNotFoundError(_reason(error)) from error
    return Path(folder)


def _reason(error: Exception) -> str:
    names = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in names:
        return "its owner requires a login and an agreement: accept it on the model's page, then `hf auth login`"
    if "RepositoryNotFoundError" in names:
        return "no such model there, or a private one: check the name, or `hf auth login`"
    if "RevisionNotFoundError" in names:
        return "the model has no such revision"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"cannot be reached: {lines[0][:200]}"
