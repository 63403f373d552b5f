"""Three hours at 30 frames a second, by windows: less than 300 MB over the model, and each frame decoded about once."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import av
import pytest
import tiny

pytest.importorskip("pyarrow")

HOURS, RATE = 3, 30
SCRIPT = textwrap.dedent("""
    import resource, sys, time
    import pyarrow.parquet, torch, transformers
    import hf_video
    from hf_video.data.rows import VideoRow
    from hf_video.features.embed import ModelLoader
    from hf_video.features.extraction import extract_features
    from hf_video.retrieval import VideoIndex
    from hf_video.pipelines.video_classification import VideoClassificationPipeline

    torch.set_num_threads(1)
    what, video, model, folder = sys.argv[1:]
    workers = int(what.endswith("workers"))
    if what == "index":
        run = lambda: VideoIndex.build(folder + "/index", folder + "/clips", "fingerprint").moments
    elif what.startswith("embed"):
        loaded = ModelLoader(model)(0)
        run = lambda: len(extract_features(*loaded, [VideoRow(video, None, "a")], windows="2s/1s", num_workers=workers))
    else:
        classify = VideoClassificationPipeline(*ModelLoader(model)(0)[:1], device="cpu")
        run = lambda: len(classify([video], windows="2s/1s", num_workers=workers)[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = run()
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(found, (peak - before) // 1024)
""")


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """A minute of clips, again and again, without encoding it again."""
    folder = tmp_path_factory.mktemp("long")
    piece = tiny.write_clip(folder / "piece.mp4", 60 * RATE, fps=RATE, height=32, width=48)
    (folder / "clips").mkdir()
    with av.open(str(folder / "clips" / "long.mp4"), "w") as long:
        stream, shift = None, 0
        for _ in range(60 * HOURS):
            with av.open(str(piece)) as given:
                stream = stream or long.add_stream_from_template(given.streams.video[0])
                for packet in given.demux(video=0):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        long.mux(packet)
                shift += given.streams.video[0].duration
    tiny.save_tiny(folder / "model")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("what", ["index", "embed", "classify", "embed-workers"])
def test_memory(long_video, what):
    command = [sys.executable, "-c", SCRIPT, what, long_video / "clips" / "long.mp4", long_video / "model", long_video]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    windows, megabytes = map(int, done.stdout.split())
    assert windows == 3600 * HOURS - 1
    assert megabytes <= 300
