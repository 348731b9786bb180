"""``python -m training prepare``: a folder that every later run takes."""

import subprocess
import sys
from pathlib import Path

import pytest

from vitzoo.text import TextSpec, load_text
from vitzoo.text.load import prepared_tokenizer

pytest.importorskip("training.text.tokenizer")
ROOT = Path(__file__).parents[2]


def prepare(recipe: str, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "training", "prepare", recipe, "--to", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_prepare_writes_every_data_set_of_a_recipe_once(tmp_path: Path, snippets_archive: Path) -> None:
    folder = tmp_path / "prepared"
    run = prepare("snippets", folder, "--data", f"snippets={snippets_archive}")
    assert run.returncode == 0, run.stderr
    assert f"--data snippets={folder}" in run.stderr.replace("\n", "")
    spec = TextSpec(name="snippets-all", packed=True, max_length=12)
    dataset = load_text(spec, data={"snippets": folder})
    assert dataset.tokenizer.vocab_size == 1024
    films = TextSpec(name="snippets-films", max_length=48, train_texts=4_096)
    assert prepared_tokenizer(films, data={"snippets": folder}) == dataset.tokenizer
    again = prepare("snippets", folder, "--data", f"snippets={folder}")
    assert again.returncode == 0, again.stderr
    assert "was prepared before" in again.stderr


@pytest.mark.slow
def test_texts_of_a_population_are_shared(tmp_path: Path, snippets_archive: Path) -> None:
    from training.recipes import load_recipe
    from training.recipes.plan import plan_members
    from training.text.shared import share_texts

    members = plan_members(load_recipe("snippets"))
    other = {"me/other": tmp_path}
    data = share_texts(members, tmp_path / "texts", data={"snippets": snippets_archive} | other)
    (folder,) = (path for path in (tmp_path / "texts").iterdir() if path.is_dir())
    names = ("snippets-all", "snippets-films", "snippets-others")
    assert data == dict.fromkeys(names, folder) | other
    again = {"snippets": snippets_archive} | other
    assert share_texts(members, tmp_path / "texts", data=again) == data
    prepared = {"snippets": folder} | other
    assert share_texts(members, tmp_path / "elsewhere", data=prepared) == prepared
    for member in members:
        assert load_text(member.training.dataset.texts, data=data).tokenizer.vocab_size == 1024  # pyright: ignore
    images = plan_members(load_recipe("digits"))
    assert share_texts(images, tmp_path / "texts", data=other) == other


def test_prepare_refuses_images_and_unused_folders(tmp_path: Path) -> None:
    run = prepare("digits", tmp_path / "prepared")
    assert run.returncode == 1
    assert "trains on images" in run.stderr
    run = prepare("snippets", tmp_path / "prepared", "--data", f"cifar100={tmp_path}")
    assert run.returncode == 1
    assert 'data names a folder for "cifar100"' in run.stderr
    assert not (tmp_path / "prepared").exists()
