"""A Hub on this machine: enough of its HTTP API for the real `huggingface_hub` client, which is not patched anywhere.

    with LoopbackHub() as hub:
        os.environ |= hub.environment(home)      # before huggingface_hub is imported
        ...
        hub.requests, hub.uploads                # what really came over the wire

Large files lie at another host name ("localhost" for 127.0.0.1), as they do in reality, and a request there that
carries the Hub's token is refused. `disturb` cuts, refuses or holds what it matches.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from store import File, HubError, Repo, Store, User, front_matter, git_hash, is_large, yaml_problems
from wire import Disturbance, Request, Upload, Wire, route

OWNER, READER = "hf_owner", "hf_reader"  # tokens; the second is another user's and may not write


class LoopbackHub:
    """`multipart_from`: bytes from which large files come in parts of `part_size`. `page_size`: entries of a tree
    page."""

    def __init__(self, *, multipart_from: int = 2**20, part_size: int = 2**18, page_size: int = 1000):
        self.store = Store({OWNER: User("owner"), READER: User("reader", can_write=False)})
        self.multipart_from, self.part_size, self.page_size = multipart_from, part_size, page_size
        self.requests: list[Request] = []
        self.uploads: list[Upload] = []
        self.disturbances: list[Disturbance] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.endpoint, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        for disturbance in self.disturbances:
            disturbance.released.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, *, token: str | None = OWNER) -> dict[str, str]:
        """What a client process needs, all of it documented: where the Hub is, its own cache, no Xet, no telemetry."""
        values = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }
        return values | ({"HF_TOKEN": token} if token else {})

    def disturb(self, method: str, pattern: str, **how: Any) -> Disturbance:
        self.disturbances.append(Disturbance(method, pattern, **how))
        return self.disturbances[-1]

    def forget(self) -> None:
        """Empties the records, not the store."""
        self.requests.clear()
        self.uploads.clear()
        self.disturbances.clear()

    def put(self, repo_id: str, files: dict[str, bytes], *, branch: str = "main") -> None:
        """Files that are there without anybody's upload, large ones in the large-file storage."""
        repo, made = self.store.repos[repo_id], {}
        for path, data in files.items():
            sha = hashlib.sha256(data).hexdigest() if is_large(path, len(data)) else None
            if sha:
                self.store.large[sha] = data
            made[path] = File(len(data), git_hash(data), None if sha else data, sha)
        repo.add_commit(branch, {**repo.commit_at(branch).files, **made}, "put there")

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        repo = self.store.repos[repo_id]
        return {path: self.store.content(file) for path, file in repo.commit_at(revision).files.items()}


