"""See what a classifier saw of a video, and what its answer rests on.

  hf-video explain clip.mp4 --model my-model --views 2x3 --output views.png
  hf-video explain clip.mp4 --model my-model --method grad_cam --about archery --output archery.png
  hf-video explain clip.mp4 --model my-model --method rollout --output rollout.mp4

Without --method the picture shows the frames and crops that went in, view by view, with the score that each gave.
rollout follows attention from the answer back to the pixels (TimeSformer, ViViT, VideoMAE, V-JEPA 2, VideoPrism);
grad_cam asks where evidence for a class lies (every classifier with a map). A rollout is the same for every class, a
Grad-CAM is not. A picture shows frames, what glows in them, and how it is spread over time; a video shows the first
view.
"""

from __future__ import annotations

import argparse

from hf_video.cli import DONE, CommandError
from hf_video.cli.arguments import Parser, check_output, positive_int
from hf_video.cli.verbs.classify import load_pipeline

# Of the pipeline, by their names there.
PIPELINE_OPTIONS = {
    "views": "views", "sampler": "sampler", "frame_sampling_rate": "stride", "num_frames": "num_frames",
    "on_error": "on_error", "backend": "backend",
}  # fmt: skip


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("file", metavar="FILE", help="a video file, an http(s) URL, or a folder of images")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--output", required=True, type=output_picture_or_video, metavar="FILE", help="a picture, or a video")
    add("--revision")
    add("--method", choices=("rollout", "grad_cam"), help="what the answer rests on (default: the views alone)")
    add(
        "--about",
        metavar="LABEL",
        help="the class whose score is shown, and of grad_cam what is asked about (default: the best)",
    )
    add("--views")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a clip (default: the model's)")
    add("--stride", type=positive_int, metavar="N", help="frames from one to the next (default: spread over the video)")
    add("--sampler", help="uniform, dense, center, at_fps, … (default: the processor's)")
    add("--on-error", choices=("raise", "repeat"), help="damaged frames: fail, or repeat their nearest good neighbour")
    add("--backend")
    add("--device")
    add("--dtype")
    add("--quiet")


def output_picture_or_video(path: str) -> str:
    from hf_video.base.written_files import PICTURES, check_output_file
    from hf_video.video.writer import CONTAINERS

    return check_output(path, lambda file: check_output_file(file, suffixes=(*PICTURES, *CONTAINERS)))


def run(options: argparse.Namespace) -> int:
    from hf_video.base.written_files import PICTURES
    from hf_video.visual import explain_video, relevance_strip, views_sheet, write_relevance_video

    picture = options.output.lower().endswith(PICTURES)
    if not picture and options.method is None:
        raise CommandError("A video shows what glows over the frames: choose --method rollout or grad_cam")
    asked = {name: getattr(options, option) for name, option in PIPELINE_OPTIONS.items()}
    asked = {name: value for name, value in asked.items() if value is not None}
    classify = load_pipeline(options)
    views = explain_video(classify, options.file, method=options.method, label=options.about, **asked)
    if picture:
        (views_sheet(views) if options.method is None else relevance_strip(views)).save(options.output)
    else:
        write_relevance_video(views[0], options.output)
    for view in views:
        print(f"{view.name}: {view.seconds[0]:.2f}-{view.seconds[-1]:.2f} s  {view.label} {view.score:.1%}")
    return DONE
