"""Arguments that several commands share, and the member that an argument names."""

from typing import Annotated

import typer

from vitzoo.ids import MemberRef
from vitzoo.sources.locate import locate, open_source
from vitzoo.sources.source import HubOptions
from vitzoo.zoo.member import Member
from vitzoo.zoo.zoo import Zoo

HELP_NAMES = {"help_option_names": ["-h", "--help"]}

ZooArgument = Annotated[str, typer.Argument(help='The zoo: "zoo" (the default one), a path, or a Hub repo (org/name).')]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub repo.")]
DigestOption = Annotated[
    str | None, typer.Option(help="The manifest's digest, sha256:..., as the authors publish it. It proves the zoo.")
]
WhereOption = Annotated[str, typer.Option(help='Such as "head_type=mlp,optimizer=adamw|sgd,min_test_accuracy=.8".')]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with every value.")]
IdsOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only ids, one a line, which can be loaded.")]
MemberArgument = Annotated[str, typer.Argument(metavar="MEMBER", help='A member id, such as "zoo/pt-12/ft-3".')]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="NAME=FOLDER",
        help="Folder of a data set that is needed, such as cifar100=./cifar100; may be repeated.",
    ),
]


def examples(*commands: str) -> str:
    """Return the text below a command's help: commands to copy, one a line."""
    return "\n\n".join(["Examples:", *commands])


def open_member(name: str, *, revision: str | None = None) -> tuple[MemberRef, Member]:
    """Open the member of an id. A name that only transformers knows is an error here."""
    options = HubOptions(revision=revision)
    ref, source = locate(name, options=options) or (MemberRef.parse(name), open_source(options=options))
    return ref, Zoo.of(source)[ref.member]
