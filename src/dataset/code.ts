/** Whether the code in an answer parses. Nothing is ever run. */
import { stripTypeScriptTypes } from 'node:module';
import { Script } from 'node:vm';
import { parse } from '@babel/parser';
import type { TaskSpec } from '../contracts/campaign-spec.ts';
import { pythonProblem } from './python.ts';

export type CodeLanguage = Extract<TaskSpec['output'], { kind: 'code' }>['language'];

const FENCE_NAMES: Readonly<Record<CodeLanguage, readonly string[]>> = {
  javascript: ['javascript', 'js', 'mjs', 'jsx', 'node'],
  typescript: ['typescript', 'ts', 'tsx'],
  python: ['python', 'py', 'python3'],
  json: ['json'],
};

/**
 * What is wrong with the code of an answer, or undefined. Fenced blocks of the language, or of none,
 * must each parse; blocks of other languages are let be. Without any block the whole text is taken
 * for code, so that prose alone is turned away.
 */
export function codeProblem(text: string, language: CodeLanguage): string | undefined {
  const blocks = fencedBlocks(text);
  if (blocks === undefined) return 'expected every code fence to be closed, got an open one at the end';
  const ours = blocks.filter((block) => block.tag === '' || FENCE_NAMES[language].includes(block.tag));
  if (ours.length === 0) {
    if (blocks.length > 0) return `expected a code block of ${language}, got ${blocks.map((block) => block.tag).join(', ')}`;
    const problem = parseProblem(text, language);
    return problem === undefined ? undefined : `expected ${language} code or a block of it, got text that does not parse: ${problem}`;
  }
  for (const [index, block] of ours.entries()) {
    const problem = block.tag === 'jsx' || block.tag === 'tsx' ? markupProblem(block.code, block.tag) : parseProblem(block.code, language);
    if (problem !== undefined) return `block ${index + 1} of ${ours.length}: ${problem}`;
  }
  return undefined;
}

function fencedBlocks(text: string): readonly { readonly tag: string; readonly code: string }[] | undefined {
  const blocks: { tag: string; code: string }[] = [];
  let open: { readonly fence: string; readonly tag: string; readonly lines: string[] } | undefined;
  for (const line of text.split(/\r?\n/)) {
    const mark = /^\s*(`{3,}|~{3,})\s*([^\s`]*)/.exec(line);
    if (open === undefined) {
      if (mark !== null) open = { fence: mark[1] as string, tag: (mark[2] as string).toLowerCase(), lines: [] };
    } else if (mark !== null && mark[2] === '' && (mark[1] as string).startsWith(open.fence)) {
      blocks.push({ tag: open.tag, code: open.lines.join('\n') });
      open = undefined;
    } else {
      open.lines.push(line);
    }
  }
  return open === undefined ? blocks : undefined;
}

function parseProblem(code: string, language: CodeLanguage): string | undefined {
  switch (language) {
    case 'json':
      return problemOf(() => JSON.parse(code), jsonPosition(code));
    case 'python':
      return pythonProblem(code);
    case 'typescript':
      return problemOf(() => stripTypeScriptTypes(code, { mode: 'transform' }), framePosition);
    case 'javascript':
      // A Script takes no import or export; what it refuses may still be a module, which the TypeScript parser reads.
      return problemOf(() => new Script(code), framePosition) === undefined ? undefined : problemOf(() => stripTypeScriptTypes(code), framePosition);
  }
}

/** Code with markup in it: Node's own parsers know none. */
function markupProblem(code: string, tag: 'jsx' | 'tsx'): string | undefined {
  const position = ({ message }: Error): string | undefined => {
    const found = /\((\d+):(\d+)\)$/.exec(message);
    return found === null ? undefined : `line ${found[1]}, column ${Number(found[2]) + 1}`;
  };
  return problemOf(() => parse(code, { sourceType: 'module', plugins: tag === 'tsx' ? ['typescript', 'jsx'] : ['jsx'] }), position)?.replace(/ \(\d+:\d+\)$/, '');
}

function problemOf(parse: () => unknown, position: (error: Error) => string | undefined): string | undefined {
  try {
    parse();
    return undefined;
  } catch (error) {
    if (!(error instanceof Error)) return String(error);
    const where = position(error);
    return `${where === undefined ? '' : `${where}: `}${error.message.split('\n')[0] as string}`;
  }
}

/** V8 and Node's TypeScript parser put the place at the head of the stack: `file:line`, the code, carets below it. */
function framePosition({ stack = '' }: Error): string | undefined {
  const lines = stack.split('\n');
  const line = /:(\d+)$/.exec(lines[0] ?? '')?.[1];
  if (line === undefined) return undefined;
  const carets = lines.find((text) => /^\s*\^+\s*$/.test(text));
  return carets === undefined ? `line ${line}` : `line ${line}, column ${carets.indexOf('^') + 1}`;
}

/** JSON.parse names the character, and nothing where the text ends too early. */
function jsonPosition(code: string): (error: Error) => string {
  return ({ message }) => {
    const at = Number(/at position (\d+)/.exec(message)?.[1] ?? code.length);
    const before = code.slice(0, at).split('\n');
    return `line ${before.length}, column ${(before.at(-1) as string).length + 1}`;
  };
}
