"""What a dry run says leaves a site, and the table of rounds that the server shows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny

from hf_video.cli import DONE, WRONG, main
from hf_video.federated.config import FederatedConfig
from hf_video.federated.deployment.progress import RoundTable, least_bandwidth
from hf_video.federated.deployment.traffic import Traffic, told_besides

ARRAYS = {"a": np.zeros((50, 100), np.float32), "b": np.zeros(7, np.int64)}
CONFIG = FederatedConfig("videomae", rounds=10, deadline=100.0)


def test_sizes_and_bandwidth():
    plain = Traffic.of(CONFIG, ARRAYS)
    assert plain.tensors == {"a": ("float32", (50, 100), 20000), "b": ("int64", (7,), 56)}
    assert 20056 < plain.up < 20056 + 200
    assert 20056 < plain.down < 20056 + 3000  # the configuration travels too
    packed = Traffic.of(replace(CONFIG, compression="fp16"), ARRAYS)
    assert 10056 < packed.up < 10056 + 200
    assert Traffic.of(replace(CONFIG, secure="he"), ARRAYS).up == int(7.5 * plain.up)
    assert least_bandwidth(25e6, 100) == pytest.approx(10)  # 200 Mbit in 20 s


def test_what_the_server_reads_is_said():
    assert "the server reads this site's changes" in told_besides(CONFIG)[0]
    assert "the sum of all sites alone" in told_besides(replace(CONFIG, secure="secagg", min_clients=3))[0]
    assert "neither this site's changes nor their sum" in told_besides(replace(CONFIG, secure="he"))[0]


def test_dry_run(tmp_path, capsys):
    model = tiny.save_tiny(tmp_path / "model")
    for number in range(2):
        path = tmp_path / "videos/train" / tiny.LABELS[number] / "0.mp4"
        path.parent.mkdir(parents=True)
        tiny.write_clip(path, 8, seed=number)
    (tmp_path / "federation.yaml").write_text(f"model: {model}\nkeys: head\nrounds: 5\n")
    text = "name: a\nserver: fed.example.org:8443\nroot: ca.crt\nkey: a.key\ndata: videos\n"
    (tmp_path / "site.yaml").write_text(text)
    words = ["federated", "client", str(tmp_path / "site.yaml"), "--dry-run", str(tmp_path / "federation.yaml")]
    assert main(words) == DONE
    shown = capsys.readouterr().out
    # The classifier of two classes on 32 features, and what else the policy calls the head: nothing of the encoder.
    assert "classifier.weight" in shown
    assert "2x32" in shown
    assert "encoder" not in shown
    assert "no video, no file's name and no label" in shown
    assert not (tmp_path / "state").exists()
    (tmp_path / "site.yaml").write_text(text + "limits: {rounds: 4}\n")
    assert main(words) == WRONG
    assert "refuse 5 rounds, and at most 4 are agreed" in capsys.readouterr().err


def test_the_table_tells_what_is_new(tmp_path):
    log = tmp_path / "audit.jsonl"
    table = RoundTable(tmp_path, 3)
    assert table.lines() == []

    def write(event, **facts):
        with log.open("a") as file:
            file.write(json.dumps({"time": "", "event": event, **facts}) + "\n")

    write("started", tensors=4, bytes=2_000_000, config={"deadline": 100.0})
    write("failed", round=1, client="b", reason="no answer within 100 s")
    assert table.lines() == [
        "4 tensors travel, 2.00 MB to each site and as much back in a round; the deadline of 100 s needs a line of "
        "1.60 Mbit/s",
        "  round 1: b is missing: no answer within 100 s",
    ]
    row = {"round": 1, "clients": ["a", "c"], "failed": {"b": ""}, "seconds": 61.5, "bytes_down": 6e6, "bytes_up": 4e6}
    write("round", **row, metrics={"loss": 0.5})
    with log.open("a") as file:
        file.write('{"event": "rou')  # a line that is still being written
    header, line = table.lines()
    assert header.split() == ["round", "clients", "loss", "accuracy", "MB", "down", "MB", "up", "seconds"]
    assert line.split() == ["1/3", "2/3", "0.5000", "6.00", "4.00", "61.5"]
    assert table.lines() == []
