"""The ``section::key`` names of the authors' configs that are spelled in two ways. What they say, others read.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441: README, ``example_configs`` and ``experiment_runner``.
"""

# README, configs and code differ: the first is another spelling of the second.
ALIASES = {
    "optim::weight_decay": "optim::wd",
    "training::random_erase": "training::randerase",
    "trainloader::workers": "trainloader::num_workers",
    "testloader::workers": "testloader::num_workers",
    "pretrained::model": "pretraining::model",
    "pretrained::model::path": "pretraining::model::path",
    "pretrained::seed": "pretraining::seed",
    "pretrained::mode": "pretraining::mode",
    "pretrained::loss": "pretraining::loss",
}
