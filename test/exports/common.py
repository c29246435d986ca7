"""What the Python checks share. Each prints one JSON line for each export: prompts, and how many answers were equal token by token."""
import json
import os
import sys

folder = sys.argv[1]
with open(os.path.join(folder, "answers.json")) as file:
    expected = json.load(file)
endIds, maxNewTokens = expected["endIds"], expected["maxNewTokens"]


def trim(answer):
    return answer[:-1] if answer and answer[-1] in endIds else answer


def report(name, wanted, answer_of, **more):
    same = 0
    for i, (prompt, want) in enumerate(zip(expected["promptIds"], expected["answers"][wanted])):
        got = trim(answer_of(prompt))
        if got == want:
            same += 1
        else:
            at = next((j for j, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
            print(f"{name}, prompt {i}: first difference at token {at}, expected {want[at:at + 3]}, got {got[at:at + 3]}", file=sys.stderr)
    print(json.dumps({"name": name, "prompts": len(expected["promptIds"]), "same": same, **more}), flush=True)
