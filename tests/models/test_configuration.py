"""VitZooConfig: its defaults, its config.json, and the keys and values that a member's config.json may not have."""

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, ViTConfig, ViTForImageClassification

from vitzoo.errors import ConfigError, EmbeddingHeadError
from vitzoo.models.registry import load_member_config
from vitzoo.models.vit import VitZooConfig, VitZooModel

SIZES: dict[str, Any] = {
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
THREE: dict[str, Any] = {"id2label": {0: "cat", 1: "dog", 2: "\u00e9l\u00e9phant d'Asie"}}
THREE |= {"label2id": {name: label for label, name in THREE["id2label"].items()}}


def config(**kwargs: Any) -> VitZooConfig:
    return VitZooConfig(**(SIZES | kwargs))


def linear() -> VitZooConfig:
    return config(**THREE)


def mlp() -> VitZooConfig:
    return config(**THREE, head_type="mlp", head_width=4)


def embedding() -> VitZooConfig:
    return config(num_labels=5, head_role="embedding")


def plain(made: VitZooConfig) -> dict[str, Any]:
    """Return the JSON that `save_pretrained` writes."""
    return json.loads(made.to_json_string())


def write(folder: Path, content: object) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(content))
    return file


def again(made: VitZooConfig, folder: Path, **kwargs: Any) -> VitZooConfig:
    """Save a config and read it as a member's."""
    made.save_pretrained(folder)
    return VitZooConfig.from_member(folder / "config.json", **kwargs)


class TestDefaults:
    def test_are_vit_s_16(self) -> None:
        made = VitZooConfig()
        assert {key: getattr(made, key) for key in SIZES} == {
            "image_size": 224,
            "patch_size": 16,
            "num_channels": 3,
            "hidden_size": 384,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "intermediate_size": 1536,
        }
        assert (made.layer_norm_eps, made.qkv_bias, made.hidden_act) == (1e-6, True, "gelu")
        assert (made.head_type, made.head_width, made.head_role) == ("linear", None, "classifier")

    def test_a_plain_vit_has_those_of_vit(self, tmp_path: Path) -> None:
        """Keys that a plain config.json leaves out have the values of ViT-B/16."""
        write(tmp_path, {"model_type": "vit"})
        found, expected = VitZooConfig.from_pretrained(tmp_path), ViTConfig()
        for name in (*SIZES, "layer_norm_eps", "qkv_bias", "hidden_act"):
            assert getattr(found, name) == getattr(expected, name), name
        write(tmp_path, {"model_type": "vit", "hidden_size": 192, "num_attention_heads": 3})
        found = VitZooConfig.from_pretrained(tmp_path)
        assert (found.hidden_size, found.num_attention_heads, found.intermediate_size) == (192, 3, 3072)

    def test_a_member_without_sizes_is_refused(self, tmp_path: Path) -> None:
        for key in (*SIZES, "layer_norm_eps", "model_type"):
            written = plain(linear())
            del written[key]
            with pytest.raises(ConfigError, match="lacks") as error:
                load_member_config(write(tmp_path, written))
            assert error.value.key == key


