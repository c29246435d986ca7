"""Loads the PEFT adapter and the merged folders in transformers, and compares the GGUF files with what the Python package gguf writes.

Run by check.ts: python check_transformers.py FOLDER
"""
import glob
import importlib.metadata
import json
import os

import gguf
import numpy as np
import peft
import torch
import transformers
from common import endIds, expected, folder, maxNewTokens, report

torch.set_num_threads(2)


def greedy(model):
    def answer(prompt):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=maxNewTokens, do_sample=False, eos_token_id=endIds, pad_token_id=endIds[0])
        return out[0, len(prompt) :].tolist()

    return answer


def load(name):
    return transformers.AutoModelForCausalLM.from_pretrained(os.path.join(folder, name), dtype=torch.float32).eval()


versions = {p.__name__: p.__version__ for p in (torch, transformers, peft)} | {"gguf": importlib.metadata.version("gguf")}
base = load("base")
report("base model in transformers", "base", greedy(base))
report("peft", "tuned", greedy(peft.PeftModel.from_pretrained(base, os.path.join(folder, "peft")).eval()), versions=versions)


def found_by_name():
    """The adapter alone: PEFT looks for the base model by the name that the adapter gives. The hub's cache here holds the exported base under it."""
    with open(os.path.join(folder, "peft", "adapter_config.json")) as file:
        name = json.load(file)["base_model_name_or_path"]
    repository = os.path.join(folder, "hub", "models--" + name.replace("/", "--"))
    os.makedirs(os.path.join(repository, "refs"), exist_ok=True)
    os.makedirs(os.path.join(repository, "snapshots"), exist_ok=True)
    with open(os.path.join(repository, "refs", "main"), "w") as file:
        file.write("0" * 40)
    if not os.path.exists(os.path.join(repository, "snapshots", "0" * 40)):
        os.symlink(os.path.abspath(os.path.join(folder, "base")), os.path.join(repository, "snapshots", "0" * 40))
    return peft.AutoPeftModelForCausalLM.from_pretrained(os.path.join(folder, "peft"), cache_dir=os.path.join(folder, "hub"), dtype=torch.float32).eval()


report("peft, base model found by its name", "tuned", greedy(found_by_name()))
del base
merged = load("safetensors")
# The chat, as transformers renders and encodes it with the exported tokenizer and template.
tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.join(folder, "safetensors"))
chats = [tokenizer.apply_chat_template(m, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"] for m in expected["messages"]]
report("safetensors", "tuned", greedy(merged), samePromptTokens=sum(a == b for a, b in zip(chats, expected["promptIds"])))
del merged
report("safetensors of a student of some layers, its adapter merged", "kept", greedy(load("kept")))


def quantised_alike(name):
    """Tensors of the exported file, bit for bit, against gguf.quantize of the merged float32 weights (those of the exported F32 file, in its order of rows)."""
    [path] = glob.glob(os.path.join(folder, name, "*.gguf"))
    [plain] = glob.glob(os.path.join(folder, "gguf-f32", "*.gguf"))
    wanted = {t.name: t for t in gguf.GGUFReader(plain).tensors}
    equal = total = 0
    for tensor in gguf.GGUFReader(path).tensors:
        values = np.array(wanted[tensor.name].data, dtype=np.float32)
        total += 1
        equal += int(np.array_equal(gguf.quantize(values, tensor.tensor_type).view(np.uint8).reshape(-1), tensor.data.view(np.uint8).reshape(-1)))
    print(json.dumps({"name": f"{name}: tensors as gguf.quantize writes them", "prompts": total, "same": equal}), flush=True)


for name in ("gguf-f16", "gguf-q8_0"):
    quantised_alike(name)


def check_architectures():
    """One question to each small model, their end tokens not minded."""
    same = 0
    for name, case in expected["architectures"].items():
        model = transformers.AutoModelForCausalLM.from_pretrained(os.path.join(folder, "architectures", f"{name}-safetensors"), dtype=torch.float32, attn_implementation="eager").eval()
        ids = list(case["ids"])
        with torch.no_grad():
            for _ in case["answer"]:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        same += ids[len(case["ids"]) :] == case["answer"]
    print(json.dumps({"name": f"{', '.join(expected['architectures'])}: safetensors", "prompts": len(expected["architectures"]), "same": same}), flush=True)


check_architectures()
