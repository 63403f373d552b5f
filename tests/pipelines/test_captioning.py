"""Words by GIT, which needs nothing but this package: against processor and `generate` by hand, window by window, as
subtitles, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import tiny
import tiny_generation
import torch
import transformers
from tiny_text import tiny_bert
from transformers import pipeline
from transformers.utils import is_torchvision_available

import hf_video
from hf_video import cli
from hf_video.base.generation import SeenVideo, missing_package
from hf_video.base.processing_stock import like
from hf_video.errors import CheckpointError, VideoOptionError
from hf_video.video import VideoReader

VIDEOS = next((one / "shared/videos" for one in Path(__file__).parents if (one / "shared/videos").is_dir()), None)
FPS = 10


@pytest.fixture(scope="module")
def git(tmp_path_factory):
    return str(tiny_generation.save_git(tmp_path_factory.mktemp("git")))


@pytest.fixture(scope="module")
def describe(git):
    return pipeline("video-captioning", model=git, device="cpu", max_new_tokens=8)


@pytest.fixture(scope="module")
def ask(git):
    return pipeline("video-question-answering", model=git, device="cpu", max_new_tokens=8)


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """60 seconds at 10 frames a second."""
    frames = np.concatenate([tiny.moving_frames(FPS * 10, height=32, width=40, seed=seed) for seed in range(6)])
    return str(tiny.write_video(tmp_path_factory.mktemp("minute") / "minute.mkv", frames, FPS, codec="ffv1"))


def by_hand(pipe, video, indices, question=None, **options):
    """As the documentation of GIT does it."""
    with VideoReader(video) as reader:
        frames = list(reader.get_frames(indices).data)
    given = {"pixel_values": pipe.processor(images=frames, return_tensors="pt").pixel_values[None]}
    asked = []
    if question is not None:
        asked = [pipe.tokenizer.cls_token_id, *pipe.tokenizer(question, add_special_tokens=False).input_ids]
        given["input_ids"] = torch.tensor([asked])
    ids = pipe.model.generate(**given, **{"max_new_tokens": 8, **options})[0, len(asked) :]
    return pipe.tokenizer.decode(ids, skip_special_tokens=True).strip()


def middles(first, count, parts=4):
    """The middle frames of equal parts."""
    return [first + (2 * i + 1) * count // (2 * parts) for i in range(parts)]


def test_a_minute_in_six_windows(describe, minute):
    found = describe(minute, windows="10s")
    assert [one["seconds"] for one in found] == [(10.0 * k, 10.0 * k + 10) for k in range(6)]
    own = [by_hand(describe, minute, middles(100 * k, 100)) for k in range(6)]
    assert [one["caption"] for one in found] == own
    assert len(set(own)) > 3
    assert describe(minute) == {"seconds": (0.0, 60.0), "caption": by_hand(describe, minute, middles(0, 600))}
    assert describe(minute, windows="10s", num_workers=1) == found  # one video: it is read here
    assert list(describe(iter([minute]), windows="10s")) == [found]


def test_options_of_generate_and_of_reading(describe, minute, git):
    own = by_hand(describe, minute, middles(0, 600, 2), "a ", num_beams=3, max_new_tokens=5)
    assert describe(minute, prompt="a ", num_frames=2, max_new_tokens=5, generate_kwargs={"num_beams": 3}) == {
        "seconds": (0.0, 60.0),
        "caption": own,
    }
    with pytest.raises(VideoOptionError, match="leave one out"):
        describe(minute, generate_kwargs={"max_length": 5})
    unset = pipeline("video-captioning", model=git, device="cpu", generate_kwargs={"max_length": 9})
    assert unset(minute)["caption"] == by_hand(describe, minute, middles(0, 600), max_new_tokens=8)
    dense = describe(minute, sampler="dense", frame_sampling_rate=3)["caption"]
    assert dense == by_hand(describe, minute, [294, 297, 300, 303])


def test_questions(ask, minute, clips):
    questions = ["what moves?", "where to?"]
    own = [[{"answer": by_hand(ask, minute, middles(0, 600), one)}] for one in questions]
    assert ask(minute, question=questions) == own
    assert ask(minute, question=questions[0]) == own[0]
    rows = [{"video": minute, "question": one} for one in questions]
    assert ask(rows) == own
    assert ask(rows, num_workers=2) == own
    windows = ask(clips[0], question="what?", windows="1s")
    assert [one["seconds"] for one in windows] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
    assert windows[2]["predictions"] == [{"answer": by_hand(ask, clips[0], middles(16, 8), "what?")}]
    with pytest.raises(VideoOptionError, match="question is missing"):
        ask(minute)
    for option in ({"choices": ["a", "b"]}, {"top_k": 3}):
        with pytest.raises(VideoOptionError, match=f"{next(iter(option))} is for models that choose"):
            ask(minute, question="what?", **option)


def test_memory_does_not_grow_with_the_length(describe, minute, monkeypatch):
    """Windows are read and described in turns, and no more frames are held than the budget allows."""
    log = []
    get_frames, write = VideoReader.get_frames, type(describe)._write
    monkeypatch.setattr(VideoReader, "get_frames", lambda self, i: log.append(len(i)) or get_frames(self, i))
    monkeypatch.setattr(type(describe), "_write", lambda self, *a: log.append("words") or write(self, *a))
    monkeypatch.setattr("hf_video.clips.read.FRAME_BUDGET", 32 * 40 * 3 * 4)  # of one window
    monkeypatch.setattr("hf_video.video.decode.clip_frames.MOST_DECODED", np.inf)
    found = describe(minute, windows="10s", num_workers=0)
    assert log == [4, "words"] * 6
    monkeypatch.undo()
    assert found == describe(minute, windows="10s")


def seen(indices, seconds, *, duration=60.0, length=60.0):
    indices, seconds = np.asarray(indices), np.asarray(seconds, dtype=np.float64)
    options = {"num_frames": 600, "fps": 600 / duration, "duration": duration, "size": (32, 40), "length": length}
    return SeenVideo(indices, seconds, **options)


def test_processors_are_told_the_true_seconds():
    """They divide a frame's number by the rate."""
    steady = seen([5, 15, 25], [0.5, 1.5, 2.5])
    assert (steady.frames_indices, steady.fps, steady.total_num_frames) == ([5, 15, 25], 10.0, 600)
    assert (steady.duration, steady["height"], steady["width"]) == (60.0, 32, 40)
    late, uneven = seen([5, 15], [2.5, 3.5]), seen([5, 15, 25], [0.1, 7.3, 40.0])
    assert late.timestamps == pytest.approx([2.5, 3.5], abs=1e-9)
    assert uneven.timestamps == pytest.approx([0.1, 7.3, 40.0], abs=1e-9)
    assert (uneven.fps, uneven.total_num_frames) == (10.0, 600)  # the file's own


