/** The records of a user's data file, whatever its form: JSON lines, a JSON list, a table, or one text a line. */
import { extname } from 'node:path';
import { StillhouseError } from '../contracts/errors.ts';
import { tableRows } from './csv.ts';
import { jsonMistake } from './json-text.ts';
import { excerpt } from './pairs.ts';
import { linesOf, readWholeText } from './text-file.ts';

export interface FileRecord {
  readonly value: unknown;
  /** Its JSON, as it stands in the file or as it would. */
  readonly text: string;
  readonly line: number;
}

const ENDINGS = ['.jsonl', '.ndjson', '.json', '.csv', '.tsv', '.txt'] as const;
type Ending = (typeof ENDINGS)[number];
/** For messages. */
export const DATASET_ENDINGS = '.jsonl, .ndjson, .json, .csv, .tsv or .txt';
const isEnding = (ending: string): ending is Ending => (ENDINGS as readonly string[]).includes(ending);
export const isDatasetPath = (path: string): boolean => isEnding(extname(path).toLowerCase());

/** Columns that mean something; a header may write them in any case, with white space around. */
const COLUMNS = ['input', 'gold', 'output', 'instruction', 'rationale', 'softTargets'] as const;
/** What other programs call an input. */
const INPUT_NAMES = ['text', 'prompt', 'question', 'query', 'sentence', 'message', 'content', 'review', 'document', 'body', 'title', 'description', 'ticket', 'utterance'];

/** Every record of the file, in its order. NOT_FOUND without the file, BAD_INPUT with file and line for what is none. */
export async function* readRecords(path: string): AsyncGenerator<FileRecord> {
  const ending = extname(path).toLowerCase();
  if (!isEnding(ending)) throw new StillhouseError('BAD_INPUT', `expected a dataset ending in ${DATASET_ENDINGS}, got ${path}`);
  switch (ending) {
    case '.jsonl':
    case '.ndjson':
      for await (const { text, line } of linesOf(path)) yield parsed(text, path, line, 'one JSON object a line');
      return;
    case '.json':
      yield* jsonRecords(path);
      return;
    case '.csv':
    case '.tsv':
      yield* tableRecords(path, ending === '.tsv');
      return;
    case '.txt':
      for await (const { text, line } of linesOf(path)) yield { value: { input: text.trim() }, text: JSON.stringify(text.trim()), line };
  }
}

function parsed(text: string, path: string, line: number, expected: string): FileRecord {
  try {
    return { value: JSON.parse(text), text, line };
  } catch (cause) {
    const mistake = jsonMistake(text);
    throw new StillhouseError('BAD_INPUT', `${path}:${line + mistake.line - 1}: expected ${expected}, got ${mistake.got} in column ${mistake.column} of ${excerpt(text)}`, { cause });
  }
}

/** A list of records; a file without one is read as JSON lines, which some programs give this ending. */
async function* jsonRecords(path: string): AsyncGenerator<FileRecord> {
  const text = await readWholeText(path);
  if (!text.trimStart().startsWith('[')) {
    for await (const { text: each, line } of linesOf(path)) yield parsed(each, path, line, 'a list of rows, [{"input": "…"}, …], or one JSON object a line');
    return;
  }
  parsed(text, path, 1, 'a list of rows, [{"input": "…"}, …]');
  for (const { from, to, line } of elementsOf(text)) yield parsed(text.slice(from, to), path, line, 'a row');
}

/** Where the elements of a list stand in JSON that parses, each with the line on which it begins. */
function* elementsOf(text: string): Generator<{ readonly from: number; readonly to: number; readonly line: number }> {
  let depth = 0;
  let line = 1;
  let start: { readonly from: number; readonly line: number } | undefined;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at] as string;
    if (character === '\n' || (character === '\r' && text[at + 1] !== '\n')) line += 1;
    if (/\s/.test(character)) continue;
    const closes = character === ']' || character === '}';
    if (depth === 1 && start !== undefined && (character === ',' || closes)) {
      yield { ...start, to: at };
      start = undefined;
    } else if (depth === 1 && !closes) start ??= { from: at, line };
    if (closes) depth -= 1;
    else if (character === '[' || character === '{') depth += 1;
    else if (character === '"') {
      for (at += 1; text[at] !== '"'; at += 1) if (text[at] === '\\') at += 1;
    }
  }
}

async function* tableRecords(path: string, tabs: boolean): AsyncGenerator<FileRecord> {
  let names: readonly (string | undefined)[] | undefined;
  for await (const { cells, line } of tableRows(path, tabs, ['input', 'instruction'])) {
    if (names === undefined) {
      names = columnNames(cells, `${path}:${line}`);
      continue;
    }
    // A blank cell is no value.
    const entries = names.flatMap((name, index) => (name === undefined || (cells[index] as string).trim() === '' ? [] : [[name, cells[index] as string] as const]));
    const value = Object.fromEntries(entries);
    yield { value, text: JSON.stringify(Object.fromEntries(cells.map((cell, index) => [names?.[index] ?? `column ${index + 1}`, cell]))), line };
  }
}

/** By column its name where it means something. */
function columnNames(header: readonly string[], where: string): readonly (string | undefined)[] {
  const written = header.map((name) => name.normalize('NFKC').trim().toLowerCase());
  const names = written.map((name) => COLUMNS.find((column) => column.toLowerCase() === name));
  const twice = names.find((name, index) => name !== undefined && names.indexOf(name) !== index);
  if (twice !== undefined) throw new StillhouseError('BAD_INPUT', `${where}: expected one column ${JSON.stringify(twice)}, got ${names.filter((name) => name === twice).length}`);
  if (names.includes('input') || names.includes('instruction')) return names;
  const likely = header.filter((_, index) => INPUT_NAMES.includes(written[index] as string));
  const advice = likely.length === 0 ? '' : `; rename ${likely.map((name) => JSON.stringify(name.trim())).join(' or ')} to "input" if that is what the teacher is asked about`;
  throw new StillhouseError('BAD_INPUT', `${where}: expected a header with a column "input", got ${header.map((name) => name.trim()).join(', ')}${advice}`);
}
