"""Configurations: spelling, values that make no model, files of other origins."""

from __future__ import annotations

import json
import logging

import pytest
import transformers

from hf_video.base.configuration import pair
from hf_video.errors import ConfigError
from hf_video.models.timesformer.configuration_timesformer import TimesformerConfig
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig

CONFIGS = pytest.mark.parametrize("cls", [TimesformerConfig, VideoMAEConfig])


@CONFIGS
@pytest.mark.parametrize(
    ("typed", "meant"),
    [("num_frame", "num_frames"), ("hiden_size", "hidden_size"), ("num_hidden_layer", "num_hidden_layers")],
)
def test_misspelt_fields_name_the_one_that_was_meant(cls, typed, meant, tmp_path):
    with pytest.raises(ConfigError, match=f"{typed}.*Did you mean '{meant}'"):
        cls(**{typed: 4})
    cls().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"{typed}.*Did you mean '{meant}'"):
        cls.from_pretrained(tmp_path, **{typed: 4})


@CONFIGS
def test_fields_of_transformers_are_no_misspellings(cls):
    config = cls(num_labels=3, id2label={0: "a", 1: "b", 2: "c"}, problem_type="regression", output_attentions=True)
    assert config.num_labels == 3
    assert config.output_attentions is True
    assert cls(label2id={"a": 0, "b": 1}, id2label={0: "a", 1: "b"}, architectures=["X"]).label2id == {"a": 0, "b": 1}


@CONFIGS
def test_files_may_hold_keys_of_other_versions(cls, tmp_path):
    cls(num_frames=4).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_frame": 9, "a_new_option": 1}))
    config = cls.from_pretrained(tmp_path)
    assert config.num_frames == 4
    assert config.a_new_option == 1


@CONFIGS
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"hidden_size": 100, "num_attention_heads": 7}, "multiple"),
        ({"image_size": 8}, "no (patch|tubelet)"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"hidden_dropout_prob": -0.1}, "hidden_dropout_prob"),
        ({"patch_size": [16, 16, 2]}, "patch_size"),
    ],
)
def test_values_that_make_no_model(cls, values, message):
    with pytest.raises(ConfigError, match=message):
        cls(**values)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (TimesformerConfig, {"attention_type": "divided"}, "divided_space_time"),
        (TimesformerConfig, {"initializer": "zeros"}, "xavier"),
        (VideoMAEConfig, {"decoder_hidden_size": 10, "decoder_num_attention_heads": 3}, "decoder_hidden_size"),
        (VideoMAEConfig, {"num_frames": 1}, "tubelet"),
    ],
)
def test_values_of_one_model(cls, values, message):
    with pytest.raises(ConfigError, match=message):
        cls(**values)


@CONFIGS
def test_overrides_of_a_file_are_checked_too(cls, tmp_path):
    cls().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="multiple"):
        cls.from_pretrained(tmp_path, hidden_size=770)


@CONFIGS
def test_round_trip(cls, tmp_path):
    config = cls(num_frames=6, image_size=[32, 64], patch_size=(8, 16), drop_path_rate=0.1, num_labels=3)
    config.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path)
    assert (loaded.grid[1:], loaded.num_labels, loaded.drop_path_rate) == ((4, 4), 3, 0.1)
    on_disk, again = (json.loads(json.dumps(c.to_dict())) for c in (config, loaded))
    for name, value in on_disk.items():
        assert again[name] == value or name == "transformers_version", name


def test_a_grid_is_remembered_only_when_it_changes(tmp_path, caplog):
    VideoMAEConfig(num_frames=16).save_pretrained(tmp_path)
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        assert VideoMAEConfig.from_pretrained(tmp_path, num_frames=16).position_grid is None
    assert "interpolated" not in caplog.text
    with caplog.at_level(logging.WARNING):
        assert VideoMAEConfig.from_pretrained(tmp_path, num_frames=32).position_grid == [8, 14, 14]
    assert "interpolated" in caplog.text


def test_pair():
    assert pair(3) == (3, 3)
    assert pair([2, 5]) == (2, 5)
    with pytest.raises(ConfigError, match="rows"):
        pair([1, 2, 3], "rows")


def test_use_diff_false_and_stock_read_the_same_file(tmp_path):
    from transformers.models.timesformer.configuration_timesformer import TimesformerConfig as Stock

    TimesformerConfig(num_frames=4, drop_path_rate=0.1).save_pretrained(tmp_path)
    assert Stock.from_pretrained(tmp_path).num_frames == 4
    assert issubclass(TimesformerConfig, transformers.PreTrainedConfig)
