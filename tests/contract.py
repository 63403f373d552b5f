"""What every video model must do, written once.

A model's test file says what is peculiar to it and inherits the rest:

    class TestTimesformer(ModelContract):
        model_type = "timesformer"
        tiny = {"image_size": 32, ...}

Each test runs for every class that the registry names for the model type (`head` is the Auto class).
"""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from typing import Any, ClassVar

import pytest
import torch
import transformers
from contract_layers import LayerContract, of_whole_contracts

import hf_video
from hf_video import MODELS
from hf_video.errors import ModelInputError

CLASSES = 5
_MADE: dict[tuple[type, str, str], torch.nn.Module] = {}  # of one contract
# Parameters of two and more dimensions that recipes leave out of weight decay all the same.
UNDECAYED = (
    "_token",
    "attention_query",
    "position_embeddings",
    "relative_position_bias_table",
    "time_embeddings",
)


def randomise(model: torch.nn.Module, seed: int = 0, gain: float = 1.0) -> torch.nn.Module:
    """Every parameter drawn anew, so that nothing hides behind zeros and ones: matrices keep the size of what passes
    through them (times `gain`), biases and tokens .2, norms 1 ± .2; and so the statistics of batch norms."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            t = torch.randn(p.shape, generator=generator)
            if "token" in name or "embeddings" in name.rsplit(".", 1)[-1]:
                t *= 0.2
            elif p.ndim >= 2:
                t *= gain / p[0].numel() ** 0.5
            else:
                t = t * 0.2 + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
            p.copy_(t)
        for name, value in sorted(model.named_buffers()):
            if name.endswith(("running_mean", "running_var")):
                t = 0.2 * torch.randn(value.shape, generator=generator)
                value.copy_((1 + t).abs() if name.endswith("running_var") else t)
    return model.eval()


def first_tensor(output) -> torch.Tensor:
    """Logits, or the last hidden state of a model without a head."""
    return output.last_hidden_state if "last_hidden_state" in output else output.logits


def assert_close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


class ModelContract(LayerContract):
    """The contract. Subclasses set the attributes and may extend `inputs`."""

    model_type: ClassVar[str]
    tiny: ClassVar[dict[str, Any]]
    clip: ClassVar[tuple[int, int, int]] = (4, 32, 32)
    other_clips: ClassVar[list[tuple[int, int, int]]] = []
    refused_clips: ClassVar[list[tuple[int, int, int]]] = []
    tokens: ClassVar[int]
    channels: ClassVar[int] = 3
    clip_name: ClassVar[str] = "pixel_values"  # what the model calls its clips
    attention: ClassVar[bool] = True  # False: nothing to attend, and output_attentions is refused
    embedding: ClassVar[int | None] = None  # width of a clip's embedding where it is not the hidden size
    encoder_outputs: ClassVar[list[str]] = []  # what the bare model gives between last_hidden_state and hidden_states
    later_blocks: ClassVar[int] = 0  # of a second transformer, which num_hidden_layers doesn't count
    hidden_rows: ClassVar[int] = 1  # rows of a hidden state per clip (space-only attention has one per frame)
    pyramid: ClassVar[bool] = False  # token counts and widths change from block to block
    heads: ClassVar[tuple[int, ...] | None] = None  # of each block, where they differ
    unreached: ClassVar[str] = "$^"  # pattern of parameters that the class token of the last block doesn't depend on
    shallow: ClassVar[dict[str, Any]] = {"num_hidden_layers": 1}  # changes that make `tiny` smaller still
    backend: ClassVar[str] = "eager"  # of the default tests' compiler; one type stands for what costs more
    precision: ClassVar[torch.dtype] = torch.float32  # float64 where rounding alone moves gradients by more than 1e-5
    classes: ClassVar[tuple[str, ...]] = ()  # heads: classes that no Auto class stands for, or some of those that do
    variant: ClassVar[bool] = False  # of a model whose contract runs whole elsewhere: without `of_whole_contracts`

    def pytest_generate_tests(self, metafunc):
        heads = list(self.classes or MODELS[self.model_type].auto)
        if "head" in metafunc.fixturenames:
            metafunc.parametrize("head", heads)
        if "shaped" in metafunc.fixturenames:
            metafunc.parametrize("shaped", heads[-1:])
        # The bare model's layers and graph are parts of every head's: its own tests are slow ones. So is a graph of one
        # size where that of every batch size is made, and are a variant's graphs.
        slow = {"AutoModel"} if heads[1:] else set()
        if metafunc.function.__name__ == "test_compile":
            slow |= {self.dynamic_head()}
        if self.variant and "graph" in metafunc.fixturenames:
            slow |= set(heads)
        params = [pytest.param(head, marks=[pytest.mark.slow] * (head in slow)) for head in heads]
        for name in {"graph", "layered"} & set(metafunc.fixturenames):
            metafunc.parametrize(name, params[-1:] if self.variant else params)

    def __init_subclass__(cls, **options):
        """Pytest collects nothing that is None."""
        super().__init_subclass__(**options)
        for name in dir(cls) if cls.variant else ():
            if getattr(getattr(cls, name), "of_whole_contracts", False):
                setattr(cls, name, None)

    # -- making things

    def config(self, **changes):
        return MODELS[self.model_type].load(MODELS[self.model_type].config)(
            **{"num_labels": CLASSES, **self.tiny, **changes}
        )

    def model(self, head: str, **changes):
        """A copy of the one model of this kind that its tests share: making it takes twice as long."""
        key = (type(self), head, repr(sorted(changes.items())))
        if key not in _MADE:
            for other in [one for one in _MADE if one[0] is not type(self)]:
                del _MADE[other]
            _MADE[key] = self.make_model(head, **changes)
        return copy.deepcopy(_MADE[key])

    def make_model(self, head: str, **changes):
        entry = MODELS[self.model_type]
        return randomise(entry.load(entry.auto.get(head, head))(self.config(**changes)))

    def video(self, batch: int = 2, clip: tuple[int, int, int] | None = None) -> torch.Tensor:
        frames, height, width = clip or self.clip
        generator = torch.Generator().manual_seed(frames)
        return torch.randn(8, frames, self.channels, height, width, generator=generator)[:batch].contiguous()

    def inputs(self, head: str, batch: int = 2, clip=None) -> dict[str, torch.Tensor]:
        """What a call needs to give an output and, but for the bare model, a loss."""
        inputs = {self.clip_name: self.video(batch, clip)}
        if head == "AutoModelForVideoClassification":
            inputs["labels"] = torch.arange(batch) % CLASSES
        return inputs

    def wishes(self) -> dict[str, bool]:
        """Everything that a call can ask for, in the order of the outputs."""
        return {"output_hidden_states": True} | ({"output_attentions": True} if self.attention else {})

    def loss(self, model, inputs) -> torch.Tensor:
        output = model(**inputs)
        if "loss" in output:
            return output.loss
        state = output.last_hidden_state
        return (state * torch.linspace(-1, 1, state.numel()).view_as(state)).mean()

    # -- forward

    def test_shapes(self, head):
        output = self.model(head)(**self.inputs(head))
        value = first_tensor(output)
        assert torch.isfinite(value).all()
        if head == "AutoModelForVideoClassification":
            assert value.shape == (2, CLASSES)
        if head == "AutoModel":
            assert value.shape == (2, self.tokens, self.config().hidden_size)
        if head != "AutoModel":
            assert output.loss.shape == ()
            assert output.loss.dtype == torch.float32

    def test_batch_is_samples_one_by_one(self, head):
        model, inputs = self.model(head), self.inputs(head, batch=3)
        whole = first_tensor(model(**inputs))
        for i in range(3):
            assert_close(first_tensor(model(**{k: v[i : i + 1] for k, v in inputs.items()})), whole[i : i + 1])

    def test_other_sizes(self, head):
        model = self.model(head)
        for clip in self.other_clips:
            assert torch.isfinite(first_tensor(model(**self.inputs(head, clip=clip)))).all(), clip

    def test_refused_sizes(self):
        model = self.model("AutoModel")
        for clip in self.refused_clips:
            with pytest.raises(ModelInputError, match=str(clip[1])):
                model(self.video(clip=clip))

    def test_wrong_inputs(self, head):
        model, inputs = self.model(head), self.inputs(head)
        video = inputs.pop(self.clip_name)
        for wrong, message in (
            (video[0], "five dimensions"),
            (video[:, :, :-1], "channels"),
            (video.transpose(1, 2), "permute"),
            (video.to(torch.uint8), "image processor"),
            (None, "missing"),
        ):
            with pytest.raises(ModelInputError, match=message):
                model(**{self.clip_name: wrong}, **inputs)

    def test_bfloat16_is_close(self, head):
        model, inputs = self.model(head), self.inputs(head)
        exact = first_tensor(model(**inputs))
        model = model.bfloat16()
        inputs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
        output = model(**inputs)
        assert first_tensor(output).dtype == torch.bfloat16
        assert (first_tensor(output).float() - exact).norm() / exact.norm() < 0.03
        if "loss" in output:
            assert output.loss.dtype == torch.float32

    # -- attention and hidden states

    def test_eager_equals_sdpa(self, head):
        if not self.attention:
            pytest.skip("no attention")
        model, inputs = self.model(head), self.inputs(head)
        answers = []
        for name in ("eager", "sdpa"):
            model.set_attn_implementation(name)
            answers.append(first_tensor(model(**inputs)))
        assert_close(*answers, atol=3e-6)

    def test_attentions_under_every_implementation(self, head):
        if not self.attention:
            with pytest.raises(ModelInputError, match="no attention"):
                self.model(head)(**self.inputs(head), output_attentions=True)
            return
        model, inputs = self.model(head), self.inputs(head)
        seen = []
        for name in ("eager", "sdpa"):
            model.set_attn_implementation(name)
            output = model(**inputs, output_attentions=True)
            assert_close(first_tensor(output), first_tensor(model(**inputs)), atol=3e-6)
            maps = [output.attentions]
            if "temporal_attentions" in output:
                maps.append(output.temporal_attentions)
            for attentions in maps:
                assert len(attentions) == self.config().num_hidden_layers
                for block, probs in enumerate(attentions):
                    heads = self.heads[block] if self.heads else self.config().num_attention_heads
                    assert probs.shape[1] == heads
                    assert_close(probs.sum(-1), torch.ones(probs.shape[:-1]))
            seen.append(maps)
        for eager, sdpa in zip(*seen, strict=True):
            assert_close(eager, sdpa)

    def test_hidden_states(self, head):
        model, inputs = self.model(head), self.inputs(head)
        plain = model(**inputs)
        output = model(**inputs, output_hidden_states=True)
        assert "hidden_states" not in plain
        assert "attentions" not in plain
        assert_close(first_tensor(output), first_tensor(plain))
        assert len(output.hidden_states) == 1 + self.config().num_hidden_layers
        for before, after in itertools.pairwise(output.hidden_states):
            assert self.pyramid or before.shape == after.shape
            assert before.shape != after.shape or not torch.equal(before, after)
        assert output.hidden_states[0].shape[0] == 2 * self.hidden_rows

    def test_config_asks_like_the_call(self, head):
        inputs = self.inputs(head)
        wishes = self.wishes()
        asked = self.model(head)(**inputs, **wishes)
        model = self.model(head, **wishes)
        configured = model(**inputs)
        assert list(configured) == list(asked)
        for name in wishes:
            assert_close(configured[name.removeprefix("output_")], asked[name.removeprefix("output_")], atol=0)
            assert name.removeprefix("output_") not in model(**inputs, **{name: False})

    def test_tuples_are_the_outputs_in_order(self, head):
        model, inputs = self.model(head), self.inputs(head)
        options = self.wishes()
        named, values = model(**inputs, **options), model(**inputs, **options, return_dict=False)
        assert isinstance(values, tuple)
        assert len(values) == len(named)
        main = ["last_hidden_state", *self.encoder_outputs] if head == "AutoModel" else ["loss", "logits"]
        main += [name.removeprefix("output_") for name in options]
        assert list(named)[: len(main)] == main
        for value, (name, expected) in zip(values, named.items(), strict=True):
            parts = expected.to_tuple() if isinstance(expected, transformers.utils.ModelOutput) else expected
            assert_close(value, parts, atol=0), name
        model.config.return_dict = False
        assert isinstance(model(**inputs), tuple)

    # -- training

    def test_gradient_reaches_every_parameter(self, head):
        model = self.model(head).train()
        self.loss(model, self.inputs(head)).backward()
        assert all(p.grad is not None or re.search(self.uncalled, n) for n, p in model.named_parameters())
        without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
        pattern = f"{self.unreached if head == 'AutoModelForVideoClassification' else '$^'}|{self.uncalled}"
        assert without == {n for n, _ in model.named_parameters() if re.search(pattern, n)}

    def test_gradient_checkpointing_changes_nothing(self, head):
        results = []
        for checkpointing in (False, True):
            model = self.model(head).train()
            if checkpointing:
                model.gradient_checkpointing_enable()
                assert model.is_gradient_checkpointing
            loss = self.loss(model, self.inputs(head))
            loss.backward()
            # Buffers too: a block that runs twice must not show a batch to its norms twice.
            grads = {n: p.grad for n, p in model.named_parameters()}
            results.append((loss, grads, {n: b.clone() for n, b in model.named_buffers()}))
        assert_close(results[0], results[1], atol=1e-7)

    def test_layer_groups_cover_each_parameter_once(self, head):
        model = self.model(head)
        groups = model.layer_groups()
        assert len(groups) == self.config().num_hidden_layers + self.later_blocks + 2
        assert sorted(itertools.chain(*groups)) == sorted(n for n, _ in model.named_parameters())
        assert all(groups) or head == "AutoModel"
        assert all("patch_embeddings" not in n for g in groups[1:] for n in g)
        assert all(".layer.0." in n or ".downsample." in n for n in groups[1])

    def test_no_weight_decay(self, head):
        model = self.model(head)
        names = model.no_weight_decay()
        for name, p in model.named_parameters():
            undecayed = p.ndim <= 1 or name.endswith(UNDECAYED)
            assert (name in names) == undecayed, name

    # -- files

    def test_auto_classes_save_and_load(self, head, tmp_path):
        model, inputs = self.model(head), self.inputs(head)
        model.save_pretrained(tmp_path)
        assert type(transformers.AutoConfig.from_pretrained(tmp_path)) is type(model.config)
        loader = getattr(hf_video if head in hf_video.__all__ else transformers, head)
        loaded, info = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is type(model)
        assert not any(info.values()), info
        for ours, theirs in ((model.named_parameters(), loaded.named_parameters()),
                             (model.named_buffers(), loaded.named_buffers())):  # fmt: skip
            assert_close(dict(ours), dict(theirs), atol=0)
        assert_close(first_tensor(loaded(**inputs)), first_tensor(model(**inputs)), atol=2e-6)

    def test_load_in_bfloat16_and_back(self, head, tmp_path):
        model = self.model(head)
        model.save_pretrained(tmp_path)
        half = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
        for (name, p), q in zip(model.named_parameters(), half.parameters(), strict=True):
            assert q.dtype == torch.bfloat16
            assert torch.equal(p.bfloat16(), q), name
        half.save_pretrained(tmp_path / "half")
        back = type(model).from_pretrained(tmp_path / "half", dtype=torch.float32)
        assert_close([p.float() for p in half.parameters()], list(back.parameters()), atol=0)
        # What files hold was rounded with the parameters; what is worked out (tables) is exact.
        saved = model.state_dict()
        buffers = {n: half.get_buffer(n).to(b.dtype) if n in saved else b for n, b in model.named_buffers()}
        assert_close(dict(back.named_buffers()), buffers, atol=0)

    def test_copy_and_pickle(self, head):
        model, inputs = self.model(head), self.inputs(head)
        expected = first_tensor(model(**inputs))
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_close(first_tensor(twin(**inputs)), expected, atol=2e-6)

    # -- features

    def test_features(self, head):
        model, video = self.model(head), self.video()
        features = model.get_video_features(video)
        width = self.config().hidden_size
        assert features.embedding.shape == (2, self.embedding or width)
        assert features.feature_map.ndim == 5
        assert features.feature_map.shape[::4] == (2, width)
        if head == "AutoModelForVideoClassification":
            assert_close(model.classifier(features.embedding), model(video).logits, atol=3e-6)

    def test_features_follow_the_convention_of_transformers(self, head):
        model, inputs = self.model(head), self.inputs(head)
        inputs = {k: v for k, v in inputs.items() if k not in ("bool_masked_pos", "labels", "boxes")}
        video = inputs.pop(self.clip_name)
        features = model.get_video_features(pixel_values_videos=video, output_hidden_states=True, **inputs)
        plain = model.get_video_features(video, **inputs)
        assert_close(features.pooler_output, plain["embedding"], atol=0)
        assert_close(features.last_hidden_state, plain.last_hidden_state, atol=0)
        assert features.last_hidden_state.shape[::2] == (2, self.config().hidden_size)
        assert plain.hidden_states is None
        assert len(features.hidden_states) > 1
        as_tuple = model.get_video_features(video, return_dict=False, **inputs)
        assert_close(as_tuple[1], plain.embedding, atol=0)
        model.config.return_dict = False
        assert isinstance(model.get_video_features(video, **inputs), tuple)
        with pytest.raises(ModelInputError, match="two names of one input"):
            model.get_video_features(video, pixel_values_videos=video, **inputs)

    # -- graphs (of one block, as the compiler takes seconds for each; of all blocks in the slow tests)

    def compile(self, model, **options):
        torch._dynamo.reset()
        return torch.compile(model, fullgraph=True, **options)

    def dynamic_head(self) -> str:
        """Of the model that is compiled for every batch size."""
        heads = sorted(self.classes or MODELS[self.model_type].auto)
        return heads[min(1, len(heads) - 1)]

    @pytest.mark.no_cover
    def test_compile(self, graph):
        """A variant's for every batch size: nothing else compiles its one block so."""
        model, inputs = self.model(graph, **self.shallow), self.inputs(graph)
        compiled = self.compile(model, backend=self.backend)
        if self.variant:
            self.check_dynamic(model, compiled, graph, output_hidden_states=True)
        else:
            assert_close(first_tensor(compiled(**inputs)), first_tensor(model(**inputs)))

    @of_whole_contracts
    @pytest.mark.slow
    def test_compile_all_blocks(self, head):
        model, inputs = self.model(head), self.inputs(head)
        compiled = self.compile(model, backend="aot_eager")
        assert_close(first_tensor(compiled(**inputs)), first_tensor(model(**inputs)))

    def check_dynamic(self, model, compiled, head, **options):
        for batch in (2, 3):
            inputs = self.inputs(head, batch)
            for value in inputs.values():
                torch._dynamo.mark_dynamic(value, 0)
            got, expected = compiled(**inputs, **options), model(**inputs, **options)
            assert list(got) == list(expected)
            assert_close(first_tensor(got), first_tensor(expected))
            assert_close(got.hidden_states, expected.hidden_states)

    @of_whole_contracts
    @pytest.mark.no_cover
    def test_compile_dynamic_batch_with_hidden_states(self):
        head = self.dynamic_head()
        model = self.model(head, **self.shallow)
        self.check_dynamic(model, self.compile(model, backend=self.backend), head, output_hidden_states=True)

    @of_whole_contracts
    @pytest.mark.slow
    def test_compile_all_sizes_dynamic_with_attentions(self, head):
        model = self.model(head)
        compiled = self.compile(model, backend="aot_eager", dynamic=True)
        self.check_dynamic(model, compiled, head, **self.wishes())

    @of_whole_contracts
    @pytest.mark.slow
    def test_compile_to_kernels_and_train(self, head):
        grads = []
        for compiled in (False, True):
            model = self.model(head).train().to(self.precision)
            inputs = {k: v.to(self.precision) if v.is_floating_point() else v for k, v in self.inputs(head).items()}
            loss = self.loss(self.compile(model) if compiled else model, inputs)
            loss.backward()
            grads.append((loss, [p.grad for p in model.parameters()]))
        assert_close(*grads)

    @pytest.mark.no_cover
    def test_export_with_dynamic_batch(self, graph):
        self.check_export(self.model(graph, **self.shallow), graph)

    @of_whole_contracts
    @pytest.mark.slow
    def test_export_all_blocks(self, head):
        self.check_export(self.model(head), head)

    def check_export(self, model, head):
        inputs = self.inputs(head)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(model, (), inputs, dynamic_shapes={name: {0: batch} for name in inputs})
        for size in (1, 5):
            inputs = self.inputs(head, size)
            assert_close(first_tensor(program.module()(**inputs)), first_tensor(model(**inputs)))


