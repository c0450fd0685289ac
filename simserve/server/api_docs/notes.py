"""What each engine makes of each field of a request: for ``docs/api.md``; a test wants a line for each field."""

from __future__ import annotations

from collections.abc import Mapping

CHECKED = "checked for its range; simulated text is not sampled"
SAMPLED = "as in vLLM"
REFUSED = "400"
BOTH = ""
"""The torch engine does as the simulated one."""

NOTES: Mapping[str, tuple[str, str]] = {
    "model": ("which model answers; the default one without it, 404 for one that there is not", BOTH),
    "messages": (
        "text, pictures (`image_url`), films (`video_url`) and sounds (`input_audio`); the prompt is a layout like"
        " ChatML's",
        "text; the prompt is that of the model's own template",
    ),
    "prompt": ("one text or many, or token ids, one list or many", BOTH),
    "max_tokens": (
        "just so many tokens, unless a form or `answers.length` ends it; 0 to echo alone",
        "at most; not 0",
    ),
    "max_completion_tokens": ("goes before `max_tokens`", BOTH),
    "min_tokens": ("no stop string ends the answer before; JSON is filled up with white space", SAMPLED),
    "n": ("answers to each prompt, up to 128; with temperature 0 they are alike", BOTH),
    "best_of": ("so many are generated, the `n` of the highest (made-up) logprob returned", "1"),
    "stream": ("server-sent events, `[DONE]` last", BOTH),
    "stream_options": ("`include_usage`, `continuous_usage_stats`; SimServe's own `include_metrics`", BOTH),
    "temperature": (f"{CHECKED}; 0 makes the answer independent of `seed`", SAMPLED),
    "top_p": (CHECKED, SAMPLED),
    "top_k": (CHECKED, SAMPLED),
    "min_p": (CHECKED, SAMPLED),
    "frequency_penalty": (CHECKED, SAMPLED),
    "presence_penalty": (CHECKED, SAMPLED),
    "repetition_penalty": (CHECKED, SAMPLED),
    "seed": ("the same seed and prompt give the same answer", BOTH),
    "stop": ("ends the content before the first of them; `stop_reason` says which", SAMPLED),
    "include_stop_str_in_output": ("leaves the stop string, or token, in the text", SAMPLED),
    "stop_token_ids": ("ends the content at the first of these tokens", SAMPLED),
    "ignore_eos": ("the answer is as long as `max_tokens`, or as the context", SAMPLED),
    "logit_bias": ("-100 bans a token, 100 leaves no others; between, nothing changes", SAMPLED),
    "skip_special_tokens": ("simulated text has none", SAMPLED),
    "allowed_token_ids": ("the text is made of these alone", REFUSED),
    "bad_words": ("no sentence with one of them is said", REFUSED),
    "response_format": (
        "`json_object` (of the schema that a message holds, if one does), `json_schema`, vLLM's `structural_tag`: text"
        " that has this form",
        "`text`",
    ),
    "structured_outputs": (
        "`json`, `regex`, `choice`, `json_object`, `grammar` (XGrammar's EBNF without lookaheads, or Lark's"
        " notation), `structural_tag` (the older `structures`, or a nested `format`). `guided_json` and the like,"
        " vLLM's older names, mean the same",
        REFUSED,
    ),
    "priority": ("the scheduler's, with `--scheduling-policy priority`", BOTH),
    "cache_salt": ("shares KV blocks with the same salt alone", REFUSED),
    "truncate_prompt_tokens": (
        "at most so many tokens of the prompt, the last ones (of a text to embed the first); -1: as many as fit",
        BOTH,
    ),
    "user": ("a session to a cluster's router, or its tenant; else nothing", "taken, and changes nothing"),
    "metadata": ("taken, and changes nothing; `/v1/responses` gives it back", BOTH),
    "logprobs": ("of each token, made up: of one piece, but of no model", "the model's own"),
    "top_logprobs": ("so many of the likeliest, made up", "the model's own"),
    "tools": (
        "in the prompt, and called with arguments that satisfy their schema: those that the question names, or one"
        " drawn; not after a tool's result",
        "in the prompt; what the model says is not read for calls",
    ),
    "tool_choice": ("none, auto, required, a named function, `allowed_tools`", "none, auto"),
    "parallel_tool_calls": ("false: one call at most", "nothing: there are no calls"),
    "reasoning_effort": ("reasoning first, about four times as long per level; none for none", REFUSED),
    "include_reasoning": ("false: it is counted and not told", "nothing: reasoning is not told apart"),
    "thinking_token_budget": ("the most tokens of reasoning", REFUSED),
    "chat_template_kwargs": ("`enable_thinking`, `thinking`: reasoning on or off", "variables of the template"),
    "echo": (
        "the prompt comes first, with logprobs if they are wanted; in a chat the last message, where the assistant said"
        " it or goes on with it",
        "without logprobs",
    ),
    "add_generation_prompt": ("false: the prompt ends with the last message", BOTH),
    "continue_final_message": ("the answer goes on with the last message; wants `add_generation_prompt` false", BOTH),
    "prompt_logprobs": ("so many of the likeliest in each place of the prompt, made up; not streamed", REFUSED),
    "return_token_ids": ("`token_ids` of the answer and `prompt_token_ids`, streamed or not", BOTH),
    "return_tokens_as_token_ids": ("logprobs call every token `token_id:42`", BOTH),
    "request_id": ("the rest of the answer's `id`, instead of the header `X-Request-Id`", BOTH),
    "truncation_side": ("`left` or `right`: which end of a prompt `truncate_prompt_tokens` cuts", BOTH),
    "suffix": ("its tokens are read too", REFUSED),
    "input": ("what to embed, or to answer: a text or a list; to embed a conversation: `messages`", BOTH),
    "encoding_format": ("float or base64", BOTH),
    "dimensions": ("the model's own, else 400", BOTH),
    "instructions": ("a system message before the others", BOTH),
    "max_output_tokens": ("as a chat's `max_completion_tokens`", BOTH),
    "store": ("whether the response can be looked up and gone on from; the latest 1,000, 64 MB of them", BOTH),
    "background": ("answers at once; the response is looked up, or cancelled, by its id; not streamed", BOTH),
    "previous_response_id": ("the conversation up to that response comes first", BOTH),
    "text": ("`format`: as a chat's `response_format`", "`format` text"),
    "reasoning": ("`effort`: as a chat's `reasoning_effort`", REFUSED),
    "truncation": ("taken; a prompt that is too long is 400", BOTH),
    "include": ("`message.output_text.logprobs`", BOTH),
    "text_1": ("one text, or as many as `text_2`; also `queries`", BOTH),
    "text_2": ("the texts to compare; also `documents`. The score is how alike the words are", "cosine of embeddings"),
    "query": ("what to match", BOTH),
    "documents": ("texts, or objects with a `text`; scored by how alike the words are", "by the cosine of embeddings"),
    "top_n": ("the best so many; 0 for all", BOTH),
    "return_documents": ("false leaves the texts out", BOTH),
    "max_tokens_per_doc": ("reads so many tokens of each; 0 for all", BOTH),
    "add_special_tokens": ("nothing: its prompts have none", "with those that the model's prompts begin with"),
    "return_token_strs": ("the text of each token too", BOTH),
    "tokens": ("token ids", BOTH),
    "lora_name": ("the adapter's name, from now on a model's", REFUSED),
    "lora_path": ("its folder, or a name on the hub, whose weights are not needed", REFUSED),
    "load_inplace": ("replaces one of the same name", REFUSED),
    "base_model_name": ("whose adapter it is; the default model's without it", REFUSED),
    "down_s": ("simulated seconds until the replica is back; without it, not before somebody revives it", REFUSED),
    "failures": ("keys of the section `failures` of the settings", BOTH),
}
"""By the field's name: what it does with the simulated engine, and with the torch engine where that is different."""