def test_processors_are_told_the_rate_of_the_clip():
    """Not of frames by the length of the whole video, of which a window is a part."""
    assert seen([150, 450], [15.0, 45.0]).sampled_fps == 2 / 60
    assert seen([325, 375], [32.5, 37.5], length=10.0).sampled_fps == 2 / 10
    assert seen([300, 302, 304], [30.0, 30.2, 30.4]).sampled_fps == pytest.approx(5)  # neighbours
    assert seen([7], [0.7]).sampled_fps == 1 / 60


def test_short_videos_and_arrays(describe):
    frames = tiny.moving_frames(3, seed=1)
    found = describe(frames, fps=2)
    assert found["seconds"] == (0.0, 1.5)
    assert describe(frames.astype(np.float32) / 255, fps=2) == found
    pixels = describe.processor(images=list(frames), return_tensors="pt").pixel_values[None]  # no frame twice
    ids = describe.model.generate(pixel_values=pixels, max_new_tokens=8)
    assert found["caption"] == describe.tokenizer.decode(ids[0], skip_special_tokens=True)


def test_git_of_images_sees_one_frame(tmp_path, minute):
    describe = pipeline(
        "video-captioning", model=str(tiny_generation.save_git(tmp_path, num_frames=None)), device="cpu"
    )
    with VideoReader(minute) as reader:
        pixels = describe.processor(images=list(reader.get_frames([300]).data), return_tensors="pt").pixel_values
    ids = describe.model.generate(pixel_values=pixels, max_new_tokens=64)
    assert describe(minute)["caption"] == describe.tokenizer.decode(ids[0], skip_special_tokens=True)
    with pytest.raises(VideoOptionError, match="sees one frame"):
        describe(minute, num_frames=2)


