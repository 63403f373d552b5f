"""The loopback Hub against the real client: what the other tests stand on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flow_client import FlowError
from server import OWNER, READER


def names(entries):
    return [entry["path"] for entry in entries]


class TestRepositories:
    def test_life_of_one(self, hub, client):
        assert client("api", "whoami")["name"] == "owner"
        assert client("api", "create_repo", repo_id="life", private=True) == f"{hub.endpoint}/owner/life"
        client("api", "create_repo", repo_id="owner/life", exist_ok=True)
        with pytest.raises(FlowError, match="409"):
            client("api", "create_repo", repo_id="owner/life")
        assert client("api", "model_info", repo_id="owner/life")["private"] is True
        client("api", "delete_repo", repo_id="owner/life")
        assert client("api", "repo_exists", repo_id="owner/life") is False

    def test_tree_comes_in_pages_and_folders(self, hub, client):
        client("api", "create_repo", repo_id="tree")
        files = {f"a/{i}.txt": f"text {i}" for i in range(7)} | {"b/c/d.txt": "deep", "top.md": "top"}
        client("commit", "owner/tree", files)
        assert sorted(client("api", "list_repo_files", repo_id="owner/tree")) == sorted([".gitattributes", *files])
        pages = [r for r in hub.requests if "owner/tree/tree/" in r.path]
        assert len(pages) == 3  # ten files and three folders, five a page
        assert sorted(names(client("api", "list_repo_tree", repo_id="owner/tree"))) == [
            ".gitattributes", "a", "b", "top.md",
        ]  # fmt: skip
        assert names(client("api", "list_repo_tree", repo_id="owner/tree", path_in_repo="b/c")) == ["b/c/d.txt"]
        client("api", "delete_file", path_in_repo="b/c/d.txt", repo_id="owner/tree")
        assert "b/c/d.txt" not in hub.files("owner/tree")

    def test_branches_tags_and_history(self, hub, client):
        client("api", "create_repo", repo_id="refs")
        first = client("commit", "owner/refs", {"a.txt": "1"})
        client("api", "create_branch", repo_id="owner/refs", branch="dev/x")
        client("api", "create_tag", repo_id="owner/refs", tag="v1")
        second = client("commit", "owner/refs", {"a.txt": "2"}, revision="dev/x")
        assert hub.files("owner/refs")["a.txt"] == hub.files("owner/refs", "v1")["a.txt"] == b"1"
        assert hub.files("owner/refs", "dev/x")["a.txt"] == b"2"
        commits = client("api", "list_repo_commits", repo_id="owner/refs", revision="dev/x")
        assert [one["commit_id"] for one in commits][:2] == [second, first]
        with pytest.raises(FlowError, match="412"):
            client("commit", "owner/refs", {"a.txt": "3"}, revision="dev/x", parent_commit=first)
        client("api", "delete_branch", repo_id="owner/refs", branch="dev/x")
        assert len(client("api", "list_repo_refs", repo_id="owner/refs")["branches"]) == 1

    @pytest.mark.parametrize(
        ("arguments", "kind"),
        [
            ({"repo_id": "owner/nothing"}, "RepositoryNotFoundError"),
            ({"repo_id": "owner/closed", "of_token": False}, "RepositoryNotFoundError"),
            ({"repo_id": "owner/closed", "of_token": READER}, "RepositoryNotFoundError"),
            ({"repo_id": "owner/closed", "of_token": "hf_wrong"}, "HfHubHTTPError"),
            ({"repo_id": "owner/closed", "revision": "nowhere"}, "RevisionNotFoundError"),
        ],
    )
    def test_who_may_not_see_it(self, hub, client, arguments, kind):
        client("api", "create_repo", repo_id="owner/closed", private=True, exist_ok=True)
        with pytest.raises(FlowError) as caught:
            client("api", "model_info", **arguments)
        assert caught.value.kind == kind


class TestFiles:
    def test_large_ones_come_from_another_host_without_the_token(self, hub, client, tmp_path):
        client("api", "create_repo", repo_id="large")
        data = os.urandom(100_000)
        (tmp_path / "x.safetensors").write_bytes(data)
        client("api", "upload_file", path_or_fileobj=str(tmp_path / "x.safetensors"), path_in_repo="x.safetensors",
               repo_id="owner/large")  # fmt: skip
        assert [(upload.part, upload.size) for upload in hub.uploads] == [(1, 32768), (2, 32768), (3, 32768), (4, 1696)]
        folder = client("snapshot", "owner/large")
        assert Path(folder, "x.safetensors").read_bytes() == data
        asked = [r for r in hub.requests if r.path.startswith(("/owner/large/resolve", "/storage"))]
        told = {r.path.split("/")[1]: r.headers.get("authorization") for r in asked}
        assert told == {"owner": f"Bearer {OWNER}", "storage": None}

    def test_a_cut_download_goes_on_where_it_was(self, hub, client, tmp_path):
        """The client writes ten MiB at a time; what it has of the file is not asked for again."""
        data = os.urandom(12 * 2**20)
        client("api", "create_repo", repo_id="cut")
        hub.put("owner/cut", {"big.safetensors": data})
        hub.disturb("GET", "/storage/", after=11 * 2**20)
        folder = client("snapshot", "owner/cut", cache_dir=tmp_path)
        assert Path(folder, "big.safetensors").read_bytes() == data
        got = [r for r in hub.requests if r.method == "GET" and r.path.startswith("/storage/")]
        assert [(r.headers.get("range"), r.status) for r in got] == [(None, 200), ("bytes=10485760-", 206)]
        assert got[1].sent == 2 * 2**20
