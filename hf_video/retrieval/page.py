"""A page to search an index with, made of Gradio."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from hf_video.errors import BackendError, HFVideoError, VideoError, VideoIndexError
from hf_video.retrieval.index import VideoIndex
from hf_video.retrieval.moments import Moment, moment_frames, write_moment
from hf_video.wording import counted

SHOWN = 12


def serve(index: VideoIndex, *, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Shows the page until it is interrupted. Raises BackendError without Gradio, VideoIndexError for an empty index or
    a port that is taken."""
    gradio = _gradio()
    if not len(index):
        raise VideoIndexError("The index is empty: update it with a folder of videos first.")
    index.encoder.prepare()  # now, and not while the first person waits
    with tempfile.TemporaryDirectory(prefix="hf-video-serve-") as folder:
        try:
            page(index, folder).launch(server_name=host, server_port=port, allowed_paths=[folder], quiet=True)
        except OSError as error:
            raise VideoIndexError(f"The page can't be served at {host}:{port}: {error}") from error
        finally:
            gradio.close_all()


def page(index: VideoIndex, folder: str) -> Any:
    """The page as `gradio.Blocks`; clips that are played are written to `folder`."""
    gradio = _gradio()
    reads_text = index.encoder.reads_text
    root = os.path.commonpath([os.path.dirname(os.path.abspath(file.path)) for file in index.files])

    def find(text: str, example: str | None) -> tuple[Any, list[Moment], str, None]:
        if not (text or "").strip() and not example:
            return [], [], "Type what is to be seen, or give an example.", None
        query = {"video": example} if example else {"text": text.strip()}
        try:
            moments = index.search(**query, top_k=SHOWN, merge=True)
        except HFVideoError as error:
            return [], [], str(error), None
        pictures = [(_thumbnail(moment), _caption(moment)) for moment in moments]
        return pictures, moments, f"{counted(len(moments), 'moment')}, the nearest first. Choose one to play it.", None

    def play(moments: list[Moment], event: Any) -> tuple[str | None, str]:
        moment = moments[event.index]
        path = Path(folder) / f"{abs(hash(moment)):x}.mp4"
        try:
            if not path.exists():
                write_moment(moment, path)
        except VideoError as error:
            return None, str(error)
        return str(path), f"{os.path.relpath(moment.path, root)}, {moment.start:.2f} to {moment.end:.2f} s"

    play.__annotations__["event"] = gradio.SelectData  # how Gradio knows that it wants to be told what was chosen

    with gradio.Blocks(title="Video search") as blocks:
        count = len(index.files)
        gradio.Markdown(f"## Video search\n{counted(len(index), 'moment')} of {counted(count, 'video')}")
        found = gradio.State([])
        with gradio.Row():
            text = gradio.Textbox(
                label="What is to be seen?", placeholder="a person cleaning a pool", scale=4, visible=reads_text
            )
            button = gradio.Button("Search", variant="primary", scale=1)
        with gradio.Accordion("Search by an example video", open=not reads_text):
            example = gradio.Video(label="Example", sources=["upload"], height=200)
        status = gradio.Markdown()
        with gradio.Row():
            gallery = gradio.Gallery(
                label="Moments", columns=3, height="auto", allow_preview=False, object_fit="cover", scale=3
            )
            player = gradio.Video(label="The moment", autoplay=True, interactive=False, scale=2)
        asked, answers = [text, example], [gallery, found, status, player]
        button.click(find, asked, answers)
        text.submit(find, asked, answers)
        gallery.select(play, [found], [player, status])
    return blocks


def _thumbnail(moment: Moment) -> Image.Image:
    with contextlib.suppress(VideoError):
        return Image.fromarray(moment_frames(moment, count=1, shortest_edge=180)[0])
    return Image.new("RGB", (320, 180), (128, 128, 128))


def _caption(moment: Moment) -> str:
    return f"{moment.score:.2f}  {moment.start:.0f}-{moment.end:.0f} s  {os.path.basename(moment.path)}"


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise BackendError('The page needs Gradio: pip install "hf_video[demo]".') from error
    return gradio
