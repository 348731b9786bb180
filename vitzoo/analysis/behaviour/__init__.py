"""Compare members by what they answer: outputs, agreement and errors of pairs, similarity of features."""
