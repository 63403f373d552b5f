"""A site's file and its limits; nothing heavy is imported for a site that waits."""

from __future__ import annotations

import json
import subprocess
import sys

import forked
import pytest

from hf_video.cli import WRONG, main
from hf_video.errors import FederatedError
from hf_video.federated.client import ClientRuntime, Site
from hf_video.federated.config import FederatedConfig
from hf_video.federated.deployment.certificates import make_keys
from hf_video.federated.deployment.limits import SiteLimits
from hf_video.federated.deployment.site import read_site
from hf_video.federated.messages.payload import Payload


@pytest.fixture
def folder(tmp_path):
    """A site's folder as `keys` makes it, without needing its library, and with videos."""
    (tmp_path / "videos").mkdir()
    for name in ("ca.crt", "a.key"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "site.yaml").write_text(
        "name: a\nserver: fed.example.org:8443\nroot: ca.crt\nkey: a.key\ndata: videos\n"
    )
    return tmp_path


def test_paths_are_seen_from_the_file_and_what_is_typed_wins(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    site = read_site(folder / "site.yaml").check()
    assert (site.root, site.key) == (folder / "ca.crt", folder / "a.key")
    assert (site.data, site.folder) == (str(folder / "videos"), folder / "state")
    typed = {"server": "localhost:1", "folder": "own", "name": None}
    site = read_site(folder / "site.yaml", typed).check()
    assert (site.server, site.folder, site.name) == ("localhost:1", folder.parent / "own", "a")


def test_the_file_that_keys_writes_can_be_read(tmp_path):
    pytest.importorskip("cryptography")
    made = make_keys(tmp_path / "sites", ["a"], ["fed.example.org"])
    site = read_site(made.sites["a"] / "site.yaml", {"data": str(tmp_path)}).check()
    assert (site.name, site.server) == ("a", "fed.example.org:8443")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("server: https://fed.example.org:8443", "must be HOST:PORT, without https://"),
        ("server: fed.example.org", "must be HOST:PORT"),
        ("key: b.key", r"key: there is no file .*b.key. Is it '.*a.key'\?"),
        ("data: vidoes", r"data: there is nothing at .*vidoes. Is it '.*videos'\?"),
        ("name: ../a", "must be of letters"),
        ("sever: x:1", r"A site has no field 'sever'. Did you mean 'server'\?"),
        ("limits: {round: 3}", r"A site's limits have no 'round'. Did you mean 'rounds'\?"),
        ("limits: {rounds: 0}", "limits: rounds=0 must be a whole number"),
        ("limits: {strategies: fedavg}", "strategies is a list"),
        ("limits: {secure: 1}", "secure must be true or false"),
        ("limits: 3", "limits must be fields with values"),
    ],
)
def test_bad_files(folder, change, reason):
    path = folder / "site.yaml"
    path.write_text(path.read_text() + change + "\n")
    with pytest.raises(FederatedError, match=reason):
        read_site(path).check()


def test_what_is_missing_is_named(folder, capsys):
    path = folder / "site.yaml"
    path.write_text(path.read_text().replace("key: a.key\n", ""))
    with pytest.raises(FederatedError, match="lacks 'key'"):
        read_site(path)
    assert main(["federated", "client", str(folder / "sites.yaml")]) == WRONG
    assert "Is it" in capsys.readouterr().err


def test_a_key_that_others_can_read_is_refused(folder):
    (folder / "a.key").chmod(0o644)
    with pytest.raises(FederatedError, match="chmod 600"):
        read_site(folder / "site.yaml").check()


CONFIG = {"model": "videomae", "rounds": 20, "min_clients": 3}


@pytest.mark.parametrize(
    ("limits", "config", "round_number", "reason"),
    [
        ({"rounds": 19}, {}, 1, "refuse 20 rounds, and at most 19 are agreed"),
        ({"rounds": 20}, {}, 21, "refuse 21 rounds"),  # whatever the configuration says
        ({"strategies": ("fedavg",)}, {"strategy": "fedprox:mu=0.1"}, 1, "refuse the strategy 'fedprox'"),
        ({"clients": 4}, {}, 1, "refuse rounds of 3 clients, and at least 4 are agreed"),
        ({"secure": True}, {}, 1, "only secure aggregation is agreed"),
        ({"privacy": True}, {}, 1, "only private training is agreed"),
    ],
)
def test_limits(limits, config, round_number, reason):
    with pytest.raises(FederatedError, match=reason):
        SiteLimits(**limits).check(FederatedConfig.from_dict({**CONFIG, **config}), round_number)


def test_limits_let_through_what_is_agreed():
    limits = SiteLimits(rounds=20, strategies=("fedprox",), clients=3)
    limits.check(FederatedConfig.from_dict({**CONFIG, "strategy": "fedprox:mu=0.1"}), 20)


def test_a_site_trains_nothing_beyond_its_limits(tmp_path):
    def never(config):
        raise AssertionError("a trainer was made")

    runtime = ClientRuntime(Site("a", None, tmp_path, SiteLimits(rounds=2)), make_trainer=never)

    values = {"config": json.dumps({**CONFIG, "rounds": 2}), "round": 3}
    for kind in ("train", "evaluate"):
        assert "refuse 3 rounds" in runtime.handle(kind, Payload(values)).values["error"]


def test_a_site_that_waits_has_not_imported_torch():
    code = (
        "import sys, hf_video_command; hf_video_command.running = True\n"
        "import hf_video.federated.deployment.site, hf_video.cli.verbs.federated\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'flwr', 'ray', 'opacus', 'tenseal'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_imports_nothing_of_federations(tmp_path):
    code = (
        "import hf_video, sys; print(sorted({'flwr', 'ray', 'opacus', 'tenseal', 'cryptography'} & set(sys.modules)))"
    )
    assert forked.run(code, tmp_path / "imports.py").stdout.strip().splitlines()[-1] == "[]"
