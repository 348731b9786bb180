"""Commands of ``python -m training``, a file each."""
