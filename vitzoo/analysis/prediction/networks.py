"""Two small networks that read weights: ProbeX on one matrix, and a transformer on tokens of the move.

Both minimise the squared error of standardised targets, or of an indicator of each class, on the train of each fold.
See `vitzoo.analysis.prediction.predictors` for entries by name. Results are the same on one machine kind, and else to
rounding.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from vitzoo.analysis.diversity.backbones import is_matrix, read_starts
from vitzoo.analysis.prediction.prediction import PredictionTask
from vitzoo.analysis.prediction.submissions import Entry
from vitzoo.errors import SelectionError
from vitzoo.weights.population import PopulationWeights
from vitzoo.weights.representations.tokens import Tokens, recommend_token_sizes

PROBES, PROJECTED, WIDTH, PROBEX_STEPS, PROBEX_RATE = 8, 16, 16, 100, 1e-2
TOKENS, HIDDEN, HEADS, LAYERS, STEPS, BATCH, RATE = 64, 32, 4, 2, 80, 64, 2e-3


class ProbeX(nn.Module):
    """Read a matrix by its products with learned vectors.

    Args:
        shape: Rows and columns of the matrix.
        outputs: Number of outputs.

    Source: Horwitz et al. 2025, Learning on Model Weights using Tree Experts (arXiv 2410.13569), section 4.
    """

    def __init__(self, shape: tuple[int, int], outputs: int):
        super().__init__()
        rows, columns = shape
        self.probes = nn.Linear(columns, PROBES, bias=False)
        self.projection = nn.Linear(rows, PROJECTED, bias=False)
        self.encoder = nn.Linear(PROBES * PROJECTED, WIDTH)
        self.head = nn.Linear(WIDTH, outputs)

    def forward(self, matrices: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs of each matrix."""
        responses = self.projection(self.probes(matrices).transpose(1, 2))
        return self.head(self.encoder(responses.relu().flatten(1)))


