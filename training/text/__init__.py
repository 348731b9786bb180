"""Pack, pad and mask texts in training. See `vitzoo.text` for the data sets and tokenizers."""