class BoxContract:
    """Of a model that classifies boxes: before the model's own contract among the bases."""

    def inputs(self, head, batch=2, clip=None):
        _, height, width = clip or self.clip
        boxes = torch.tensor([[0.0, 0.0, 0.6, 0.9], [0.3, 0.2, 0.9, 0.7], [0.1, 0.4, 0.5, 1.0]])
        boxes = boxes * torch.tensor([width, height, width, height])
        labels = torch.arange(batch * 3 * CLASSES).remainder(3).eq(0).float().view(batch, 3, CLASSES)
        labels[0, 2] = -100  # padding
        return {"pixel_values": self.video(batch, clip), "boxes": boxes.expand(batch, -1, -1), "labels": labels}

    def test_boxes_are_seen_one_by_one(self, head):
        """And labels of -100 count as if the box were not there."""
        model, inputs = self.model(head), self.inputs(head)
        output = model(**inputs)
        for box in range(3):
            alone = model(inputs["pixel_values"], inputs["boxes"][:, box : box + 1])
            assert_close(alone.logits, output.logits[:, box : box + 1])
        kept = inputs["labels"] != -100
        expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits[kept], inputs["labels"][kept])
        assert_close(output.loss, expected)
        assert_close(model(**inputs, num_items_in_batch=7).loss, expected * kept.sum() / 7)

    def test_boxes_and_labels_of_another_shape(self, head):
        model, inputs = self.model(head), self.inputs(head)
        for changes, words in (
            ({"boxes": None}, "NoneType"),
            ({"boxes": inputs["boxes"][0]}, r"\(3, 4\)"),
            ({"boxes": inputs["boxes"][:1]}, r"\(2, boxes, 4\)"),
            ({"labels": inputs["labels"][:, :2]}, "labels has shape"),
        ):
            with pytest.raises(ModelInputError, match=words):
                model(**{**inputs, **changes})


