"""Texts that CPython accepts (modules, functions and classes of its standard library) and mutations of them that it refuses, as JSON on standard output."""
import ast
import glob
import json
import os
import random
import textwrap

random.seed(5)
MODULES = 170
PIECES_A_MODULE = 8
TYPOS = (("return ", "retrun "), ("def ", "function "), ("if ", "fi "), ("for ", "each "))


def parses(code):
    try:
        ast.parse(code)
        return None
    except SyntaxError as error:
        return error.lineno or 1
    except ValueError:
        return None


def without_one_of(code, characters):
    places = [index for index, character in enumerate(code) if character in characters]
    if not places:
        return code
    at = random.choice(places)
    return code[:at] + code[at + 1 :]


def indented_line(code):
    lines = code.split("\n")
    at = random.randrange(len(lines))
    lines[at] = " " + lines[at]
    return "\n".join(lines)


def stray_parenthesis(code):
    at = random.choice([index for index, character in enumerate(code) if character == " "] or [0])
    return code[:at] + " ) " + code[at:]


def typo(code):
    for right, wrong in TYPOS:
        if right in code:
            return code.replace(right, wrong, 1)
    return code


MUTATIONS = {
    "a bracket or colon left out": lambda code: without_one_of(code, "()[]{}:"),
    "cut off": lambda code: code[: random.randint(10, len(code) - 1)],
    "a line indented": indented_line,
    "an operator left out": lambda code: without_one_of(code, "=+-*,."),
    "a stray parenthesis": stray_parenthesis,
    "a mistyped keyword": typo,
    "another language's operator": lambda code: code.replace("==", "===", 1) if "==" in code else code.replace(" and ", " && ", 1),
    "an empty statement": lambda code: code.replace("None", "null;;", 1),
}

valid, refused = [], []
for path in sorted(glob.glob(os.path.dirname(os.__file__) + "/*.py"))[:MODULES]:
    with open(path, encoding="utf8", errors="replace") as file:
        source = file.read()
    if parses(source) is not None:
        continue
    valid.append(source)
    tree = ast.parse(source)
    pieces = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and 3 < node.end_lineno - node.lineno < 40]
    random.shuffle(pieces)
    for node in pieces[:PIECES_A_MODULE]:
        code = textwrap.dedent("\n".join(source.split("\n")[node.lineno - 1 : node.end_lineno]))
        if parses(code) is not None:
            continue
        valid.append(code)
        for what, mutate in MUTATIONS.items():
            mutated = mutate(code)
            line = parses(mutated)
            if line is not None:
                refused.append({"what": what, "code": mutated, "line": line})
print(json.dumps({"version": ".".join(map(str, __import__("sys").version_info[:3])), "valid": valid, "refused": refused}))
