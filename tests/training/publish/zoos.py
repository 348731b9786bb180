"""A small zoo's publication, and assertions on the repo that it fills."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from msgspec import structs

from tests.hub import Hub
from training.publish.plan import Publication, plan_publication
from training.publish.push import PushResult, publish
from vitzoo import records
from vitzoo.architectures import is_head
from vitzoo.records.json_files import write_json, write_lines
from vitzoo.sources.folder import FolderSource
from vitzoo.tensors.content import load_content

TO, METADATA = "org/vit-zoo", "org/vit-zoo-metadata"


def plan(folder: Path, **options: Any) -> Publication:
    return plan_publication(FolderSource(folder), to=TO, **options)


def push(folder: Path, *, files_a_commit: int = 500, **options: Any) -> PushResult:
    return publish(plan(folder, **options), files_a_commit=files_a_commit)


def assert_holds(hub: Hub, publication: Publication) -> None:
    """Assert that the model repo has the publication's files, byte for byte, all named by the manifest."""
    files = hub.repo(TO).files()
    del files[".gitattributes"]
    assert files == {file.path: file.read() for file in publication.files}
    assert set(publication.manifest.files) == set(files) - {"manifest.json"}
    assert files["manifest.json"] == publication.manifest.to_bytes()
    for path, file in publication.manifest.files.items():
        assert (len(files[path]), hashlib.sha256(files[path]).hexdigest()) == (file.size, file.sha256)


def assert_sent_once(hub: Hub) -> None:
    puts = Counter(request.path for request in hub.requests.of(host="files", method="PUT") if request.status == 200)
    assert set(puts.values()) == {1}


def flip(path: Path, at: int = -4) -> bytes:
    """Change one bit of a file, which may be a hard link; return its new bytes."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()
    path.write_bytes(data)
    return bytes(data)


def train_again(folder: Path) -> None:
    """Give a member other weights of its last epoch, with their records."""
    record = records.load_member_record(folder / "member.json")
    last = folder / f"model.epoch-{record.epochs:02d}.safetensors"
    data = flip(last)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(data)
    content = load_content(last, is_head=is_head)
    weights = tuple(
        structs.replace(w, sha256=content.sha256) if w.epoch in (None, record.epochs) else w for w in record.weights
    )
    write_json(folder / "member.json", structs.replace(record, weights=weights))
    *metrics, final = records.load_epoch_records(folder / "metrics.jsonl")
    final = structs.replace(final, weights_id=content.weights_id, backbone_id=content.backbone_id)
    write_lines(folder / "metrics.jsonl", [*metrics, final])
