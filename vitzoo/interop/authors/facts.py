"""State once what the zoo's authors trained, and what their released code does otherwise than their configs say.

See `config` for the keys of their configs, and `training.recipes.paper` for the whole population as a recipe.

Source: Falk et al. 2025 (arXiv 2504.10231); github.com/ModelZoos/ViTModelZoo at 2eb7441, ``models/vit_s.py``,
``data_preparation`` and ``experiment_runner``; github.com/ModelZoos/TransformerModelZooDataset at ee70028,
``models/bert_mlm.py`` and ``models/bert_sst.py``; Krizhevsky 2009 for CIFAR-100's classes.
"""

import re
from dataclasses import dataclass
from typing import Literal

from vitzoo.architectures import Sizes
from vitzoo.architectures.bert import BertSizes
from vitzoo.architectures.vit import ViTSizes
from vitzoo.data.known import complete
from vitzoo.records.dataset_spec import DatasetSpec, Preprocessing

RELEASE = "github.com/ModelZoos/ViTModelZoo"
LANGUAGE_RELEASE = "github.com/ModelZoos/TransformerModelZooDataset"
SEED = 42  # where a config names none
TEMPERATURE = 0.07  # of InfoNCE, where a config names none
INITIAL_BIAS = 0.01  # of every linear layer and convolution before the first step
MAX_EPOCHS = 10_000  # of a model, far above the paper's 90
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for CIFAR-100 as well
CHECKPOINT_FOLDER = re.compile(r"checkpoint_(\d{1,9})", re.ASCII)  # checkpoint_89, checkpoint_0049, checkpoint_000000
VIT_S_16 = ViTSizes(  # timm's vit_small_patch16_224
    image_size=224,
    patch_size=16,
    hidden_size=384,
    num_hidden_layers=12,
    num_attention_heads=6,
    intermediate_size=1536,
)
BERT_CASED = "google-bert/bert-base-cased"
BERT_BASE = BertSizes(  # of the cased model; the uncased one has 30,522 tokens
    vocab_size=28_996,
    max_position_embeddings=512,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
)
MASKED_SHARE = 0.15  # of the tokens, in expectation
SENTIMENT_WIDTHS = (512, 256)  # hidden layers of a child's head
SENTIMENT_DROPOUT = 0.1  # in that head, whatever the config says
VISION, LANGUAGE = "vit_s_16", "bert"  # model::type
MODEL_TYPES: dict[str, Sizes] = {VISION: VIT_S_16, LANGUAGE: BERT_BASE}


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorsDataset:
    """A data set that the authors trained on.

    Args:
        spec: Its columns and splits.
        n_train: Training images.
        n_test: Test images.
        classes: Names of the classes, in the order of the labels.
        resample: PIL's filter of the resize.
    """

    spec: DatasetSpec
    n_train: int
    n_test: int
    classes: tuple[str, ...]
    resample: Literal["bilinear", "bicubic"]

    @property
    def name(self) -> str:
        """Name of the data set on the Hub."""
        return self.spec.name

    def preprocessing(self, image_size: int) -> Preprocessing:
        """Return Resize(256) and CenterCrop(224) of a test image, in the same ratio for another size."""
        return Preprocessing(resize=round(image_size * 256 / 224), crop=image_size, resample=self.resample)


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorsTexts:
    """A data set of texts that the authors trained on.

    Args:
        name: Its name on the Hub.
        n_train: Training texts; None where the number is not published.
        classes: Names of the classes, in the order of the labels; none for masked training.
        max_length: Longest row in tokens.
    """

    name: str
    n_train: int | None
    classes: tuple[str, ...]
    max_length: int


_FINE_LABELS = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel "
    "can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur "
    "dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
    "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree "
    "pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea "
    "seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm "
)
IMAGENET = AuthorsDataset(
    spec=complete(DatasetSpec(name="imagenet")),  # torchvision's folders hold the same images
    n_train=1_281_167,
    n_test=50_000,
    classes=tuple(map(str, range(1000))),  # no file of the release has their names
    resample="bilinear",
)
CIFAR100 = AuthorsDataset(
    spec=complete(DatasetSpec(name="cifar100")),
    n_train=50_000,
    n_test=10_000,
    classes=tuple(_FINE_LABELS.split()),
    resample="bicubic",
)


OPENWEBTEXT = AuthorsTexts(name="Skylion007/openwebtext", n_train=900_000, classes=(), max_length=512)
SST2 = AuthorsTexts(name="nyu-mll/glue", n_train=None, classes=("negative", "positive"), max_length=80)
DATASETS = {
    "imagenet1k": IMAGENET,
    "imagenet": IMAGENET,
    "cifar100": CIFAR100,
    "openweb": OPENWEBTEXT,
    "openwebtext": OPENWEBTEXT,
    "sst": SST2,
    "sst2": SST2,
}


def find_dataset(name: str) -> AuthorsDataset | AuthorsTexts | None:
    """Return the data set of a config's ``dataset::name``, in any spelling; None for other names."""
    return DATASETS.get(re.sub(r"[-_ ]", "", name).lower())


# What the released code does, as the deviations of an imported member and of our recipes word it.
GLOBAL_SEED = "one seed of the global generators of torch and numpy for weights, order and augmentation"
TRAIN_METRICS = "running, mixed images against unmixed labels"
TEST_METRICS = "drops the last smaller batch, 16 of CIFAR-100's 10,000"
CONTRASTIVE_METRICS = "InfoNCE under new views, a rank accuracy that is 0 in training and the last batch's in test"
CHILDREN_START = (
    f"their parent's tensors are loaded under other names, so that none arrives: they start from {BERT_CASED}"
)
NEW_MASKS = "other masks at each epoch, so that losses of epochs do not compare"
POSITIVES = "one view of each image in the data preparation, so that positives are images half a batch apart"


def shifted_mixing(*, mixup: float, cutmix: float) -> dict[str, float]:
    """Return the mixing of the released code for a config's values: it passes arguments one place off."""
    return {"label_smoothing": mixup, "mixup": cutmix, "cutmix": 0.0}


def deviation(field: str, *, ours: str, source: str, why: str = "our choice") -> str:
    """Return an entry of ``deviations``: ``<field>: <ours>; source: <source>; <why>``.

    Args:
        field: Place in a recipe or a record, or ``trainer.<word>``.
        ours: Our value or behaviour.
        source: What the source says; ``silent`` where it says nothing.
        why: Reason, or where it was found.

    Raises:
        ValueError: A part is empty or holds a separator.
    """
    for name, text in (("field", field), ("ours", ours), ("source", source), ("why", why)):
        if not text or ";" in text or (name == "field" and ": " in text):
            raise ValueError(f'{name} of a deviation is "{text}"; expected text without ";"')
    return f"{field}: {ours}; source: {source}; {why}"
