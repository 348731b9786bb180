"""Make the tokenizer of a population: train it on a recipe's texts, or take a published one."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from training.recipes.data import TokenizerSpec
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError
from vitzoo.text.load import load_tokenizer_of_hub, train_tokenizer
from vitzoo.text.tokenizer import Tokenizer
