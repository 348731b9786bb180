"""Zoos read from a Hub: the published weights, the number of requests, faults, tokens, and hostile repos."""

import contextlib
import json
import logging
import os
import shutil
import struct
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from msgspec.structs import replace
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, ViTForImageClassification, pipeline

from tests.hub.faults import Answer, Cut, Drop, Flip, Kind, Slow, Truncate, too_many_requests
from tests.hub.server import Hub
from tests.hub.store import Repo
from tests.published import REPO, manifest_of, plant, zoo_files
from vitzoo import VitZooConfig, VitZooModel, Zoo
from vitzoo.architectures import disk_name
from vitzoo.errors import (
    AuthenticityError,
    ConfigError,
    ConflictingArgumentsError,
    EpochNotFoundError,
    HubError,
    MemberNotFoundError,
    RecordError,
    UnsafePathError,
    VitZooError,
    WeightsError,
    ZooNotFoundError,
)
from vitzoo.records import layout
from vitzoo.records.manifest import FileRecord, load_manifest

LINEAR, MLP = "pt-0/ft-0", "pt-0/ft-1"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))


def commit_table(repo: Repo, folder: Path, table: str, content: bytes) -> None:
    """Replace a table of a planted zoo, with a manifest that names it."""
    files = zoo_files(folder) | {str(layout.table_file(table)): content}
    repo.commit(files | {str(layout.MANIFEST): manifest_of(folder, files).to_bytes()})


def same(model: VitZooModel, file: Path) -> bool:
    """Tell whether a model has the weights of a file."""
    found = {disk_name(name): tensor for name, tensor in model.state_dict().items()}
    expected = load_file(file)
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


