"""What a user of the Hub does, run in a process of its own: the real client reads its environment when it is imported.

Started by `flow_client.Client`, which sends `{"flow": name, "arguments": {...}}` a line and gets one line back.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

FLOWS = {}


def flow(function):
    FLOWS[function.__name__] = function
    return function


@flow
def api(method: str, *, of_token: str | bool | None = None, **arguments: Any) -> Any:
    """A method of `HfApi`, its result as far as JSON goes."""
    from huggingface_hub import HfApi

    result = getattr(HfApi(token=of_token), method)(**arguments)
    result = list(result) if hasattr(result, "__next__") else result
    return json.loads(json.dumps(result, default=lambda value: getattr(value, "__dict__", str(value))))


@flow
def commit(repo_id: str, files: dict[str, str], **more: Any) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(path, text.encode()) for path, text in files.items()]
    return HfApi().create_commit(repo_id, operations, commit_message="some files", **more).oid


@flow
def push_model(folder: str, repo_id: str, **options: Any) -> None:
    """What everybody writes: `push_to_hub` of the model, then of its processor."""
    from transformers import AutoImageProcessor, AutoModelForVideoClassification

    AutoModelForVideoClassification.from_pretrained(folder).push_to_hub(repo_id, **options)
    options.pop("max_shard_size", None)
    AutoImageProcessor.from_pretrained(folder).push_to_hub(repo_id, **options)


@flow
def push_folder(folder: str, repo_id: str, **options: Any) -> dict[str, str]:
    from hf_video.hub.publish import push

    made = push(folder, repo_id, **options)
    return {"oid": made.oid, "url": made.commit_url}


@flow
def logits(model: str, **options: Any) -> list[float]:
    """Of a fixed random clip, from the Hub or from a folder."""
    from transformers import AutoModelForVideoClassification

    found = AutoModelForVideoClassification.from_pretrained(model, **options).eval()
    clip = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return found(clip).logits[0].tolist()


@flow
def classify(model: str, file: str, **options: Any) -> list[dict[str, Any]]:
    from transformers import pipeline

    return list(pipeline("video-classification", model=model, **options)(file, top_k=3))


@flow
def snapshot(repo_id: str, **options: Any) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(repo_id, **options)


@flow
def verb(*arguments: str) -> dict[str, Any]:
    """`hf-video ...`: exit code and what was printed."""
    import contextlib
    import io

    from hf_video import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(one) for one in arguments])
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


@flow
def run_snippet(code: str, folder: str) -> str:
    """The example of a card, where a `clip.mp4` lies; what it printed."""
    import contextlib
    import io

    out, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(code, "card", "exec"), {})
    finally:
        os.chdir(before)
    return out.getvalue()


@flow
def train_and_push(folder: str, output: str, repo_id: str, **options: Any) -> list[str]:
    """Two steps of a `VideoTrainer` that goes to the Hub, then its push. Returns what lies in its folder."""
    from transformers import AutoImageProcessor, AutoModelForVideoClassification

    from hf_video.training import VideoTrainer, VideoTrainingArguments

    clips = torch.randn(4, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    trainer = VideoTrainer(
        AutoModelForVideoClassification.from_pretrained(folder),
        VideoTrainingArguments(
            output,
            max_steps=2,
            save_steps=1,
            per_device_train_batch_size=2,
            use_cpu=True,
            disable_tqdm=True,
            push_to_hub=True,
            hub_model_id=repo_id,
            **options,
        ),
        train_dataset=[{"pixel_values": clip, "labels": torch.tensor(i % 3)} for i, clip in enumerate(clips)],
        processing_class=AutoImageProcessor.from_pretrained(folder),
    )
    trainer.train()
    trainer.push_to_hub(license="apache-2.0")
    return sorted(os.listdir(output))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    torch.set_num_threads(1)
    import hf_video  # noqa: F401 - registers the models

    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"result": FLOWS[asked["flow"]](*asked["positional"], **asked["arguments"])}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
