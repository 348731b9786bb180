"""Define the snippets zoo: language models on real sentences, in minutes on a laptop. For tests and teaching."""

from training.recipes.data import TextData, TokenizerSpec
from training.recipes.recipe import Children, Head, Parent, Recipe, Seeds
from training.recipes.training import Masking, Optimizer, Schedule, Training
from vitzoo.architectures.bert import BertSizes
from vitzoo.records.dataset_spec import TextSpec

_VOCABULARY, _LENGTH = 1024, 48  # tokens
_ALL = TextSpec(name="snippets-all", packed=True, max_length=12)  # longer rows stay at the entropy of single tokens
_MASKED_TEXTS = TextData(texts=_ALL, train_rows=64_396, evaluated_train_rows=512, test_rows=16_002)
_OTHERS = TextData(
    texts=TextSpec(name="snippets-others", max_length=_LENGTH),
    train_rows=5_258,
    evaluated_train_rows=512,
    test_rows=1_331,
    mean_tokens=31.7,
)
_FILMS = TextData(
    texts=TextSpec(name="snippets-films", max_length=_LENGTH, train_texts=4_096),
    train_rows=4_096,
    evaluated_train_rows=512,
    test_rows=1_420,
    mean_tokens=36.8,
)


def _masked(share: float) -> Training:
    return Training(
        objective="masked",
        dataset=_MASKED_TEXTS,
        masking=Masking(share=share),
        optimizer=Optimizer(name="adamw", learning_rate=6e-3, weight_decay=0.01, beta2=0.98),
        schedule=Schedule(name="linear", warmup_steps=100),
        clip_norm=1.0,
        epochs=2,
        batch_size=64,
    )


_SUPERVISED = Training(
    objective="supervised",
    dataset=_OTHERS,
    optimizer=Optimizer(name="adamw", learning_rate=3e-3, weight_decay=0.01),
    schedule=Schedule(name="linear", warmup_steps=50),
    clip_norm=1.0,
    epochs=3,
    batch_size=32,
)
_FINE_TUNING = Training(
    objective="supervised",
    dataset=_FILMS,
    optimizer=Optimizer(name="adamw", learning_rate=3e-3),  # replaced by the grid's
    schedule=Schedule(name="linear", warmup_steps=20),
    clip_norm=1.0,
    epochs=3,
    batch_size=64,
)


def snippets() -> Recipe:
    """Return 8 parents and 48 children of 54 thousand parameters, on rated sentences of films, products and news.

    Source: our choice, after the structure of Falk et al. 2025; tuned on validation (docs/decisions.md).
    Command: ``python -m training run snippets --out text-zoo``.
    """
    parents = [
        Parent(
            training=_masked(share),
            head=Head(outputs=_VOCABULARY, role="masked"),
            seeds=Seeds.same(number),
            replicates=1,
        )
        for number, share in enumerate((0.3, 0.3, 0.4, 0.4))
    ]
    parents += [
        Parent(training=_SUPERVISED, head=Head(outputs=2), seeds=Seeds.same(number), replicates=1)
        for number in (4, 5, 6, 7)
    ]
    return Recipe(
        name="snippets",
        source="our choice, after the structure of Falk et al. 2025 (arXiv 2504.10231)",
        architecture=BertSizes(
            vocab_size=_VOCABULARY,
            max_position_embeddings=_LENGTH,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            initializer_range=0.1,
        ),
        parents=tuple(parents),
        children=Children(
            training=_FINE_TUNING,
            heads=(Head(outputs=2), Head(outputs=2, width=32)),
            optimizers=tuple(
                Optimizer(name="adamw", learning_rate=rate, weight_decay=0.01) for rate in (3e-3, 1e-3, 2e-4)
            ),
            seeds=(100,),
        ),
        tokenizer=TokenizerSpec(vocab_size=_VOCABULARY, texts=_ALL),
    )
