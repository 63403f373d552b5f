"""Pushes a trained model's folder to the Hub: weights, processor, card and evaluation, and nothing else.

    push("runs/my-model", "me/my-model")                       # a new repository is private
    push("runs/my-model", "me/my-model", revision="epoch-50")  # on a branch

Weights go as safetensors only. Checkpoints, optimiser states, logs and pickles are not sent. A push that was cut off is
finished by the same call: files that arrived are not sent again.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from hf_video.base.written_files import check_model_folder
from hf_video.errors import CheckpointError, PublishError
from hf_video.hub.card_facts import (
    PROCESSOR_FILES,
    look_up_base_license,
    read_facts,
    read_json_object,
    shareable_files,
    strip_local_paths,
)
from hf_video.hub.model_card import is_generated_card, make_card, write_card

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

logger = logging.get_logger(__name__)

INDEX = "model.safetensors.index.json"
# Files of a folder that belong to a model; weights and `evaluation/` come to them. Other figures show people's videos.
PUBLISHED = (
    *("config.json", *PROCESSOR_FILES, "README.md", "LICENSE", "training_summary.json", "split.json"),
    *("training_curve.png", "figures/loss_curve.png"),
)
EVALUATION = (".json", ".csv", ".png")


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    token: str | bool | None = None,
) -> CommitInfo:
    """Pushes a finished folder to the Hub in one commit.

    Weights and evaluation files of an earlier push that this folder no longer has are deleted in the same commit (they
    stay in the history): a left-over `model.safetensors` would be loaded in place of new shards.

    Args:
        folder: As training leaves it: `config.json`, safetensors (whole, or shards with their index), the processor's
            file; `evaluation/` and `training_summary.json` where there are some. The card (`README.md`) is made from
            them anew, unless a person wrote it.
        repo_id: "owner/name", or "name" for the token's own account. It is made if it is not there.
        private: None makes a new repository private and leaves an old one as it is. True refuses to push to a public
            one. False makes a new one public.
        revision: A branch, made if it is not there; default "main".
        license: Of the Hub's list, for the card; default that of the weights it was trained from, if it is known.
        commit_message: Default "Upload <architecture> with hf_video".
        token: Default: `HF_TOKEN`, or what `hf auth login` stored.

    Returns:
        The commit (`.commit_url`, `.oid`).

    Raises:
        PublishError: The folder is not complete, the repository can't be written to, or the upload broke off.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    folder = Path(folder)
    files = publishable_files(folder)
    api = HfApi(token=token, library_name="hf_video")
    with _publish_errors(repo_id):
        repo_id = _make_repository(api, repo_id, private)
        branch = revision or "main"
        if branch != "main" and not branch.startswith("refs/pr/"):
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        contents = _made_files(folder, api, repo_id, license)
        files = sorted({*files, *contents})
        there = api.list_repo_files(repo_id, revision=branch)
        gone = [path for path in there if _is_result(path) and path not in files]
        operations: list[Any] = [CommitOperationDelete(path) for path in gone]
        operations += [CommitOperationAdd(path, contents.get(path, folder / path)) for path in files]
        message = (
            commit_message or f"Upload {read_json_object(folder / 'config.json')['architectures'][0]} with hf_video"
        )
        return api.create_commit(repo_id, operations, commit_message=message, revision=branch)


def publishable_files(folder: str | Path) -> list[str]:
    """Lists the files of a folder that belong on the Hub, relative to it. Raises PublishError, naming all that is
    missing, for a folder that is not a complete model."""
    folder = Path(folder)
    problems, weights = _problems(folder)
    if problems:
        hint = ""
        if any(folder.glob("checkpoint-*")) and not weights:
            hint = " Its training has not finished: go on with --resume, or push one of its checkpoint-… folders."
        raise PublishError(f"{folder} is not complete, so nothing was sent: {'; '.join(problems)}.{hint}")
    evaluation = (path for path in (folder / "evaluation").glob("*/*") if path.suffix in EVALUATION)
    single = [name for name in PUBLISHED if (folder / name).is_file()]
    return sorted([*single, *weights, *(path.relative_to(folder).as_posix() for path in evaluation)])


def _problems(folder: Path) -> tuple[list[str], list[str]]:
    """Lists what is missing or broken, and the names of the weight files."""
    if not folder.is_dir():
        return ["there is no such folder"], []
    problems = []
    try:
        check_model_folder(folder)
    except CheckpointError as error:
        problems.append(str(error).rstrip("."))
    config = read_json_object(folder / "config.json")
    if config is None or not config.get("model_type") or not config.get("architectures"):
        problems.append("config.json is missing, or names no model_type and architectures")
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        problems.append(f"the processor's file is missing ({PROCESSOR_FILES[0]}; processor.save_pretrained writes it)")
    weights = ["model.safetensors"]
    if not (folder / "model.safetensors").is_file():
        index = read_json_object(folder / INDEX)
        shards = sorted(set(index["weight_map"].values())) if index else []
        weights = [INDEX, *shards] if index else []
        absent = [name for name in shards if not (folder / name).is_file()]
        if index is None:
            pickled = any(folder.glob("*.bin"))
            more = " (there is a .bin: hf-video convert makes safetensors of it)" if pickled else ""
            problems.append(f"model.safetensors is missing{more}")
        problems += [f"{name}, which {INDEX} names, is missing" for name in absent]
    if not problems:
        try:
            read_facts(folder)  # opens every safetensors file: one that was cut off is found here
        except CheckpointError as error:
            problems.append(str(error))
    return problems, weights


