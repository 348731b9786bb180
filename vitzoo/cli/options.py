"""Arguments that several commands share."""

from typing import Annotated

import typer

ZooArgument = Annotated[str, typer.Argument(help='The zoo: "zoo" (the default one), a path, or a Hub repo (org/name).')]
RevisionOption = Annotated[str | None, typer.Option(help="Of a Hub repo: a branch, tag or commit.")]
DigestOption = Annotated[
    str | None, typer.Option(help="sha256:... of its manifest, as its authors publish it: proves which zoo it is.")
]
WhereOption = Annotated[
    str, typer.Option(help='Which members, such as "head_type=mlp,optimizer=adamw"; all by default.')
]
MemberArgument = Annotated[str, typer.Argument(help='A member id, such as "zoo/pt-12/ft-3".')]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="NAME=FOLDER",
        help="Folder of a data set that --evaluate needs, such as cifar100=./cifar100; may be repeated.",
    ),
]
EvaluateOption = Annotated[
    bool, typer.Option("--evaluate", help="Load it, classify its test images, and compare with the record.")
]
