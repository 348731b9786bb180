"""What the authors' code, as it is published, did otherwise than its configs and the paper say.

Columns of an imported member hold what its config says. Each entry here is a fact of that code which bears on them:

    <field>: <what the code does>; source: <what config or paper say>; <where>

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441.
"""

from vitzoo.interop.authors.settings import Settings


def released_deviations(settings: Settings) -> tuple[str, ...]:
    """The entries that bear on a model.

    Args:
        settings: How it was trained, as its config says.
    """
    entries = [
        _entry("code", "as published, if it is what trained this model; parts of it cannot run", "silent"),
        _entry("validation", "none: the test images are also those that choices are made on", "silent"),
        _entry("test figures", "of whole batches, the last smaller one dropped", "test images"),
        _entry("seeds", "one of torch's global generator for weights, order and augmentation", "one seed"),
    ]
    if settings.mixup:
        entries += [
            _entry(
                "mixup, cutmix, label_smoothing, random_erasing",
                f"arguments are shifted by one: label smoothing {settings.mixup:g}, mixup alpha {settings.cutmix:g}, "
                "no cutmix, erasing .25",
                f"label smoothing {settings.label_smoothing:g}, mixup {settings.mixup:g}, cutmix {settings.cutmix:g}, "
                f"erasing {settings.random_erasing:g}",
                "experiment_runner/def_net.py and utils/vision_augmentations.py",
            ),
            _entry("train_accuracy", "mixed images held against unmixed labels, so not taken", "train_acc"),
        ]
    if settings.objective == "contrastive":
        entries += [
            _entry(
                "positives",
                "images half a batch apart, unrelated",
                "two views of an image",
                "data_preparation/pretraining.py has one view of each",
            ),
            _entry("test_loss", "InfoNCE under new views each time", "InfoNCE"),
            _entry("test_accuracy", "a rank accuracy, 0 in training and the last batch's in test, so not taken",
                   "test_acc"),
        ]  # fmt: skip
    return tuple(entries)


def deviation(field: str, ours: str, source: str, where: str) -> str:
    """One entry, in the form of `training.recipes.deviations`."""
    return f"{field}: {ours}; source: {source}; {where}"


def _entry(field: str, does: str, says: str, where: str = "experiment_runner/def_nn_experiment.py") -> str:
    return deviation(field, does, says, where)
