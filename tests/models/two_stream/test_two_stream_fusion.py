"""Two-stream networks: streams alone and together, the four fusions against their formulas, sizes, starts."""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, randomise
from test_two_stream import RESNET, VGG
from torch.nn import functional as F
from transformers import AutoImageProcessor

from hf_video.base.convert import convert_file, from_official
from hf_video.errors import CheckpointError, ConfigError, ModelInputError
from hf_video.models.two_stream.configuration_two_stream import TwoStreamConfig
from hf_video.models.two_stream.convert_two_stream import across_modality, join, load_image_weights
from hf_video.models.two_stream.modeling_two_stream import TwoStreamForVideoClassification, TwoStreamModel

TINY = {"spatial_config": VGG, "temporal_config": {**VGG, "fc_width": 5}, "flow_length": 2, "num_labels": 4}
FRAMES = torch.randn(2, 3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
FLOW = torch.randn(2, 3, 4, 16, 24, generator=torch.Generator().manual_seed(1))


def model(cls=TwoStreamForVideoClassification, **changes):
    return randomise(cls(TwoStreamConfig(**{**TINY, **changes})))


def alone(fused, stream):
    """The model of one stream of a fused one."""
    other = {"spatial": "temporal", "temporal": "spatial"}[stream]
    config = TwoStreamConfig(**{**TINY, f"{other}_config": None})
    single = TwoStreamForVideoClassification(config)
    state = {k: v for k, v in fused.state_dict().items() if f".{stream}." in k}
    single.load_state_dict(state)
    return single.eval()


@torch.no_grad()
def single_logits(fused):
    return alone(fused, "spatial")(FRAMES).logits, alone(fused, "temporal")(flow_values=FLOW).logits


@pytest.mark.parametrize(
    ("changes", "formula"),
    [
        ({}, lambda a, b: (a + b) / 2),
        ({"fusion": "sum_logits"}, lambda a, b: a + b),
        ({"fusion": "weighted"}, lambda a, b: (a + 1.5 * b) / 2.5),
        ({"fusion": "weighted", "fusion_weights": [3, 1]}, lambda a, b: (3 * a + b) / 4),
        ({"fusion_scores": "softmax"}, lambda a, b: ((a.softmax(-1) + b.softmax(-1)) / 2).log()),
        (
            {"fusion": "weighted", "fusion_scores": "softmax"},
            lambda a, b: ((a.softmax(-1) + 1.5 * b.softmax(-1)) / 2.5).log(),
        ),
    ],
)
@torch.no_grad()
def test_late_fusion_is_its_formula(changes, formula):
    fused = model(**changes)
    assert_close(fused(FRAMES, FLOW).logits, formula(*single_logits(fused)), atol=1e-6)


@torch.no_grad()
def test_scores_are_averaged_over_frames_and_stacks():
    """Also where there are more frames than stacks."""
    fused = model(fusion="sum_logits")
    frames = torch.stack([fused(FRAMES[:, i : i + 1], FLOW[:, :1]).logits for i in range(3)]).mean(0)
    assert_close(fused(FRAMES, FLOW[:, :1]).logits, frames, atol=2e-6)
    with pytest.raises(ModelInputError, match="as many stacks as frames"):
        fused.get_video_features(FRAMES, FLOW[:, :1])


@torch.no_grad()
def test_convolutional_fusion_is_its_formula():
    """Concatenation, 3x3x3 convolution, ReLU, pooling over time and space, and the temporal tower beside it."""
    fused = model(fusion="conv", temporal_config=VGG)
    two = fused.two_stream
    spatial, temporal = (s.encode(x)[0].transpose(1, 2) for s, x in ((two.spatial, FRAMES), (two.temporal, FLOW)))
    both = F.conv3d(torch.cat([spatial, temporal], 1), two.fusion.weight, two.fusion.bias, padding=1).relu()
    logits = []
    for stream, maps in (("spatial", both), ("temporal", temporal)):
        pooled = F.max_pool3d(maps, (3, 2, 2))[:, :, 0]
        vector = getattr(two, stream).embed(pooled[:, None])[:, 0]
        logits.append(fused.classifier.heads[stream](vector))
    assert_close(fused(FRAMES, FLOW).logits, (logits[0] + logits[1]) / 2, atol=1e-6)
    with pytest.raises(ModelInputError, match="as many stacks"):
        fused(FRAMES, FLOW[:, :2])


def test_convolutional_fusion_starts_as_a_blurred_sum():
    """A quarter of the frame's channel, three quarters of the flow's: away from the edges of a constant map exactly."""
    fresh = TwoStreamModel(TwoStreamConfig(**{**TINY, "temporal_config": VGG, "fusion": "conv"}))
    spatial, temporal = torch.rand(1, 1, 8, 1, 1), torch.rand(1, 1, 8, 1, 1)
    maps = [m.expand(1, 3, 8, 3, 3) for m in (spatial, temporal)]
    middle = fresh.fusion(torch.cat(maps, 2).transpose(1, 2))[:, :, 1, 1, 1]
    assert_close(middle, (0.25 * spatial + 0.75 * temporal)[:, 0, :, 0, 0], atol=1e-6)
    weight = fresh.fusion.weight[0, 0].detach()
    assert float(weight[1, 1, 1] / weight[0, 1, 1]) == pytest.approx(float(torch.tensor(0.5).exp()), rel=1e-5)


@torch.no_grad()
def test_a_missing_stream_is_not_looked_at():
    spatial = alone(model(), "spatial")
    assert_close(spatial(FRAMES, "not a tensor").logits, spatial(FRAMES).logits, atol=0)
    temporal = alone(model(), "temporal")
    assert temporal.main_input_name == "flow_values"
    with pytest.raises(ModelInputError, match="flow_values is missing"):
        temporal(FRAMES)


def test_single_stream_models_save_and_load(tmp_path):
    import transformers

    temporal = alone(model(), "temporal")
    temporal.save_pretrained(tmp_path)
    back = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert back.config.spatial_config is None
    assert_close(back(flow_values=FLOW).logits, temporal(flow_values=FLOW).logits, atol=0)


@torch.no_grad()
def test_streams_that_were_trained_apart_are_fused():
    fused = model(fusion="weighted")
    one, two = alone(fused, "spatial"), alone(fused, "temporal")
    again = TwoStreamForVideoClassification.from_streams(one, two, fusion="weighted")
    assert_close(again(FRAMES, FLOW).logits, fused(FRAMES, FLOW).logits, atol=0)
    with pytest.raises(ConfigError, match="no temporal stream"):
        TwoStreamForVideoClassification.from_streams(one, one)
    with pytest.raises(ConfigError, match="4 and 5 classes"):
        TwoStreamForVideoClassification.from_streams(one, model(num_labels=5))


@torch.no_grad()
def test_streams_that_are_video_models_add_their_logits():
    """Two-stream I3D: the frame stream on RGB, the flow stream on x and y, logits summed."""
    i3d = pytest.importorskip("hf_video.models.i3d.modeling_i3d", reason="I3D is a model of its own")
    streams = {"spatial_config": {"model_type": "i3d"}, "temporal_config": {"model_type": "i3d"}}
    config = TwoStreamConfig(**streams, fusion="sum_logits", flow_length=1, num_labels=4)
    fused = TwoStreamForVideoClassification(config).eval()
    frames, flow = torch.randn(1, 9, 3, 32, 32), torch.randn(1, 9, 2, 32, 32)
    expected = 0
    for name, clip in (("spatial", frames), ("temporal", flow)):
        alone = i3d.I3DForVideoClassification(getattr(fused.two_stream, name).spec.config).eval()
        alone.classifier = fused.classifier.heads[name]
        setattr(alone, alone.base_model_prefix, getattr(fused.two_stream, name).model)
        expected = expected + alone(pixel_values=clip).logits
    assert_close(fused(frames, flow).logits, expected, atol=1e-4)
    with pytest.raises(ConfigError, match="image networks"):
        TwoStreamConfig(spatial_config={"model_type": "i3d"}, fusion="conv")


# -- sizes and values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "spatial", "temporal"),
    [("vgg16", 134_674_341, 134_684_133), ("resnet152", 58_350_757, 58_404_069)],
)
def test_parameters_of_the_published_networks(network, spatial, temporal):
    """With 101 classes. The golden index counts ResNet's batch statistics in: 58,502,336 and 58,555,648."""
    for changes, expected in (({"temporal_config": None}, spatial), ({"spatial_config": None}, temporal)):
        config = TwoStreamConfig(**{"spatial_config": network, "temporal_config": network, **changes}, num_labels=101)
        with torch.device("meta"):
            empty = TwoStreamForVideoClassification(config)
        assert sum(p.numel() for p in empty.parameters()) == expected
        buffers = sum(b.numel() for b in empty.buffers())
        assert buffers == {"vgg16": 0, "resnet152": 151_579}[network]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": "svm"}, "'average', 'weighted'"),
        ({"fusion_scores": "probabilities"}, "softmax"),
        ({"fusion_weights": [1.0]}, "spatial, temporal"),
        ({"flow_length": 0}, "flow_length"),
        ({"spatial_config": None, "temporal_config": None}, "at least one stream"),
        ({"spatial_config": None, "fusion": "conv"}, "joins two streams"),
        ({"spatial_config": "vgg19"}, "vgg16"),
        ({"spatial_config": {"kind": "vgg"}}, "depths"),
        ({"spatial_config": {"network": "resnet18", "dropout": [0.5, 0.5]}}, "dropout"),
        ({"spatial_config": {"network": "resnet18", "channels": 3}}, "channels"),
        ({"spatial_config": {"network": "resnet18", "expansion": 2}}, "bottlenecks"),
        ({"temporal_config": {**VGG, "depths": [2, 0]}}, "temporal_config"),
        ({"fusion_scores": "softmax", "problem_type": "multi_label_classification"}, "one label"),
        ({"fusions": "conv"}, "Did you mean 'fusion'"),
    ],
)
def test_wrong_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        TwoStreamConfig(**{**TINY, **changes})


