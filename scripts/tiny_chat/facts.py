"""What the tiny model knows: our own sentences about SimServe and about serving, and some facts of the world."""

from __future__ import annotations

TERMS = {
    "SimServe": "SimServe is an LLM server that you can run without the hardware. It answers with the timing that a "
    "chosen model on a chosen accelerator would have had.",
    "TTFT": "TTFT is the time to first token: from the arrival of a request until its first token is out.",
    "TPOT": "TPOT is the time per output token: last token minus first token, over the number of tokens less one.",
    "ITL": "ITL is the inter-token latency: the time between two tokens of an answer that follow each other.",
    "E2E latency": "E2E latency is the time of a whole request: from its arrival until its last token is out.",
    "goodput": "Goodput is the number of requests per second that meet their latency targets.",
    "throughput": "Throughput is how much a server gets done in a second, counted in requests or in tokens.",
    "an SLO": "An SLO is a service level objective: a latency target that requests have to meet.",
    "a token": "A token is a piece of text, often a word or a part of one. Models read and write tokens.",
    "a tokenizer": "A tokenizer cuts text into tokens and joins tokens to text again.",
    "a prompt": "A prompt is the text that a model reads before it answers.",
    "prefill": "Prefill is the reading of the prompt: the model works on many prompt tokens in one step.",
    "decode": "Decode is the writing of the answer: each step gives one more token per request.",
    "a prefill chunk": "A prefill chunk is the part of a prompt that the model reads in one step.",
    "chunked prefill": "Chunked prefill spreads a long prompt over several steps; other answers go on meanwhile.",
    "a step": "A step is one pass of the engine through the model, for all requests in its batch.",
    "a batch": "A batch is the set of requests that the engine works on in one step.",
    "continuous batching": "Continuous batching lets requests join and leave the batch at every step.",
    "a scheduler": "A scheduler decides before each step which requests it works on and with how many tokens.",
    "a policy": "A policy is a set of rules by which a scheduler chooses requests. You can write your own.",
    "the KV cache": "The KV cache holds the keys and values of all tokens so far: they are computed only once.",
    "a KV block": "A KV block is a piece of the KV cache with room for a few tokens, most often sixteen.",
    "the prefix cache": "The prefix cache keeps KV blocks of earlier prompts: prompts that begin alike start faster.",
    "preemption": "Preemption takes the KV blocks of a running request away when memory is short.",
    "a request": "A request is a prompt with a wish for an answer. It waits, runs and finishes.",
    "a sequence": "A sequence is the prompt and the answer of one request, token by token.",
    "a workload": "A workload is a list of requests with their arrival times and their lengths.",
    "a trace": "A trace is a recording of real requests: when they came and how long they were.",
    "a record": "A record is a row with what happened to one request: arrival, first token, last token and more.",
    "a replica": "A replica is one engine with its devices. A cluster has several of them.",
    "a cluster": "A cluster is a group of replicas behind one router.",
    "a router": "A router sends each request to one of the replicas.",
    "tensor parallelism": "Tensor parallelism splits each layer of a model over several devices.",
    "pipeline parallelism": "Pipeline parallelism gives each device some of the layers of a model.",
    "a roofline": "A roofline is the least time that physics allows: work over peak or bytes over bandwidth.",
    "calibration": "Calibration measures how close a device comes to its peaks.",
    "a hardware profile": "A hardware profile describes a device: its peaks, bandwidth, memory, price and efficiency.",
    "a model spec": "A model spec holds the shapes of a model: layers, heads, widths and vocabulary.",
    "bandwidth": "Bandwidth is how many bytes a device can move in a second.",
    "a GPU": "A GPU is a processor with very many small cores and fast memory. Large models run on it.",
    "a language model": "A language model is a program that guesses the next token of a text again and again.",
    "a transformer": "A transformer is a neural network made of attention layers and small dense layers.",
    "attention": "Attention lets each token look at the tokens before it and take what it needs.",
    "temperature": "Temperature says how freely tokens are drawn. At zero the likeliest token is always taken.",
    "top-p": "Top-p sampling keeps the likeliest tokens that together have the probability p.",
    "top-k": "Top-k sampling keeps the k likeliest tokens.",
    "a seed": "A seed makes random draws repeatable: the same seed gives the same answer.",
    "a stop string": "A stop string ends an answer as soon as it would appear. It is not part of the answer.",
    "streaming": "Streaming sends an answer token by token while it is written.",
    "a simulation": "A simulation computes what would happen, without the thing itself.",
    "SimPy": "SimPy is a Python library for events in simulated time. SimServe is built on it.",
    "the torch engine": "The torch engine is the real engine of SimServe: it runs a model and truly writes the answer.",
    "the simulated engine": "The simulated engine of SimServe gives made-up words with the timing of real hardware.",
    "the time scale": "The time scale says how much faster than real time a simulation runs.",
    "a benchmark": "A benchmark sends known requests to a server and measures how long they take.",
    "latency": "Latency is the time that somebody has to wait.",
    "a queue": "A queue is a line of requests that wait for their turn.",
}  # fmt: skip
"""A term, as one asks for it, and the sentence that explains it."""

