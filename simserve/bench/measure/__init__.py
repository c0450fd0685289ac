"""From raw stamps and bytes to outcomes, from outcomes to figures, and whether the figures can be believed."""
