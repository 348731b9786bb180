"""Verification finds each planted fault and nothing else, and names it under its member.

See the tests of `vitzoo.records` and `vitzoo.models`, and test_bad_input, for how single files are refused.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.verification.damage import (
    CHILD,
    LAST,
    MLP,
    PARENT,
    Fault,
    change,
    edit_json,
    edit_lines,
    edit_manifest,
    edit_metrics,
    edit_record,
    edit_table,
    flip,
    link_out,
    not_json,
    publish,
    record_again,
    weights,
)
from vitzoo import Zoo
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import write_tables
from vitzoo.verification.verify import verify_zoo

Expected = list[tuple[str | None, str]]


def altered(zoo: Path) -> None:
    flip(zoo)


def altered_and_recorded(zoo: Path) -> None:
    flip(zoo)
    record_again(zoo)


def other_final_weights(zoo: Path) -> None:
    flip(zoo, CHILD, None)
    record_again(zoo, CHILD, None)


def truncated(zoo: Path) -> None:
    change(zoo, CHILD, 1, lambda content: content.__delitem__(slice(-7, None)))


def too_long(zoo: Path) -> None:
    change(zoo, CHILD, 1, lambda content: content.append(0))


def damaged_header(zoo: Path) -> None:
    change(zoo, CHILD, 1, lambda content: content.__setitem__(8, 0))


def missing_final_weights(zoo: Path) -> None:
    weights(zoo, CHILD, None).unlink()
    weights(zoo, CHILD, None).mkdir()


def forgotten_final_weights(zoo: Path) -> None:
    record = json.loads((zoo / CHILD / "member.json").read_text())
    edit_record(zoo, weights=[weights for weights in record["weights"] if weights["epoch"] is not None])


def weights_twice(zoo: Path) -> None:
    record = json.loads((zoo / CHILD / "member.json").read_text())
    edit_record(zoo, weights=record["weights"] + record["weights"][1:2])


def unrecorded_epoch(zoo: Path) -> None:
    flip(zoo)
    shutil.copy(weights(zoo, CHILD, 1), weights(zoo, CHILD, 7))
    flip(zoo)


def missing_line(zoo: Path) -> None:
    edit_lines(zoo / CHILD / "metrics.jsonl", lambda lines: lines.pop(1))
    write_tables(FolderSource(zoo))


def missing_last_line(zoo: Path) -> None:
    edit_lines(zoo / CHILD / "metrics.jsonl", lambda lines: lines.pop())
    write_tables(FolderSource(zoo))


def not_a_number(zoo: Path) -> None:
    change(zoo, CHILD, 1, lambda content: content.__setitem__(slice(-4, None), np.float32(np.nan).tobytes()))
    record_again(zoo, also="metrics")


def infinity(zoo: Path) -> None:
    change(zoo, CHILD, None, lambda content: content.__setitem__(slice(-4, None), np.float32(-np.inf).tobytes()))
    change(zoo, CHILD, 2, lambda content: content.__setitem__(slice(-4, None), np.float32(-np.inf).tobytes()))
    record_again(zoo, CHILD, 2, also="metrics")
    record_again(zoo, CHILD, None, also="metrics")


def copied_from(member: str, epoch: int) -> Fault:
    def copy(zoo: Path) -> None:
        shutil.copy(weights(zoo, member, epoch), weights(zoo, CHILD, 1))
        record_again(zoo, also="metrics")

    copy.__name__ = f"copied_from_{member}@{epoch}"
    return copy


def exchanged(zoo: Path) -> None:
    """Exchange all epochs but the first of two members, with every record of them."""
    files = [zoo / CHILD, zoo / LAST]
    for epoch in (1, 2, None):
        first, second = (weights(zoo, member, epoch) for member in (CHILD, LAST))
        first.rename(zoo / "exchanged")
        second.rename(first)
        (zoo / "exchanged").rename(second)
    metrics = [(folder / "metrics.jsonl").read_text().splitlines(keepends=True) for folder in files]
    records = [json.loads((folder / "member.json").read_text()) for folder in files]
    for number, folder in enumerate(files):
        own, other = number, 1 - number
        (folder / "metrics.jsonl").write_text("".join(metrics[own][:1] + metrics[other][1:]))
        edit_json(folder / "member.json", weights=records[own]["weights"][:1] + records[other]["weights"][1:])
    write_tables(FolderSource(zoo))


def equal_by_metrics_alone(zoo: Path) -> None:
    """Let two metrics.jsonl name equal weights that are missing."""
    publish(zoo, epochs="0,1")
    for name in (CHILD, LAST):
        edit_lines(zoo / name / "metrics.jsonl", lambda lines: lines[2].update(weights_id="0" * 64))
        weights(zoo, name, 2).unlink()
        weights(zoo, name, None).unlink()
    publish(zoo, epochs="0,1")


def same_seed_other_start(zoo: Path) -> None:
    """Equal weights at epoch 0 under another head seed are unexplained: pt-0 and pt-1 share theirs."""
    edit_record(zoo, "pt-1", head_seed=7)


def member_gone(zoo: Path) -> None:
    shutil.rmtree(zoo / LAST)


def published_member_gone(zoo: Path) -> None:
    publish(zoo)
    shutil.rmtree(zoo / LAST)


def parent_gone(zoo: Path) -> None:
    for file in zoo.glob("pt-1/*.*"):
        file.unlink()
    write_tables(FolderSource(zoo))


def other_epochs_table(zoo: Path) -> None:
    edit_table(zoo, "epochs", lambda rows: (rows.pop(0), rows[0].update(weight_norm=float("nan"), step=11)))


def rows_too_many(zoo: Path) -> None:
    edit_table(zoo, "epochs", lambda rows: (rows.append(rows[0] | {"epoch": 9}), rows.append(rows[1])))


def empty_table(zoo: Path) -> None:
    edit_table(zoo, "epochs", lambda rows: rows.clear())


def every_row_otherwise(zoo: Path) -> None:
    edit_table(zoo, "epochs", lambda rows: [row.update(bytes=1) for row in rows if row["id"] == CHILD])


def split_leaks(zoo: Path) -> None:
    edit_table(zoo, "splits", lambda rows: rows[0].update(part="val" if rows[0]["part"] == "test" else "test"))


def unsound_split(zoo: Path) -> None:
    """It would pass for one that does not leak."""
    edit_table(zoo, "splits", lambda rows: [row.update(sound=True) for row in rows if row["scheme"] == "by_seed"])


def split_of_other_rows(zoo: Path) -> None:
    edit_table(zoo, "splits", lambda rows: (rows.pop(0), rows.append(rows[0]), rows.append(rows[0] | {"fold": "9"})))


def hostile_split(zoo: Path) -> None:
    hostile = {"scheme": "\x1b[2J", "fold": None, "id": "pt-0", "part": None}
    edit_table(zoo, "splits", lambda rows: rows.append(hostile))


def link_to_itself(zoo: Path) -> None:
    for name in ("pt-7", "pt-0/ft-7", "pt-0/ft-0/evil"):
        (zoo / name).symlink_to(Path(name).name)


def hostile_row(zoo: Path) -> None:
    edit_table(zoo, "members", lambda rows: rows.append(rows[0] | {"id": "\x1b[2Jpt-0"}))


def stale_card(zoo: Path) -> None:
    (zoo / layout.METADATA_README).write_text("nothing")


def other_data_files(zoo: Path) -> None:
    card = zoo / layout.METADATA_README
    card.write_text(card.read_text().replace("data_files: members.parquet", "data_files: epochs.parquet"))


def configs_twice(zoo: Path) -> None:
    """A second key of one name: YAML takes the last."""
    card = zoo / layout.METADATA_README
    head, _, body = card.read_text()[4:].partition("---\n")
    card.write_text(f"---\n{head}configs:\n- config_name: members\n  data_files: epochs.parquet\n---\n{body}")


def no_table(zoo: Path) -> None:
    (zoo / "metadata/epochs.parquet").unlink()


def no_parquet(zoo: Path) -> None:
    (zoo / "metadata/members.parquet").write_bytes(b"PAR1" + b"\xff" * 64 + b"PAR1")


def other_columns(zoo: Path) -> None:
    pq.write_table(pa.table({"id": ["pt-0"]}), zoo / "metadata/members.parquet")


def unnamed_file(zoo: Path) -> None:
    publish(zoo)
    (zoo / CHILD / "pytorch_model\x1b[2J.bin").write_bytes(b"\x80")
    (zoo / CHILD / ".hidden").touch()
    (zoo / CHILD / "sub").mkdir()
    (zoo / CHILD / "sub/x.py").touch()
    (zoo / CHILD / "linked").symlink_to(zoo.parent)


def unnamed_files_of_no_member(zoo: Path) -> None:
    publish(zoo)
    edit_json(Path(shutil.copy(zoo / CHILD / "config.json", zoo)), auto_map="evil.Model")
    (zoo / "\x1b[2J.py").touch()
    (zoo / "linked").symlink_to(zoo)
    (zoo / "pt-9").mkdir()
    (zoo / "pt-9/.hidden").touch()


def unnamed_files_beside_the_tables(zoo: Path) -> None:
    publish(zoo)
    shutil.copy(zoo / "metadata/members.parquet", zoo / "metadata/others.parquet")
    (zoo / "metadata/evil.py").touch()


def classes_swapped(zoo: Path) -> None:
    names = {"0": "6", "1": "8", "2": "7", "3": "9"}
    edit_json(zoo / MLP / "config.json", id2label=names, label2id={name: int(i) for i, name in names.items()})


def card_altered(zoo: Path) -> None:
    publish(zoo)
    (zoo / "README.md").write_text("# TINY\n")
    (zoo / CHILD / "timing.jsonl").write_text("")
    (zoo / MLP / "timing.jsonl").unlink()


def altered_after_publishing(zoo: Path) -> None:
    publish(zoo)
    flip(zoo)
    record_again(zoo, also="metrics")


FAULTS: list[tuple[Fault, Expected]] = [
    (
        altered,
        [(CHILD, r"model.epoch-01.safetensors: was altered: it has sha256 \w{16}..., member.json says \w{16}...")],
    ),
    (
        altered_and_recorded,
        [
            (
                CHILD,
                r"model.epoch-01.safetensors: has weights_id .* metrics.jsonl says \"\w{16}\" of epoch 1: other",
            )
        ],
    ),
    (other_final_weights, [(CHILD, r"model.safetensors: has weights_id .*? of epoch 2: other weights")]),
    (truncated, [(CHILD, r"model.epoch-01.safetensors: is truncated: it has \d+ bytes, member.json says \d+")]),
    (too_long, [(CHILD, r"model.epoch-01.safetensors: is too long: it has \d+ bytes, member.json says \d+")]),
    (damaged_header, [(CHILD, r"model.epoch-01.safetensors: .* is a damaged safetensors file")]),
    (missing_final_weights, [(CHILD, "model.safetensors: missing, though member.json names it")]),
    (
        forgotten_final_weights,
        [(CHILD, "member.json: names no final weights"), (CHILD, "model.safetensors: not named by member.json")],
    ),
    (weights_twice, [(CHILD, "member.json: names the weights of an epoch twice")]),
    (unrecorded_epoch, [(CHILD, "model.epoch-07.safetensors: not named by member.json")]),
    (missing_line, [(CHILD, "metrics.jsonl: line 2 is of epoch 2; expected 1")]),
    (
        missing_last_line,
        [
            (CHILD, "metrics.jsonl: ends at epoch 1; member.json says 2 epochs"),
            (CHILD, "member.json: names weights of epoch 2, which has no metrics"),
        ],
    ),
    (not_a_number, [(CHILD, "model.epoch-01.safetensors: vit.layernorm.weight holds NaN or infinity")]),
    (infinity, [(CHILD, "model.epoch-02.safetensors, model.safetensors: vit.layernorm.weight holds NaN or infinity")]),
    (
        lambda zoo: edit_json(zoo / CHILD / "config.json", num_hidden_layers=2),
        [
            (CHILD, "config.json: says num_hidden_layers 2, but the recipe in zoo.json 1"),
            (
                CHILD,
                r"epoch-00.safetensors, model.epoch-01.safetensors and 2 more: does not hold what config.json says: "
                r"vit.encoder.layer.1.\S+ is missing; .* and 13 more",
            ),
        ],
    ),
    (
        lambda zoo: edit_json(zoo / CHILD / "config.json", dtype="bfloat16"),
        [(CHILD, r"model.safetensors: \S+ is F32; config.json says BF16")],
    ),
    (
        lambda zoo: edit_json(zoo / CHILD / "config.json", **{"\x1b[2J": 1}),
        [(CHILD, r'config.json says "\\u001b\[2J", which no zoo member may say')],
    ),
    (
        lambda zoo: edit_json(zoo / CHILD / "preprocessor_config.json", size={"height": 16, "width": 16}),
        [(CHILD, "the model beside it takes 8 pixels")],
    ),
    (
        lambda zoo: edit_record(zoo, head_type="mlp", head_role="\x1b[2J"),
        [
            (CHILD, 'member.json: says head_type "mlp", but config.json "linear"'),
            (CHILD, r'says head_role "\\u001b\[2J", but config.json "classifier"'),
            (CHILD, 'says head_type "mlp", but the recipe in zoo.json "linear"'),
            (CHILD, r'says head_role "\\u001b\[2J", but the recipe in zoo.json "classifier"'),
        ],
    ),
    (
        lambda zoo: edit_record(zoo, num_parameters=1),
        [(CHILD, r"and 2 more: has \d+ parameters, but member.json says 1")],
    ),
    (
        copied_from("pt-1/ft-0", 2),
        [("pt-1/ft-0", "epoch 2 has the same weights as pt-0/ft-0 at epoch 1, which no record explains")],
    ),
    (
        copied_from(CHILD, 0),
        [(CHILD, "epoch 1 has the same weights as pt-0/ft-0 at epoch 0, which no record explains")],
    ),
    (
        exchanged,
        [
            (name, rf"{files}: has distance_from_start [\d.]+, but metrics.jsonl says [\d.]+ of epoch {epoch}$")
            for name in (CHILD, LAST)
            for epoch, files in (
                (1, "model.epoch-01.safetensors"),
                (2, "model.epoch-02.safetensors, model.safetensors"),
            )
        ],
    ),
    *(
        (
            lambda zoo, key=key, value=value: edit_metrics(zoo, 1, **{key: value}),
            [
                (
                    CHILD,
                    rf"epoch-01.safetensors: has {key} [\d.]+, but metrics.jsonl says {value or 'null'} of epoch 1$",
                )
            ],
        )
        for key in ("weight_norm", "distance_from_start")
        for value in (1.5, None)
    ),
    (
        lambda zoo: edit_metrics(zoo, 0, distance_from_start=0.001),
        [(CHILD, "model.epoch-00.safetensors: has distance_from_start 0, but metrics.jsonl says 0.001 of epoch 0$")],
    ),
    *(
        (
            lambda zoo, key=key: edit_metrics(zoo, 2, **{key: 13}),
            [(CHILD, f"metrics.jsonl: says {key} 13 of epoch 2; expected {expected}$")],
        )
        for key, expected in (("samples_seen", 768),)
    ),
    (
        lambda zoo: edit_metrics(zoo, 1, step=7, learning_rate=0.1),
        [
            (CHILD, "metrics.jsonl: says step 7 of epoch 1; expected 6$"),
            (CHILD, "metrics.jsonl: says learning_rate 0.1 of epoch 1; the recipe in zoo.json 0.05$"),
        ],
    ),
    (
        lambda zoo: edit_record(zoo, steps=13),
        [
            (CHILD, "member.json: says steps 13 of 2 epochs, 429 images in batches of 64; expected 12$"),
            (CHILD, "member.json: says steps 13, but the recipe in zoo.json 12$"),
        ],
    ),
    (
        lambda zoo: edit_record(zoo, learning_rate=0.5, replicate=1, n_train=430),
        [
            (CHILD, "member.json: says learning_rate 0.5, but the recipe in zoo.json 0.05$"),
            (CHILD, "member.json: says replicate 1, but the recipe in zoo.json 0$"),
            (CHILD, "member.json: says n_train 430, but the recipe in zoo.json 429$"),
        ],
    ),
    (
        lambda zoo: edit_json(zoo / CHILD / "member.json", optimizer="lion"),
        [(CHILD, r"member.json is not a valid record: Invalid enum value 'lion' - at `\$.optimizer`")],
    ),
    *(
        (
            lambda zoo, value=value: edit_lines(
                zoo / CHILD / "metrics.jsonl", lambda lines: lines[1].update(test_accuracy=value)
            ),
            [(CHILD, r"metrics.jsonl is not a valid record: Expected `float` .= [01].0 - at `\$\[1\].test_accuracy`")],
        )
        for value in (-0.25, 57.04)
    ),
    *(
        (
            lambda zoo, key=key: edit_metrics(zoo, 1, **{key: 0.123456}),
            [(CHILD, f"metrics.jsonl: says {key} 0.123456 of epoch 1; expected a number of right answers by {count}$")],
        )
        for key, count in (("train_accuracy", 64), ("val_accuracy", 142), ("test_knn_accuracy", 143))
    ),
    (
        lambda zoo: edit_record(zoo, n_test=286, dataset_fingerprint="0" * 64),
        [
            (CHILD, "member.json: says n_test 286, but 3 of 4 members 143$"),
            (CHILD, 'member.json: says dataset_fingerprint "0+.*, but 3 of 4 members "[0-9a-f]+'),
        ],
    ),
    (equal_by_metrics_alone, [(LAST, "epoch 2 has the same weights as pt-0/ft-0 at epoch 2")]),
    (
        same_seed_other_start,
        [
            ("pt-1", "epoch 0 has the same weights as pt-0 at epoch 0"),
            ("pt-1", "member.json: says head_seed 7, but the recipe in zoo.json 0"),
        ],
    ),
    (
        member_gone,
        [
            (
                None,
                r"members.parquet, metadata/epochs.parquet and 1 more: has rows of \"pt-0/ft-2\", but the zoo has no",
            )
        ],
    ),
    (published_member_gone, [(LAST, r"config.json, member.json and 7 more: missing, though manifest.json names it")]),
    (parent_gone, [("pt-1/ft-0", "its parent pt-1 is missing or has no sound member.json")]),
    (
        lambda zoo: edit_record(zoo, parent_sha256="0" * 64),
        [(CHILD, r'member.json: says parent_sha256 "0{16}", but pt-0 says "\w{16}" of its weights at epoch 2')],
    ),
    (lambda zoo: edit_record(zoo, parent_epoch=9), [(CHILD, "says parent_epoch 9, but pt-0 has no such weights")]),
    (
        lambda zoo: edit_record(zoo, init_group="\x1b[2J"),
        [
            (CHILD, r'says init_group "\\u001b\[2J", its parent "init-0"'),
            (CHILD, r'says init_group "\\u001b\[2J", but the recipe in zoo.json "init-0"'),
        ],
    ),
    (lambda zoo: edit_record(zoo, parent="pt-1"), [(CHILD, 'says parent "pt-1"; expected "pt-0"')]),
    (lambda zoo: edit_record(zoo, PARENT, parent="pt-1"), [(PARENT, 'says parent "pt-1"; a parent has none')]),
    (
        lambda zoo: edit_record(zoo, PARENT, status="failed"),
        [(name, "its parent pt-0 is failed, not completed") for name in (CHILD, MLP, LAST)],
    ),
    (
        lambda zoo: shutil.copy(zoo / MLP / "member.json", zoo / CHILD / "member.json"),
        [(CHILD, 'member.json: says id "pt-0/ft-1", but is in the folder of pt-0/ft-0')],
    ),
    (
        lambda zoo: (zoo / CHILD / "member.json").unlink(),
        [(CHILD, "member.json: missing, though every member has one")],
    ),
    (
        lambda zoo: (zoo / CHILD / "config.json").unlink(),
        [(CHILD, "config.json: missing, though every member has one")],
    ),
    (not_json(f"{CHILD}/metrics.jsonl"), [(CHILD, "metrics.jsonl is not a valid record")]),
    (
        not_json(f"{PARENT}/member.json"),
        [
            (PARENT, "member.json is not a valid record"),
            *(
                (name, r"its parent pt-0 is missing or has no sound member.json: .* is not a valid record")
                for name in (CHILD, MLP, LAST)
            ),
        ],
    ),
    (
        link_out(f"{CHILD}/model.safetensors"),
        [(CHILD, "model.safetensors: .* is a link to .*outside, which is outside the zoo")],
    ),
    (link_out(f"{CHILD}/config.json"), [(CHILD, "config.json: .* is a link to")]),
    (link_out(CHILD), [(CHILD, "pt-0/ft-0 is a link to"), (None, 'has rows of "pt-0/ft-0"')]),
    (
        lambda zoo: edit_table(zoo, "members", lambda rows: rows[1].update(final_test_accuracy=1.0, classes=["x"])),
        [
            (
                CHILD,
                r"members.parquet: differs from the records: row \"pt-0/ft-0\" has classes a list, expected a list, "
                r"final_test_accuracy 1.0, expected 0.\d+$",
            )
        ],
    ),
    (
        other_epochs_table,
        [
            (
                PARENT,
                'epochs.parquet: differs from the records: row "pt-0" 0 is missing; row "pt-0" 1 has step 11, '
                r"expected 10, weight_norm NaN, expected [\d.]+$",
            ),
        ],
    ),
    (
        rows_too_many,
        [
            (None, "epochs.parquet: has duplicate rows"),
            (PARENT, 'epochs.parquet: differs from the records: row "pt-0" 9 should not exist$'),
        ],
    ),
    (
        empty_table,
        [
            (name, f'row "{name}" 0 is missing; row "{name}" 1 is missing; row "{name}" 2 is missing$')
            for name in (PARENT, CHILD, MLP, LAST, "pt-1", "pt-1/ft-0")
        ],
    ),
    (
        every_row_otherwise,
        [(CHILD, r'row "pt-0/ft-0" 0 has bytes 1, expected \d+; .* row "pt-0/ft-0" 2 has bytes 1, expected \d+$')],
    ),
    (link_to_itself, []),
    (hostile_row, [(None, r'has rows of "\\u001b\[2Jpt-0", but the zoo has no such members')]),
    (stale_card, [(None, 'metadata/README.md: says "nothing", expected "---": datasets may read other files')]),
    (
        other_data_files,
        [(None, 'README.md: says "  data_files: epochs.parquet", expected "  data_files: members.parquet"')],
    ),
    (
        configs_twice,
        [(None, 'README.md: says "configs:", expected "---"')],
    ),
    (
        lambda zoo: (zoo / "metadata/.huggingface.yaml").write_text("configs: []"),
        [(None, r'^"metadata/.huggingface.yaml": no table or card of a zoo: datasets may read it$')],
    ),
    (
        split_leaks,
        [
            (
                None,
                r'splits.parquet: differs from the records: row "random_members" "0" "pt-0" has part "\w+", '
                r'expected "\w+"$',
            )
        ],
    ),
    (
        unsound_split,
        [(None, r'row "by_seed" .* has sound true, expected false; and \d+ more rows$')],
    ),
    (
        split_of_other_rows,
        [
            (None, "metadata/splits.parquet: has duplicate rows"),
            (
                None,
                r'row "random_members" "0" "pt-0" is missing; row "random_members" "9" "\S+" should not exist$',
            ),
        ],
    ),
    (
        hostile_split,
        [
            (
                None,
                r'differs from the records: row "\\u001b\[2J" null "pt-0" should not exist$',
            )
        ],
    ),
    (no_table, [(None, "epochs.parquet is missing")]),
    (no_parquet, [(None, "members.parquet is not a table of a zoo")]),
    (other_columns, [(None, "does not have the columns of the format")]),
    (
        unnamed_file,
        [
            (CHILD, r'"pytorch_model\\u001b\[2J.bin", ".hidden" and 2 more: not named by manifest.json'),
        ],
    ),
    (
        unnamed_files_of_no_member,
        [(None, r'^"\\u001b\[2J.py", "config.json" and 2 more: not named by manifest.json')],
    ),
    (
        unnamed_files_beside_the_tables,
        [(None, r'^"metadata/evil.py", metadata/others.parquet: not named by manifest.json')],
    ),
    (classes_swapped, [(MLP, 'config.json: names class 1 "8", but member.json "7"')]),
    (
        lambda zoo: edit_record(zoo, classes=["6", "7", "8"]),
        [(CHILD, 'config.json: names class 3 "9", but member.json null')],
    ),
    (
        lambda zoo: edit_json(zoo / CHILD / "config.json", num_attention_heads=4),
        [(CHILD, "config.json: says num_attention_heads 4, but the recipe in zoo.json 2")],
    ),
    (
        lambda zoo: edit_json(zoo / CHILD / "config.json", hidden_act="relu", layer_norm_eps=1e-5),
        [
            (CHILD, 'config.json: says hidden_act "relu", but 5 of 6 members "gelu"'),
            (CHILD, "config.json: says layer_norm_eps 1e-05, but 5 of 6 members 1e-06"),
        ],
    ),
    (
        lambda zoo: edit_json(zoo / MLP / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.4], resample=3),
        [
            (MLP, r"preprocessor_config.json: says image_mean \[0.5, 0.5, 0.4\], but the recipe in zoo.json \[0.5, "),
            (MLP, "preprocessor_config.json: says resample 3, but 3 of 4 members 2"),
        ],
    ),
    (
        card_altered,
        [
            (None, r"README.md: was altered: it has sha256 .*, manifest.json says "),
            (CHILD, r"timing.jsonl: is truncated: it has 0 bytes, manifest.json says \d+"),
            (MLP, "timing.jsonl: missing, though manifest.json names it"),
        ],
    ),
    (
        altered_after_publishing,
        [
            (CHILD, "model.epoch-01.safetensors: was altered: .*, manifest.json says"),
            (CHILD, "member.json: .*, manifest.json says"),
            (CHILD, "metrics.jsonl: .*, manifest.json says"),
            (None, "metadata/README.md: "),
            (None, "epochs.parquet: .*, manifest.json says"),
        ],
    ),
    (
        lambda zoo: edit_manifest(zoo, recipe_sha256="0" * 64),
        [(None, r"manifest.json and zoo.json belong to different zoos")],
    ),
    (lambda zoo: edit_manifest(zoo, epochs="\x1b[2J"), [(None, "manifest.json: .* is not a choice of epochs")]),
    (
        lambda zoo: edit_manifest(zoo, without="metadata/README.md"),
        [(None, "metadata/README.md: not named by manifest.json")],
    ),
    (
        lambda zoo: edit_manifest(zoo, without=f"{CHILD}/model.epoch-01.safetensors"),
        [(CHILD, "model.epoch-01.safetensors: not named by manifest.json")],
    ),
    (
        lambda zoo: (zoo / "manifest.json").write_text("{}"),
        [(None, r"manifest.json is not a valid record: .*required field `format`")],
    ),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_fault_is_the_only_problem(zoo: Path, fault: Fault, expected: Expected) -> None:
    fault(zoo)
    problems = list(verify_zoo(Zoo(zoo)).problems)
    for member, what in expected:
        found = next((p for p in problems if str(p.member or None) == str(member) and re.search(what, p.what)), None)
        assert found is not None, (member, what, problems)
        problems.remove(found)
        assert found.fix.endswith(".")
        assert "\x1b" not in found.fix
    assert problems == []


def test_faults_of_several_members_are_all_found(zoo: Path) -> None:
    not_json(f"{CHILD}/metrics.jsonl")(zoo)
    link_out(f"{MLP}/model.epoch-00.safetensors")(zoo)
    flip(zoo, "pt-1", 0)
    edit_json(zoo / "pt-1/ft-0/config.json", auto_map="evil/code")
    found = [str(problem.member) for problem in verify_zoo(Zoo(zoo)).problems]
    assert found == [CHILD, MLP, "pt-1", "pt-1/ft-0"]