def test_subtitles_that_players_take(git, minute, tmp_path, capsys):
    outputs = [str(tmp_path / f"out{end}") for end in (".srt", ".vtt", ".json")]
    words = ["caption", minute, "--model", git, "--windows", "10s", "--max-new-tokens", "8", "--device", "cpu"]
    words += ["--srt", outputs[0], "--vtt", outputs[1], "--output", outputs[2]]
    assert cli.main([*words, "--json"]) == cli.DONE
    (printed,) = json.loads(capsys.readouterr().out)
    assert [one["seconds"] for one in printed["captions"]] == [[10.0 * k, 10.0 * k + 10] for k in range(6)]
    shown = [one["caption"] for one in printed["captions"]]
    assert len(set(shown)) > 3
    events = json.loads(Path(outputs[2]).read_text())["results"]["minute"]
    assert [(one["label"], *one["segment"]) for one in events] == [
        (text, 10.0 * k, 10.0 * k + 10) for k, text in enumerate(shown)
    ]
    with av.open(outputs[0]) as subtitles, av.open(str(tmp_path / "muxed.mkv"), "w") as out:
        stream = out.add_stream_from_template(subtitles.streams.subtitles[0])
        for packet in subtitles.demux():
            if packet.pts is not None:
                packet.stream = stream
                out.mux(packet)
    with av.open(str(tmp_path / "muxed.mkv")) as muxed:
        packets = [p for p in muxed.demux(muxed.streams.subtitles[0]) if p.pts is not None]
        assert [(p.pts * p.time_base, p.duration * p.time_base) for p in packets] == [(10 * k, 10) for k in range(6)]
        assert [bytes(p).decode().strip() for p in packets] == shown
    assert Path(outputs[1]).read_text().startswith("WEBVTT\n\n00:00:00.000 --> 00:00:10.000\n")

    assert cli.main(words) == cli.WRONG
    assert "is there already" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite", "--frames", "5"]) == cli.WRONG
    assert "has embeddings for 4 frames" in capsys.readouterr().err
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "none.json").touch()
    words = ["caption", minute, str(tmp_path / "empty.mp4"), "--model", git, "--max-new-tokens", "8", "--device", "cpu"]
    assert cli.main([*words, "--output", outputs[0]]) == cli.WRONG
    assert "of one video, and 2 came" in capsys.readouterr().err
    assert cli.main([*words, "--output", str(tmp_path / "both.csv")]) == cli.SOME_FAILED
    out, err = capsys.readouterr()
    assert "0.00 -     60.00 s" in out
    assert "empty.mp4 is empty" in err
    assert (tmp_path / "both.csv").read_text().count("\n") == 2


