"""The list of models that clients see."""

from __future__ import annotations

from simserve.server.models.pool import ModelPool
from simserve.server.responses import model_card


def model_cards(models: ModelPool) -> list[dict[str, object]]:
    """Every name that a request may give, loaded or not, adapters last."""
    cards = [
        model_card(name, slot.model.root, models.created_s, slot.max_model_len)
        for slot in models.slots
        for name in slot.model.names
    ]
    lengths = {slot.model.name: slot.max_model_len for slot in models.slots}
    return cards + [
        model_card(one.name, one.path, one.created_s, lengths[one.base], parent=one.base)
        for one in models.adapters.all()
    ]