class TrainerContract:
    """Gradient accumulation through a real Trainer, mixed into a model's contract."""

    def train_once(self, head, folder, samples, batch_size, steps, **changes):
        model = self.model(head, **changes)
        inputs = self.inputs(head, samples)
        rows = [{k: v[i] for k, v in inputs.items()} for i in range(samples)]
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            max_steps=1,
            learning_rate=0.1,
            optim="sgd",
            lr_scheduler_type="constant",
            max_grad_norm=0,
            weight_decay=0.0,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_num_workers=0,
        )
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
        loss = trainer.train().training_loss
        return loss, {n: p.detach() for n, p in model.named_parameters()}

    @pytest.mark.no_cover
    @pytest.mark.parametrize("samples", [pytest.param(8, marks=pytest.mark.slow), 7])
    def test_gradient_accumulation(self, tmp_path, samples):
        """bs 2 × 4 steps = bs 8, also where the last micro-batch is smaller."""
        head = "AutoModelForVideoClassification"
        start = {n: p.detach() for n, p in self.model(head).named_parameters()}
        whole = self.train_once(head, tmp_path, samples, 8, 1)
        parts = self.train_once(head, tmp_path, samples, 2, 4)
        assert_close(parts, whole, atol=1e-6)
        assert any(not torch.equal(start[n], p) for n, p in whole[1].items())


assert hf_video  # registers the models: every test here relies on that import
