"""bespokelabs-curator 0.1.31: argv = base URL, rows, concurrency, model. Prints one line of JSON."""
import json, os, resource, sys, tempfile, time

base_url, rows, concurrency, model = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.environ.update(TELEMETRY_ENABLED="false", CURATOR_DISABLE_RICH_DISPLAY="1", CURATOR_VIEWER="0", CURATOR_CACHE_DIR=tempfile.mkdtemp())
import litellm
from importlib.resources import files

# The tokenizer's table comes with litellm: nothing is fetched.
os.environ["TIKTOKEN_CACHE_DIR"] = str(files("litellm") / "litellm_core_utils" / "tokenizers")
from bespokelabs import curator


class Label(curator.LLM):
    def prompt(self, row):
        return row["prompt"]

    def parse(self, row, response):
        return {"prompt": row["prompt"], "response": response}


# The cap that it enforces by itself is set far above what it reaches.
llm = Label(
    model_name=model,
    backend="openai",
    backend_params={"base_url": base_url, "max_concurrent_requests": concurrency, "max_requests_per_minute": 10_000_000, "max_tokens_per_minute": 10_000_000_000},
    generation_params={"max_tokens": 16, "temperature": 0},
)
prompts = [{"prompt": f"Review: sentence {index} is good.\nSentiment:"} for index in range(rows)]
started = time.monotonic()
answers = llm(prompts)
seconds = time.monotonic() - started
count = len(getattr(answers, "dataset", answers))
print("\n" + json.dumps({"rows": count, "seconds": seconds, "peakRssBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
