"""Loads what write-adapter.ts wrote in transformers and PEFT and compares greedy answers, token by token.

Run: python check_adapter.py FOLDER
Needs torch, transformers and peft. Exits 1 when any answer differs, or when the adapter changes none (then nothing was tested).
"""
import json
import os
import sys

import peft
import torch
import transformers

folder = sys.argv[1]
with open(os.path.join(folder, "answers.json")) as file:
    expected = json.load(file)
torch.set_num_threads(2)


def greedy(model, prompt):
    ids = torch.tensor([prompt])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=expected["maxNewTokens"], do_sample=False, eos_token_id=expected["endIds"], pad_token_id=expected["endIds"][0])
    answer = out[0, len(prompt) :].tolist()
    return answer[:-1] if answer and answer[-1] in expected["endIds"] else answer


def compare(model, key):
    same = 0
    for i, row in enumerate(expected["answers"]):
        got = greedy(model, row["promptIds"])
        if got == row[key]:
            same += 1
        else:
            at = next((j for j, (a, b) in enumerate(zip(got, row[key])) if a != b), min(len(got), len(row[key])))
            print(f"{key}, prompt {i}: expected {row[key]}, got {got}, first difference at token {at}", file=sys.stderr)
    return same


base = transformers.AutoModelForCausalLM.from_pretrained(os.path.join(folder, "base"), dtype=torch.float32).eval()
same_base = compare(base, "base")
tuned = peft.PeftModel.from_pretrained(base, os.path.join(folder, "adapter")).eval()
same_tuned = compare(tuned, "tuned")
n = len(expected["answers"])
changed = sum(row["base"] != row["tuned"] for row in expected["answers"])
print(json.dumps({"prompts": n, "sameBase": same_base, "sameTuned": same_tuned, "changedByAdapter": changed, "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}))
sys.exit(0 if same_base == n and same_tuned == n and changed > 0 else 1)
