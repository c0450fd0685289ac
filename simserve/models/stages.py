"""A model split over pipeline stages: which layers each stage computes, and what it holds of the model's ends."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from simserve.errors import ModelError
from simserve.models.operators import Gemm
from simserve.models.spec import ModelSpec


@dataclass(frozen=True)
class StageModel(ModelSpec):
    """Some successive layers of a model, as a model of its own.

    The first stage holds the token embedding, the last one the final norm and the lm_head, which is a copy of the
    embedding where both are tied.
    """

    is_first: bool = True
    is_last: bool = True

    def gemms(self, tensor_parallel_size: int = 1) -> tuple[Gemm, ...]:
        """See :meth:`ModelSpec.gemms`: those of this stage alone."""
        left_out = set()
        if not self.is_first:
            left_out.add("project_in")
        if not self.is_last:
            left_out |= {"project_out", "lm_head"}
        return tuple(gemm for gemm in super().gemms(tensor_parallel_size) if gemm.name not in left_out)

    def _parameters(self, tensor_parallel_size: int) -> int:
        parameters = super()._parameters(tensor_parallel_size)
        if self.is_first:
            return parameters
        embedding = -(-self.vocab_size // tensor_parallel_size) * self.embedding_size
        if not (self.is_last and self.tie_word_embeddings):
            parameters -= embedding
        return parameters - self.learned_positions * self.hidden_size


def stage_layers(num_layers: int, stages: int) -> list[int]:
    """Layers of each stage, as vLLM deals them out (``get_pp_indices`` in ``vllm/distributed/utils.py``).

    What is left over goes to the stages before the last one, from the back: the last has the lm_head to compute.
    """
    each, left = divmod(num_layers, stages)
    layers = [each] * stages
    for back in range(2, left + 2):
        layers[-back] += 1
    return layers


def split_into_stages(model: ModelSpec, stages: int) -> tuple[ModelSpec, ...]:
    """``model`` as one model for each stage; itself where there is one. Raises :class:`ModelError` for too many."""
    if stages == 1:
        return (model,)
    if stages > model.num_layers:
        raise ModelError(
            f"{model.name} cannot be split into {stages} pipeline stages: it has {model.num_layers} layers; "
            "lower --pipeline-parallel-size"
        )
    found, first = [], 0
    for number, count in enumerate(stage_layers(model.num_layers, stages)):
        found.append(_stage(model, first, count, number == 0, number == stages - 1))
        first += count
    return tuple(found)


def _stage(model: ModelSpec, first: int, count: int, is_first: bool, is_last: bool) -> StageModel:
    values = {field.name: getattr(model, field.name) for field in fields(ModelSpec)}
    if model.moe is not None:
        sparse = tuple(layer - first for layer in model.moe.sparse_layers if first <= layer < first + count)
        values["moe"] = replace(model.moe, sparse_layers=sparse)
    values |= {"num_layers": count, "final_norm": model.final_norm and is_last}
    return StageModel(**values, is_first=is_first, is_last=is_last)