QUESTIONS = {
    "Hello! I am a very small language model. How can I help you?": [
        "Hello", "Hi", "Hey", "Hello there", "Hi there", "Good morning", "Good evening", "Good day", "Greetings",
        "Hello, how can you help me?", "Hey there", "Hello world",
    ],
    "I am tiny-chat, a very small language model that comes with SimServe.": [
        "Who are you?", "What are you?", "What is your name?", "Introduce yourself.", "Are you a robot?",
        "What is tiny-chat?", "Which model are you?", "Tell me about yourself.", "Are you human?",
    ],
    "I am fine, thank you. How are you?": ["How are you?", "How do you do?", "How is it going?", "Are you well?"],
    "You are welcome!": ["Thank you", "Thanks", "Thank you very much", "Many thanks", "Thanks a lot"],
    "Goodbye! Have a good day.": ["Goodbye", "Bye", "See you", "Good night", "See you later", "Bye bye"],
    "I can say hello, count, add and subtract up to twenty, name capitals and colours, tell short stories, and explain "
    "the words of SimServe.": [
        "What can you do?", "How can you help me?", "What do you know?", "Help", "What are you good at?",
        "Can you help me?", "I need help.",
    ],
    "I have fewer than two million parameters, which is very small.": [
        "How big are you?", "How many parameters do you have?", "How large are you?", "Are you a large model?",
    ],
    "I was trained on short texts that were written for SimServe, in a few minutes on one processor core.": [
        "How were you trained?", "What were you trained on?", "Who trained you?", "Who made you?",
    ],
    "That is good to hear.": ["I am fine.", "I am well, thank you.", "I am happy.", "Very well, thanks."],
    "I am sorry to hear that. I hope that it gets better.": ["I am sad.", "I am tired.", "I feel bad.", "I am angry."],
    "Run ./run_openai_server.sh and send requests to port 8000.": [
        "How do I start the server?", "How do I run SimServe?", "How can I start SimServe?",
        "Which port does SimServe use?",
    ],
    "SimServe has the Apache 2.0 license.": [
        "Which license does SimServe have?", "What is the license of SimServe?", "Is SimServe free?",
    ],
    "SimServe is written in Python.": [
        "Which language is SimServe written in?", "What is SimServe written in?", "Is SimServe written in Python?",
    ],
    "Name it with --hardware, such as --hardware A100.": [
        "How do I choose the hardware?", "How can I simulate an A100?", "How do I simulate another GPU?",
    ],
    "Name it with --model, such as --model Qwen/Qwen3-8B.": [
        "How do I choose the model?", "How can I simulate another model?", "How do I change the model?",
    ],
    "Use simserve simulate: it runs a workload in simulated time and reports the latencies.": [
        "How do I simulate a workload?", "How can I replay a trace?", "How do I find out how fast an H100 is?",
    ],
    "Why did the token wait? Because the batch was full.": ["Tell me a joke.", "Do you know a joke?", "Make me laugh."],
    "What did the scheduler say to the long prompt? One chunk at a time.": [
        "Tell me another joke.", "Another joke, please.", "Do you know another joke?",
    ],
    "The sky is blue because air scatters blue light more than red light.": ["Why is the sky blue?"],
    "A year has twelve months.": ["How many months are in a year?", "How many months does a year have?"],
    "A week has seven days.": ["How many days are in a week?", "How many days does a week have?"],
    "A day has twenty-four hours.": ["How many hours are in a day?", "How many hours does a day have?"],
    "An hour has sixty minutes.": ["How many minutes are in an hour?", "How many minutes does an hour have?"],
    "A minute has sixty seconds.": ["How many seconds are in a minute?", "How many seconds does a minute have?"],
    "Water freezes at zero degrees Celsius.": ["When does water freeze?", "At which temperature does water freeze?"],
    "Water boils at one hundred degrees Celsius.": ["When does water boil?", "At which temperature does water boil?"],
    "The earth goes around the sun in one year.": ["How long does the earth need to go around the sun?"],
    "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.": [
        "Name the days of the week.", "What are the days of the week?", "Which days does a week have?",
    ],
    "The seasons are spring, summer, autumn and winter.": ["Name the seasons.", "What are the seasons?"],
    "Three colours are red, green and blue.": ["Name three colours.", "Tell me three colours.", "List three colours."],
    "Three animals are the fox, the owl and the bear.": ["Name three animals.", "Tell me three animals."],
    "Three countries are France, Japan and Peru.": ["Name three countries.", "Tell me three countries."],
    "Python is a programming language.": ["What is Python?", "Tell me about Python.", "Do you know Python?"],
    "Here I am.": ["Test", "This is a test.", "Are you there?", "Can you hear me?", "Ping"],
    "Three fruits are the apple, the pear and the plum.": ["Name three fruits.", "Tell me three fruits."],
    "TTFT is the time until the first token; TPOT is the time per token after it.": [
        "What is the difference between TTFT and TPOT?", "How do TTFT and TPOT differ?",
    ],
    "Prefill reads the prompt, many tokens in a step; decode writes the answer, one token in a step.": [
        "What is the difference between prefill and decode?", "How do prefill and decode differ?",
    ],
}  # fmt: skip
"""An answer and the ways to ask for it."""

