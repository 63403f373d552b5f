"""A server that crashes is started anew as often as was said."""

from __future__ import annotations

import pytest

pytest.importorskip("flwr", reason="the extra [federated] is not installed")

from hf_video.base.written_files import write_json
from hf_video.errors import FederatedError
from hf_video.federated.deployment.server import CrashError, Deployment, RunFailedError, ServerKeys


@pytest.mark.parametrize(("crashes", "restarts", "ends"), [(2, 2, True), (2, 1, False), (0, 0, True)])
def test_restarts(tmp_path, monkeypatch, crashes, restarts, ends):
    """The first start begins the run; later ones go on with it, once it has begun."""
    starts, told = [], []

    def run_once(self, *, resume):
        starts.append(resume)
        if len(starts) == 1:
            write_json(tmp_path / "run" / "federation.json", {})
        if len(starts) <= crashes:
            raise CrashError("The server crashed.")

    monkeypatch.setattr(Deployment, "_run_once", run_once)
    (tmp_path / "federation.yaml").write_text("model: videomae\nrounds: 2\n")
    keys = ServerKeys(*(tmp_path / name for name in ("ca.crt", "server.crt", "server.key")), {"a": "", "b": ""})
    server = Deployment(tmp_path / "federation.yaml", keys, tmp_path / "run", tell=told.append)
    if ends:
        server.run(restarts=restarts)
    else:
        with pytest.raises(CrashError):
            server.run(restarts=restarts)
    assert starts == [False, True, True][: min(crashes, restarts) + 1]
    assert told == ["The server crashed. It is started anew."] * min(crashes, restarts)


def test_a_run_that_failed_is_not_started_anew(tmp_path, monkeypatch):
    starts = []

    def run_once(self, *, resume):
        starts.append(resume)
        raise RunFailedError("Too few sites answered.")

    monkeypatch.setattr(Deployment, "_run_once", run_once)
    (tmp_path / "federation.yaml").write_text("model: videomae\n")
    keys = ServerKeys(*(tmp_path / name for name in ("ca.crt", "server.crt", "server.key")), {"a": "", "b": ""})
    with pytest.raises(FederatedError, match="Too few"):
        Deployment(tmp_path / "federation.yaml", keys, tmp_path / "run").run(restarts=3)
    assert starts == [False]
