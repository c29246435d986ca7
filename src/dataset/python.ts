/**
 * Whether Python source parses, without a Python. Two readers see it: Lezer's grammar, which mends what
 * it cannot read and marks the place, and a reader of lines for what a mending parser passes (white
 * space, unclosed brackets, empty statements). Names are not resolved and nothing is run: an argument
 * that is given twice, or `return` outside of a function, passes.
 */
import { parser } from '@lezer/python';
import type { SyntaxNodeRef } from '@lezer/common';

const CLOSERS: Readonly<Record<string, string>> = { ')': '(', ']': '[', '}': '{' };

interface LogicalLine {
  readonly number: number;
  readonly indent: string;
  /** Strings as "", comments gone. */
  readonly code: string;
}

/** What is wrong, with its line, or undefined. */
export function pythonProblem(source: string): string | undefined {
  const text = source.replace(/\r\n?/g, '\n');
  return lineProblem(text) ?? grammarProblem(text);
}

/** What Python reads and the grammar does not, written so that it does, with every position kept. */
function withinGrammar(source: string): string {
  return source
    .replace(/(?<![\w.])(\d[\d_]*)\.(?![\w.])/g, '$10') // a float that ends in its point
    .replace(/^[ \t]*case\b.*:[ \t]*$/gm, (line) => line.replace(/(?<=\w)\.(?=[A-Za-z_])/g, '_').replaceAll('()', '  ')); // case module.Class():
}

function grammarProblem(source: string): string | undefined {
  let at: number | undefined;
  let found = '';
  const note = (position: number, problem: string): void => {
    if (at !== undefined && at <= position) return;
    [at, found] = [position, problem];
  };
  parser.parse(withinGrammar(source)).iterate({
    enter: (node) => {
      if (node.type.isError && !isBareYield(node)) note(node.from, `unexpected ${token(source, node.from)}`);
      if (node.name === 'TryStatement' && node.node.getChild('except') === null && node.node.getChild('finally') === null) note(node.from, 'expected except or finally after try');
    },
  });
  if (at === undefined) return undefined;
  const before = source.slice(0, at).split('\n');
  return `line ${before.length}, column ${(before.at(-1) as string).length + 1}: ${found}`;
}

/** `yield` without a value is Python; the grammar wants one. */
function isBareYield(node: SyntaxNodeRef): boolean {
  return node.from === node.to && node.node.prevSibling?.name === 'yield';
}

function token(source: string, at: number): string {
  const rest = source.slice(at);
  if (rest.trim() === '') return 'end of the code';
  if (/^[ \t]*\n/.test(rest)) return 'end of the line';
  return JSON.stringify(/^\s*(\w+|.)/u.exec(rest)?.[1] ?? rest.slice(0, 1));
}

function lineProblem(text: string): string | undefined {
  const scanned = logicalLines(text);
  if (typeof scanned === 'string') return scanned;
  if (scanned.length === 0) return 'expected statements, got none';
  const indents = [''];
  let opens = false;
  for (const line of scanned) {
    const current = indents.at(-1) as string;
    if (opens) {
      if (line.indent.length <= current.length || !line.indent.startsWith(current)) return `line ${line.number}: expected an indented block after a colon`;
      indents.push(line.indent);
    } else if (line.indent !== current) {
      while (indents.length > 1 && (indents.at(-1) as string).length > line.indent.length) indents.pop();
      if (indents.at(-1) !== line.indent) return `line ${line.number}: unexpected indentation`;
    }
    if (/^(?:def|class)\b/.test(line.code) && !line.code.includes(':')) return `line ${line.number}: expected a colon after ${line.code.split(/\s/)[0]}`;
    if (/^;|;\s*;/.test(line.code)) return `line ${line.number}: expected a statement before ;`;
    opens = line.code.endsWith(':');
  }
  return opens ? 'expected an indented block after the last colon, got the end' : undefined;
}

/** Joins lines inside brackets and after backslashes; a string names the first lexical problem. */
function logicalLines(source: string): LogicalLine[] | string {
  const lines: LogicalLine[] = [];
  const brackets: { readonly character: string; readonly line: number }[] = [];
  let code = '';
  let number = 1;
  let startNumber = 1;
  const finish = (): void => {
    const indent = /^[ \t]*/.exec(code)?.[0] ?? '';
    if (code.trim() !== '') lines.push({ number: startNumber, indent, code: code.trim() });
    code = '';
    startNumber = number + 1;
  };
  for (let at = 0; at < source.length; at += 1) {
    const character = source[at] as string;
    if (character === '#') {
      while (at + 1 < source.length && source[at + 1] !== '\n') at += 1;
    } else if (character === '"' || character === "'") {
      const end = stringEnd(source, at);
      if (end === undefined) return `line ${number}: expected the string to end`;
      number += source.slice(at, end).split('\n').length - 1;
      code += '""';
      at = end - 1;
    } else if (character === '\\' && source[at + 1] === '\n') {
      number += 1;
      at += 1;
    } else if (character === '\n') {
      if (brackets.length === 0) finish();
      else code += ' ';
      number += 1;
    } else {
      if ('([{'.includes(character)) brackets.push({ character, line: number });
      else if (character in CLOSERS && brackets.pop()?.character !== CLOSERS[character]) return `line ${number}: unmatched ${character}`;
      code += character;
    }
  }
  const open = brackets.at(-1);
  if (open !== undefined) return `line ${open.line}: ${open.character} is never closed`;
  finish();
  return lines;
}

/** The position after the string that starts at `start`, or undefined when it does not end. */
function stringEnd(source: string, start: number): number | undefined {
  const quote = source[start] as string;
  const triple = source.startsWith(quote.repeat(3), start);
  const mark = triple ? quote.repeat(3) : quote;
  for (let at = start + mark.length; at < source.length; at += 1) {
    if (source[at] === '\\') at += 1;
    else if (source.startsWith(mark, at)) return at + mark.length;
    else if (!triple && source[at] === '\n') return undefined;
  }
  return undefined;
}
