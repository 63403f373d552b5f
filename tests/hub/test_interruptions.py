"""Uploads that break off: what arrived is not sent again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from flow_client import FlowError
from server import LoopbackHub

PUSH = "import sys; from hf_video.cli import main; sys.exit(main())"


def parts_sent(hub: LoopbackHub) -> list[tuple[int, bool]]:
    return [(upload.part, upload.finished) for upload in hub.uploads]


def wait_for_uploads(hub: LoopbackHub, count: int) -> None:
    """Until so many large files have arrived; half a minute at most."""
    until = time.monotonic() + 30
    while sum(upload.finished for upload in hub.uploads) < count and time.monotonic() < until:
        time.sleep(0.02)


def unknown(folder, number: int) -> None:
    """Weights that no hub has seen: storage knows files by their content."""
    from safetensors.torch import load_file, save_file

    for file in folder.glob("*.safetensors"):
        save_file({name: tensor + number for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


@pytest.fixture
def fresh(request, shards):
    unknown(shards, 1 + hash(request.node.name) % 1000)
    return shards


def test_a_cut_connection_costs_one_part(hub, client, model, tmp_path):
    """The second of four parts is cut in the middle; the client sends that part again, and only that."""
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    unknown(folder, 7)
    hub.disturb("PUT", "/storage/.*/part/2$", after=10_000)
    client("push_folder", folder, "owner/cut_part")
    assert parts_sent(hub) == [(1, True), (2, False), (2, True), (3, True), (4, True)]
    assert hub.files("owner/cut_part")["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_a_refused_shard_is_all_that_the_second_call_sends(hub, client, fresh):
    """Refused once the others have arrived: the client gives up uploads that have not begun when one fails."""
    hub.disturb("PUT", "/storage/", status=413, first=lambda: wait_for_uploads(hub, 3))
    with pytest.raises(FlowError, match=r"broke off: .*413.*Run the same again") as caught:
        client("push_folder", fresh, "owner/refused")
    assert caught.value.kind == "PublishError"
    assert set(hub.files("owner/refused")) == {".gitattributes"}  # nothing half done
    sent = {upload.sha256 for upload in hub.uploads if upload.finished}
    assert len(sent) == 3
    hub.forget()
    client("push_folder", fresh, "owner/refused")
    assert len(hub.uploads) == 1
    assert hub.uploads[0].sha256 not in sent
    assert len(hub.files("owner/refused")) == 9


def test_a_killed_process_is_gone_on_from(hub, client, fresh):
    """kill -9 while a shard is on its way, after the others have arrived."""
    held = hub.disturb("PUT", "/storage/", after=1000, hold=True)
    process = subprocess.Popen(
        [sys.executable, "-c", PUSH, "push", fresh, "owner/killed"], env=client.environment, stderr=subprocess.DEVNULL
    )
    assert held.reached.wait(60)
    wait_for_uploads(hub, 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    held.released.set()
    sent = {upload.sha256 for upload in hub.uploads if upload.finished}
    assert len(sent) == 3
    assert set(hub.files("owner/killed")) == {".gitattributes"}
    hub.forget()
    client("push_folder", fresh, "owner/killed")
    assert [upload.sha256 in sent for upload in hub.uploads] == [False]
    for file in fresh.glob("*.safetensors"):
        assert hub.files("owner/killed")[file.name] == file.read_bytes()


def test_the_hub_hangs_up(hub, client, model):
    hub.disturb("GET", "/api/models/owner/gone", after=0)
    with pytest.raises(FlowError, match="broke off: RemoteProtocolError") as caught:
        client("push_folder", model, "owner/gone")
    assert caught.value.kind == "PublishError"