def test_questions_on_the_command_line(git, ask, clips, tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    asked = ["--question", "what moves?", "--question", "where to?", "--max-new-tokens", "8", "--device", "cpu"]
    words = ["ask", str(clips[0]), str(tmp_path / "empty.mp4"), "--model", git, *asked]
    assert cli.main([*words, "--json", "--windows", "2s"]) == cli.SOME_FAILED
    good, bad = json.loads(capsys.readouterr().out)
    own = ask(clips[0], question=["what moves?", "where to?"], windows="2s")
    assert [part["seconds"] for part in good["windows"]] == [[0.0, 2.0], [2.0, 3.0]]
    for part, expected in zip(good["windows"], own, strict=True):
        assert [one["answers"] for one in part["questions"]] == expected["predictions"]
    assert bad["error"] == "EmptyFileError"
    assert cli.main(words) == cli.SOME_FAILED
    out, err = capsys.readouterr()
    assert f"  what moves?  {ask(clips[0], question='what moves?')[0]['answer']}" in out
    assert "empty.mp4 is empty" in err
    assert cli.main([*words, "--top-k", "2"]) == cli.WRONG
    assert "top_k is for models that choose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "2x1"}, "views"),
        ({"num_frames": 5}, "embeddings for 4 frames"),
        ({"batch_size": 2}, "one window at a time"),
        ({"prompt": " "}, "prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"generate_kwargs": {"num_beam": 2}}, "Did you mean 'num_beams'"),
        ({"generate_kwargs": 3}, "by name"),
        ({"generate_kwargs": {"num_beams": 3, "num_return_sequences": 3}}, "a result has one text"),
        ({"max_tokens": 3}, "has no option 'max_tokens'"),
    ],
)
def test_options_that_have_no_meaning(describe, minute, options, message):
    with pytest.raises(VideoOptionError, match=message):
        describe(minute, bad_files="report", **options)


class TestBadPairs:
    @pytest.mark.parametrize("kind", ["videomae", "text", "vision"])
    def test_models_that_write_nothing_or_see_nothing(self, kind, tmp_path, videomae, git):
        config = tiny_bert()
        if kind == "text":
            transformers.GPT2LMHeadModel(
                transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2)
            ).save_pretrained(tmp_path)
        elif kind == "vision":
            transformers.BertModel(config).save_pretrained(tmp_path)
        folder = str(videomae if kind == "videomae" else tmp_path)
        with pytest.raises(CheckpointError, match="writes no text"):
            pipeline("video-captioning", model=folder, device="cpu")
        if kind == "text":
            model = transformers.GPT2LMHeadModel.from_pretrained(folder)
            for task in ("video-captioning", "video-question-answering"):
                with pytest.raises(CheckpointError, match="takes no images or videos"):
                    pipeline(task, model=model, device="cpu")

    def test_a_processor_that_is_not_there(self, git, tmp_path):
        model = transformers.GitForCausalLM.from_pretrained(git)
        model.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match="No processor was found beside the model"):
            pipeline("video-captioning", model=str(tmp_path), device="cpu")
        model.config._name_or_path = ""
        of_no_folder = transformers.GitForCausalLM(model.config)
        with pytest.raises(CheckpointError, match="pass its processor="):
            pipeline("video-captioning", model=of_no_folder, device="cpu")

    def test_a_processor_of_another_model(self, git):
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        model = transformers.GitForCausalLM.from_pretrained(git)
        tokenizer = tiny_generation.letter_tokenizer()
        blip = transformers.BlipProcessor(BlipImageProcessorPil(), tokenizer)
        with pytest.raises(CheckpointError, match="which takes a GitProcessor"):
            pipeline("video-captioning", model=model, processor=blip, device="cpu")
        larger = transformers.GitProcessor(BlipImageProcessorPil(), tiny_generation.letter_tokenizer("<more>"))
        with pytest.raises(CheckpointError, match=r"has 104 tokens, .* knows 103"):
            pipeline("video-captioning", model=model, processor=larger, device="cpu")

    def test_a_processor_of_images_alone(self, tmp_path):
        """BLIP writes about images; a video is none."""
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        tokenizer = tiny_generation.letter_tokenizer()
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = transformers.BlipConfig(
            text_config={**sizes, "vocab_size": len(tokenizer), "encoder_hidden_size": 16},
            vision_config={**sizes, "image_size": 32},
        )
        processor = transformers.BlipProcessor(BlipImageProcessorPil(), tokenizer)
        tiny_generation.saved(tmp_path, transformers.BlipForConditionalGeneration(config), processor)
        with pytest.raises(CheckpointError, match=r"no video processor.*images only"):
            pipeline("video-captioning", model=str(tmp_path), device="cpu")


