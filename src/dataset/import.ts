/** Rows from a user's files: .jsonl, .csv (RFC 4180) and .txt, read as a stream. */
import { createReadStream } from 'node:fs';
import { basename, extname } from 'node:path';
import { createInterface } from 'node:readline';
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow } from '../contracts/records.ts';
import { excerpt } from './pairs.ts';
import { rowId } from './text.ts';

/**
 * Yields every row of the file that has text; blank lines are passed over. `name` is what origins
 * say. A .jsonl line is `{ "input": …, "gold"?: … }` (`output` stands for `gold` too), a .csv has a
 * header with the same names, a .txt has one input a line. Other keys and columns are ignored.
 * Throws NOT_FOUND without the file, BAD_INPUT with file and line where a row is not one.
 */
export async function* readRows(path: string, name: string = basename(path)): AsyncGenerator<InputRow> {
  const extension = extname(path).toLowerCase();
  try {
    switch (extension) {
      case '.jsonl':
        yield* readJsonLines(path, name);
        return;
      case '.csv':
        yield* readCsv(path, name);
        return;
      case '.txt':
        for await (const { text, line } of linesOf(path)) yield makeRow(text.trim(), undefined, `${name}:${line}`);
        return;
      default:
        throw new StillhouseError('BAD_INPUT', `expected a dataset ending in .jsonl, .csv or .txt, got ${path}`);
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'EISDIR')) {
      throw new StillhouseError('NOT_FOUND', `expected a dataset file, got ${error.code === 'ENOENT' ? 'nothing' : 'a folder'} at ${path}`, { cause: error });
    }
    throw error;
  }
}

/** Lines that hold text, with their numbers. */
export async function* linesOf(path: string): AsyncGenerator<{ readonly text: string; readonly line: number }> {
  let line = 0;
  for await (const raw of createInterface({ input: createReadStream(path, 'utf8'), crlfDelay: Number.POSITIVE_INFINITY })) {
    line += 1;
    const text = line === 1 ? raw.replace(/^\uFEFF/, '') : raw;
    if (text.trim() !== '') yield { text, line };
  }
}

async function* readJsonLines(path: string, name: string): AsyncGenerator<InputRow> {
  for await (const { text, line } of linesOf(path)) {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new StillhouseError('BAD_INPUT', `${path}:${line}: expected one JSON object a line, got ${excerpt(text)}`, { cause: error });
    }
    const record: Readonly<Record<string, unknown>> = typeof value === 'object' && value !== null ? { ...value } : {};
    const input = record['input'];
    const gold = record['gold'] ?? record['output'];
    if (typeof input !== 'string' || input.trim() === '') throw new StillhouseError('BAD_INPUT', `${path}:${line}: expected a string "input", got ${excerpt(text)}`);
    if (gold !== undefined && gold !== null && typeof gold !== 'string') {
      throw new StillhouseError('BAD_INPUT', `${path}:${line}: expected "gold" to be a string, got ${JSON.stringify(gold)}`);
    }
    yield makeRow(input, gold ?? undefined, `${name}:${line}`);
  }
}

async function* readCsv(path: string, name: string): AsyncGenerator<InputRow> {
  let inputColumn = -1;
  let goldColumn = -1;
  let header: readonly string[] | undefined;
  for await (const { fields, line } of csvRecords(path)) {
    if (header === undefined) {
      header = fields.map((field) => field.trim().toLowerCase());
      inputColumn = header.indexOf('input');
      goldColumn = header.includes('gold') ? header.indexOf('gold') : header.indexOf('output');
      if (inputColumn < 0) throw new StillhouseError('BAD_INPUT', `${path}:1: expected a header with a column "input", got ${header.join(', ')}`);
      continue;
    }
    if (fields.length !== header.length) throw new StillhouseError('BAD_INPUT', `${path}:${line}: expected ${header.length} fields, got ${fields.length}`);
    const input = fields[inputColumn] as string;
    if (input.trim() === '') continue;
    const gold = goldColumn < 0 ? '' : (fields[goldColumn] as string);
    yield makeRow(input, gold === '' ? undefined : gold, `${name}:${line}`);
  }
}

/** RFC 4180 records: quoted fields may hold commas, line breaks and doubled quotes. `line` is where the record starts. */
async function* csvRecords(path: string): AsyncGenerator<{ readonly fields: readonly string[]; readonly line: number }> {
  let fields: string[] = [];
  let field = '';
  let state: 'start' | 'plain' | 'quoted' | 'quote-in-quoted' = 'start';
  let line = 1;
  let startLine = 1;
  for await (const chunk of createReadStream(path, 'utf8') as AsyncIterable<string>) {
    for (const character of chunk) {
      if (character === '\n') line += 1;
      if (state === 'quoted') {
        if (character === '"') state = 'quote-in-quoted';
        else field += character;
      } else if (character === '"' && state === 'quote-in-quoted') {
        field += '"';
        state = 'quoted';
      } else if (character === '"' && state === 'start') {
        state = 'quoted';
      } else if (character === ',') {
        fields.push(field);
        [field, state] = ['', 'start'];
      } else if (character === '\n') {
        if (fields.length > 0 || field !== '') yield { fields: [...fields, field], line: startLine };
        [fields, field, state, startLine] = [[], '', 'start', line];
      } else if (character !== '\r' && character !== '\uFEFF') {
        field += character;
        state = 'plain';
      }
    }
  }
  if (state === 'quoted') throw new StillhouseError('BAD_INPUT', `${path}:${startLine}: expected a closing quote, got the end of the file`);
  if (fields.length > 0 || field !== '') yield { fields: [...fields, field], line: startLine };
}

function makeRow(input: string, gold: string | undefined, origin: string): InputRow {
  return { id: rowId(input), input, origin, ...(gold === undefined ? {} : { gold }) };
}
