"""Members as transformers models: configs, model classes, loading and evaluation."""
