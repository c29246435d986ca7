"""distilabel 1.5.3, its OpenAILLM without a pipeline: argv = base URL, rows, concurrency, model. Prints one line of JSON."""
import json, resource, sys, time

base_url, rows, concurrency, model = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
from distilabel.models.llms import OpenAILLM

llm = OpenAILLM(model=model, base_url=base_url, api_key="sk-test-0123456789abcdef", generation_kwargs={"max_new_tokens": 16, "temperature": 0})
llm.load()
prompts = [[{"role": "user", "content": f"Review: sentence {index} is good.\nSentiment:"}] for index in range(rows)]
started = time.monotonic()
count = 0
# One batch asks all of its inputs at once and waits for the last: its concurrency is its batch.
for start in range(0, rows, concurrency):
    outputs = llm.generate(inputs=prompts[start : start + concurrency], max_new_tokens=16, temperature=0)
    count += sum(1 for output in outputs if output["generations"][0] is not None)
print("\n" + json.dumps({"rows": count, "seconds": time.monotonic() - started, "peakRssBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