class TestWriting:
    def test_a_linear_head_is_a_plain_vit(self, tmp_path: Path) -> None:
        made = linear()
        made.architectures = ["VitZooModel"]
        made.save_pretrained(tmp_path)
        written = json.loads((tmp_path / "config.json").read_text())
        assert (written["model_type"], written["architectures"]) == ("vit", ["ViTForImageClassification"])
        assert not written.keys() & {"head_type", "head_width", "head_role"}
        native = AutoConfig.from_pretrained(tmp_path)
        assert type(native) is ViTConfig
        assert native.id2label == made.id2label
        assert {key: getattr(native, key) for key in SIZES} == SIZES
        assert native.layer_norm_eps == 1e-6

    def test_an_mlp_head_is_a_vitzoo(self, tmp_path: Path) -> None:
        made = mlp()
        made.architectures = ["VitZooModel"]
        made.save_pretrained(tmp_path)
        written = json.loads((tmp_path / "config.json").read_text())
        assert (written["model_type"], written["architectures"]) == ("vitzoo", ["VitZooModel"])
        assert (written["head_type"], written["head_width"]) == ("mlp", 4)
        assert "head_role" not in written
        assert type(AutoConfig.from_pretrained(tmp_path)) is VitZooConfig

    def test_an_embedding_has_no_class_names(self, tmp_path: Path) -> None:
        written = plain(embedding())
        assert (written["model_type"], written["head_role"], written["num_labels"]) == ("vit", "embedding", 5)
        assert not written.keys() & {"id2label", "label2id"}
        native = AutoConfig.from_pretrained(write(tmp_path, written).parent)
        assert (type(native), native.num_labels) == (ViTConfig, 5)

    @pytest.mark.parametrize(
        "made",
        [
            linear(),
            mlp(),
            embedding(),
            config(),
            config(num_labels=2, head_role="embedding"),
            config(num_labels=7),
            config(id2label={0: "a", 1: "b"}),
            config(id2label={0: "same", 1: "same"}, label2id={"same": 1}),
            config(num_labels=5, head_role="embedding", head_type="mlp", head_width=9),
            config(qkv_bias=False, hidden_act="relu", hidden_dropout_prob=0.1, attention_probs_dropout_prob=1),
            config(dtype="bfloat16", architectures=["VitZooModel"], problem_type="single_label_classification"),
            config(layer_norm_eps=1e-12, initializer_range=5e-324, encoder_stride=4, pooler_output_size=3),
            VitZooConfig(),
        ],
    )
    def test_a_written_config_is_read_back_equal(self, made: VitZooConfig, tmp_path: Path) -> None:
        found = again(made, tmp_path)
        assert found.to_dict() == made.to_dict()
        assert found.shape == made.shape
        assert found.id2label == made.id2label
        assert again(found, tmp_path) == found
        assert VitZooConfig.from_pretrained(tmp_path).to_dict() == made.to_dict()  # by transformers

    @pytest.mark.parametrize("made", [linear(), mlp(), embedding()])
    def test_the_config_of_a_saved_model_is_accepted(self, made: VitZooConfig, tmp_path: Path) -> None:
        VitZooModel(made).save_pretrained(tmp_path)
        found = load_member_config(tmp_path / "config.json")
        assert found.dtype == torch.float32
        assert found.shape == made.shape
        if made.head_type == "linear":
            ViTForImageClassification.from_pretrained(tmp_path).save_pretrained(tmp_path / "plain")
            assert load_member_config(tmp_path / "plain/config.json").shape == made.shape