def test_the_pair_of_torch_and_torchvision_is_named(monkeypatch):
    error = ImportError("\nSmolVLMVideoProcessor requires the Torchvision library but it was not found. Check")
    monkeypatch.setattr("hf_video.base.generation.is_torchvision_available", lambda: False)
    for version, pair in (("2.13.0+cpu", "0.28"), ("2.14.1", "0.29")):
        monkeypatch.setattr(torch, "__version__", version)
        assert f"'torchvision=={pair}.*'" in missing_package("folder", error)
    other = missing_package("folder", ImportError("Package `num2words` is required"))
    assert "num2words" in other
    assert "torchvision" not in other


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is there")
class TestWithoutTorchvision:
    def test_processors_that_only_resize_are_ours(self, tmp_path, minute):
        """LLaVA-OneVision's: the same pixels, and words of the model on them."""
        folder = str(tiny_generation.save_llava_onevision(tmp_path))
        describe = pipeline("video-captioning", model=folder, device="cpu", max_new_tokens=8)
        found = describe(minute, windows="10s", num_frames=3, prompt="What?")
        with VideoReader(minute) as reader:
            frames = [reader.get_frames(middles(100 * k, 100, 3)).data for k in range(6)]
        processor = like("LlavaOnevisionVideoProcessor")(size={"height": 32, "width": 32})
        asked = f"<|user|>{'<video>' * (3 * 4 + 1)}What?<|assistant|>"
        ids = describe.tokenizer(asked, return_tensors="pt").input_ids
        own = []
        for clip in frames:
            pixels = processor(clip, return_tensors="pt")["pixel_values_videos"]
            made = describe.model.generate(input_ids=ids, pixel_values_videos=pixels, max_new_tokens=8)
            own.append(describe.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip())
        assert [one["caption"] for one in found] == own
        assert len(set(own)) > 3

    def test_others_say_what_to_install(self, tmp_path):
        tiny_generation.save_llava_onevision(tmp_path)
        file = tmp_path / "processor_config.json"
        file.write_text(file.read_text().replace("LlavaOnevisionVideoProcessor", "SmolVLMVideoProcessor"))
        with pytest.raises(
            CheckpointError, match=r"needs torchvision \(SmolVLM.*pip install 'torchvision==0\.\d+\.\*'"
        ):
            pipeline("video-captioning", model=str(tmp_path), device="cpu")


@pytest.mark.slow
@pytest.mark.skipif(VIDEOS is None, reason="needs shared/videos beside the checkout")
def test_every_real_clip(describe):
    files = sorted(str(one) for one in VIDEOS.iterdir() if one.suffix != ".md")
    for file, windows in zip(files, describe(files, windows="1.5s"), strict=True):
        with VideoReader(file) as reader:
            meta, times = reader.metadata, reader.timestamps
        assert windows[0]["seconds"][0] == meta.begin
        assert windows[-1]["seconds"][1] == pytest.approx(meta.begin + meta.duration)
        start, stop = windows[1]["seconds"]
        inside = np.flatnonzero((np.append(times[1:], np.inf) > start + 1e-6) & (times < stop - 1e-6))
        assert windows[1]["caption"] == by_hand(describe, file, middles(inside[0], len(inside)))


def test_it_is_named_among_the_pipelines():
    assert issubclass(hf_video.pipelines.VideoCaptioningPipeline, hf_video.pipelines.VideoPipeline)
