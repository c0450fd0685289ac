"""Models: their configs read, parameters counted exactly, operators added up, and bad configs explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import ModelError
from simserve.models import Attention, Gemm, ModelSpec, list_models, load_model, parse_config

# As the hub shows them: elements of the published safetensors (for tied models without the copy).
PUBLISHED_PARAMETERS = {
    "facebook/opt-125m": 125_239_296,
    "facebook/opt-6.7b": 6_658_473_984,
    "facebook/opt-13b": 12_853_473_280,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Meta-Llama-3-70B": 70_553_706_496,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
}

TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 176,
    "max_position_embeddings": 2048,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "torch_dtype": "float32",
    "vocab_size": 2048,
}


def parse(**changes: Any) -> ModelSpec:
    return parse_config(TINY | changes, source="config.json", name="tiny")


class TestFindingAModel:
    @pytest.mark.parametrize("said", ["Qwen/Qwen3-8B", "qwen/qwen3-8b", "qwen3-8B"])
    def test_by_name_in_any_case_with_or_without_its_owner(self, said: str) -> None:
        assert load_model(said).name == "Qwen/Qwen3-8B"

    def test_by_folder_or_file(self, tmp_path: Path) -> None:
        folder = tmp_path / "my-model"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(TINY), encoding="utf-8")

        spec = load_model(str(folder))

        assert spec == load_model(str(folder / "config.json"))
        assert (spec.name, spec.path) == ("my-model", folder)

    def test_an_unknown_name_suggests_the_closest_and_lists_all(self) -> None:
        with pytest.raises(ModelError) as caught:
            load_model("lama-3.1-8b")

        assert "'lama-3.1-8b' is not known (closest: meta-llama/Llama-3.1-8B" in str(caught.value)
        assert all(name in str(caught.value) for name in list_models())

    def test_broken_json_is_named_with_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{\n"hidden_size": }', encoding="utf-8")

        with pytest.raises(ModelError, match=r"config\.json, line 2: not valid JSON"):
            load_model(str(tmp_path))


class TestCountingParameters:
    @pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
    def test_exactly_as_published(self, name: str) -> None:
        assert load_model(name).num_parameters == PUBLISHED_PARAMETERS[name]

    def test_every_shipped_model_has_a_published_count(self) -> None:
        ours = {name for name in list_models() if name.startswith("simserve/")}
        assert set(list_models()) - ours == set(PUBLISHED_PARAMETERS)

    @pytest.mark.parametrize(
        ("name", "active_billions"), [("mixtral-8x7b-v0.1", 12.9), ("qwen3-30b-a3b", 3.35), ("qwen3-8b", 8.19)]
    )
    def test_a_token_passes_only_the_experts_it_is_routed_to(self, name: str, active_billions: float) -> None:
        assert load_model(name).active_parameters / 1e9 == pytest.approx(active_billions, abs=0.03)

    def test_qwen2_moe_has_a_shared_expert(self) -> None:
        """Qwen/Qwen1.5-MoE-A2.7B: 14 315 784 192 parameters on the hub."""
        spec = parse(
            architectures=["Qwen2MoeForCausalLM"],
            hidden_size=2048,
            intermediate_size=5632,
            moe_intermediate_size=1408,
            shared_expert_intermediate_size=5632,
            num_attention_heads=16,
            num_key_value_heads=16,
            num_hidden_layers=24,
            num_experts=60,
            num_experts_per_tok=4,
            vocab_size=151936,
        )

        assert spec.num_parameters == 14_315_784_192

    def test_opt_350m_projects_its_embedding_and_has_no_final_norm(self) -> None:
        """facebook/opt-350m: 331 196 416 parameters on the hub."""
        spec = parse(
            architectures=["OPTForCausalLM"],
            hidden_size=1024,
            word_embed_proj_dim=512,
            ffn_dim=4096,
            num_attention_heads=16,
            num_key_value_heads=None,
            num_hidden_layers=24,
            vocab_size=50272,
            do_layer_norm_before=False,
        )

        assert spec.num_parameters == 331_196_416

    def test_transformers_5_writes_the_number_of_experts_as_mixtral_does(self) -> None:
        experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
        spec = parse(architectures=["Qwen3MoeForCausalLM"], num_hidden_layers=2, **experts)

        assert spec.moe is not None
        assert spec.moe.num_experts == 4

    def test_some_layers_of_a_mixture_may_be_dense(self) -> None:
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
        spec = parse(
            architectures=["Qwen3MoeForCausalLM"],
            num_hidden_layers=6,
            decoder_sparse_step=2,
            mlp_only_layers=[3],
            **experts,
        )

        assert spec.moe is not None
        assert spec.moe.sparse_layers == (1, 5)
        assert {gemm.name: gemm.count for gemm in spec.gemms()} == {
            "qkv": 6,
            "attn_out": 6,
            "gate_up": 4,
            "down": 4,
            "router": 2,
            "expert_gate_up": 2,
            "expert_down": 2,
            "lm_head": 1,
        }


class TestBytes:
    @pytest.mark.parametrize(
        ("name", "kv_bytes"),
        [("llama-3.1-8b", 131_072), ("llama-2-7b-hf", 524_288), ("qwen2.5-7b", 57_344), ("opt-13b", 819_200)],
    )
    def test_kv_cache_per_token(self, name: str, kv_bytes: int) -> None:
        assert load_model(name).kv_bytes_per_token() == kv_bytes
        assert load_model(name).kv_bytes_per_token("fp8") == kv_bytes // 2

    def test_weights_in_the_published_or_another_dtype(self) -> None:
        spec = load_model("llama-3.1-8b")

        assert spec.weight_bytes == 2 * spec.num_parameters
        assert spec.weight_bytes_for("float32") == 4 * spec.num_parameters

    @pytest.mark.parametrize("name", list_models())
    def test_two_devices_hold_little_more_than_one(self, name: str) -> None:
        """What is copied to each (norms, router, row biases, positions) is small beside what is split."""
        spec = load_model(name)
        both = 2 * spec.weight_bytes_for(tensor_parallel_size=2)

        assert spec.weight_bytes <= both < 1.02 * spec.weight_bytes

    def test_more_devices_than_kv_heads_hold_copies(self) -> None:
        spec = load_model("qwen2.5-7b")  # 28 heads, 4 KV heads

        assert spec.kv_bytes_per_token(tensor_parallel_size=4) == 57_344 // 4
        assert load_model("qwen3-30b-a3b").kv_bytes_per_token(tensor_parallel_size=8) == 98_304 // 4

    def test_heads_that_cannot_be_split_are_refused(self) -> None:
        with pytest.raises(
            ModelError, match=r"Qwen/Qwen2\.5-7B cannot be split over 8 devices: its 28 attention heads"
        ):
            load_model("qwen2.5-7b").gemms(tensor_parallel_size=8)

    def test_an_unknown_dtype_names_the_known(self) -> None:
        with pytest.raises(ModelError, match="dtype 'int3' is not known; choose one of float32"):
            load_model("qwen3-8b").weight_bytes_for("int3")


class TestOperators:
    def test_the_matrix_products_of_llama_3_1_8b(self) -> None:
        assert load_model("llama-3.1-8b").gemms() == (
            Gemm("qkv", 6144, 4096, 32, "column"),
            Gemm("attn_out", 4096, 4096, 32, "row"),
            Gemm("gate_up", 28672, 4096, 32, "column"),
            Gemm("down", 4096, 14336, 32, "row"),
            Gemm("lm_head", 128256, 4096, 1, "column", "head"),
        )

    def test_their_shares_on_one_of_two_devices(self) -> None:
        shapes = {gemm.name: (gemm.n, gemm.k) for gemm in load_model("llama-3.1-8b").gemms(tensor_parallel_size=2)}

        assert shapes == {
            "qkv": (3072, 4096),
            "attn_out": (4096, 2048),
            "gate_up": (14336, 4096),
            "down": (4096, 7168),
            "lm_head": (64128, 4096),
        }

    def test_their_weights_are_the_model_but_for_embedding_norms_and_biases(self) -> None:
        spec = load_model("qwen3-30b-a3b")
        assert spec.moe is not None
        copies = {"expert": spec.moe.num_experts}
        in_gemms = sum(gemm.weights * gemm.count * copies.get(gemm.kind, 1) for gemm in spec.gemms())
        norms = 48 * (2 * 2048 + 2 * 128) + 2048

        assert in_gemms + 151_936 * 2048 + norms == spec.num_parameters

    def test_a_product_does_two_flops_per_weight_and_row(self) -> None:
        gemm = Gemm("down", n=10, k=20, count=1, parallel="row")

        assert gemm.flops(3) == 2 * 3 * 10 * 20
        assert gemm.bytes(3, dtype_bytes=2) == 2 * (10 * 20 + 3 * 20 + 3 * 10)

    def test_decoding_reads_the_whole_kv_cache(self) -> None:
        spec = load_model("llama-3.1-8b")

        assert spec.attention_decode_bytes(1000, dtype_bytes=2) == 1000 * spec.kv_bytes_per_token()
        assert spec.attention_decode_flops(1000) == 32 * 4 * 32 * 128 * 1000

    @given(st.lists(st.integers(1, 300), min_size=1, max_size=8))
    def test_prefill_costs_the_same_flops_in_any_chunks(self, chunks: list[int]) -> None:
        attention = Attention(num_heads=8, num_kv_heads=2, head_dim=16)
        whole = attention.prefill_flops(sum(chunks), 0)
        parts = [attention.prefill_flops(chunk, sum(chunks[:i])) for i, chunk in enumerate(chunks)]

        assert sum(parts) == whole

    def test_prefill_of_one_token_is_a_decode(self) -> None:
        attention = Attention(num_heads=8, num_kv_heads=2, head_dim=16)

        assert attention.prefill_flops(1, 99) == attention.decode_flops(100)
        queries_and_outputs = 2 * 8 * 16 * 2
        assert attention.prefill_bytes(1, 99, 2) == attention.decode_bytes(100, 2) + queries_and_outputs


class TestReadingAConfig:
    def test_the_shipped_tiny_model_is_this_one(self) -> None:
        spec = load_model("tiny-llama")

        assert spec.num_parameters == parse(tie_word_embeddings=True).num_parameters == 223_552

    def test_transformers_5_calls_it_dtype(self) -> None:
        assert parse(torch_dtype=None, dtype="bfloat16").dtype == "bfloat16"

    @pytest.mark.parametrize(
        ("scaling", "max_model_len"),
        [
            ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 256}, 2048),
            ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
            ({"type": "linear", "factor": 2.0}, 4096),
        ],
    )
    def test_rotary_scaling_may_stretch_the_context(self, scaling: dict[str, Any], max_model_len: int) -> None:
        assert parse(rope_scaling=scaling).max_model_len == max_model_len

    def test_a_window_that_is_off_or_never_reached_is_no_window(self) -> None:
        qwen = {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 512}

        assert parse(**qwen, use_sliding_window=False).max_model_len == 2048
        assert parse(architectures=["MistralForCausalLM"], sliding_window=4096).max_model_len == 2048

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"num_hidden_layers": None}, "config.json: key 'num_hidden_layers' is missing"),
            ({"hidden_size": "64"}, "key 'hidden_size' must be a whole number of at least 1, not '64'"),
            ({"num_key_value_heads": 3}, "key 'num_key_value_heads' is 3, which does not divide the 4 heads"),
            ({"torch_dtype": "int4"}, "key 'torch_dtype' is 'int4', which is not one of bfloat16"),
            ({"architectures": ["MambaForCausalLM"]}, "key 'architectures' is 'MambaForCausalLM', which is not one of"),
            ({"architectures": []}, "key 'architectures' must be a list with the one name of the model's class"),
            (
                {"architectures": ["MistralForCausalLM"], "sliding_window": 512},
                "key 'sliding_window' is 512: only full",
            ),
            ({"rope_scaling": {"type": "linear"}}, "key 'rope_scaling.factor' must be a positive number"),
        ],
    )
    def test_what_cannot_be_honoured_is_named(self, changes: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ModelError) as caught:
            parse(**changes)

        assert sentence in str(caught.value)
