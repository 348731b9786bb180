"""The real clients pulling: what they get and how many requests it takes them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from huggingface_hub import HfApi, HfFileSystem, get_session, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import ViTConfig, ViTForImageClassification

from tests.hub import Hub, Repo, RequestLog, Token

Download = Callable[..., Path]
REGULAR, LFS = "pt-0/config.json", "pt-0/model.safetensors"


def safetensors(size: int) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(index % 251 for index in range(size))


@pytest.fixture
def repo(hub: Hub) -> Repo:
    """One regular and one LFS file in a folder."""
    made = hub.create_repo("zoos/tiny")
    made.commit({REGULAR: b"{}", LFS: safetensors(1000)})
    return made


def asked(requests: RequestLog) -> list[str]:
    return [f"{request.host} {request.method}" for request in requests]


@pytest.mark.parametrize(("path", "second"), [(REGULAR, "hub GET"), (LFS, "files GET")])
def test_download_cold_warm_and_pinned(hub: Hub, repo: Repo, download: Download, path: str, second: str) -> None:
    counts = []
    for revision in ("main", "main", repo.head):
        with hub.recorded() as requests:
            file = download(repo.id, path, revision=revision)
        assert file.read_bytes() == repo.read(path)
        assert f"/snapshots/{repo.head}/" in str(file)
        counts.append(asked(requests))
    assert counts == [["hub HEAD", second], ["hub HEAD"], []]


def test_regular_files_may_be_redirected_too(hub: Hub, repo: Repo, download: Download) -> None:
    hub.configure(redirect_regular=True)
    with hub.recorded() as requests:
        assert download(repo.id, REGULAR).read_bytes() == b"{}"
    assert [request.status for request in requests] == [307, 200, 200]


def test_what_is_not_there(hub: Hub, repo: Repo, download: Download) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        download(repo.id, "pt-1/config.json")
    with pytest.raises(RevisionNotFoundError):
        download(repo.id, REGULAR, revision="v9")
    with pytest.raises(RepositoryNotFoundError):
        download("zoos/none", REGULAR)
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url).dataset_info(repo.id)
    assert [request.status for request in hub.requests] == [404, 404, 401, 401]


def test_repo_info(hub: Hub, repo: Repo) -> None:
    repo.commit({"README.md": b"---\nlicense: mit\nlibrary_name: vitzoo\ntags: [zoo]\n---\n"})
    repo.tag("v1")
    info = HfApi(endpoint=hub.url).model_info(repo.id, revision="v1", files_metadata=True)
    assert (info.sha, info.private, info.author, info.library_name) == (repo.head, False, "zoos", "vitzoo")
    assert info.tags == ["zoo", "vitzoo", "license:mit"]
    assert {file.rfilename: (file.size, file.blob_id) for file in info.siblings or []} == {
        path: (file.size, file.oid) for path, file in repo.resolve().files.items()
    }
    assert [file.lfs["sha256"] for file in info.siblings or [] if file.lfs] == [repo.file(LFS).sha256]
    expanded = HfApi(endpoint=hub.url).model_info(repo.id, expand=["sha", "tags"])
    assert (expanded.sha, expanded.siblings) == (repo.head, None)


def test_trees_in_pages(hub: Hub, repo: Repo) -> None:
    repo.commit({f"pt-{parent}/ft-{child}/x.json": b"" for parent in range(3) for child in range(2)})
    api = HfApi(endpoint=hub.url)
    hub.configure(page_size=4)
    with hub.recorded() as requests:
        listed = [entry.path for entry in api.list_repo_tree(repo.id, recursive=True)]
    folders = {f"pt-{parent}" for parent in range(3)} | {f"pt-{p}/ft-{c}" for p in range(3) for c in range(2)}
    assert sorted(listed) == sorted({*repo.files(), *folders})
    assert len(requests) == 5  # 18 entries
    assert [entry.path for entry in api.list_repo_tree(repo.id)] == ["pt-0", "pt-1", "pt-2", ".gitattributes"]
    assert [entry.path for entry in api.list_repo_tree(repo.id, "pt-0")] == ["pt-0/ft-0", "pt-0/ft-1", REGULAR, LFS]
    assert [entry.path for entry in api.list_repo_tree(repo.id, "pt-0/ft-1")] == ["pt-0/ft-1/x.json"]
    (expanded,) = api.list_repo_tree(repo.id, "pt-1/ft-1", expand=True)
    assert expanded.last_commit is not None
    assert expanded.last_commit.oid == repo.head
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo.id, "pt-9"))


def test_paths_info(hub: Hub, repo: Repo) -> None:
    api = HfApi(endpoint=hub.url)
    found = api.get_paths_info(repo.id, ["pt-0", LFS, "none"], expand=True)
    assert [entry.path for entry in found] == ["pt-0", LFS]
    assert {entry.last_commit.oid for entry in found if entry.last_commit} == {repo.head}
    hub.configure(paths_a_request=2)
    with pytest.raises(HfHubHTTPError, match="too many parameters"):
        api.get_paths_info(repo.id, ["a", "b", "c"])


def test_snapshot(hub: Hub, repo: Repo, tmp_path: Path) -> None:
    counts = []
    for revision in ("main", "main", repo.head):
        with hub.recorded() as requests:
            folder = Path(snapshot_download(repo.id, revision=revision, endpoint=hub.url, allow_patterns="pt-0/*"))
        counts.append(len(requests))
    assert counts == [2 + 2 * 2, 1, 0]
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == {REGULAR, LFS}
    local = Path(snapshot_download(repo.id, endpoint=hub.url, local_dir=tmp_path / "local"))
    assert (local / LFS).read_bytes() == repo.read(LFS)


@pytest.mark.parametrize(
    ("path", "given", "status", "expected"),
    [
        (path, given, status, expected)
        for path in ("x.json", "x.safetensors")
        for given, status, expected in [
            ("bytes=0-3", 206, (b"0123", "bytes 0-3/10")),
            ("bytes=8-", 206, (b"89", "bytes 8-9/10")),
            ("bytes=-3", 206, (b"789", "bytes 7-9/10")),
            ("bytes=5-100", 206, (b"56789", "bytes 5-9/10")),
            ("bytes=10-", 416, (b"", "bytes */10")),
            ("bytes=0-1,3-4", 200, (b"0123456789", None)),
            ("lines=1-2", 200, (b"0123456789", None)),
        ]
    ],
)
def test_ranges(hub: Hub, path: str, given: str, status: int, expected: tuple[bytes, str | None], repo: Repo) -> None:
    repo.commit({path: b"0123456789"})
    with hub.recorded() as requests:
        answer = get_session().get(f"{hub.url}/{repo.id}/resolve/main/{path}", headers={"Range": given})
    assert (answer.status_code, answer.content, answer.headers.get("Content-Range")) == (status, *expected)
    assert (requests[-1].range, requests[-1].sent) == (given, len(expected[0]))


def test_ranged_reads(hub: Hub, repo: Repo) -> None:
    with hub.recorded() as requests:
        metadata = HfApi(endpoint=hub.url).parse_safetensors_file_metadata(repo.id, LFS)
    assert metadata.tensors["a"].shape == [1000]
    assert [request.range for request in requests] == ["bytes=0-100000"] * 2  # at the hub and, redirected, at the files
    data = repo.read(LFS)
    filesystem = HfFileSystem(endpoint=hub.url, skip_instance_cache=True)
    with filesystem.open(f"{repo.id}/{LFS}", "rb", cache_type="none") as file, hub.recorded() as requests:
        file.seek(100)
        assert file.read(20) == data[100:120]
    assert [(request.host, request.range, request.sent) for request in requests] == [
        ("hub", "bytes=100-119", 0),
        ("files", "bytes=100-119", 20),
    ]
    assert filesystem.find(repo.id) == [f"{repo.id}/{path}" for path in sorted(repo.files())]


def test_the_file_host_wants_its_signature(hub: Hub, repo: Repo) -> None:
    session = get_session()
    url = f"{hub.url}/{repo.id}/resolve/main/{LFS}"
    signed = session.get(url, follow_redirects=False).headers["Location"]
    assert signed.startswith(hub.files_url)
    assert session.get(signed).content == repo.read(LFS)
    assert session.get(signed.split("?")[0]).status_code == 403
    assert session.get(signed[:-1] + ("0" if signed[-1] != "0" else "1")).status_code == 403
    assert session.put(signed, content=b"x").status_code == 403
    hub.configure(url_seconds=-1)
    assert "expired" in session.get(url).text
    assert session.get(hub.files_url + "/elsewhere").status_code == 404


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "..\\x", "..", "a\0b", "\udcff"])
def test_hostile_paths_are_told_as_they_are_and_refused_by_the_client(
    hub: Hub, repo: Repo, path: str, tmp_path: Path
) -> None:
    repo.commit({path: b"planted"})
    api = HfApi(endpoint=hub.url)
    assert path in api.list_repo_files(repo.id)
    assert path in [entry.path for entry in api.list_repo_tree(repo.id, recursive=True)]
    with pytest.raises(ValueError, match=r"Invalid filename|embedded null byte|surrogates not allowed"):
        snapshot_download(repo.id, endpoint=hub.url, local_dir=tmp_path / "local" / "zoo")
    assert b"planted" not in [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("path", ["a\nb", "~/x", "a//b", "\x1b[31mred", "con"])
def test_odd_paths_that_the_client_takes(hub: Hub, repo: Repo, path: str, tmp_path: Path) -> None:
    repo.commit({path: b"planted"})
    local = Path(snapshot_download(repo.id, endpoint=hub.url, local_dir=tmp_path / "local"))
    assert (local / path).read_bytes() == b"planted"


def load(repo_id: str, **options: object) -> ViTForImageClassification:
    from_pretrained: Any = ViTForImageClassification.from_pretrained
    return from_pretrained(repo_id, **options)


def same(a: ViTForImageClassification, b: ViTForImageClassification) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


def test_transformers_push_and_load_a_member(hub: Hub, alice: Token, api: HfApi, tmp_path: Path) -> None:
    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    pushed = [ViTForImageClassification(config) for _ in range(2)]
    push_to_hub: Any = pushed[0].push_to_hub
    push_to_hub("alice/vit", token=alice.value)
    assert same(load("alice/vit"), pushed[0])

    pushed[0].save_pretrained(tmp_path / "pt-0" / "ft-1")
    pushed[1].save_pretrained(tmp_path / "pt-0" / "ft-1", variant="epoch-07")
    api.create_repo("alice/zoo")
    api.upload_folder(repo_id="alice/zoo", folder_path=tmp_path / "pt-0", path_in_repo="pt-0")
    head = hub.repo("alice/zoo").head
    counts = []
    for revision in ("main", "main", head):
        with hub.recorded() as requests:
            member = load("alice/zoo", subfolder="pt-0/ft-1", variant="epoch-07", revision=revision)
        assert same(member, pushed[1])
        counts.append(len(requests))
    assert counts == [1 + 2 + 2, 1, 0]
    with hub.recorded() as requests:
        load("alice/zoo", subfolder="pt-0/ft-1", revision=head, cache_dir=tmp_path / "elsewhere")
    assert asked(requests) == ["hub HEAD", "hub GET", "hub HEAD", "files GET"]


def test_datasets_loads_the_configs_of_a_card(hub: Hub, tmp_path: Path) -> None:
    for name, rows in {"members": 3, "epochs": 5}.items():
        datasets.Dataset.from_dict({name: list(range(rows))}).to_parquet(tmp_path / f"{name}.parquet")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.parquet\n" for name in ("members", "epochs"))
    repo = hub.create_repo("zoos/tiny", "dataset")
    repo.commit({"README.md": f"---\nconfigs:\n{configs}---\n".encode()})
    repo.commit({f"{name}.parquet": (tmp_path / f"{name}.parquet").read_bytes() for name in ("members", "epochs")})
    counts = []
    for config, revision in (("members", "main"), ("members", "main"), ("epochs", repo.head), ("epochs", repo.head)):
        with hub.recorded() as requests:
            table = datasets.load_dataset("zoos/tiny", config, revision=revision)["train"]
        assert table[config] == list(range(3 if config == "members" else 5))
        counts.append(len(requests))
    assert counts == [9, 4, 5, 3]
