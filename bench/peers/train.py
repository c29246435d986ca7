"""PyTorch and PEFT as tutorials train, on text or by the textbook's formula of distillation, in turns (turns.ts): argv = a file of TrainingTask. The weights are the GGUF's, dequantised to float32."""
import json, os, re, sys, time

task = json.load(open(sys.argv[1]))
os.environ.update(OMP_NUM_THREADS=str(task["threads"]), TQDM_DISABLE="1")
import peft, safetensors.torch, torch, torch.nn.functional as F, transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(task["threads"])
torch.manual_seed(task["seed"])
training, samples, order, path = task["training"], task["samples"], task["order"], task["modelPath"]
lora, size = training["lora"], training["batchSize"]
where = (path, {}) if os.path.isdir(path) else (os.path.dirname(path), {"gguf_file": os.path.basename(path)})
def load(layers=None):
    model = transformers.AutoModelForCausalLM.from_pretrained(where[0], dtype=torch.float32, **where[1])
    model.config.use_cache = False
    if layers is not None and len(layers) < len(model.model.layers):
        model.model.layers = torch.nn.ModuleList([model.model.layers[i] for i in layers])
        model.config.num_hidden_layers = len(layers)
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.layer_idx = number
    return model


model = load(task["layers"])
logit = training.get("logit")
teacher = None if logit is None else load().eval().requires_grad_(False)
model = peft.get_peft_model(model, peft.LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], target_modules=["q_proj", "v_proj"]))
model.train()
with torch.no_grad():
    for name, value in safetensors.torch.load_file(task["adapterPath"]).items():
        model.get_parameter(f"base_model.model.{name.removesuffix('.weight')}.default.weight").copy_(value)
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


def loss_of(batch):
    if teacher is None:
        return model(**batch).loss
    labels = batch["labels"]
    student = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    with torch.no_grad():
        taught = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    learned = labels[:, 1:] != -100
    student, taught, target = student[:, :-1][learned], taught[:, :-1][learned], labels[:, 1:][learned]
    T, alpha = logit["temperature"], logit["alpha"]
    kl = F.kl_div(F.log_softmax(student / T, dim=-1), F.softmax(taught / T, dim=-1), reduction="batchmean")
    return alpha * T * T * kl + (1 - alpha) * F.cross_entropy(student, target)


def peak():  # resident memory, mapped files included: proc(5)
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read()).group(1)) * 1024


loading = peak()
open("/proc/self/clear_refs", "w").write("5")
step = 0
for line in sys.stdin:
    started, used, losses, computed = time.monotonic(), time.process_time(), [], 0
    for _ in range(int(line)):
        batch = collate([samples[i] for i in order[step * size : (step + 1) * size]])
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, training["maxGradientNorm"])
        optimizer.step()
        losses.append(loss.item())
        computed += batch["input_ids"].numel()
        step += 1
    print(json.dumps({"seconds": time.monotonic() - started, "processorSeconds": time.process_time() - used, "lossNats": losses, "computedTokens": computed, "loadingPeakRssBytes": loading, "peakRssBytes": peak()}), flush=True)
