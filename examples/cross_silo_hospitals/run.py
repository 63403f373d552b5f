"""A federation of three hospitals as it is deployed, with all its processes on this machine: a server and three sites,
TLS, keys, secure aggregation and privacy of single videos.

Each hospital's videos are moving glyphs, from other seeds. The commands that are printed are those that the server and
the hospitals would type.

    python examples/cross_silo_hospitals/run.py --output hospitals
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import hf_video
from hf_video.data.moving_glyphs import DIRECTIONS, write_moving_glyphs

HOSPITALS = ("north", "south", "west")


def command(*words: object) -> list[str]:
    """`hf-video federated …`, shown as it is typed."""
    print("$ hf-video federated", shlex.join(map(str, words)), flush=True)
    return [sys.executable, "-m", "hf_video.cli", "federated", *map(str, words)]


def save_untrained_model(folder: Path) -> None:
    """Saves the configuration of a VideoMAE of 225 thousand parameters; the federation's seed draws its weights."""
    labels = dict(enumerate(sorted(DIRECTIONS)))
    hf_video.VideoMAEConfig(
        image_size=64,
        num_frames=8,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        initializer_range=0.1,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    ).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    hf_video.VideoMAEImageProcessor(**sizes).save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("hospitals"))
    parser.add_argument("--clips", type=int, default=96, help="videos of each hospital")
    parser.add_argument("--port", type=int, default=8443)
    options = parser.parse_args()
    root = options.output.absolute()
    root.mkdir(parents=True)
    save_untrained_model(root / "model")
    text = (Path(__file__).parent / "federation.yaml").read_text()
    (root / "federation.yaml").write_text(text.replace("model: model", f"model: {root / 'model'}"))
    subprocess.run(command("keys", root / "sites", "--names", ",".join(HOSPITALS), "--hosts", "localhost"), check=True)
    for seed, name in enumerate(HOSPITALS):
        write_moving_glyphs(root / "sites" / name / "videos" / "train", options.clips, seed=seed)

    server = ["server", root / "federation.yaml", "--keys", root / "sites/server", "--output", root / "run"]
    running = subprocess.Popen(command(*server, "--port", options.port))
    sites = []
    for name in HOSPITALS:
        site = root / "sites" / name / "site.yaml"
        site.write_text(site.read_text().replace(":8443", f":{options.port}"))
        sites.append(subprocess.Popen(command("client", site)))
    try:
        code = running.wait()
    finally:
        for one in (running, *sites):
            one.terminate()
            one.wait()
    if code == 0:
        subprocess.run(command("report", root / "run"), check=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