def test_official_dropout():
    specs = TwoStreamConfig().specs
    assert (specs["spatial"].dropout, specs["temporal"].dropout) == ((0.9, 0.9), (0.9, 0.8))
    specs = TwoStreamConfig(spatial_config="resnet50", temporal_config="resnet50").specs
    assert (specs["spatial"].dropout, specs["temporal"].dropout) == ((0.8,), (0.7,))


def test_initial_weights_follow_the_official_code():
    fresh = TwoStreamForVideoClassification(TwoStreamConfig(**{**TINY, "spatial_config": "resnet18"}))
    conv = fresh.two_stream.spatial.encoder.layer[3].blocks[1].convs[1]
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.02)
    assert fresh.two_stream.temporal.hidden[0].weight.std().item() == pytest.approx(0.01, rel=0.2)
    norm = fresh.two_stream.spatial.embeddings.norm
    assert bool((norm.weight == 1).all())
    assert not fresh.two_stream.temporal.embeddings.conv.bias.any()


# -- official files and image networks ---------------------------------------------------------------------------------


def official_resnet(channels: int, head: str = "fc_action", classes: int = 4) -> dict[str, torch.Tensor]:
    """A ResNet of two stages with two blocks each, under official names, every tensor random."""
    shapes = {"conv1.weight": (6, channels, 7, 7), f"{head}.weight": (classes, 8), f"{head}.bias": (classes,)}
    norms = {"bn1": 6}
    for stage, (before, width) in enumerate(((6, 6), (6, 8)), 1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, before if block == 0 else width, 3, 3)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            norms |= {f"{name}.bn1": width, f"{name}.bn2": width}
            if block == 0 and before != width:
                shapes[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
                norms[f"{name}.downsample.1"] = width
    for name, width in norms.items():
        shapes |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {name: torch.rand(shape) for name, shape in shapes.items()}


def test_old_files_without_counters_and_two_files_together():
    """Published files are of a PyTorch that did not count batches; newer ones count. Two streams make one model."""
    spatial, temporal = official_resnet(3), official_resnet(4)
    assert from_official("two_stream", {"state_dict": spatial}).config.spatial_config["depths"] == [2, 2]
    temporal["bn1.num_batches_tracked"] = torch.tensor(7)
    both = from_official("two_stream", join(spatial=spatial, temporal=temporal), fusion="sum_logits")
    one, two = from_official("two_stream", spatial), from_official("two_stream", temporal)
    assert two.config.flow_length == 2
    with torch.no_grad():
        expected = one(FRAMES).logits + two(flow_values=FLOW).logits
        assert_close(both(FRAMES, FLOW).logits, expected)
    named = {f"rgb.{k}": v for k, v in spatial.items()} | {f"flow.{k}": v for k, v in temporal.items()}
    assert_close(from_official("two_stream", named)(FRAMES, FLOW).logits, both(FRAMES, FLOW).logits / 2, atol=1e-5)


@pytest.mark.parametrize(("channels", "stream"), [(3, "spatial"), (8, "temporal")])
def test_a_converted_file_has_a_processor_of_its_stream(tmp_path, channels, stream):
    torch.save({"state_dict": official_resnet(channels), "arch": "rgb_resnet"}, tmp_path / "model_best.pth.tar")
    convert_file(tmp_path / "model_best.pth.tar", model_type="two_stream", output=tmp_path / "out", image_size=32)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert processor.streams == stream
    assert processor.crop_size == {"height": 32, "width": 32}
    assert processor.size == {"height": 37, "width": 49}
    assert processor.flow_length == (4 if stream == "temporal" else 10)


def test_what_does_not_fit_is_named():
    state = official_resnet(3)
    extra = {**state, "layer1.0.conv9.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="left over"):
        from_official("two_stream", extra)
    del state["layer2.1.bn2.running_var"]
    with pytest.raises(CheckpointError, match="missing"):
        from_official("two_stream", state)
    with pytest.raises(CheckpointError, match="No two-stream checkpoint"):
        from_official("two_stream", {"a": torch.zeros(1)})


def test_files_without_a_classifier_make_the_bare_model():
    state = {k: v for k, v in official_resnet(3).items() if not k.startswith("fc")}
    bare = from_official("two_stream", state)
    assert type(bare) is TwoStreamModel
    assert_close(bare(FRAMES).pooler_output, from_official("two_stream", official_resnet(3, classes=2) | state)
                 .get_video_features(FRAMES).embedding, atol=1e-6)  # fmt: skip


def test_across_modality_answers_to_grey_motion_as_to_grey():
    """The mean over colours, repeated: a stack whose channels all are g answers C/3 times what a grey g image does."""
    rgb = torch.randn(6, 3, 7, 7, dtype=torch.float64)
    flow = across_modality(rgb, 20)
    assert flow.shape == (6, 20, 7, 7)
    grey = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    answer = F.conv2d(grey.expand(1, 20, 9, 9), flow)
    assert_close(answer, F.conv2d(grey.expand(1, 3, 9, 9), rgb) * 20 / 3, atol=1e-9)


def test_image_weights_start_both_streams():
    torch.manual_seed(0)
    image = official_resnet(3, head="fc", classes=1000)
    settings = {**RESNET, "depths": [2, 2]}
    config = TwoStreamConfig(spatial_config=settings, temporal_config=settings, flow_length=2, num_labels=4)
    fresh = TwoStreamForVideoClassification(config).eval()
    left = load_image_weights(fresh, image)
    assert left == sorted(n for n, _ in fresh.named_parameters() if n.startswith("classifier."))
    network = from_official("two_stream", image)
    assert network.config.num_labels == 1000
    with torch.no_grad():
        expected = network.get_video_features(FRAMES)
        assert_close(fresh.two_stream.spatial.encode(FRAMES)[0].movedim(2, -1), expected.feature_map)
        flow_conv = fresh.two_stream.temporal.embeddings.conv.weight
        assert_close(flow_conv, across_modality(image["conv1.weight"], 4), atol=0)
    with pytest.raises(CheckpointError, match="does not fit the spatial stream"):
        load_image_weights(model(), image)


def test_image_weights_of_vgg_leave_the_flow_streams_hidden_layers_alone():
    torch.manual_seed(0)
    shapes = {
        "features.0": (6, 3, 3, 3),
        "features.2": (6, 6, 3, 3),
        "features.5": (8, 6, 3, 3),
        "classifier.0": (8, 32),
        "classifier.3": (8, 8),
        "classifier.6": (1000, 8),
    }
    image = {f"{k}.weight": torch.rand(s) for k, s in shapes.items()}
    image |= {f"{k}.bias": torch.rand(s[0]) for k, s in shapes.items()}
    fresh = TwoStreamForVideoClassification(TwoStreamConfig(**{**TINY, "temporal_config": VGG}))
    before = fresh.two_stream.temporal.hidden[0].weight.clone()
    left = load_image_weights(fresh, image)
    assert_close(fresh.two_stream.temporal.hidden[0].weight, before, atol=0)
    assert_close(fresh.two_stream.spatial.hidden[0].weight, image["classifier.0.weight"], atol=0)
    assert_close(fresh.two_stream.temporal.encoder.layer[1].convs[0].weight, image["features.5.weight"], atol=0)
    assert any(name.startswith("two_stream.temporal.hidden.") for name in left)
    assert not any(name.startswith("two_stream.spatial.") for name in left)