class TokenTransformer(nn.Module):
    """Read a sequence of tokens with learned positions; the head reads their mean.

    Args:
        tokens: Number of tokens.
        size: Numbers in a token.
        outputs: Number of outputs.
    """

    def __init__(self, tokens: int, size: int, outputs: int):
        super().__init__()
        self.embedding = nn.Linear(size, HIDDEN)
        self.positions = nn.Parameter(torch.randn(tokens, HIDDEN) * 0.02)
        layer = nn.TransformerEncoderLayer(
            HIDDEN, HEADS, 2 * HIDDEN, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(HIDDEN), enable_nested_tensor=False)
        self.head = nn.Linear(HIDDEN, outputs)

    def forward(self, tokens: Float[Tensor, "batch tokens size"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs of each sequence."""
        return self.head(self.encoder(self.embedding(tokens) + self.positions).mean(dim=1))


def fit_probex(task: PredictionTask) -> Entry:
    """Fit ProbeX to one matrix of the backbone. The first inner fold chooses the matrix by least squared error.

    Args:
        task: The target and the folds.

    Raises:
        SelectionError: Weights are NaN or infinite.
        WeightsError: Checkpoints have different tensors, or a file is damaged.
    """
    start, settings = time.perf_counter(), {}
    weights, targets = PopulationWeights(task.selection.catalogue, task.selection.refs), task.targets
    names = [entry.name for entry in weights.index().values() if is_matrix(entry)]
    errors = np.empty((len(names), len(task.divisions)))

    def read(name: str) -> Float[Tensor, "checkpoints rows columns"]:
        return _checked(task, torch.from_numpy(weights.tensor(name, dtype="float32")).flatten(2))

    def fit(values: Tensor, train: Int[np.ndarray, " _"], test: Int[np.ndarray, " _"]) -> tuple[np.ndarray, int]:
        shape = values.shape[1], values.shape[2]
        mean, std = values[train].mean(), values[train].std()
        scaled = (values - mean) / (std if std > 0 else 1)
        network = _seeded(lambda: ProbeX(shape, targets.shape[1]))
        return _fit(network, scaled, targets, train, test, steps=PROBEX_STEPS, batch=len(train), rate=PROBEX_RATE)

    for place, name in enumerate(names):
        values = read(name)
        for number, division in enumerate(task.divisions):
            train, val = division.inner[0]
            errors[place, number] = np.square(fit(values, train, val)[0] - targets[val]).sum()
    outputs, parameters, chosen = np.empty_like(targets), 0, errors.argmin(axis=0)
    for number, division in enumerate(task.divisions):
        name = settings[division.fold.name] = names[chosen[number]]
        outputs[division.test], count = fit(read(name), division.train, division.test)
        parameters = max(parameters, count)
    return task.entry(outputs, seconds=time.perf_counter() - start, parameters=parameters, settings=settings)


def fit_transformer(task: PredictionTask) -> Entry:
    """Fit a transformer of two layers to 64 tokens of each backbone's move from its starting weights.

    A token is a row of a matrix with its bias, or a chunk of one (`vitzoo.weights.representations.tokens`). The tokens
    are drawn once and are the same for all checkpoints. It takes 80 steps. No setting is chosen.

    Args:
        task: The target and the folds.

    Raises:
        SelectionError: Weights are NaN or infinite, or the zoo has no weights that a checkpoint started from.
        WeightsError: Checkpoints have different tensors, or a file is damaged.

    Source: Schürholt et al. 2024, Towards Scalable and Versatile Weight Space Learning (arXiv 2406.09997), section 3,
        for the tokens.
    """
    start = time.perf_counter()
    weights, targets = PopulationWeights(task.selection.catalogue, task.selection.refs), task.targets
    before, starts = read_starts(task.selection.catalogue, task.selection.refs)
    index = weights.index()
    encoder = Tokens(index, recommend_token_sizes(index, smallest=1)[0].token_size)
    places = np.sort(np.random.default_rng(0).permutation(len(encoder))[:TOKENS])
    own, first = (
        np.stack([encoder.encode(vector)[places] for _, vector in item.iter_vectors(dtype="float32")])
        for item in (weights, before)
    )
    rows = own - first[starts]
    values, outputs, parameters = _checked(task, torch.from_numpy(rows)), np.empty_like(targets), 0
    for division in task.divisions:
        train = values[division.train]
        std = train.std(dim=(0, 2), keepdim=True)
        scaled = (values - train.mean(dim=(0, 2), keepdim=True)) / torch.where(std > 0, std, 1)
        network = _seeded(lambda: TokenTransformer(len(places), encoder.token_size, targets.shape[1]))
        outputs[division.test], parameters = _fit(
            network, scaled, targets, division.train, division.test, steps=STEPS, batch=BATCH, rate=RATE
        )
    return task.entry(outputs, seconds=time.perf_counter() - start, parameters=parameters)


def _checked(task: PredictionTask, values: Tensor) -> Tensor:
    """Return the values of all checkpoints; raise SelectionError for NaN or infinite ones."""
    finite = values.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        name = task.checkpoints[int((~finite).nonzero()[0])]
        raise SelectionError(
            f"The weights of {name} are NaN or infinite",
            expected="finite numbers",
            fix="Leave it out, as a default selection leaves diverged members out.",
            value=name,
        )
    return values


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a network with the first weights of a fixed seed, and leave torch's generator as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def _fit(
    network: nn.Module,
    values: Float[Tensor, "checkpoints ..."],
    targets: Float64[np.ndarray, "checkpoints outputs"],
    train: Int[np.ndarray, " train"],
    test: Int[np.ndarray, " test"],
    *,
    steps: int,
    batch: int,
    rate: float,
) -> tuple[Float64[np.ndarray, "test outputs"], int]:
    """Train a network, and return its outputs on test and its number of parameters."""
    mean, std = targets[train].mean(axis=0), targets[train].std(axis=0)
    std = np.where(std > 0, std, 1)
    inputs, truth = values[train], torch.from_numpy((targets[train] - mean) / std).float()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    queue: list[Tensor] = []
    for _ in range(steps):
        queue = queue or list(torch.randperm(len(train), generator=generator).split(batch))
        rows = queue.pop()
        optimizer.zero_grad()
        (network(inputs[rows]) - truth[rows]).square().mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        predicted = network(values[test]).double().numpy()
    return mean + std * predicted, sum(parameter.numel() for parameter in network.parameters())
