"""The schemes that a zoo is split by: what each keeps whole, what its folds are, and whether it is sound.

A sound scheme never puts a family (`vitzoo.splits.families`) on two sides. A diagnostic one does, on purpose: what a
method scores there and not on a sound one, it owes to near-twins of the test members. `vitzoo.splits.plan` makes the
folds.

What a sound scheme keeps apart is backbones and whole weights. A head alone may stand on two sides at epoch 0: children
of one replicate start from one head seed whatever their parents. Where heads are what is learned from, choose epochs
from 1.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A way to split a zoo.

    Args:
        name: Its name.
        sound: Whether no fold leaks; where not, the scheme is a diagnostic, never a result.
        keeps_whole: The groups that are never on two sides.
        folds: What the folds are.
    """

    name: str
    sound: bool
    keeps_whole: str
    folds: str


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            name="by_parent",
            sound=True,
            keeps_whole="families: a parent with its children, and families that share weights at any epoch",
            folds="the families in k shares, each objective spread evenly: one is test, the next val, the rest train",
        ),
        Scheme(
            name="by_init_group",
            sound=True,
            keeps_whole="families, and all that share an init_group",
            folds="as by_parent, in these larger groups",
        ),
        Scheme(
            name="leave_one_parent_out",
            sound=True,
            keeps_whole="families, as by_parent",
            folds="one for each family: it is test, all others are train",
        ),
        Scheme(
            name="leave_one_factor_out",
            sound=True,
            keeps_whole="families, as by_parent, as far as their members are in a part at all",
            folds="one for each value of a factor: test has it, train has it not; a factor that varies inside families "
            "is crossed with the shares of by_parent, so that test has other families than train",
        ),
        Scheme(
            name="random_members",
            sound=False,
            keeps_whole="nothing but members: siblings stand on both sides",
            folds="the members in k shares, as by_parent",
        ),
        Scheme(
            name="by_seed",
            sound=False,
            keeps_whole="replicates: near-twins that differ in their seeds alone stand on both sides",
            folds="one for each replicate: the children of it are test, all other members train",
        ),
    )
}
