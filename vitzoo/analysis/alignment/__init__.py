"""Change a model's weights without a change of its outputs, and align it with another model."""
