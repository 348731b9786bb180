"""Make the tokenizer of a population: train it on a recipe's texts, or take a published one."""
