"""The schemes that split a zoo. See `vitzoo.splits.plan` for how they make folds.

    by_parent             k shares of the families, with each objective spread evenly: test, val, and train for the rest
    by_init_group         as by_parent, of families joined by their init_group
    leave_one_parent_out  a fold for each family: it is test, all others are train
    leave_one_factor_out  a fold for each value of a factor: members with it are test, members without it are train.
                          A factor that varies inside families is crossed with the shares of by_parent
    random_members        k shares of the members, as by_parent
    by_seed               a fold for each replicate: its children are test, all other members are train

A sound scheme never puts a family (`vitzoo.splits.leaks`) into two parts. A diagnostic one does so on purpose: if a
method scores higher on it, near duplicates of the test members explain the difference.

Sound schemes separate backbones and whole weights. A head alone may be in two parts at epoch 0, because children of one
replicate start from one head seed whatever their parents. If you learn from heads, choose epochs from 1.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A way to split a zoo.

    Args:
        name: Name of the scheme.
        sound: Whether no fold leaks; the scores of other schemes are diagnostics, never results.
        keeps_whole: The groups that are never in two parts.
    """

    name: str
    sound: bool
    keeps_whole: str


_FAMILIES = "families: a parent with its children, and families that share weights at any epoch"
SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(name="by_parent", sound=True, keeps_whole=_FAMILIES),
        Scheme(name="by_init_group", sound=True, keeps_whole="families, and all members of an init_group"),
        Scheme(name="leave_one_parent_out", sound=True, keeps_whole=_FAMILIES),
        Scheme(name="leave_one_factor_out", sound=True, keeps_whole=_FAMILIES),
        Scheme(name="random_members", sound=False, keeps_whole="members only: siblings are in different parts"),
        Scheme(name="by_seed", sound=False, keeps_whole="replicates: near duplicates with other seeds are not"),
    )
}