class Handler(Wire):
    # ---- who and which ----

    def _user(self) -> User | None:
        return self.hub.store.user(self.headers.get("Authorization"))

    def _readable(self, repo: str) -> Repo:
        return self.hub.store.readable(repo, self._user())

    def _writable(self, repo: str) -> Repo:
        return self.hub.store.writable(repo, self._user())

    # ---- users and repositories ----

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        user = self._user()
        if user is None:
            raise HubError(401, "Unauthorized")
        role = "write" if user.can_write else "read"
        self._json({"type": "user", "name": user.name, "auth": {"accessToken": {"role": role}}, "orgs": []})

    @route("POST", "/api/repos/create")
    def create_repo(self) -> None:
        body = self._body()
        private = body.get("visibility") == "private" or bool(body.get("private"))
        with self.hub.store.lock:
            try:
                repo = self.hub.store.create(self._user(), body["name"], body.get("organization"), private)
            except HubError as error:
                if error.status != 409:
                    raise
                name = f"{body.get('organization') or self._user().name}/{body['name']}"
                self._json({"error": str(error), "url": f"{self.hub.endpoint}/{name}"}, 409)
                return
        self._json({"url": f"{self.hub.endpoint}/{repo.id}", "name": repo.id, "private": repo.private})

    @route("DELETE", "/api/repos/delete")
    def delete_repo(self) -> None:
        body = self._body()
        repo = self._writable(f"{body.get('organization') or self._user().name}/{body['name']}")
        del self.hub.store.repos[repo.id]
        self._json({})

    @route("GET", "/api/models/{repo}(/revision/(?P<revision>[^/]+))?")
    def model_info(self, repo: str, revision: str) -> None:
        found = self._readable(repo)
        commit = found.commit_at(revision or "main")
        siblings = [
            {"rfilename": path}
            | ({"size": file.size, "blobId": file.oid} if "blobs" in self.query else {})
            | ({"lfs": _lfs(file)} if "blobs" in self.query and file.sha256 else {})
            for path, file in sorted(commit.files.items())
        ]
        card = commit.files.get("README.md")
        data = front_matter(card.content.decode()) if card else {}
        known = {key: data[key] for key in ("pipeline_tag", "library_name") if key in data}
        index = {"model-index": data["model-index"]} if "model-index" in data else {}
        base = {"id": found.id, "modelId": found.id, "sha": commit.sha, "private": found.private, "gated": False}
        more = {"cardData": data, "tags": data.get("tags", []), "siblings": siblings, "disabled": False}
        self._json({**base, **more, **known, **index, "downloads": 0, "likes": 0, "author": found.owner})

    @route("GET", "/api/models/{repo}/refs")
    def refs(self, repo: str) -> None:
        found = self._readable(repo)

        def listed(kind: str, refs: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in refs.items()]

        self._json({"branches": listed("heads", found.branches), "tags": listed("tags", found.tags), "converts": []})

    @route("GET", "/api/models/{repo}/commits/(?P<revision>[^/]+)")
    def commits(self, repo: str, revision: str) -> None:
        known = self._readable(repo).history(revision)
        shared = {"authors": [{"user": "owner"}], "date": "2026-01-01T00:00:00.000Z", "message": ""}
        self._json([{"id": commit.sha, "title": commit.message, **shared} for commit in known])

    @route("GET", "/api/models/{repo}/tree/(?P<revision>[^/]+)(/(?P<under>.*))?")
    def tree(self, repo: str, revision: str, under: str) -> None:
        commit = self._readable(repo).commit_at(revision)
        start = f"{under.strip('/')}/" if under.strip("/") else ""
        recursive = self.query.get("recursive", "").lower() in ("true", "1")
        entries, folders = [], set()
        for path, file in sorted(commit.files.items()):
            if not path.startswith(start):
                continue
            *parents, _ = path[len(start) :].split("/")
            folders |= {start + "/".join(parents[: depth + 1]) for depth in range(len(parents) if recursive else 1)}
            if recursive or not parents:
                entries.append(_entry(path, file))
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders - {start}]
        if start and not entries:
            raise HubError(404, f"{under} does not exist", "EntryNotFound")
        first = int(self.query.get("cursor", 0))
        page, rest = entries[first : first + self.hub.page_size], entries[first + self.hub.page_size :]
        following = f"{self.hub.endpoint}{self.record.path}?recursive={recursive}&cursor={first + len(page)}"
        self._json(page, headers={"Link": f'<{following}>; rel="next"'} if rest else None)

    @route("POST", "/api/models/{repo}/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, repo: str, revision: str) -> None:
        asked = parse_qs(self._drain().decode()).get("paths", [])
        files = self._readable(repo).commit_at(revision).files
        self._json([_entry(path, files[path]) for path in asked if path in files])

    @route("POST", "/api/models/{repo}/branch/(?P<branch>[^/]+)")
    def create_branch(self, repo: str, branch: str) -> None:
        found, body = self._writable(repo), self._body()
        if branch in found.branches:
            raise HubError(409, "Reference already exists")
        found.branches[branch] = found.commit_at(body.get("startingPoint") or "main").sha
        self._json({})

    @route("DELETE", "/api/models/{repo}/branch/(?P<branch>[^/]+)")
    def delete_branch(self, repo: str, branch: str) -> None:
        if self._writable(repo).branches.pop(branch, None) is None:
            raise HubError(404, "Reference does not exist", "RevisionNotFound")
        self._json({})

    @route("POST", "/api/models/{repo}/tag/(?P<revision>[^/]+)")
    def create_tag(self, repo: str, revision: str) -> None:
        found, tag = self._writable(repo), self._body()["tag"]
        if tag in found.tags:
            raise HubError(409, "Reference already exists")
        found.tags[tag] = found.commit_at(revision).sha
        self._json({})

    # ---- writing ----

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> None:
        text = self._body()["content"]
        problems = [{"message": problem} for problem in yaml_problems(text)]
        empty = [] if problems or front_matter(text) else [{"message": "empty or missing yaml metadata in repo card"}]
        self._json({"errors": problems, "warnings": empty}, 400 if problems else 200)

    @route("POST", "/api/models/{repo}/preupload/(?P<revision>[^/]+)")
    def preupload(self, repo: str, revision: str) -> None:
        there = self._writable(repo).commit_at(revision).files

        def mode(asked: dict[str, Any]) -> dict[str, Any]:
            path, old = asked["path"], there.get(asked["path"])
            large = is_large(path, asked["size"])
            answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            return answer | ({"oid": old.sha256 or old.oid} if old else {})

        self._json({"files": [mode(asked) for asked in self._body()["files"]]})

    @route("POST", r"/{repo}\.git/info/lfs/objects/batch")
    def lfs_batch(self, repo: str) -> None:
        self._writable(repo)
        body = self._body()
        assert body["operation"] == "upload"
        assert body["hash_algo"] == "sha256"
        self._json({"transfer": "basic", "objects": [self._upload_actions(repo, o) for o in body["objects"]]})

    def _upload_actions(self, repo: str, asked: dict[str, Any]) -> dict[str, Any]:
        sha, size = asked["oid"], asked["size"]
        if sha in self.hub.store.large:
            return {"oid": sha, "size": size}
        put = f"{self.hub.storage}/storage/{sha}"
        if size < self.hub.multipart_from:
            upload = {"href": put}
        else:
            count = -(-size // self.hub.part_size)
            parts = {f"{n:05d}": f"{put}/part/{n}" for n in range(1, count + 1)}
            upload = {
                "href": f"{self.hub.endpoint}/api/complete_multipart/{sha}",
                "header": {"chunk_size": str(self.hub.part_size), **parts},
            }
        verify = {"href": f"{self.hub.endpoint}/{repo}.git/info/lfs/objects/verify"}
        return {"oid": sha, "size": size, "actions": {"upload": upload, "verify": verify}}

    @route("PUT", "/storage/(?P<sha>[0-9a-f]{64})(/part/(?P<part>[0-9]+))?")
    def put_large(self, sha: str, part: str) -> None:
        self._refuse_token()
        record = Upload(sha, int(part or 0), 0, False)
        self.hub.uploads.append(record)
        pieces = []
        for piece in self.left:
            pieces.append(piece)
            record.size += len(piece)
        data = b"".join(pieces)
        if part:
            self.hub.store.parts[sha, record.part] = data
        elif hashlib.sha256(data).hexdigest() != sha:
            raise HubError(400, "what came is not what was announced")
        else:
            self.hub.store.large[sha] = data
        record.finished = True
        self._bytes(b"", headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    @route("POST", "/api/complete_multipart/(?P<sha>[0-9a-f]{64})")
    def complete(self, sha: str) -> None:
        body, parts = self._body(), self.hub.store.parts
        told = [(part["partNumber"], part["etag"].strip('"')) for part in body["parts"]]
        kept = [(n, hashlib.md5(parts[sha, n]).hexdigest()) for n, _ in told if (sha, n) in parts]
        data = b"".join(parts[sha, n] for n, _ in kept)
        if told != kept or hashlib.sha256(data).hexdigest() != sha:
            raise HubError(400, "the parts do not make the file")
        self.hub.store.large[sha] = data
        self._json({})

    @route("POST", r"/{repo}\.git/info/lfs/objects/verify")
    def verify(self, repo: str) -> None:
        self._writable(repo)
        body = self._body()
        if len(self.hub.store.large.get(body["oid"], b"")) != body["size"]:
            raise HubError(404, "no such object")
        self._json({})

    @route("POST", "/api/models/{repo}/commit/(?P<revision>[^/]+)")
    def commit(self, repo: str, revision: str) -> None:
        found = self._writable(repo)
        lines = [json.loads(line) for line in self._drain().splitlines()]
        assert lines[0]["key"] == "header"
        with self.hub.store.lock:
            made = self.hub.store.apply(found, revision, lines[0]["value"], lines[1:])
        self._json(
            {"success": True, "commitOid": made.sha, "commitUrl": f"{self.hub.endpoint}/{repo}/commit/{made.sha}"}
        )

    # ---- reading ----

    @route("HEAD", "/{repo}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    @route("GET", "/{repo}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit, file = self._readable(repo).file_at(revision, path)
        shared = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if file.sha256:
            linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size), "ETag": f'"{file.oid}"'}
            where = f"{self.hub.storage}/storage/{file.sha256}?filename={quote(path)}"
            self._bytes(b"", 302, {**shared, **linked, "Location": where})
        else:
            self._ranged(file.content, {**shared, "ETag": f'"{file.oid}"'})

    @route("HEAD", "/storage/(?P<sha>[0-9a-f]{64})")
    @route("GET", "/storage/(?P<sha>[0-9a-f]{64})")
    def get_large(self, sha: str) -> None:
        self._refuse_token()
        self._ranged(self.hub.store.large[sha], {"ETag": f'"{sha}"'})

    def _ranged(self, data: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self._bytes(data, 200, headers)
            return
        first = int(asked.group(1))
        last = min(int(asked.group(2) or len(data) - 1), len(data) - 1)
        if first > last:
            raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{len(data)}"})
        told = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self._bytes(data[first : last + 1], 206, {**headers, **told})

    def _refuse_token(self) -> None:
        if self.headers.get("Authorization"):
            raise HubError(400, "the Hub's token was sent to the storage host")


def _lfs(file: Any) -> dict[str, Any]:
    return {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 134}


def _entry(path: str, file: Any) -> dict[str, Any]:
    entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    return entry | ({"lfs": _lfs(file)} if file.sha256 else {})
