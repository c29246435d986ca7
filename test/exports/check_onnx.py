"""Runs the ONNX export in plain onnxruntime, with the inputs that Optimum gives.

Run by check.ts: python check_onnx.py FOLDER
"""
import json
import os

import numpy as np
import onnxruntime
from common import endIds, folder, maxNewTokens, report

with open(os.path.join(folder, "onnx", "config.json")) as file:
    config = json.load(file)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
session = onnxruntime.InferenceSession(os.path.join(folder, "onnx", "model.onnx"), options, providers=["CPUExecutionProvider"])
outputs = [o.name for o in session.get_outputs()]
empty = np.zeros((1, config["num_key_value_heads"], 0, config["head_dim"]), dtype=np.float32)


def answer(prompt):
    ids, seen, tokens = prompt, 0, []
    past = {i.name: empty for i in session.get_inputs() if i.name.startswith("past_key_values")}
    while len(tokens) < maxNewTokens:
        positions = np.arange(seen, seen + len(ids), dtype=np.int64)[None]
        seen += len(ids)
        feeds = {"input_ids": np.array([ids], dtype=np.int64), "attention_mask": np.ones((1, seen), dtype=np.int64), "position_ids": positions, **past}
        result = dict(zip(outputs, session.run(None, feeds)))
        past = {name.replace("present", "past_key_values"): value for name, value in result.items() if name.startswith("present")}
        token = int(result["logits"][0, -1].argmax())
        tokens.append(token)
        if token in endIds:
            break
        ids = [token]
    return tokens


report("onnx", "tuned", answer, versions={"onnxruntime": onnxruntime.__version__})
