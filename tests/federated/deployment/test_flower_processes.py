"""What outsiders reach of a server, and what programs a site runs."""

from __future__ import annotations

import asyncio
import io
import zipfile

import pytest

from hf_video.federated.deployment.flower_processes import OnlySites, build_program, is_program, is_this_machine

HERE, SERVER, SITE = ("127.0.0.1", 5000), ("192.0.2.1", 8443), ("198.51.100.7", 5000)
FLEET, START, CONTROL = "/v1/fleet/activate-node", "/v1/control/start-run", "/v1/control/register-node"


def ask(guard, path, client):
    """The status with which a request is answered; 200 stands for Flower's own answer."""
    statuses = []

    async def send(event):
        statuses.extend([event["status"]] if event["type"] == "http.response.start" else [])

    asyncio.run(guard({"type": "http", "path": path, "client": client, "server": SERVER}, None, send))
    return statuses[0]


async def flower(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})


def test_sites_reach_nothing_but_their_own_interface():
    """An unknown machine must not register keys or start programs, which Flower lets anybody do."""
    guard = OnlySites(flower)
    assert ask(guard, CONTROL, HERE) == 200
    assert ask(guard, FLEET, SITE) == 503  # a site that comes before its key is registered is not refused
    assert ask(guard, START, HERE) == 200
    assert ask(guard, FLEET, SITE) == 200
    for path in (CONTROL, START, "/v1/runtime/acquire-task", "/v1/runtime/pull-messages", "/docs", "/", "/V1/fleet/"):
        assert ask(guard, path, SITE) == 403
        assert ask(guard, path, None) == 403
        assert ask(guard, path, HERE) == 200


def test_a_refused_start_does_not_open_the_server():
    guard = OnlySites(flower)
    assert ask(guard, START, SITE) == 403
    assert ask(guard, FLEET, SITE) == 503


@pytest.mark.parametrize(
    ("client", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", True),  # the server's own address
        ("198.51.100.7", False),
        ("::ffff:198.51.100.7", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_who_is_on_this_machine(client, here):
    assert is_this_machine((client, 1), SERVER) is here


def bundle(**changes):
    """The program's bundle with files changed (None: left out)."""
    with zipfile.ZipFile(io.BytesIO(build_program())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, text in {**files, **changes}.items():
            if text is not None:
                archive.writestr(name, text)
    return written.getvalue()


def test_the_program_holds_no_code():
    pytest.importorskip("flwr")
    program = build_program()
    assert len(program) < 1400
    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        assert archive.namelist() == ["pyproject.toml", ".info/CONTENT"]
        text = archive.read("pyproject.toml").decode()
    assert 'serverapp = "hf_video.federated.apps:server_app"' in text
    assert 'clientapp = "hf_video.federated.apps:client_app"' in text
    assert build_program() == program
    assert is_program(program)
    assert is_program(bundle())  # packed otherwise, the same files


def test_a_site_refuses_every_other_program():
    pytest.importorskip("flwr")
    with zipfile.ZipFile(io.BytesIO(build_program())) as archive:
        text = archive.read("pyproject.toml").decode()
    shipped = [
        {"hf_video/federated/apps.py": b"client_app = None"},
        {"sitecustomize.py": b""},
        {"pyproject.toml": text.replace("hf_video.federated.apps:client_app", "os:getcwd").encode()},
        {"pyproject.toml": text.replace('"flwr', '"other", "flwr').encode()},
        {"pyproject.toml": None},
    ]
    assert not [changes for changes in shipped if is_program(bundle(**changes))]
    assert not is_program(b"")
    assert not is_program(b"no archive")
    assert not is_program(build_program()[:-30])