class TestEmbedding:
    def test_class_names_are_refused(self) -> None:
        labels: Any = embedding().id2label
        assert len(labels) == embedding().num_labels == 5
        for i in (0, 4, 5):
            with pytest.raises(EmbeddingHeadError, match="embedding of width 5"):
                labels[i]
        with pytest.raises(TypeError):
            labels[0]
        assert embedding().label2id is None

    @pytest.mark.parametrize(
        "remake",
        [
            copy.copy,
            copy.deepcopy,
            lambda made: pickle.loads(pickle.dumps(made)),
            lambda made: VitZooConfig.from_dict(made.to_dict()),
            lambda made: VitZooConfig.from_dict(plain(made)),
            lambda made: VitZooConfig(**made.to_dict()),
        ],
    )
    def test_stays_an_embedding_in_copies(self, remake) -> None:
        found = remake(remake(embedding()))
        assert found.num_labels == 5
        assert found.head_role == "embedding"
        with pytest.raises(EmbeddingHeadError):
            found.id2label[0]
        assert plain(found) == plain(embedding())

    @pytest.mark.parametrize("role", ["embedding", "classifier"])
    @pytest.mark.parametrize(
        "given",
        [
            THREE,
            {"id2label": THREE["id2label"]},
            {"label2id": THREE["label2id"]},
            {"id2label": list(THREE["label2id"])},
            {"id2label": {str(number): name for number, name in THREE["id2label"].items()}},
            {"id2label": {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, "label2id": THREE["label2id"]},
            {"id2label": THREE["id2label"], "label2id": {f"LABEL_{i}": i for i in range(12)}},
        ],
    )
    def test_class_names_mean_a_classifier(self, given: dict[str, Any], role: str, tmp_path: Path) -> None:
        written = plain(embedding()) | {"head_role": role}
        del written["num_labels"]
        for made in (config(**given, head_role=role), VitZooConfig.from_dict(written, **given)):
            for found in (made, again(made, tmp_path), VitZooConfig.from_pretrained(tmp_path)):
                assert (found.head_role, found.num_labels, found.id2label) == ("classifier", 3, THREE["id2label"])
                assert found.label2id in (None, THREE["label2id"])

    def test_many_class_names_of_a_file_are_taken(self, tmp_path: Path) -> None:
        """A file has its keys in the order of texts: 0, 1, 10, 11, 2."""
        names = {f"name {number}": number for number in range(12)}
        made_up = {str(number): f"LABEL_{number}" for number in (0, 1, 10, 11, *range(2, 10))}
        written = plain(embedding()) | {"id2label": made_up, "label2id": names, "num_labels": 12}
        write(tmp_path, written)
        assert VitZooConfig.from_pretrained(tmp_path).label2id == names

    def test_a_change_of_classes_makes_a_classifier(self, tmp_path: Path) -> None:
        changes = [("num_labels", 3), ("id2label", THREE["id2label"]), ("id2label", ["a", "b", "c"])]
        for attribute, value in changes:
            made = embedding()
            setattr(made, attribute, value)
            assert (made.head_role, again(made, tmp_path).id2label) == ("classifier", made.id2label)
        made = embedding()
        made.num_labels = 5  # the same width
        assert made.head_role == "embedding"

    @pytest.mark.parametrize(
        ("given", "names"),
        [
            ({"num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
            ({"num_labels": 5}, [f"LABEL_{i}" for i in range(5)]),
            ({"id2label": {0: "a", 1: "b"}}, ["a", "b"]),
            ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}, ["a", "b"]),
            ({"id2label": {0: "a", 1: "b"}, "num_labels": 2}, ["a", "b"]),
            ({"id2label": {0: "a", 1: "b"}, "num_labels": None}, ["a", "b"]),
            ({"label2id": {"b": 1, "a": 0}}, ["a", "b"]),
            ({"label2id": {"b": 1, "a": 0}, "num_labels": 2}, ["a", "b"]),
        ],
    )
    def test_becomes_a_classifier_when_given_classes(
        self, given: dict[str, Any], names: list[str], tmp_path: Path
    ) -> None:
        for made in (embedding(), linear(), mlp()):
            found = again(made, tmp_path, **given)
            assert found.head_role == "classifier"
            labels: Any = found.id2label
            if made.head_role == "classifier" and given == {"num_labels": made.num_labels}:
                assert labels == made.id2label  # the same number: they keep their names, as in transformers
                continue
            assert [labels[i] for i in range(found.num_labels or 0)] == names
            assert found.label2id == given.get("label2id", found.label2id)
            assert found.head_type == made.head_type

    @pytest.mark.parametrize("given", [{}, {"num_labels": None}, {"num_labels": None, "id2label": None}])
    def test_stays_an_embedding_without_arguments(self, given: dict[str, Any], tmp_path: Path) -> None:
        assert again(embedding(), tmp_path, **given).to_dict() == embedding().to_dict()
        assert again(linear(), tmp_path, **given).to_dict() == linear().to_dict()

    def test_other_arguments_are_applied_or_returned(self) -> None:
        found, unused = VitZooConfig.from_dict(
            plain(linear()), num_labels=2, hidden_dropout_prob=0.5, other=1, return_unused_kwargs=True
        )
        assert (found.num_labels, found.hidden_dropout_prob, unused) == (2, 0.5, {"other": 1})
        found = VitZooConfig.from_dict(plain(linear()), label2id={"cat": 0})
        assert (found.num_labels, found.id2label, found.label2id) == (1, {0: "cat"}, {"cat": 0})

    def test_the_dictionary_given_is_not_changed(self) -> None:
        written = plain(embedding())
        before = copy.deepcopy(written)
        VitZooConfig.from_dict(written, num_labels=3, dtype="float64")
        assert written == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head_type": "linar"}, "head_type is 'linar'; expected one of"),
        ({"head_role": "projector"}, "head_role is 'projector'; expected one of"),
        ({"head_type": "mlp"}, "head_type is 'mlp' and head_width None; expected a width for an MLP head"),
        ({"head_width": 4}, "head_type is 'linear' and head_width 4; expected a width for an MLP head alone"),
        ({"head_type": "mlp", "head_width": 0}, "head_width is 0; expected at least 1"),
        ({"head_type": "mlp", "head_width": "4"}, "'head_width'"),
        ({"head_type": None}, "'head_type'"),
        ({"hidden_size": 9}, "hidden_size is 9 and num_attention_heads 2; expected a multiple of the heads"),
        ({"num_attention_heads": 0}, "hidden_size is 8 and num_attention_heads 0"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"patch_size": 9}, "patch_size is 9 and image_size 8; expected a patch within the image"),
        ({"patch_size": 0}, "patch_size is 0 and image_size 8"),
        ({"image_size": [8, 8]}, "expected int, got list"),
        ({"hidden_size": 8.0}, "expected int, got float"),
        ({"layer_norm_eps": "1e-6"}, "expected float, got str"),
    ],
)
def test_contradictory_fields_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(StrictDataclassError, match=re.escape(says)):
        config(**change)


