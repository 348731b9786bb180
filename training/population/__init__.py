"""The plan over machines: `run` schedules members, `engines` carry them out."""
