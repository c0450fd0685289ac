"""The words of the reports, in English and in Chinese."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]

WORDS: dict[str, tuple[str, str]] = {
    "requests": ("requests", "请求"),
    "succeeded": ("{count:,} succeeded", "成功 {count:,}"),
    "failed": ("{count:,} failed", "失败 {count:,}"),
    "tokens": ("tokens", "词元"),
    "in_out": ("{input:,} in, {output:,} out", "输入 {input:,}，输出 {output:,}"),
    "estimated": ("estimated", "估算"),
    "duration": ("duration", "时长"),
    "throughput": ("throughput", "吞吐量"),
    "per_second": (
        "{requests:,.2f} requests/s, {output:,.1f} output tokens/s, {total:,.1f} tokens/s in and out",
        "每秒 {requests:,.2f} 个请求，{output:,.1f} 个输出词元，输入加输出 {total:,.1f} 个词元",
    ),
    "sequences": (
        "{requests:,.2f} requests/s, {sequences:,.2f} sequences/s, {total:,.1f} tokens/s",
        "每秒 {requests:,.2f} 个请求，{sequences:,.2f} 个序列，{total:,.1f} 个词元",
    ),
    "steady": ("steady state", "稳态"),
    "steady_line": (
        "{start:.1f} to {end:.1f} s: {requests:,.2f} requests/s, {output:,.1f} output tokens/s;"
        " p99 TTFT {ttft}, E2EL {e2el}",
        "{start:.1f} 至 {end:.1f} 秒：每秒 {requests:,.2f} 个请求，{output:,.1f} 个输出词元；"
        "p99 TTFT {ttft}，E2EL {e2el}",
    ),
    "peak": ("peak", "峰值"),
    "peak_line": (
        "{requests:,} requests at once, {tokens:,.0f} output tokens in a second",
        "同时 {requests:,} 个请求，一秒内 {tokens:,.0f} 个输出词元",
    ),
    "goodput": ("goodput", "有效吞吐"),
    "goodput_line": (
        "{rate:,.2f} requests/s; {share:.1%} of requests met {slos}",
        "每秒 {rate:,.2f} 个请求；{share:.1%} 的请求满足 {slos}",
    ),
    "cache": ("prefix cache", "前缀缓存"),
    "cache_line": ("{share:.1%} of the prompt tokens, says the server", "服务器报告命中 {share:.1%} 的提示词元"),
    "audio": ("audio", "音频"),
    "audio_line": ("{seconds:,.1f} s heard, {rtfx:.2f} s per second", "共 {seconds:,.1f} 秒，每秒处理 {rtfx:.2f} 秒"),
    "drafts": ("drafts", "投机解码"),
    "drafts_line": (
        "{rate:.1f}% of drafted tokens accepted, {length:.2f} tokens per draft",
        "草稿词元接受率 {rate:.1f}%，每次草稿 {length:.2f} 个词元",
    ),
    "client": ("client", "客户端"),
    "client_line": (
        "sent {lag} late (p99), loop {loop} late (p99), {cpu:.0%} of a core, {per_token:.1f} us CPU per chunk",
        "发送延迟 {lag}（p99），事件循环延迟 {loop}（p99），占用单核 {cpu:.0%}，每个数据块 {per_token:.1f} 微秒 CPU",
    ),
    "self_test": ("self-test", "自检"),
    "self_test_line": (
        "at this load this client adds {ttft} to TTFT (p99 {ttft_p99}), {itl} to ITL, {e2el} to E2EL",
        "在此负载下本客户端给 TTFT 增加 {ttft}（p99 {ttft_p99}），ITL 增加 {itl}，E2EL 增加 {e2el}",
    ),
    "latency": ("latency, ms", "延迟（毫秒）"),
    "values": ("values", "样本数"),
    "mean": ("mean", "均值"),
    "median": ("median", "中位数"),
    "std": ("std", "标准差"),
    "slo": ("SLO", "目标"),
    "verdict": ("verdict", "结论"),
    "VALID": ("VALID", "有效"),
    "CLIENT-LIMITED": ("CLIENT-LIMITED", "受客户端限制"),
    "SATURATED": ("SATURATED", "已饱和"),
    "UNSTABLE": ("UNSTABLE", "不稳定"),
    "too_few": ("* too few values for this percentile", "* 样本太少，该百分位不可信"),
    "ttft": ("first output - sending", "首个输出时刻 - 发送时刻"),
    "ttft_scheduled": (
        "first output - when it should have been sent: due by its rate, or its place free",
        "首个输出时刻 - 本应发送的时刻（按速率到期，或并发位空出）",
    ),
    "tpot": (
        "(last - first output) / (tokens - 1), one per request of at least 2 tokens",
        "（末个输出 - 首个输出）/（词元数 - 1），每个至少 2 个词元的请求一个值",
    ),
    "itl": ("time between consecutive chunks with output, pooled over all requests", "相邻输出块的间隔，汇总所有请求"),
    "token_itl": ("the same per token, as the server counts them", "同上，按服务器计数的每个词元"),
    "e2el": ("last output or finish reason - sending", "末个输出（或结束原因）时刻 - 发送时刻"),
    "e2el_scheduled": ("the same from when it should have been sent", "同上，自本应发送的时刻起"),
    "client_queue_time": ("wait for a place under --max-concurrency", "等待 --max-concurrency 并发位的时间"),
    "e2el_including_client_queue": ("E2EL and that wait", "E2EL 加上该等待时间"),
    "server_queue_time": ("wait in the server's queue, as it says", "服务器报告的排队时间"),
    "server_ttft": ("TTFT as the server says", "服务器报告的 TTFT"),
    "lag": ("sending - when it should have been: the client's own delay", "发送时刻 - 本应发送的时刻：客户端自身延迟"),
    "page_title": ("Load test of {model}", "{model} 负载测试"),
    "distributions": ("Latencies of all requests", "全部请求的延迟分布"),
    "over_time": ("Percentiles over time", "随时间变化的百分位"),
    "in_flight": ("Requests under way", "进行中的请求数"),
    "tokens_over_time": ("Output tokens per second", "每秒输出词元"),
    "timeline": ("Requests one by one", "请求时间线"),
    "waiting": ("wait for a place", "等待并发位"),
    "first_output": ("to the first output", "至首个输出"),
    "generating": ("generating", "生成中"),
    "failed_bar": ("failed", "失败"),
    "seconds": ("seconds since the start", "距开始的秒数"),
    "share": ("share of requests", "请求占比"),
    "figures": ("Figures", "指标"),
    "definitions": ("Definitions", "定义"),
    "what_failed": ("Failures", "失败原因"),
    "notes": ("Notes", "说明"),
    "time_unit": ("ms", "毫秒"),
    "shown_of": ("{shown:,} of {total:,} requests", "{total:,} 个请求中的 {shown:,} 个"),
}


def word(key: str, language: Language = "en", **values: object) -> str:
    """The text of ``key``, filled in."""
    return WORDS[key][0 if language == "en" else 1].format(**values)
