"""What the loopback Hub keeps: users, repositories, commits, files and large files. No HTTP here; see `server.py`."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch

import yaml

# As the Hub's own first commit says; these endings go to large-file storage whatever their size.
LARGE = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.npz", "*.parquet", "*.zip", "*.h5")
REGULAR_LIMIT = 10 * 2**20


class HubError(Exception):
    """What a request is refused with: a status and the code that the client's exceptions are made from."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


@dataclass(frozen=True)
class User:
    name: str
    can_write: bool = True


@dataclass(frozen=True)
class File:
    """A file of a commit: `oid` is git's, `sha256` only for large files, which lie in the large-file storage."""

    size: int
    oid: str
    content: bytes | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Commit:
    sha: str
    files: dict[str, File]
    message: str
    parent: str | None


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def commit_at(self, revision: str) -> Commit:
        name = revision.removeprefix("refs/heads/")
        sha = self.branches.get(name) or self.tags.get(name) or revision
        if sha not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def file_at(self, revision: str, path: str) -> tuple[Commit, File]:
        commit = self.commit_at(revision)
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.sha})
        return commit, commit.files[path]

    def add_commit(self, branch: str, files: dict[str, File], message: str) -> Commit:
        parent = self.branches.get(branch)
        told = f"{parent}{message}{sorted((path, file.oid) for path, file in files.items())}{len(self.commits)}"
        commit = Commit(hashlib.sha1(told.encode()).hexdigest(), files, message, parent)
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha
        return commit

    def history(self, revision: str) -> Iterable[Commit]:
        commit: Commit | None = self.commit_at(revision)
        while commit is not None:
            yield commit
            commit = self.commits.get(commit.parent) if commit.parent else None


class Store:
    """All of it, behind one lock."""

    def __init__(self, tokens: dict[str, User]):
        self.tokens = tokens
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.lock = threading.RLock()

    # ---- who may what ----

    def user(self, authorization: str | None) -> User | None:
        if not authorization:
            return None
        user = self.tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            message = "Invalid credentials in Authorization header"
            raise HubError(401, message, headers={"X-Error-Message": message})
        return user

    def readable(self, repo_id: str, user: User | None) -> Repo:
        repo = self.repos.get(repo_id)
        if repo is None or (repo.private and (user is None or user.name != repo.owner)):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def writable(self, repo_id: str, user: User | None) -> Repo:
        repo = self.readable(repo_id, user)
        if user is None:
            raise HubError(401, "Unauthorized")
        if not user.can_write or user.name != repo.owner:
            raise HubError(403, "You don't have the required permissions to perform this action")
        return repo

    # ---- repositories ----

    def create(self, user: User | None, name: str, organization: str | None, private: bool) -> Repo:
        if user is None:
            raise HubError(401, "Unauthorized")
        repo_id = f"{organization or user.name}/{name}"
        if not user.can_write or (organization or user.name) != user.name:
            raise HubError(403, f"You don't have the rights to create a model under the namespace {organization!r}")
        if repo_id in self.repos:
            raise HubError(409, "You already created this model repo")
        repo = self.repos[repo_id] = Repo(repo_id, private)
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE).encode()
        first = File(len(attributes), git_hash(attributes), attributes)
        repo.add_commit("main", {".gitattributes": first}, "initial commit")
        return repo

    def apply(self, repo: Repo, branch: str, header: dict, operations: list[dict]) -> Commit:
        """The commit endpoint: all operations or none."""
        files = dict(repo.commit_at(branch).files)
        if branch not in repo.branches:
            raise HubError(404, f"{branch} is no branch", "RevisionNotFound")
        wanted = header.get("parentCommit")
        if wanted and not repo.branches[branch].startswith(wanted):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        for operation in operations:
            value = operation["value"]
            path = value["path"]
            if operation["key"] == "file":
                content = base64.b64decode(value["content"])
                if is_large(path, len(content)):
                    raise HubError(400, f"Your push was rejected because {path} must be stored as a large file")
                files[path] = File(len(content), git_hash(content), content)
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.large:
                    raise HubError(400, f"Your push was rejected because an LFS pointer of {path} points to nothing")
                size = len(self.large[value["oid"]])
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {size}\n"
                files[path] = File(size, git_hash(pointer.encode()), sha256=value["oid"])
            elif operation["key"] == "deletedFile":
                if path not in files:
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
                del files[path]
            elif operation["key"] == "deletedFolder":
                files = {name: file for name, file in files.items() if not name.startswith(path.rstrip("/") + "/")}
            else:
                raise HubError(400, f"unknown operation {operation['key']!r}")
        return repo.add_commit(branch, files, header["summary"])

    def content(self, file: File) -> bytes:
        return self.large[file.sha256] if file.sha256 else file.content


def is_large(path: str, size: int) -> bool:
    return size > REGULAR_LIMIT or any(fnmatch(path.split("/")[-1], pattern) for pattern in LARGE)


def front_matter(text: str) -> dict:
    """The YAML at the top of a card. Raises yaml.YAMLError; {} where there is none."""
    if not text.startswith("---\n"):
        return {}
    return yaml.safe_load(text[4 : text.index("\n---", 4)]) or {}


def yaml_problems(text: str) -> list[str]:
    """What the Hub would refuse in a card's metadata; a part of its rules, those that generated cards could break."""
    try:
        data = front_matter(text)
    except (yaml.YAMLError, ValueError) as error:
        return [f"no YAML: {error}"]
    lists = ("tags", "datasets", "metrics")
    problems = [f'"{key}" must be a list of strings' for key in lists if key in data and not _strings(data[key])]
    bases = data.get("base_model", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not _strings(bases) or any(base.count("/") > 1 or base.startswith(("/", ".")) for base in bases):
        problems.append('"base_model" must be names on the Hub')
    if data.get("license") is not None and not isinstance(data["license"], (str, list)):
        problems.append('"license" must be a string')
    if data.get("license") == "other" and not data.get("license_name"):
        problems.append('"license_name" is required where "license" is "other"')
    for model in data.get("model-index", []):
        if not model.get("name"):
            problems.append('"model-index[0].name" is required')
        for result in model.get("results", []):
            found = (result.get("task", {}).get("type"), result.get("dataset", {}).get("type"))
            found += (result.get("dataset", {}).get("name"),)
            if not all(found):
                problems.append('"model-index" results need task.type, dataset.type and dataset.name')
            if not all("type" in m and isinstance(m.get("value"), (int, float, str)) for m in result["metrics"]):
                problems.append('"model-index" metrics need type and value')
    return problems


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)