BEYOND = "I do not know that. I am a very small model; ask me to count, to add, or about SimServe."

BEYOND_ME = [
    "What is the weather in {place}?", "Who is {name} {name}?", "Write a program that sorts {thing}s.",
    "How far is it from {place} to {place}?", "Translate {thing} into French.", "What did {name} eat today?",
    "How many people live in {place}?", "Who won the match in {place}?", "Write a poem about the {thing} of {name}.",
    "How old is {name}?", "When was {name} born?", "How much does a {thing} cost in {place}?",
    "What is the meaning of life?", "What time is it?", "What happened in 19{number}?", "What is {number} * {number}?",
    "Where is my {thing}?", "Who painted the {thing}?", "Solve this equation.", "What is today's date?",
    "What is {number} plus {number}?", "{number} + {number}", "What is the capital of {name}?", "Do you love me?",
    "I like my {thing}.", "The {thing} is new.", "Who is the president of {place}?", "Write a poem.",
    "Where is {name}?",
    "How do I repair a {thing}?", "Explain quantum physics.", "What is the stock price of {name}?",
]  # fmt: skip
"""Questions that a very small model should not try to answer."""

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Scotland": "Edinburgh", "Belgium": "Brussels",
    "the Netherlands": "Amsterdam", "Switzerland": "Bern", "Austria": "Vienna", "Poland": "Warsaw",
    "Denmark": "Copenhagen", "Sweden": "Stockholm", "Norway": "Oslo", "Finland": "Helsinki", "Iceland": "Reykjavik",
    "Greece": "Athens", "Turkey": "Ankara", "Hungary": "Budapest", "Romania": "Bucharest", "Bulgaria": "Sofia",
    "Ukraine": "Kyiv", "Russia": "Moscow", "Estonia": "Tallinn", "Latvia": "Riga", "Croatia": "Zagreb",
    "Egypt": "Cairo", "Morocco": "Rabat", "Kenya": "Nairobi", "Ghana": "Accra", "Senegal": "Dakar",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Nepal": "Kathmandu", "Thailand": "Bangkok",
    "Vietnam": "Hanoi", "Indonesia": "Jakarta", "Australia": "Canberra", "New Zealand": "Wellington",
    "Canada": "Ottawa", "the United States": "Washington", "Mexico": "Mexico City", "Cuba": "Havana",
    "Brazil": "Brasilia", "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima", "Colombia": "Bogota",
}  # fmt: skip

COLOURS = {
    "grass": "green", "the sky": "blue", "snow": "white", "coal": "black", "blood": "red", "a lemon": "yellow",
    "a carrot": "orange", "a plum": "purple", "chocolate": "brown", "a flamingo": "pink", "milk": "white",
    "the sun": "yellow", "an elephant": "grey", "a cherry": "red", "a frog": "green", "the sea": "blue",
}  # fmt: skip

SOUNDS = {
    "dog": "barks", "cat": "meows", "cow": "moos", "sheep": "bleats", "horse": "neighs", "lion": "roars",
    "duck": "quacks", "frog": "croaks", "owl": "hoots", "bee": "buzzes", "wolf": "howls", "mouse": "squeaks",
    "pig": "grunts", "snake": "hisses", "rooster": "crows", "bird": "sings",
}  # fmt: skip

OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "up": "down", "old": "new", "day": "night", "black": "white",
    "open": "closed", "full": "empty", "early": "late", "near": "far", "wet": "dry", "happy": "sad", "loud": "quiet",
    "hard": "soft", "long": "short", "left": "right", "first": "last", "true": "false", "light": "dark",
}  # fmt: skip
