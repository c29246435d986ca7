"""transformers' answers in turns (turns.ts): argv = a file of GenerationTask. The weights are the GGUF's, dequantised to float32.

Labels: one padded batch of whole prompts, or with `cachePrefix` the prefix's cache computed once and repeated for the batch.
"""
import json, os, resource, sys, time

task = json.load(open(sys.argv[1]))
os.environ.update(OMP_NUM_THREADS=str(task["threads"]), TQDM_DISABLE="1")
import torch, transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(task["threads"])
path, prefix, labels = task["modelPath"], task["prefixIds"], task["labelIds"]
model = transformers.AutoModelForCausalLM.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path), dtype=torch.float32).eval()
model.generation_config = transformers.GenerationConfig(max_new_tokens=task["newTokens"], do_sample=False, eos_token_id=None, pad_token_id=0)


def padded(rows):
    """Padding on the left, so that the last place is every row's last token."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


def label_scores(rows):
    if not task["cachePrefix"]:
        ids, attention = padded([prefix + row for row in rows])
        logits = model(input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=1).logits[:, -1]
    else:
        cache = model(input_ids=torch.tensor([prefix]), use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(rows))
        ids, attention = padded(rows)
        whole = torch.cat([torch.ones(len(rows), len(prefix), dtype=torch.long), attention], 1)
        positions = len(prefix) + (attention.cumsum(1) - 1).clamp(min=0)
        logits = model(input_ids=ids, attention_mask=whole, position_ids=positions, past_key_values=cache, logits_to_keep=1).logits[:, -1]
    return torch.log_softmax(logits, -1)[:, labels].tolist()


def greedy(rows):
    ids, attention = padded([prefix + row for row in rows])
    return model.generate(ids, attention_mask=attention)[:, ids.shape[1] :].tolist()


for line in sys.stdin:
    rows, started = task["turns"][int(line)], time.monotonic()
    with torch.no_grad():
        answers = label_scores(rows) if task["kind"] == "labels" else greedy(rows)
    print(json.dumps({"seconds": time.monotonic() - started, "peakRssBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "answers": answers}), flush=True)
