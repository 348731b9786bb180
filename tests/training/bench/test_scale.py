"""What is trained: the paper's own members on a GPU, and the same ones in small on a CPU."""

import pytest

from training.bench.scale import scale_for, starting
from training.recipes.paper import paper
from training.recipes.plan import plan_member, plan_members
from vitzoo.ids import MemberId


def test_a_gpu_trains_the_papers_members_as_they_are() -> None:
    scale = scale_for("cuda")
    members = scale.members
    for name, member in (("supervised", "pt-0"), ("fine-tuning", "pt-0/ft-0"), ("contrastive", "pt-7")):
        assert members[name] == plan_member(paper(), MemberId.parse(member))
    trained = {name: (one.training.batch_size * one.training.views) for name, one in members.items()}
    assert trained == {"supervised": 256, "fine-tuning": 256, "contrastive": 192, "halves": 96}
    assert {one.training.precision for one in members.values()} == {"bf16"}
    assert members["supervised"].image_flops == pytest.approx(27.5e9, rel=0.01)
    assert {scale.mode(name) for name in members} == {"default"}


@pytest.mark.parametrize("quick", [False, True])
def test_a_cpu_trains_the_same_parts_in_small(quick: bool) -> None:
    scale = scale_for("cpu", quick=quick)
    members, papers = scale.members, scale_for("cuda").members
    for name, planned in members.items():
        ours, theirs = planned.training, papers[name].training
        assert planned.image_flops < papers[name].image_flops / 50
        assert (ours.objective, ours.views, ours.mixing) == (theirs.objective, theirs.views, theirs.mixing)
        assert ours.optimizer == theirs.optimizer
        for part in ("resize", "random_crop", "random_resized_crop", "color_jitter", "blur"):
            assert (getattr(ours.augmentation, part) is None) == (getattr(theirs.augmentation, part) is None)
    # Images in memory are augmented many steps at once: a round must hold one epoch's worth of it.
    assert members["fine-tuning"].training.steps_per_epoch == scale.steps


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_childs_start_is_timed_with_the_figures_of_a_real_one(device) -> None:
    scale = scale_for(device)
    parent, *children = plan_members(starting(scale))
    assert {one.training.epochs for one in (parent, *children)} == {1}
    assert parent.training.dataset.train_images == scale.child_images
    assert len(children) == 12
    if device == "cuda":
        assert parent.training.dataset.evaluated_train_images == 5_000
        assert 2 * scale.child_images >= 10_000  # test images