@pytest.mark.parametrize("labels", [-1, 0, 2**16 + 1, 10**12])
def test_numbers_of_labels_out_of_range_are_refused(labels: int) -> None:
    """Before transformers makes a name for each: AutoConfig passes any number in a file on."""
    for make in (lambda: config(num_labels=labels), lambda: VitZooConfig.from_dict(plain(mlp()), num_labels=labels)):
        with pytest.raises(ConfigError, match="1 to 65536") as error:
            make()
        assert error.value.key == "num_labels"


KEYS = [
    # code, files and other weights
    *("auto_map", "custom_pipelines", "configuration_files", "transformers_weights", "_name_or_path", "name_or_path"),
    *("base_model_name_or_path", "adapter_config", "adapter_type", "peft_type", "peft_config", "_commit_hash"),
    # kernels
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"),
    *("kernel_config", "use_kernels", "fusion_config", "compile_config"),
    # quantisation
    *("quantization_config", "compression_config", "sparsity_config"),
    # attributes that transformers would set on the object, its methods and properties among them
    *("per_layer_config", "layer_types", "head_dim", "torch_dtype", "attribute_map", "base_model_tp_plan", "to_dict"),
    *("__class__", "__dict__", "shape", "validate", "from_pretrained", "_auto_class", "return_dict", "use_cache"),
    *("output_attentions", "output_hidden_states", "is_encoder_decoder", "chunk_size_feed_forward", "loss_type"),
    *("rope_scaling", "vocab_size", "pruned_heads", "tie_word_embeddings", "", "HIDDEN_SIZE", "hidden_size "),
]


