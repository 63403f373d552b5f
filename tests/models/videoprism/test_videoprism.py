"""VideoPrism's encoder and classifier: the contract, and what is peculiar."""

from __future__ import annotations

from typing import ClassVar

from contract import CLASSES, ModelContract, TrainerContract, assert_close

TINY = {
    "image_size": [36, 54],
    "num_frames": 4,
    "hidden_size": 24,
    "num_spatial_layers": 2,
    "num_temporal_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}


class TestVideoPrism(TrainerContract, ModelContract):
    model_type = "videoprism_vision_model"
    tiny = TINY
    clip = (4, 36, 54)
    clip_name = "pixel_values_videos"
    tokens = 4 * 6
    hidden_rows = 4
    pyramid = True  # rows are frames, then places
    refused_clips = ((4, 36, 50), (4, 17, 54), (1, 36, 54), (8, 36, 54), (4, 54, 36), (4, 72, 108))
    shallow: ClassVar = {"num_spatial_layers": 1, "num_temporal_layers": 1}

    def test_shapes(self, head):
        """Logits have a dimension for the pooling's one query, as in transformers."""
        output = self.model(head)(**self.inputs(head))
        if head == "AutoModel":
            return super().test_shapes(head)
        assert output.logits.shape == (2, 1, CLASSES)
        assert output.loss.shape == ()

    def test_features(self, head):
        model, video = self.model(head), self.video()
        features = model.get_video_features(video)
        assert features.embedding.shape == (2, 24)
        assert features.feature_map.shape == (2, 4, 2, 3, 24)
        assert_close(features.feature_map.flatten(1, 3), features.last_hidden_state, atol=0)
        if head == "AutoModel":
            assert_close(features.embedding, features.last_hidden_state.mean(1))
        else:
            assert_close(model.classifier(features.embedding), model(video).logits[:, 0], atol=3e-6)

    def test_layer_groups_cover_each_parameter_once(self, head):
        model = self.model(head)
        groups = model.layer_groups()
        assert sorted(n for group in groups for n in group) == sorted(n for n, _ in model.named_parameters())
        assert [sum("layers." in n for n in group) for group in groups] == [0, *[16] * 4, 0]
        assert {n.split("vision_model.")[-1].split(".")[0] for n in groups[0]} == {"spatial_embeddings"}
        assert {n.split("vision_model.")[-1].split(".")[0] for n in groups[3]} == {
            "temporal_layers", "temporal_embeddings", "layernorm1"
        }  # fmt: skip
