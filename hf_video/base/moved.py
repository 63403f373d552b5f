"""Modules under the names that they had in 0.1.0: scripts that import them there, and pickles that name them, go on."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# (package then, package now, modules; "old:new" where the module is called otherwise too)
_MOVES = (
    (
        "",
        "base",
        "_version:version configuration modeling modeling_conv outputs losses processing processing_config "
        "processing_pixels:processing_config convert safe_weights model_folder:written_files "
        "output_paths:written_files",
    ),
    ("", "evaluation", "metrics"),
    (
        "layers",
        "layers",
        "plain:linear patches:embeddings positions:embeddings tables:embeddings attention:vit drop_path:vit",
    ),
    ("data", "base", "written:written_files"),
    ("tasks", "base", "pairing:loading loading"),
    ("video", "video.frames", "part times rgb pixels resize:pixels background:pixels addresses"),
    (
        "video",
        "video.decode",
        "packets:frame_table walking:segments references:segments decoding:encoded container media:container http_file "
        "stills torchcodec_backend frame_table sources given:sources collecting:clip_frames clip_frames",
    ),
    (
        "video",
        "video.augment",
        "augment_affine:affine augment_checks:augmentation augment_crops:crops augment_erasing:erasing "
        "augment_labels:labels augment_ops:ops augment_options:checks augment_preview:preview mixing "
        "rand_augment temporal",
    ),
    ("video", "video.sampling", "frame_sample sample_reader:samplers motion"),
    ("video", "video", "arguments:reader"),
    ("video", "video.flow", "flow_cache:cache"),
    (
        "tasks",
        "clips",
        "batching workers:batching clip_processors:read clips:read sources:read views:request windows:read overlaps",
    ),
    ("data", "clips", "clip_plan:request"),
    (
        "tasks",
        "pipelines",
        "video_pipeline:base video_classification features:video_feature_extraction "
        "question_answering:video_question_answering retrieval:video_text_retrieval "
        "zero_shot:zero_shot_video_classification matching results:video_classification",
    ),
    ("tasks", "features", "vectors"),
    ("tasks", "training", "masked_pretraining"),
    ("inference", "features", "embed feature_shards:shards features:extraction"),
    (
        "inference",
        "evaluation",
        "evaluation:classification evaluation_rows:rows figures hf_metrics "
        "label_matching:classification multi_label_report "
        "prediction_log:classification protocols published_sampling qa_evaluation:questions report "
        "retrieval_evaluation:retrieval scored:report ten_crops",
    ),
    (
        "data",
        "data.sources",
        "files folder:files labels lists segments:lists tables spaced:tables official hub:datasets_library "
        "shards:tar_shards described:lists load division splitting:division inspection",
    ),
    (
        "data",
        "data.datasets",
        "dataset samples:dataset seeds:dataset failures:dataset streaming collate shared_batches:collate "
        "captions questions",
    ),
    ("data", "data.check", "fingerprint one_pass:fingerprint reencode:transcoding"),
    (
        "training",
        "training.runs",
        "finetune:classification pretrain:pretraining video_text video_qa:questions probe preparation:run "
        "start:model_loading self_test:overfit_check summary curve:summary",
    ),
    (
        "training",
        "training",
        "optimizer:optim schedule:optim ema:optim order:samplers pair_order:samplers interruption:callbacks "
        "log_lines:callbacks resume:run_folder reporting:measurement",
    ),
    ("cli", "cli", "faults:error_messages"),
    ("training", "hub", "card_facts card_results:markdown card_words:markdown model_card publish"),
    (
        "cli",
        "cli.verbs",
        "check classify convert embed evaluate index info models preview pretrain probe push search serve train",
    ),
)
MOVED = {
    ".".join(("hf_video", *filter(None, (then, one.partition(":")[0])))): f"hf_video.{now}.{one.rpartition(':')[2]}"
    for then, now, modules in _MOVES
    for one in modules.split()
} | {"hf_video.wording": "hf_video.errors"}
PACKAGES = ("hf_video.inference", "hf_video.tasks")


class MovedModules(MetaPathFinder, Loader):
    """Finds the old names; the last of `sys.meta_path`, so that it costs nothing where a module is found."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname not in MOVED and fullname not in PACKAGES:
            return None
        return ModuleSpec(fullname, self, is_package=fullname in PACKAGES)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if now := MOVED.get(module.__name__):
            warnings.warn(f"{module.__name__} is {now} now.", FutureWarning, stacklevel=2)
            sys.modules[module.__name__] = import_module(now)