@pytest.mark.parametrize("key", KEYS)
def test_other_keys_are_refused(key: str, tmp_path: Path) -> None:
    for value in ("evil/kernel", None, {"AutoConfig": "evil--code.Config"}):
        file = write(tmp_path, plain(mlp()) | {key: value})
        with pytest.raises(ConfigError, match="no zoo member may say") as error:
            load_member_config(file)
        assert (error.value.path, error.value.key) == (file, key)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("hiden_size", "Nearest: hidden_size"),
        ("\x1b[31mhidden_size", r'says "\\u001b\[31mhidden_size"'),
        ("x" * 1_000_000, r'says "x{56}\.\.\., which no'),
    ],
)
def test_keys_are_shown_escaped_and_short(key: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        load_member_config(write(tmp_path, plain(linear()) | {key: 1}))
    assert len(str(error.value)) < 700
    assert str(error.value).isprintable()


NO_SIZE = [0, -1, 2**20 + 1, 10**400, True, False, 2.0, "2", None, [2], [8, 8], {"a": 2}, ""]
NO_NUMBER = [-0.1, 1.1, "0.5", True, None, [], {"__float__": "NaN"}, 10**400]
NESTED: Any = []
for _ in range(500):
    NESTED = [NESTED]
VALUES: list[tuple[str, list[Any]]] = [
    *((key, NO_SIZE) for key in SIZES),
    ("encoder_stride", NO_SIZE),
    ("pooler_output_size", [value for value in NO_SIZE if value is not None]),
    ("head_width", [value for value in NO_SIZE if value is not None]),
    ("num_labels", [*NO_SIZE, 2**16 + 1, 2**20]),
    ("hidden_act", ["os.system", "gelu\n", "GELU", "xielu", "", None, 1, ["gelu"], {}, NESTED]),
    ("pooler_act", ["os.system", None, 1, []]),
    ("dtype", ["load", "torch.float32", "float8_e4m3fn", "int8", "__builtins__", "auto", "", 32, True, [], {}]),
    ("model_type", ["bort", "ViT", "", None, 1, [], {"a": "vit"}]),
    ("qkv_bias", [0, 1, "true", None, [], 1.0]),
    ("hidden_dropout_prob", NO_NUMBER),
    ("attention_probs_dropout_prob", NO_NUMBER),
    ("initializer_range", [*NO_NUMBER, 0.0, -0.0]),  # transformers divides by it
    ("layer_norm_eps", [*NO_NUMBER, 0.0, -0.0, "1e-6"]),
    ("head_type", ["conv", "Linear", None, 1, ["mlp"], {}]),
    ("head_role", ["projector", None, 1, [], {}]),
    ("problem_type", ["ranking", "", 1, True, [], {}]),
    ("architectures", ["VitZooModel", ["os.system"], ["VitZooModel", "VitZooModel"], [None], [["VitZooModel"]], 1, {}]),
    ("transformers_version", ["", "x", "5", "5.0\n", "5.0/../..", "5." + "0" * 100, 5, 5.0, [], {}]),
    (
        "id2label",
        [
            *(None, [], {}, "ab", 2, ["a", "b"], NESTED),
            *({"1": "a"}, {"0": "a", "2": "b"}, {"a": "b"}, {"-1": "a"}, {"00": "a"}, {" 0": "a"}, {"0.0": "a"}),
            *({"0": "a", "01": "b"}, {"\u0660": "a"}, {"0": "a", "1_0": "b"}, {"0": "a", "__class__": "b"}),
            *({"0": None}, {"0": 1}, {"0": ["a"]}, {"0": {"a": "b"}}, {"0": NESTED}),
            *({"0": "\x1b[31mred"}, {"0": "two\nlines"}, {"0": "\u202eleft"}, {"0": "\x00"}),
            {str(i): "" for i in range(2**16 + 1)},
            {str(i): "" for i in range(200_000)},
        ],
    ),
    (
        "label2id",
        [
            *([], "ab", 2, {"a": 0}, {"cat": 0}, {"cat": 1, "dog": 0}, {"cat": 0, "dog": 1, "other": 2}, NESTED),
            *({"cat": "0", "dog": 1}, {"cat": False, "dog": True}, {"cat": 0.0, "dog": 1.0}, {"cat": [0], "dog": 1}),
            *({"cat": None, "dog": 1}, {"cat": 0, "dog": 1, "cat ": 0}, {"cat": -2, "dog": -1}),
        ],
    ),
]


@pytest.mark.parametrize(("key", "values"), VALUES, ids=[key for key, _ in VALUES])
def test_other_values_are_refused(key: str, values: list[Any], tmp_path: Path) -> None:
    made = plain(config(id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}, head_type="mlp", head_width=4))
    for value in values:
        file = write(tmp_path, made | {key: value})
        with pytest.raises(ConfigError) as error:
            load_member_config(file)
        assert (error.value.path, error.value.key) == (file, key)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"hidden_size": 9}, None, "hidden_size is 9 and num_attention_heads 2"),
        ({"patch_size": 16}, None, "patch_size is 16 and image_size 8"),
        ({"model_type": "vitzoo", "head_type": "mlp"}, None, "head_width None"),
        ({"model_type": "vitzoo", "head_width": 4}, None, "head_width 4"),
        ({"head_type": "linear"}, "model_type", 'model_type "vit" and a head type'),
        ({"head_width": 4}, "model_type", 'model_type "vit" and a head type'),
        ({"num_labels": 2}, "num_labels", '"num_labels": 2; expected 3'),
        (
            {"id2label": {"0": "a"}, "label2id": None, "problem_type": "single_label_classification"},
            None,
            "requires `num_labels > 1`",
        ),
    ],
)
def test_contradictory_values_are_refused(change: dict[str, Any], key: str | None, says: str, tmp_path: Path) -> None:
    file = write(tmp_path, plain(linear()) | change)
    with pytest.raises(ConfigError, match=re.escape(says)) as error:
        load_member_config(file)
    assert (error.value.path, error.value.key) == (file, key)


