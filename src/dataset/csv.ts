/** Tables as Excel and other programs write them: comma, semicolon, tab or bar; any line end; quotes around what needs them. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { CsvError, parse } from 'csv-parse';
import { StillhouseError } from '../contracts/errors.ts';
import { excerpt } from './pairs.ts';
import { lineEndsIn, readText } from './text-file.ts';

const DELIMITERS = [',', ';', '\t', '|'] as const;

interface Cell {
  readonly text: string;
  readonly quoted: boolean;
}

export interface TableRow {
  /** Where the row starts. */
  readonly line: number;
  readonly cells: readonly string[];
}

/** Every row that is not blank, the header first, each as long as the header, which has one of `names`. BAD_INPUT with file and line where one is not. */
export async function* tableRows(path: string, tabs: boolean, names: readonly string[]): AsyncGenerator<TableRow> {
  const pieces = readText(path);
  const first = await pieces.next();
  if (first.done === true) return;
  // Excel writes its delimiter on a line of its own where the country's is another.
  const announced = /^sep=(.)(?:\r\n|\n|\r)/i.exec(first.value);
  const head = first.value.slice(announced?.[0].length ?? 0);
  const delimiter = announced?.[1] ?? (tabs ? '\t' : delimiterOf(head, names));
  let line = announced === null ? 1 : 2;
  let width: number | undefined;
  const parser = parse({ delimiter, record_delimiter: ['\r\n', '\n', '\r'], relax_quotes: true, relax_column_count: true, raw: true, cast: (text, { quoting }): Cell => ({ text, quoted: quoting }) });
  const text = async function* (): AsyncGenerator<string> {
    yield head;
    yield* pieces;
  };
  // A failure of the source ends the parser, and is thrown where its rows are read.
  const fed = pipeline(Readable.from(text()), parser).catch(() => undefined);
  try {
    for await (const { record, raw } of parser as AsyncIterable<{ readonly record: readonly Cell[]; readonly raw: string }>) {
      const start = line;
      line += lineEndsIn(raw);
      const cells = record.map((cell) => cell.text);
      if (cells.every((cell) => cell.trim() === '')) continue;
      if (!wellQuoted(record, raw)) throw new StillhouseError('BAD_INPUT', `${path}:${start}: expected a field between quotes to write a quote inside of it twice, as in "5"" screen", got ${excerpt(raw.trim())}`);
      width ??= cells.length;
      const surplus = cells.slice(width);
      if (cells.length < width || surplus.some((cell) => cell.trim() !== '')) {
        throw new StillhouseError('BAD_INPUT', `${path}:${start}: expected ${width} fields, got ${cells.length}: a field that holds ${JSON.stringify(delimiter)} or a line break stands between quotes`);
      }
      yield { line: start, cells: cells.slice(0, width) };
    }
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw new StillhouseError('BAD_INPUT', error.code === 'CSV_QUOTE_NOT_CLOSED' ? `${path}:${line}: expected a closing quote, got the end of the file` : `${path}:${line}: expected a table, got ${error.message}`, { cause: error });
  } finally {
    parser.destroy();
    await fed;
  }
}

/** The delimiter that splits the first line into one of `names`, and of several such into the most parts. */
function delimiterOf(head: string, names: readonly string[]): string {
  const line = head.split(/[\r\n]+/).find((each) => each.trim() !== '') ?? '';
  const outside = line.replace(/"(?:[^"]|"")*"/g, '');
  const known = (delimiter: string): boolean => line.split(delimiter).some((part) => names.includes(part.replaceAll('"', '').trim().toLowerCase()));
  const scores = DELIMITERS.map((delimiter) => outside.split(delimiter).length + (known(delimiter) ? line.length + 1 : 0));
  return DELIMITERS[scores.indexOf(Math.max(...scores))] as string;
}

const quotesIn = (text: string): number => text.split('"').length - 1;

/** A quote in a quoted field that is not written twice leaves open where the field ends: the parser takes it as it is, and may have run over the next rows. */
const wellQuoted = (record: readonly Cell[], raw: string): boolean =>
  quotesIn(raw) === record.reduce((sum, { text, quoted }) => sum + (quoted ? 2 + 2 * quotesIn(text) : quotesIn(text)), 0);
