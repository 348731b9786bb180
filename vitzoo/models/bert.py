"""BertZooConfig, BertZooForMaskedLM and BertZooForSequenceClassification: a BERT of a zoo as a transformers model.

The networks are transformers' own. Masked models and classifiers with a linear head are written as ``model_type:
"bert"``, which any transformers user can load. A classifier with an MLP head is written as ``"bertzoo"``, which the
Auto classes refuse if vitzoo is not imported. Importing this module registers the classes with them.

See `vitzoo.models.loading` for how a member is loaded, and `vitzoo.architectures.bert` for the keys of config.json.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
)
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.bert.modeling_bert import BertPooler

from vitzoo.architectures.architecture import HeadWidth
from vitzoo.architectures.bert import BERT, PRETRAINING, ROLES, BertShape, BertSizes
from vitzoo.architectures.config_json import HEAD_TYPES
from vitzoo.models.config import MemberConfig, label_names
from vitzoo.models.loading import MemberBackbone, MemberModel


@strict
class BertZooConfig(MemberConfig, BertConfig):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Configuration of a zoo member: a BERT and its head.

    Args:
        head_type: ``linear`` or ``mlp`` (hidden layers with ReLU and dropout, after the pooler).
        head_widths: Widths of an MLP head's hidden layers, from the pooler on; None for a linear head.
        head_role: ``classifier``, or ``masked`` for a masked language model. On disk, ``architectures`` says it.
        next_sentence: Whether a masked model also has a head for next sentences. On disk, it is a
            ``BertForPreTraining``.
        **kwargs: Everything of `transformers.BertConfig`, but only encoders with tied embeddings.

    Raises:
        StrictDataclassError: A value has another type, or the head's fields contradict each other.

    Source: Devlin et al. 2019, BERT (arXiv 1810.04805).

    Example:
        >>> BertZooConfig.from_pretrained("./text-zoo/pt-0/ft-0").head_type
        'linear'
    """

    model_type = "bertzoo"

    head_type: str = "linear"
    head_widths: list[int] | None = None
    head_role: str = "classifier"
    next_sentence: bool = False

    def __post_init__(self, **kwargs):
        role = BERT.head_role({"architectures": self.architectures})
        if role in ROLES:
            self.head_role = role
        self.next_sentence = self.next_sentence or self.architectures == [PRETRAINING]
        super().__post_init__(**kwargs)

    @property
    def head_width(self) -> int | None:
        """The width of an MLP head's first hidden layer; None for a linear head."""
        return self.head_widths[0] if self.head_widths else None

    def validate_head(self):
        """Check that the head's fields agree. Called by ``@strict``."""
        if self.head_type not in HEAD_TYPES:
            raise ValueError(f"head_type is {self.head_type!r}; expected one of {HEAD_TYPES}.")
        if self.head_role not in ROLES:
            raise ValueError(f"head_role is {self.head_role!r}; expected one of {ROLES}.")
        if (self.head_type == "mlp") != bool(self.head_widths) or min(self.head_widths or [1]) < 1:
            raise ValueError(
                f"head_type is {self.head_type!r} and head_widths {self.head_widths}; expected widths above 0 for an "
                "MLP head alone."
            )
        if self.head_type == "mlp" and self.head_role == "masked":
            raise ValueError("head_type is 'mlp' and head_role 'masked'; expected a linear head of a masked model.")
        if self.next_sentence and self.head_role != "masked":
            raise ValueError(f"next_sentence is True and head_role {self.head_role!r}; expected 'masked'.")

    def validate_encoder(self):
        """Check that the network is an encoder, as `vitzoo.architectures.bert` assumes. Called by ``@strict``."""
        heads, hidden = self.num_attention_heads, self.hidden_size
        if heads < 1 or hidden < 1 or hidden % heads:
            raise ValueError(
                f"hidden_size is {hidden} and num_attention_heads {heads}; expected a multiple of the heads."
            )
        if not 0 <= (self.pad_token_id or 0) < self.vocab_size:
            raise ValueError(f"pad_token_id is {self.pad_token_id}; expected a token below {self.vocab_size}.")
        for key, value in (("is_decoder", False), ("add_cross_attention", False), ("tie_word_embeddings", True)):
            if getattr(self, key) is not value:
                raise ValueError(f"{key} is {getattr(self, key)}; expected {value}.")

    @property
    def shape(self) -> BertShape:
        """The sizes that decide the shapes of the model's tensors."""
        return BertShape(
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_position_embeddings,
            type_vocab_size=self.type_vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            num_labels=self.num_labels or 0,
            head_widths=tuple(self.head_widths or ()),
            head_role=self.head_role,
            next_sentence=self.next_sentence,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON: that of a plain BERT for a masked model or a linear head."""
        written = super().to_dict()
        del written["head_role"], written["next_sentence"]
        masked = "ForPreTraining" if self.next_sentence else "ForMaskedLM"
        name = masked if self.head_role == "masked" else "ForSequenceClassification"
        if self.head_type == "linear":
            del written["head_type"], written["head_widths"]
            written["model_type"] = "bert"
        written["architectures"] = [("Bert" if self.head_type == "linear" else "BertZoo") + name]
        return written


class BertZooMLPHead(nn.Module):
    """A head with hidden layers: linear, ReLU and dropout for each width, then linear."""

    def __init__(self, *, hidden_size: int, head_widths: Sequence[int], num_labels: int, dropout: float):
        super().__init__()
        widths = (hidden_size, *head_widths, num_labels)
        self.depth = len(head_widths)
        for number, (columns, rows) in enumerate(pairwise(widths), 1):
            self.add_module(f"fc{number}", nn.Linear(columns, rows))
        self.activation, self.dropout = nn.ReLU(), nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map ``[batch, hidden_size]`` to ``[batch, num_labels]``."""
        for number in range(1, self.depth + 1):
            hidden_states = self.dropout(self.activation(self.get_submodule(f"fc{number}")(hidden_states)))
        return self.get_submodule(f"fc{self.depth + 1}")(hidden_states)


class _BertZooModel(MemberModel):
    """Both classes' part: a BERT whose config says the class's role."""

    architecture = BERT
    config_class = BertZooConfig

    @classmethod
    def config_for(
        cls,
        sizes: BertSizes,
        *,
        outputs: int,
        head_width: HeadWidth = None,
        role: str,
        classes: tuple[str, ...] = (),
        dropout: float = 0.0,
    ) -> BertZooConfig:
        """Make the config of a planned member. See `MemberModel.config_for`."""
        shape = sizes.shape(outputs=outputs, head_width=head_width, role=role)
        labels: dict[str, Any] = label_names(classes) if role == "classifier" else {}
        return BertZooConfig(
            **{name: getattr(sizes, name) for name in BERT.recipe_keys},
            **labels,
            head_type="mlp" if shape.head_widths else "linear",
            head_widths=list(shape.head_widths) or None,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            architectures=[cls.__name__],
            dtype="float32",
        )

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The modules of the layers. See `MemberModel.layers`."""
        backbone: Any = self.bert
        blocks = {f"layer.{number}": block for number, block in enumerate(backbone.encoder.layer)}
        return {"embeddings": backbone.embeddings} | blocks


class BertZooForMaskedLM(_BertZooModel, BertForMaskedLM):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A masked parent of a zoo: a BERT that predicts masked tokens, a real `transformers.PreTrainedModel`.

    The output weights and biases are the token embeddings and ``cls.predictions.bias``: one tensor, in the file once.
    An imported head for next sentences is kept: ``cls.seq_relationship`` of ``bert.pooler``. `forward` does not use it.

    Args:
        config: Sizes of the network.

    Source: Devlin et al. 2019, BERT (arXiv 1810.04805).

    Example:
        >>> from transformers import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("./text-zoo", subfolder="pt-0")
        >>> model = BertZooForMaskedLM.from_pretrained("./text-zoo/pt-0")
        >>> model(**tokenizer("a [MASK] film", return_tensors="pt")).logits.shape[2] == len(tokenizer)
        True
    """

    roles = ("masked",)
    config: BertZooConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: BertZooConfig):
        config.head_role = "masked"
        super().__init__(config)
        if config.next_sentence:
            self.bert.pooler = BertPooler(config)
            self.cls.seq_relationship = nn.Linear(config.hidden_size, 2)
            self.post_init()
        self.loss_type = "ForMaskedLM"  # transformers guesses it from the class's name, which fails here

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        positions: Tensor | None = None,
        **kwargs: Any,
    ):
        """Compute logits of every token, or of some, and the loss if labels are given.

        Args:
            input_ids: Tokens, int ``[batch, length]``.
            attention_mask: 1 for tokens and 0 for padding, int ``[batch, length]``.
            token_type_ids: 0 in the first text and 1 in the second, int ``[batch, length]``.
            labels: True tokens, int ``[batch, length]``; -100 where there is none. Not with ``positions``.
            positions: Places of the tokens of each row to compute logits of, int ``[batch, places]``; None for all.
            **kwargs: As `transformers.BertForMaskedLM.forward`.

        Returns:
            `transformers.modeling_outputs.MaskedLMOutput`; ``logits`` are ``[batch, length or places, vocab_size]``.

        Raises:
            ValueError: Both labels and positions were given.
        """
        kwargs |= {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        if positions is None:
            return super().forward(input_ids, labels=labels, **kwargs)
        if labels is not None:
            raise ValueError("labels and positions were given; expected one of them")
        hidden = self.bert(input_ids, **kwargs).last_hidden_state
        chosen = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
        return MaskedLMOutput(logits=self.cls(chosen))


class BertZooForSequenceClassification(_BertZooModel, BertForSequenceClassification):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A classifier of a zoo: a BERT with a pooler and a linear or an MLP head, a real `transformers.PreTrainedModel`.

    Args:
        config: Sizes of the network, and the head.

    Source: Devlin et al. 2019, BERT (arXiv 1810.04805); ModelZoos/TransformerModelZooDataset for the MLP head.

    Example:
        >>> from transformers import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("./text-zoo", subfolder="pt-0/ft-0")
        >>> model = BertZooForSequenceClassification.from_pretrained("./text-zoo/pt-0/ft-0")
        >>> model(**tokenizer("a good film", return_tensors="pt")).logits.shape
        torch.Size([1, 2])
    """

    roles = ("classifier",)
    config: BertZooConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: BertZooConfig):
        config.head_role = "classifier"
        super().__init__(config)
        if config.head_widths:
            self.classifier: Any = BertZooMLPHead(
                hidden_size=config.hidden_size,
                head_widths=config.head_widths,
                num_labels=config.num_labels or 0,
                dropout=self.dropout.p,
            )
            self.post_init()
        self.loss_type = "ForSequenceClassification"

    def features_and_logits(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the CLS token after the last block, and the logits. See `MemberModel.features_and_logits`."""
        outputs = self.bert(**inputs)
        return outputs.last_hidden_state[:, 0], self.classifier(self.dropout(outputs.pooler_output))


class BertZooBackbone(MemberBackbone, BertModel):
    """A member without its head, as ``AutoModel`` loads it: `transformers.BertModel`."""

    architecture = BERT
    config_class = BertZooConfig


AutoConfig.register("bertzoo", BertZooConfig)
AutoModel.register(BertZooConfig, BertZooBackbone)
AutoModelForMaskedLM.register(BertZooConfig, BertZooForMaskedLM)
AutoModelForSequenceClassification.register(BertZooConfig, BertZooForSequenceClassification)
