"""A page to search an index with, made of Gradio."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from PIL import Image

from hf_video.errors import BackendError, HFVideoError, VideoError, VideoIndexError, pluralize
from hf_video.retrieval.index import VideoIndex
from hf_video.retrieval.moments import Moment, moment_frames, write_moment

if TYPE_CHECKING:
    from gradio import Blocks, SelectData

PAGE_SIZE = 12
NAMES = {"text": "words", "video": "an example video", "image": "an example image"}
# All pictures of a page at their full height; on a telephone two side by side, and nothing wider than its screen.
STYLE = """
.grid-wrap { max-height: none !important; overflow-y: visible !important; }
@media (max-width: 640px) {
  .gradio-container { padding: 8px !important; max-width: 100vw !important; overflow-x: hidden; }
  .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
}
"""


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


def page(index: VideoIndex, folder: str) -> Blocks:
    """Builds the page; clips that are played are written to `folder`."""
    gradio = _gradio()
    reads_text = index.encoder.reads_text
    root = os.path.commonpath([os.path.dirname(os.path.abspath(file.path)) for file in index.files])

    def find(text: str, example: str | None, image: str | None, number: int) -> tuple[Any, ...]:
        """Page `number`, from 0 on: pictures, moments, message, no video, the number, and which buttons work."""
        given = {"text": (text or "").strip(), "video": example, "image": image}
        query = {name: value for name, value in given.items() if value}
        if not query:
            return _answer([], "Type what is to be seen, or give an example.", number, False)
        if len(query) > 1:
            named = " and ".join(NAMES[name] for name in query)
            return _answer([], f"There are {named}: leave one of them, and clear the others.", number, False)
        try:
            moments = index.search(**query, top_k=PAGE_SIZE, offset=number * PAGE_SIZE)
            more = len(moments) == PAGE_SIZE and bool(
                index.search(**query, top_k=PAGE_SIZE, offset=(number + 1) * PAGE_SIZE)
            )
        except HFVideoError as error:
            return _answer([], f"**That didn't work:** {error}", number, False)
        if not moments:
            return _answer([], "Nothing was found.", number, False)
        first = number * PAGE_SIZE + 1
        message = f"{first} to {first + len(moments) - 1}, the nearest first. Choose one to play it."
        return _answer(moments, message, number, more)

    def _answer(moments: list[Moment], message: str, number: int, more: bool) -> tuple[Any, ...]:
        pictures = []
        for moment in moments:
            picture = Image.new("RGB", (320, 180), (128, 128, 128))
            with contextlib.suppress(VideoError):
                picture = Image.fromarray(moment_frames(moment, count=1, shortest_edge=180)[0])
            seconds = f"{moment.start:.0f}-{moment.end:.0f} s"
            pictures.append((picture, f"{moment.score:.2f}  {seconds}  {os.path.basename(moment.path)}"))
        buttons = gradio.update(interactive=number > 0), gradio.update(interactive=more)
        return pictures, moments, message, None, number, *buttons

    def play(moments: list[Moment], event: SelectData) -> tuple[str | None, str]:
        moment = moments[event.index]
        path = Path(folder) / f"{abs(hash(moment)):x}.mp4"
        try:
            if not path.exists():
                write_moment(moment, path)
        except (HFVideoError, OSError) as error:
            return None, f"**That didn't work:** {error}"
        return str(path), f"{os.path.relpath(moment.path, root)}, {moment.start:.2f} to {moment.end:.2f} s"

    play.__annotations__["event"] = gradio.SelectData  # by this Gradio knows to pass what was chosen

    with gradio.Blocks(title="Video search") as blocks:
        gradio.HTML(f"<style>{STYLE}</style>")
        gradio.Markdown(f"## Video search\n{pluralize(len(index), 'moment')} of {pluralize(len(index.files), 'video')}")
        found, number = gradio.State([]), gradio.State(0)
        with gradio.Row():
            text = gradio.Textbox(
                label="What is to be seen?", placeholder="a person cleaning a pool", scale=4, visible=reads_text
            )
            button = gradio.Button("Search", variant="primary", scale=1, min_width=120)
        with gradio.Accordion("Search by an example", open=not reads_text), gradio.Row():
            example = gradio.Video(label="Video", sources=["upload"], height=200)
            image = gradio.Image(label="Image", sources=["upload"], type="filepath", height=200)
        status = gradio.Markdown()
        with gradio.Row():
            with gradio.Column(scale=3, min_width=280):
                gallery = gradio.Gallery(
                    label="Moments", columns=3, height="auto", allow_preview=False, object_fit="cover"
                )
                with gradio.Row():
                    before = gradio.Button("Previous", interactive=False, min_width=100)
                    after = gradio.Button("Next", interactive=False, min_width=100)
            with gradio.Column(scale=2, min_width=280):
                player = gradio.Video(label="The moment", autoplay=True, interactive=False)
        asked = [text, example, image]
        answers = [gallery, found, status, player, number, before, after]
        for start in (button.click, text.submit):
            start(lambda *query: find(*query, 0), asked, answers)
        before.click(lambda *query: find(*query[:-1], max(query[-1] - 1, 0)), [*asked, number], answers)
        after.click(lambda *query: find(*query[:-1], query[-1] + 1), [*asked, number], answers)
        gallery.select(play, [found], [player, status])
    return blocks


def _gradio() -> ModuleType:
    try:
        import gradio
    except ImportError as error:
        raise BackendError('The page needs Gradio: pip install "hf_video[demo]".') from error
    return gradio
