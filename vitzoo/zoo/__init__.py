"""The objects that users hold: `Zoo`, `Member`, `Selection`, and the conditions that choose members."""