@pytest.mark.parametrize(
    "change",
    [
        {"id2label": {str(i): f"class {i}" for i in range(2**16)}, "label2id": None},
        {"id2label": {"0": ""}, "label2id": {"": 0}},
        {"id2label": {"2": "c", "0": "a", "1": "b"}, "label2id": {"b": 1, "c": 2, "a": 0}},
        {"head_role": "embedding", "num_labels": 3},
        {"architectures": None, "dtype": None, "problem_type": None, "pooler_output_size": None},
        {"architectures": [], "transformers_version": "5.0.0.dev0+local"},
        {"hidden_size": 2**20, "num_hidden_layers": 2**20, "intermediate_size": 2**20, "image_size": 2**20},
        {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 1, "layer_norm_eps": 1.0},
    ],
)
def test_extreme_values_are_read(change: dict[str, Any], tmp_path: Path) -> None:
    found = load_member_config(write(tmp_path, plain(linear()) | change))
    expected = plain(linear()) | change
    assert (found.hidden_size, found.num_labels) == (expected["hidden_size"], len(expected["id2label"]))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"{}{}", b"\x80\x04", b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16")),
        *(b'{"layer_norm_eps": NaN}', b'{"id2label": {"0": "\\ud800"}}', b'{"hidden_size": ' + b"1" * 5000 + b"}"),
        *(b"[" * 100_000, b'{"a":' * 100_000),
        *(b"[]", b'"vit"', b"null", b"1", b"{}"),
        b" " * (4 * 2**20 + 1),
    ],
    ids=lambda content: content[:12],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_member_config(file)
    assert error.value.path == file


def test_a_large_file_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, plain(linear()))
    file.write_text(file.read_text() + " " * (4 * 2**20 - file.stat().st_size))
    assert load_member_config(file).shape == linear().shape


@given(
    st.dictionaries(
        st.sampled_from(sorted(plain(mlp()) | {"num_labels": 1, "head_role": 1, "dtype": 1, "problem_type": 1})),
        st.none()
        | st.booleans()
        | st.integers(-2, 20)
        | st.integers()
        | st.floats()
        | st.text(max_size=3)
        | st.sampled_from(["vit", "vitzoo", "linear", "mlp", "embedding", "float32", "gelu"])
        | st.dictionaries(st.sampled_from("0123a"), st.text(max_size=2) | st.integers(0, 3), max_size=4)
        | st.lists(st.integers(1, 9), max_size=2),
        max_size=5,
    )
)
def test_any_values_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, change: dict) -> None:
    file = write(tmp_path_factory.getbasetemp(), plain(mlp()) | change)
    try:
        read: Any = load_member_config(file)
    except ConfigError:
        return
    assert read.shape.num_labels == read.num_labels
    assert read.hidden_size % read.num_attention_heads == 0
    assert plain(read).keys() >= {"model_type", *SIZES}
