"""Compare members by the factor in which they differ: accuracies, backbones, outputs."""