class TestLoading:
    def test_every_kind_of_member_loads(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        for member in ("pt-0", "pt-2", LINEAR, MLP):
            assert same(VitZooModel.from_pretrained(f"{REPO}/{member}"), tiny_zoo / member / "model.safetensors")

    def test_every_spelling_of_a_member_loads(self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(hub, tiny_zoo).tag("v1")
        file = tiny_zoo / MLP / "model.epoch-01.safetensors"
        assert same(VitZooModel.from_pretrained(f"{REPO}/{MLP}@1", revision="v1"), file)
        assert same(VitZooModel.from_pretrained(REPO, subfolder=MLP, variant="epoch-01"), file)
        assert same(VitZooModel.from_pretrained(f"{REPO}/{MLP}", epoch=1, verify=True), file)
        assert same(Zoo(REPO)[MLP].load(epoch=1), file)
        monkeypatch.setenv("VITZOO_ZOO", REPO)
        assert same(VitZooModel.from_pretrained(f"zoo/{MLP}", epoch=1), file)
        assert VitZooConfig.from_pretrained(f"zoo/{MLP}").head_width == 8
        zoo = Zoo()
        assert repr(zoo) == f"Zoo('{REPO}')"  # it makes no request
        assert (len(zoo), repr(zoo)) == (11, f"Zoo('{REPO}', 11 members)")

    def test_a_local_folder_wins_where_it_is_a_zoo(self, hub: Hub, tiny_copy: Path) -> None:
        plant(hub, tiny_copy)
        Path(REPO).mkdir(parents=True)
        VitZooModel.from_pretrained(f"{REPO}/pt-0")
        assert hub.requests.of(path="zoo.json")
        hub.requests.clear()
        Path(REPO).rmdir()
        tiny_copy.rename(REPO)
        VitZooModel.from_pretrained(f"{REPO}/pt-0")
        assert not hub.requests

    def test_a_plain_model_is_loaded_by_transformers(self, hub: Hub, tiny_zoo: Path) -> None:
        member = {path.name: path.read_bytes() for path in (tiny_zoo / LINEAR).iterdir() if path.is_file()}
        hub.create_repo("org/one-model").commit(member | {f"pt-0/{name}": data for name, data in member.items()})
        assert same(VitZooModel.from_pretrained("org/one-model"), tiny_zoo / LINEAR / "model.safetensors")
        assert same(
            VitZooModel.from_pretrained("org/one-model", subfolder="pt-0"), tiny_zoo / LINEAR / "model.safetensors"
        )
        with pytest.raises(ZooNotFoundError, match=r"zoo\.json") as plain:
            Zoo("org/one-model")
        assert plain.value.zoo == "org/one-model"

    def test_a_zoo_stays_at_its_commit(self, hub: Hub, tiny_zoo: Path) -> None:
        repo = plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        other = (tiny_zoo / "pt-1/model.safetensors").read_bytes()
        repo.commit({"pt-0/model.safetensors": other, "zoo.json": None})
        assert same(zoo["pt-0"].load(), tiny_zoo / "pt-0/model.safetensors")
        with pytest.raises(ZooNotFoundError):
            Zoo(REPO)

    def test_only_members_of_the_manifest_are_listed(self, hub: Hub, tiny_zoo: Path) -> None:
        repo = plant(hub, tiny_zoo)
        child = {f"pt-1/ft-9/{path.name}": path.read_bytes() for path in (tiny_zoo / "pt-1/ft-0").iterdir()}
        repo.commit(child)
        assert "pt-1/ft-9" not in Zoo(REPO)
        assert len(Zoo(REPO)["pt-1"].children) == 2

    def test_records_and_metrics_are_those_of_the_folder(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        there, here = Zoo(REPO)[LINEAR], Zoo(tiny_zoo)[LINEAR]
        assert there.metrics == here.metrics
        untyped = tuple(replace(weights, dtype=None) for weights in here.record.weights)
        assert there.record == replace(here.record, dataset_spec=None, weights=untyped)  # not in the table of members
        assert there.epochs == here.epochs
        assert there.evaluate().accuracy == here.metrics[-1].test_accuracy

    def test_a_snapshot_of_the_cache_is_a_zoo_folder(self, hub: Hub, tiny_zoo: Path) -> None:
        from huggingface_hub import snapshot_download

        plant(hub, tiny_zoo)
        folder = Path(snapshot_download(REPO))
        assert same(VitZooModel.from_pretrained(folder / LINEAR, verify=True), tiny_zoo / LINEAR / "model.safetensors")
        assert len(Zoo(folder)) == 11


class TestRequests:
    def test_a_member_costs_the_requests_of_plain_transformers(self, hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
        head = plant(hub, tiny_zoo).head

        def count(load, *arguments, **options) -> int:
            hub.requests.clear()
            load.from_pretrained(*arguments, **options)
            return len(hub.requests) - len(hub.requests.of(path="adapter_config"))  # which PEFT asks for, if installed

        plain = {"cache_dir": tmp_path / "plain"}
        first = count(ViTForImageClassification, REPO, subfolder="pt-0", **plain)
        second = count(ViTForImageClassification, REPO, subfolder="pt-1", **plain)
        assert (first, second) == (5, 4)  # one config.json is linked to the other's
        assert count(VitZooModel, f"{REPO}/pt-0") <= first + 2  # and zoo.json, which takes two
        assert [str(r).split()[:2] for r in hub.requests.of(path="zoo.json")] == [["hub", "HEAD"], ["hub", "GET"]]
        assert count(VitZooModel, f"{REPO}/pt-1") <= second
        assert count(VitZooModel, f"{REPO}/pt-2", verify=True) <= first + 2  # and member.json
        assert count(VitZooModel, f"{REPO}/pt-1") == 1
        assert count(VitZooModel, f"{REPO}/pt-1", revision=head) == 0
        assert count(VitZooModel, f"{REPO}/pt-1@2", revision=head) <= 2
        assert count(ViTForImageClassification, REPO, subfolder="pt-1", revision=head) == 0  # one cache for both
        zoo = Zoo(REPO)
        hub.requests.clear()
        zoo["pt-1"].load()
        assert not hub.requests.of(path="pt-1")

    def test_listing_reads_only_the_metadata(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        factors = {str(member.id): member.factors for member in zoo}
        assert factors == {str(member.id): member.factors for member in Zoo(tiny_zoo)}
        assert [len(member.metrics) for member in zoo] == [3] * 11
        asked = {request.path.partition("/resolve/")[2].partition("/")[2] for request in hub.requests.of(host="hub")}
        assert asked == {"zoo.json", "manifest.json", "metadata/members.parquet", "metadata/epochs.parquet"}
        assert len(hub.requests) == 8

    def test_a_tensor_is_read_without_the_file(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        member = Zoo(REPO)[MLP]
        expected = load_file(tiny_zoo / MLP / "model.epoch-01.safetensors")
        hub.requests.clear()
        header = member.load_header(epoch=1)
        assert {name: entry.shape for name, entry in header.items()} == {n: tuple(t.shape) for n, t in expected.items()}
        assert {entry.dtype for entry in header.values()} == {"F32"}
        assert len(hub.requests.of(host="files")) == 1
        hub.requests.clear()
        for name in ("vit.encoder.layer.0.output.dense.weight", "vit.layers.0.mlp.fc2.weight"):
            assert torch.equal(member.load_tensor(name, epoch=1), expected["vit.encoder.layer.0.output.dense.weight"])
        size = expected["vit.encoder.layer.0.output.dense.weight"].nbytes
        assert [request.sent for request in hub.requests.of(host="files")] == [size, size]
        assert not list(Path(member.folder).glob("*.safetensors"))  # nothing of the file is kept
        with pytest.raises(WeightsError, match=r"vit\.x"):
            member.load_tensor("vit.x")
        with pytest.raises(EpochNotFoundError) as missing:
            member.load_header(epoch=9)
        assert (missing.value.epoch, list(missing.value.epochs)) == (9, [0, 1, 2])
        member.load(epoch=1)
        hub.requests.clear()
        assert torch.equal(member.load_tensor("classifier.fc1.bias", epoch=1), expected["classifier.fc1.bias"])
        assert not hub.requests

    def test_a_tensor_of_a_folder_is_read(self, tiny_zoo: Path) -> None:
        expected = load_file(tiny_zoo / MLP / "model.safetensors")
        member = Zoo(tiny_zoo)[MLP]
        assert member.load_header().keys() == expected.keys()
        assert all(torch.equal(member.load_tensor(name), tensor) for name, tensor in expected.items())
        with pytest.raises(EpochNotFoundError):
            member.load_header(epoch=9)


class TestOffline:
    def test_cached_files_load_without_a_request(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo).tag("v1")
        VitZooModel.from_pretrained(f"{REPO}/{LINEAR}")
        Zoo(REPO)[MLP].record  # noqa: B018
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        hub.requests.clear()
        assert VitZooModel.from_pretrained(f"{REPO}/{LINEAR}").config.hidden_size == 16
        assert len(Zoo(REPO)) == 11
        for load in (
            lambda: VitZooModel.from_pretrained(f"{REPO}/{MLP}", local_files_only=True),
            lambda: Zoo("org/other", local_files_only=True),
            lambda: Zoo(REPO, local_files_only=True)["pt-1"].load_header(),
        ):
            with pytest.raises(HubError, match="not in the cache, and only the cache"):
                load()
        assert not hub.requests

    def test_a_plain_model_in_a_subfolder_like_a_member_loads(self, hub: Hub, tiny_zoo: Path) -> None:
        member = {f"pt-0/{path.name}": path.read_bytes() for path in (tiny_zoo / LINEAR).iterdir() if path.is_file()}
        hub.create_repo("org/one-model").commit(member)
        ViTForImageClassification.from_pretrained("org/one-model", subfolder="pt-0")
        model = VitZooModel.from_pretrained("org/one-model", subfolder="pt-0", local_files_only=True)
        assert same(model, tiny_zoo / LINEAR / "model.safetensors")

    def test_cached_files_load_when_the_hub_is_down(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        VitZooModel.from_pretrained(f"{REPO}/{LINEAR}")
        with hub.fault(Answer(status=503)):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}")
            with pytest.raises(HubError, match="is not in the cache, and the Hub did not answer"):
                VitZooModel.from_pretrained(f"{REPO}/{MLP}")


FAULTS: dict[str, Kind] = {
    "429": too_many_requests(retry_after=0),
    "500": Answer(status=500),
    "503": Answer(status=503),
    "dropped": Drop(),
    "cut": Cut(after=100),
    "truncated": Truncate(keep=50),
    "slow": Slow(piece=4000, seconds=0.01),
}


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_loading_survives_two_faults_of_each_file(self, hub: Hub, tiny_zoo: Path, fault: str) -> None:
        plant(hub, tiny_zoo)
        method = "GET" if fault == "truncated" else None  # a truncated HEAD describes another file
        with contextlib.ExitStack() as stack:
            faults = [
                stack.enter_context(hub.fault(FAULTS[fault], path=path, method=method, times=2))
                for path in ("zoo.json", "config.json", "/models/")
            ]
            model = VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", verify=True)
        assert same(model, tiny_zoo / LINEAR / "model.safetensors")
        assert all(fault.hits for fault in faults)

    @pytest.mark.parametrize("fault", ["429", "dropped", "cut", "truncated"])
    def test_listing_and_ranges_survive_faults(self, hub: Hub, tiny_zoo: Path, fault: str) -> None:
        plant(hub, tiny_zoo)
        with hub.fault(FAULTS[fault], method="GET", times=3):
            zoo = Zoo(REPO)
            assert [member.factors for member in zoo] == [member.factors for member in Zoo(tiny_zoo)]
        with hub.fault(FAULTS[fault], host="files", method="GET", times=2):
            tensor = zoo[LINEAR].load_tensor("classifier.weight")
        assert torch.equal(tensor, load_file(tiny_zoo / LINEAR / "model.safetensors")["classifier.weight"])

    def test_a_fault_that_lasts_is_one_error(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        with (
            hub.fault(Answer(status=500), host="files"),
            pytest.raises(HubError, match=r"model\.safetensors of org/vit-zoo .*status 500"),
        ):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}")
        assert same(VitZooModel.from_pretrained(f"{REPO}/{LINEAR}"), tiny_zoo / LINEAR / "model.safetensors")

    @pytest.mark.parametrize("seconds", [86_400, "9" * 400])
    def test_a_very_long_wait_is_an_error(self, hub: Hub, tiny_zoo: Path, seconds: object) -> None:
        plant(hub, tiny_zoo)
        answer = Answer(status=503, headers={"Retry-After": str(seconds)})
        with hub.fault(answer, host="files"), pytest.raises(HubError, match=r"asks to wait [\d,]+ seconds") as long:
            Zoo(REPO)["pt-0"].load()
        assert (long.value.status, long.value.expected) == (503, "at most 600")

    def test_a_custom_http_client_is_retried(self, hub: Hub, tiny_zoo: Path) -> None:
        from huggingface_hub import close_session, set_client_factory
        from huggingface_hub.utils._http import default_client_factory

        class Client(type(default_client_factory())):
            pass

        plant(hub, tiny_zoo)
        set_client_factory(lambda: Client(follow_redirects=True))
        try:
            with hub.fault(Drop(), times=2):
                assert len(Zoo(REPO)) == 11
            with pytest.raises(ZooNotFoundError):
                Zoo("org/nothing")
        finally:
            close_session()
            set_client_factory(default_client_factory)

    def test_a_flipped_byte_is_found_and_fixed_by_force_download(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        with hub.fault(Flip(at=9000), host="files", times=1), pytest.raises(WeightsError, match="was altered"):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", verify=True)
        model = VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", verify=True, force_download=True)
        assert same(model, tiny_zoo / LINEAR / "model.safetensors")


class TestTrust:
    def digest(self, hub: Hub) -> str:
        files = hub.repo(REPO).files()
        path = Path("manifest.json")
        path.write_bytes(files["manifest.json"])
        return load_manifest(path).digest

    def test_verify_and_digest_find_a_file_altered_on_the_server(self, hub: Hub, tiny_zoo: Path) -> None:
        repo = plant(hub, tiny_zoo)
        content = bytearray((tiny_zoo / LINEAR / "model.safetensors").read_bytes())
        content[-1] ^= 1
        repo.tamper(f"{LINEAR}/model.safetensors", bytes(content))
        VitZooModel.from_pretrained(f"{REPO}/{LINEAR}")  # as plain transformers would
        with pytest.raises(WeightsError, match="was altered"):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", verify=True)
        zoo = Zoo(REPO, digest=self.digest(hub))
        zoo["pt-1"].load()
        with pytest.raises(AuthenticityError, match=r"ft-0/model\.safetensors was altered"):
            zoo[LINEAR].load()
        with pytest.raises(AuthenticityError):  # the whole file is compared
            zoo[LINEAR].load_tensor("classifier.weight")

    def test_a_digest_finds_a_file_altered_in_the_cache(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO, digest=self.digest(hub))
        zoo[LINEAR].load()
        for name in ("model.safetensors", "config.json"):
            file = zoo[LINEAR].folder / name
            content = file.read_bytes()
            file.write_bytes(content[:-3] + b" " + content[-2:])
            for opened in (zoo, Zoo(REPO, digest=self.digest(hub))):  # after and before a first read
                with pytest.raises(AuthenticityError, match="was altered"):
                    opened[LINEAR].load()
            file.write_bytes(content)
        zoo[LINEAR].load(verify=True)

    def test_verify_finds_an_altered_config(self, hub: Hub, tiny_zoo: Path, tiny_copy: Path) -> None:
        repo = plant(hub, tiny_zoo)
        file = f"{LINEAR}/config.json"
        altered = (tiny_zoo / file).read_bytes().replace(b'"gelu"', b'"relu"')
        VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", verify=True)
        cached = Zoo(REPO)[LINEAR].folder / "config.json"
        cached.write_bytes(altered)
        with pytest.raises(ConfigError, match="was altered") as found:
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", verify=True)
        assert found.value.path == cached
        repo.tamper(file, altered)
        with pytest.raises(ConfigError, match="was altered"):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", verify=True, cache_dir="another-cache")
        (tiny_copy / layout.MANIFEST).write_bytes(manifest_of(tiny_copy, zoo_files(tiny_copy)).to_bytes())
        (tiny_copy / file).write_bytes(altered)
        with pytest.raises(AuthenticityError, match="was altered"):
            VitZooModel.from_pretrained(tiny_copy / LINEAR, verify=True)

    def test_a_digest_finds_a_change_with_the_old_size_and_time(self, tiny_copy: Path) -> None:
        manifest = manifest_of(tiny_copy, zoo_files(tiny_copy))
        (tiny_copy / layout.MANIFEST).write_bytes(manifest.to_bytes())
        zoo = Zoo(tiny_copy, digest=manifest.digest)
        zoo[LINEAR].load()
        file = tiny_copy / LINEAR / "model.safetensors"
        before, content = file.stat(), bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(AuthenticityError, match="was altered"):
            zoo[LINEAR].load()

    def test_another_digest_is_refused(self, hub: Hub, tiny_zoo: Path, tiny_copy: Path) -> None:
        plant(hub, tiny_zoo)
        right = self.digest(hub)
        with pytest.raises(AuthenticityError, match="sha256:123"):
            Zoo(REPO, digest="sha256:123")
        with pytest.raises(AuthenticityError, match=right) as other:
            Zoo(REPO, digest="sha256:" + 64 * "0")
        assert other.value.expected == "sha256:" + 64 * "0"
        with pytest.raises(AuthenticityError, match=r"has no manifest\.json"):
            Zoo(tiny_copy, digest=right)
        assert len(Zoo(REPO, digest=right.removeprefix("sha256:"))) == 11


class TestTokens:
    """A token never appears in output, logs, files or errors."""

    @pytest.fixture(autouse=True)
    def _watch(
        self, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> Iterator[None]:
        caplog.set_level(logging.DEBUG)
        self.secrets: list[str] = []
        yield
        out, err = capfd.readouterr()
        files = "".join(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())
        assert self.secrets
        for secret in self.secrets:
            assert secret not in out + err + caplog.text + files

    def token(self, hub: Hub, *orgs: str) -> str:
        token = hub.add_token("someone", orgs=orgs)
        self.secrets.append(token.value)
        return token.value

    def refused(self, *arguments, **options) -> str:
        with pytest.raises(ZooNotFoundError, match="that you may read") as raised:
            VitZooModel.from_pretrained(*arguments, **options)
        assert raised.value.zoo == REPO
        return "".join(traceback.format_exception(raised.value)) + repr(vars(raised.value))

    def test_a_private_repo_needs_a_right_token(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo, private=True)
        mine, strangers = self.token(hub, "org"), self.token(hub)
        self.refused(f"{REPO}/pt-0")
        for wrong in (strangers, "hf_" + 34 * "x"):
            assert wrong not in self.refused(f"{REPO}/pt-0", token=wrong)
        model = VitZooModel.from_pretrained(f"{REPO}/pt-0", token=mine)
        assert same(model, tiny_zoo / "pt-0/model.safetensors")
        zoo = Zoo(REPO, token=mine)
        zoo["pt-1"].load_tensor("classifier.weight")
        assert mine not in repr(zoo) + repr(zoo.source) + repr(vars(zoo.source))
        assert {request.token for request in hub.requests.of(host="files")} == {None}
        monkeypatch.setenv("HF_TOKEN", mine)
        assert len(Zoo(REPO)) == 11
        with pytest.raises(ZooNotFoundError):
            Zoo(REPO, token=False, cache_dir="elsewhere")

    @pytest.mark.parametrize("wrong", ["hf_\N{SNOWMAN}secret", "hf_se cret", "hf_se\ncret", "  "])
    def test_a_malformed_token_is_refused_without_a_request(
        self, hub: Hub, tiny_zoo: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo)
        self.secrets.append(wrong.strip() or "never")
        hub.requests.clear()
        with pytest.raises(HubError, match="The token is empty or") as raised:
            Zoo(REPO, token=wrong)
        assert "cret" not in "".join(traceback.format_exception(raised.value))
        if wrong.isprintable() and wrong.strip():  # huggingface_hub takes line ends out of it
            monkeypatch.setenv("HF_TOKEN", wrong)
            with pytest.raises(HubError, match="The token is empty or"):
                Zoo(REPO)
        assert not hub.requests

    def test_a_token_may_end_with_a_newline(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo, private=True)
        assert len(Zoo(REPO, token=self.token(hub, "org") + "\n")) == 11
        with pytest.raises(HubError, match="nobody is logged in"):
            Zoo(REPO, token=True)

    def test_an_expired_link_is_renewed_and_never_shown(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        self.secrets.append("Signature=")
        with hub.fault(Answer(status=403), host="files", times=2) as happened:
            Zoo(REPO)["pt-0"].load()
        assert happened.hits == 2
        with (
            hub.fault(Answer(status=403), host="files"),
            pytest.raises(HubError, match=r"model\.safetensors .*status 403") as raised,
        ):
            Zoo(REPO)["pt-1"].load()
        assert "Signature" not in "".join(traceback.format_exception(raised.value))

    def test_an_expired_token_is_named_as_a_cause(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo, private=True)
        token = hub.add_token("someone", orgs=("org",))
        self.secrets.append(token.value)
        zoo = Zoo(REPO, token=token.value)
        token.expire()
        with pytest.raises(ZooNotFoundError, match="give a valid token=") as raised:
            zoo["pt-0"].load()
        assert token.value not in "".join(traceback.format_exception(raised.value))


class TestOneModel:
    @pytest.mark.parametrize("member", [LINEAR, MLP])
    def test_a_pushed_and_a_saved_model_load_again(
        self, hub: Hub, tiny_zoo: Path, member: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo)
        token = hub.add_token("someone", role="write").value
        monkeypatch.setenv("HF_TOKEN", token)  # transformers 5.18 forgets token= where it reads a config
        model = VitZooModel.from_pretrained(f"{REPO}/{member}@1")
        model.push_to_hub("someone/one-model", token=token, private=True)  # pyright: ignore[reportArgumentType]
        again = VitZooModel.from_pretrained("someone/one-model", token=token)
        assert same(again, tiny_zoo / member / "model.epoch-01.safetensors")
        assert again.config.to_dict() == model.config.to_dict() | {"_name_or_path": "someone/one-model"}
        assert set(hub.repo("someone/one-model").files()) == {
            ".gitattributes",
            "README.md",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        }
        plain = AutoModelForImageClassification.from_pretrained("someone/one-model", token=token)
        assert type(plain) is (VitZooModel if member == MLP else ViTForImageClassification)
        model.save_pretrained("saved")
        assert same(VitZooModel.from_pretrained("./saved"), tiny_zoo / member / "model.epoch-01.safetensors")

    @pytest.mark.parametrize("member", [LINEAR, MLP, "pt-2"])
    @pytest.mark.parametrize("local", [False, True])
    def test_a_pushed_model_brings_its_processor_and_a_card(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch, member: str, local: bool
    ) -> None:
        plant(hub, tiny_zoo)
        monkeypatch.setenv("HF_TOKEN", hub.add_token("someone", role="write").value)
        zoo = tiny_zoo if local else REPO
        VitZooModel.from_pretrained(f"{zoo}/{member}@1").push_to_hub("someone/one-model")
        repo = hub.repo("someone/one-model")
        files, image = repo.files(), Image.linear_gradient("L").resize((8, 8))
        assert files["preprocessor_config.json"] == (tiny_zoo / member / "preprocessor_config.json").read_bytes()
        text = files["README.md"].decode()
        assert ("base_model: org/vit-zoo\n" in text) == (not local)
        assert str(tiny_zoo.parent) not in text
        assert "equal to the member's" in text
        role = "image-feature-extraction" if member == "pt-2" else "image-classification"
        assert f"pipeline_tag: {role}\n" in text
        if member != "pt-2":
            accuracy = Zoo(tiny_zoo)[member].metrics_at(1).test_accuracy
            assert f"| test_accuracy | {accuracy:.4f} |" in text
            model, processor = Zoo(tiny_zoo)[member].load(epoch=1), Zoo(tiny_zoo)[member].load_image_processor()
            expected = pipeline("image-classification", model=model, image_processor=processor)(image)
            assert pipeline("image-classification", model="someone/one-model")(image) == expected

    def test_a_second_push_keeps_what_the_owner_wrote(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", hub.add_token("someone", role="write").value)
        model = VitZooModel.from_pretrained(tiny_zoo / MLP)
        processor = Zoo(tiny_zoo)[MLP].load_image_processor()
        processor.image_mean = [0.25, 0.25, 0.25]
        processor.push_to_hub("someone/one-model")
        model.push_to_hub("someone/one-model")
        repo = hub.repo("someone/one-model")
        assert json.loads(repo.files()["preprocessor_config.json"])["image_mean"] == [0.25, 0.25, 0.25]
        with torch.no_grad():
            model.classifier.fc2.bias += 1
        model.push_to_hub("someone/one-model")  # the card is ours, so it is written again
        card = repo.files()["README.md"].decode()
        assert "were changed since then" in card
        assert "test_accuracy" not in card
        repo.commit({"README.md": b"---\nlicense: mit\n---\nMine.\n"})
        model.save_pretrained("saved", push_to_hub=True, repo_id="someone/one-model")
        assert repo.files()["README.md"].decode().strip() == "---\nlicense: mit\n---\nMine."

    def test_a_model_of_a_deleted_zoo_is_pushed_with_a_warning(
        self, hub: Hub, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", hub.add_token("someone", role="write").value)
        model = VitZooModel.from_pretrained(tiny_copy / MLP, mmap=False)
        shutil.rmtree(tiny_copy)
        with pytest.warns(UserWarning, match="without an image processor"):
            model.push_to_hub("someone/one-model")
        assert "model.safetensors" in hub.repo("someone/one-model").files()


class TestHostile:
    """Rule 5 of docs/decisions.md over HTTP; see tests/test_bad_input.py for folders."""

    def test_a_compressed_table_of_a_long_text_is_refused(self, hub: Hub, tiny_zoo: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        repo = plant(hub, tiny_zoo)
        table = pq.read_table(tiny_zoo / "metadata/members.parquet")
        bomb = pa.Table.from_pylist([table.to_pylist()[0]] * 3000, schema=table.schema)
        # 2.7 GB as texts, stored once.
        versions = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), ["x" * 900_000])
        bomb = bomb.set_column(bomb.schema.get_field_index("versions"), "versions", versions)
        for codec, message in (("zstd", "its compression"), ("snappy", "a text of over 16384 bytes")):
            sink = pa.BufferOutputStream()
            pq.write_table(bomb, sink, compression=codec, store_schema=False)  # a schema would name a dictionary
            commit_table(repo, tiny_zoo, "members", sink.getvalue().to_pybytes())
            with pytest.raises(RecordError, match=message):
                Zoo(REPO)["pt-0"].record  # noqa: B018

    def test_a_member_without_metrics_is_refused(self, hub: Hub, tiny_zoo: Path) -> None:
        import pyarrow.parquet as pq

        repo = plant(hub, tiny_zoo)
        pq.write_table(pq.read_table(tiny_zoo / "metadata/epochs.parquet").slice(3), "epochs.parquet")
        commit_table(repo, tiny_zoo, "epochs", Path("epochs.parquet").read_bytes())
        with pytest.raises(RecordError, match="pt-0"):
            Zoo(REPO)["pt-0"].metrics  # noqa: B018

    def test_a_link_out_of_a_false_cache_is_refused(self, tiny_copy: Path, tmp_path: Path) -> None:
        snapshot = tmp_path / "models--x/snapshots/abc"
        snapshot.parent.mkdir(parents=True)
        (tmp_path / "models--x/blobs").symlink_to("/")
        tiny_copy.rename(snapshot)
        shutil.copy(snapshot / LINEAR / "config.json", tmp_path / "config.json")
        (snapshot / LINEAR / "config.json").unlink()
        (snapshot / LINEAR / "config.json").symlink_to(tmp_path / "config.json")
        with pytest.raises(UnsafePathError):
            VitZooModel.from_pretrained(snapshot / LINEAR)

    def test_unknown_names_are_refused(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        for error, word, load in (
            (ZooNotFoundError, '"v9"', lambda: Zoo(REPO, revision="v9")),
            (ZooNotFoundError, '"org/other"', lambda: VitZooModel.from_pretrained("org/other/pt-0")),
            (MemberNotFoundError, "Nearest: pt-0/ft-3", lambda: VitZooModel.from_pretrained(f"{REPO}/pt-0/ft-33")),
            (EpochNotFoundError, "epoch 3", lambda: VitZooModel.from_pretrained(f"{REPO}/pt-0", epoch=3)),
            (ConflictingArgumentsError, 'revision="main"', lambda: Zoo(tiny_zoo, revision="main")),
            (ConflictingArgumentsError, 'revision=""', lambda: Zoo(REPO, revision="")),
            (ZooNotFoundError, "is not a zoo", lambda: Zoo(Path(REPO))),  # a path is a folder
            (ZooNotFoundError, "xxx", lambda: Zoo("./" + 300 * "x")),
        ):
            with pytest.raises(error, match=word):
                load()

    @pytest.mark.parametrize(("key", "value"), [("auto_map", {"AutoConfig": "evil.Config"}), ("hidden_size", 2**40)])
    def test_hostile_configs_are_refused(self, hub: Hub, tiny_zoo: Path, key: str, value: object) -> None:
        repo = plant(hub, tiny_zoo)
        config = json.loads((tiny_zoo / LINEAR / "config.json").read_text()) | {key: value}
        repo.commit({f"{LINEAR}/config.json": json.dumps(config).encode()})
        with pytest.raises((ConfigError, WeightsError)):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}")
        with pytest.raises(ConflictingArgumentsError, match="trust_remote_code"):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", trust_remote_code=True)

    def test_a_pickle_is_never_read(self, hub: Hub, tiny_zoo: Path) -> None:
        repo = plant(hub, tiny_zoo)
        repo.commit({f"{LINEAR}/model.safetensors": None, f"{LINEAR}/pytorch_model.bin": b"\x80\x04."})
        with pytest.raises(EpochNotFoundError, match="pt-0/ft-0 has no final weights"):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}")
        assert not hub.requests.of(path=r"\.bin")

    def test_no_weight_is_left_random(self, hub: Hub, tiny_zoo: Path) -> None:
        repo = plant(hub, tiny_zoo)
        content = (tiny_zoo / LINEAR / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        del header["classifier.bias"], header["classifier.weight"]
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        start = min(entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__")
        for name, entry in header.items():
            if name != "__metadata__":
                entry["data_offsets"] = [offset - start for offset in entry["data_offsets"]]
        text = json.dumps(header).encode()
        data = content[8 + length :][start:end]
        repo.commit({f"{LINEAR}/model.safetensors": struct.pack("<Q", len(text)) + text + data})
        with pytest.raises(WeightsError, match=r"classifier\.(bias|weight)"):
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}")

    def test_a_hostile_header_is_refused(self, hub: Hub, tiny_zoo: Path) -> None:
        repo = plant(hub, tiny_zoo)
        content = (tiny_zoo / LINEAR / "model.safetensors").read_bytes()
        repo.commit({f"{LINEAR}/model.safetensors": struct.pack("<Q", 2**62) + content[8:]})
        zoo = Zoo(REPO)
        for read in (zoo[LINEAR].load_header, zoo[LINEAR].load):
            with pytest.raises(WeightsError, match="damaged safetensors file"):
                read()

    @pytest.mark.parametrize("path", ["../evil", "pt-0/evil.py", "pt-0/\x1b[31m"])
    def test_hostile_paths_of_a_manifest_are_refused(self, hub: Hub, tiny_zoo: Path, path: str) -> None:
        repo = plant(hub, tiny_zoo)
        manifest = manifest_of(tiny_zoo, zoo_files(tiny_zoo))
        manifest.files[path] = FileRecord(size=1, sha256=64 * "0")
        repo.commit({"manifest.json": manifest.to_bytes()})
        with pytest.raises(RecordError, match=r"manifest\.json names the file") as raised:
            len(Zoo(REPO))
        assert str(raised.value).isprintable()

    @pytest.mark.parametrize("change", ["garbage", "unnamed member", "missing member", "hostile id"])
    def test_hostile_tables_are_refused(self, hub: Hub, tiny_zoo: Path, change: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        repo = plant(hub, tiny_zoo)
        table = pq.read_table(tiny_zoo / "metadata/members.parquet")
        rows = table.to_pylist()
        if change == "garbage":
            content = b"PAR1" + bytes(100) + b"PAR1"
        else:
            if change == "unnamed member":
                table = pa.Table.from_pylist([*rows, rows[0] | {"id": "pt-77"}], schema=table.schema)
            elif change == "missing member":
                table = table.slice(1)
            else:
                table = pa.Table.from_pylist([rows[0] | {"id": "\x1b]0;evil\x07../.."}, *rows[1:]], schema=table.schema)
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            content = sink.getvalue().to_pybytes()
        commit_table(repo, tiny_zoo, "members", content)
        with pytest.raises(RecordError, match=r"members\.parquet") as raised:
            Zoo(REPO)["pt-0"].record  # noqa: B018
        assert str(raised.value).isprintable()

    def test_a_link_out_of_the_cache_is_refused(self, hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        zoo[LINEAR].load()
        file = zoo[LINEAR].folder / "model.safetensors"
        (tmp_path / "elsewhere").mkdir()
        shutil.copy(file, tmp_path / "elsewhere/model.safetensors")
        file.unlink()
        file.symlink_to(tmp_path / "elsewhere/model.safetensors")
        with pytest.raises(UnsafePathError, match="which is outside the zoo"):
            zoo[LINEAR].load()

    def test_every_damage_is_a_vitzoo_error(self, hub: Hub, tiny_zoo: Path) -> None:
        repo = plant(hub, tiny_zoo)
        sound = repo.files()

        def load() -> None:
            len(Zoo(REPO))
            VitZooModel.from_pretrained(f"{REPO}/{LINEAR}", verify=True)

        for name in ("zoo.json", "manifest.json", f"{LINEAR}/config.json", f"{LINEAR}/member.json"):
            for content in (b"", b"{}", b'{"format": 99}', b"[" * 10_000):
                repo.commit({name: content})
                with pytest.raises(VitZooError):
                    load()
            repo.commit({name: sound[name]})
