"""PyTorch and PEFT as tutorials train, in turns (turns.ts): argv = a file of TrainingTask. The weights are the GGUF's, dequantised to float32."""
import json, os, resource, sys, time

task = json.load(open(sys.argv[1]))
os.environ.update(OMP_NUM_THREADS=str(task["threads"]), TQDM_DISABLE="1")
import peft, torch, transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(task["threads"])
torch.manual_seed(task["seed"])
training, samples, order, path = task["training"], task["samples"], task["order"], task["modelPath"]
lora, size = training["lora"], training["batchSize"]
model = transformers.AutoModelForCausalLM.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path), dtype=torch.float32)
model.config.use_cache = False
model = peft.get_peft_model(model, peft.LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], target_modules=["q_proj", "v_proj"]))
model.train()
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=training["learningRate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=training["weightDecay"])


def collate(batch):
    width = task["padTo"] or max(len(s["ids"]) for s in batch)
    ids, attention, labels = (torch.full((len(batch), width), fill, dtype=torch.long) for fill in (0, 0, -100))
    for row, s in enumerate(batch):
        n = len(s["ids"])
        ids[row, :n], attention[row, :n] = torch.tensor(s["ids"]), 1
        labels[row, s["responseStart"] : n] = ids[row, s["responseStart"] : n]
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


step = 0
for line in sys.stdin:
    started, losses, computed = time.monotonic(), [], 0
    for _ in range(int(line)):
        batch = collate([samples[i] for i in order[step * size : (step + 1) * size]])
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, training["maxGradientNorm"])
        optimizer.step()
        losses.append(loss.item())
        computed += batch["input_ids"].numel()
        step += 1
    print(json.dumps({"seconds": time.monotonic() - started, "lossNats": losses, "computedTokens": computed, "peakRssBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)
