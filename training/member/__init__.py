"""The training of one member: initialisation, objectives, the step, checkpoints, and the run from start to done."""
