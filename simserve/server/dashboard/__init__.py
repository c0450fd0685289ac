"""``/dashboard``: a page that shows live what the engine does, and lets its clock be held and sped up."""