def _is_result(path: str) -> bool:
    """Whether a file on the Hub is one that a push writes and a later one may take away."""
    top = "/" not in path
    weights = path.endswith((".safetensors", ".safetensors.index.json"))
    pickled = path.startswith("pytorch_model") or path == "training_args.bin"
    return (top and (weights or pickled)) or path.startswith("evaluation/")


def _make_repository(api: HfApi, repo_id: str, private: bool | None) -> str:
    """Makes the repository where it is missing, and returns its whole name."""
    from huggingface_hub.errors import HfHubHTTPError

    if "/" not in repo_id:
        repo_id = f"{api.whoami()['name']}/{repo_id}"
    try:
        found = api.model_info(repo_id)
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 404):  # the Hub answers 401 for what may not be seen, or is missing
            raise
        return api.create_repo(repo_id, private=private is not False, exist_ok=True).repo_id
    if private and found.private is False:
        raise PublishError(
            f"{repo_id} is there and public, and private=True was asked for: nothing was sent. Make it private in its "
            "settings, choose another name, or leave private out."
        )
    return found.id


def _made_files(folder: Path, api: HfApi, repo_id: str, license: str | None) -> dict[str, bytes]:
    """Files that are made for the push: summary and reports, and the card unless a person wrote one (it is also left
    in the folder)."""
    facts = read_facts(folder)
    card, made = folder / "README.md", {}
    if not card.exists() or is_generated_card(card):
        look_up_base_license(facts, api)
        make_card(facts, repo_id=repo_id, license=license).save(card)
        made["README.md"] = strip_local_paths(card.read_text("utf-8")).encode()
    return made | shareable_files(facts)


@contextmanager
def _publish_errors(repo_id: str):
    """Raises what the client raises as PublishError with what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    log_in = "Log in with `hf auth login`, set HF_TOKEN, or pass token=; it must be allowed to write there."
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise PublishError(f"There is no token to push to {repo_id} with. {log_in}") from error
    except HFValidationError as error:
        raise PublishError(f'{repo_id!r} is not a name on the Hub; it must be "owner/name". {error}') from error
    except OfflineModeIsEnabled as error:
        raise PublishError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        todo = f" {log_in}" if status in (401, 403) else " Run the same again: what arrived is not sent twice."
        reason = " ".join(str(error).split())
        raise PublishError(f"The Hub refused the push to {repo_id} ({status}): {reason}{todo}") from error
    except (RuntimeError, OSError, httpx.HTTPError) as error:  # uploads wrap theirs in a RuntimeError
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise PublishError(
            f"The push to {repo_id} broke off: {reason} Run the same again: what arrived is not sent twice."
        ) from error


class PublishingTrainer:
    """Mixed in before transformers' `Trainer`: what goes to the Hub is what `push` sends, with its card and its rules.

    Checkpoints are pushed while training goes on (`hub_strategy="every_save"`) as models, without optimiser states.
    """

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """A new repository is private unless `hub_private_repo=False` says otherwise."""
        asked = self.args.hub_private_repo if private is None else private
        super().init_hf_repo(token=token, private=asked is not False)

    def create_model_card(self, license: str | None = None) -> None:
        """`README.md` in the output folder, from what lies there; see `write_card`."""
        if self.is_world_process_zero():
            write_card(self.args.output_dir, repo_id=self.hub_model_id, license=license)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        license: str | None = None,
    ) -> Any:
        """Saves the model and pushes the output folder. Returns the commit, its future with `blocking=False`, and None
        in all processes but the first."""
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        more = {"commit_message": commit_message, "license": license, "token": token, "revision": revision}
        return self._push(self.args.output_dir, blocking=blocking, **more)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.is_world_process_zero() and self.args.hub_strategy != "end":
            # Waited for: a rotation of checkpoints could delete the folder on the way. No reason to end a training.
            try:
                self._push(checkpoint_folder, commit_message=f"Training in progress, step {self.state.global_step}")
            except PublishError as error:
                logger.warning(f"{checkpoint_folder} was not pushed. {error}")

    def _push(self, folder: str, *, blocking: bool = True, **how: Any) -> Any:
        how["token"] = how.get("token") or self.args.hub_token
        how["revision"] = how.get("revision") or self.args.hub_revision
        if blocking:
            return push(folder, self.hub_model_id, **how)
        from huggingface_hub import HfApi

        return HfApi().run_as_future(push, folder, self.hub_model_id, **how)
