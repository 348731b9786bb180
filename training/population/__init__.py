"""Train the members of a plan in several processes or machines. See `training.population.run` for the entry point."""
