/** A user's text file as it is meant: decoded strictly, with its lines, or refused with the place and what to do. */
import { isUtf8 } from 'node:buffer';
import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { StillhouseError } from '../contracts/errors.ts';

/** How files that are no text begin, in Latin-1, and what to make of them. */
const NO_TEXT: readonly (readonly [start: string, what: string])[] = [
  ['\x1F\x8B', 'a gzip archive: unpack it'],
  ['PK\x03\x04', 'a ZIP archive or an Excel workbook: unpack it, or save it as "CSV UTF-8"'],
  ['\xD0\xCF\x11\xE0', 'an old Excel workbook: save it as "CSV UTF-8"'],
  ['PAR1', 'a Parquet file: write it as JSON lines, in Python with pandas.read_parquet(…).to_json(…, orient="records", lines=True)'],
  ['ARROW1', 'an Arrow file: write it as JSON lines'],
  ['Obj\x01', 'an Avro file: write it as JSON lines'],
  ['BZh', 'a bzip2 archive: unpack it'],
  ['\x28\xB5\x2F\xFD', 'a Zstandard archive: unpack it'],
  ['\xFD7zXZ\x00', 'an xz archive: unpack it'],
  ['%PDF-', 'a PDF'],
  ['SQLite format 3\x00', 'an SQLite database'],
];
const LINE_END = /\r\n|\n|\r/g;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

export const lineEndsIn = (text: string): number => text.match(LINE_END)?.length ?? 0;

/**
 * The text in pieces that end where a line does. UTF-8, or UTF-16 with its byte order mark, which is left out. NOT_FOUND
 * without the file; BAD_INPUT, with the line, for bytes of another encoding, NUL characters and files that are no text.
 */
export async function* readText(path: string): AsyncGenerator<string> {
  let line = 1;
  for await (const { bytes, utf16 } of piecesOf(path)) {
    const text = utf16 === undefined ? utf8(bytes, path, line) : utf16Text(bytes, utf16, path);
    const nul = text.indexOf('\0');
    if (nul >= 0) throw new StillhouseError('BAD_INPUT', `${path}:${line + lineEndsIn(text.slice(0, nul))}: expected text, got a NUL character; where every other byte is NUL, the file is UTF-16 without its mark: save it as UTF-8`);
    yield text;
    line += lineEndsIn(text);
  }
}

/** The whole text at once. */
export async function readWholeText(path: string): Promise<string> {
  let text = '';
  for await (const piece of readText(path)) text += piece;
  return text;
}

/** Lines that hold text, with their numbers. They end at \n, \r\n or \r, and at no other character. */
export async function* linesOf(path: string): AsyncGenerator<{ readonly text: string; readonly line: number }> {
  let line = 0;
  for await (const piece of readText(path)) {
    const lines = piece.split(LINE_END);
    if (lines.at(-1) === '') lines.pop();
    for (const text of lines) {
      line += 1;
      if (text.trim() !== '') yield { text, line };
    }
  }
}

interface Piece {
  readonly bytes: Buffer;
  readonly utf16?: 'utf-16le' | 'utf-16be';
}

async function* piecesOf(path: string): AsyncGenerator<Piece> {
  let waiting: Buffer[] = [];
  let first = true;
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      let bytes = chunk;
      if (first) {
        first = false;
        const start = bytes.toString('latin1', 0, 16);
        const binary = NO_TEXT.find(([mark]) => start.startsWith(mark));
        if (binary !== undefined) throw new StillhouseError('BAD_INPUT', `${path}: expected text in UTF-8, got ${binary[1]}`);
        if (start.startsWith('\xFF\xFE') || start.startsWith('\xFE\xFF')) {
          yield { bytes: await readFile(path), utf16: start.startsWith('\xFF') ? 'utf-16le' : 'utf-16be' };
          return;
        }
        if (start.startsWith('\xEF\xBB\xBF')) bytes = bytes.subarray(3);
      }
      // A \r at the end may be half of a line end.
      const end = Math.max(bytes.lastIndexOf(LINE_FEED), bytes.subarray(0, -1).lastIndexOf(CARRIAGE_RETURN)) + 1;
      if (end > 0) {
        yield { bytes: Buffer.concat([...waiting, bytes.subarray(0, end)]) };
        waiting = [];
      }
      waiting.push(bytes.subarray(end));
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'EISDIR')) {
      throw new StillhouseError('NOT_FOUND', `expected a file, got ${error.code === 'ENOENT' ? 'nothing' : 'a folder'} at ${path}`, { cause: error });
    }
    throw error;
  }
  const rest = Buffer.concat(waiting);
  if (rest.length > 0) yield { bytes: rest };
}

function utf8(bytes: Buffer, path: string, line: number): string {
  const text = bytes.toString('utf8');
  if (isUtf8(bytes)) return text;
  // The first replacement character that does not stand in the file itself is the place.
  let at = text.indexOf('\uFFFD');
  let offset = Buffer.byteLength(text.slice(0, at));
  while (bytes.toString('latin1', offset, offset + 3) === '\xEF\xBF\xBD') {
    const next = text.indexOf('\uFFFD', at + 1);
    offset += Buffer.byteLength(text.slice(at, next));
    at = next;
  }
  const before = text.slice(0, at);
  const column = before.length - Math.max(before.lastIndexOf('\n'), before.lastIndexOf('\r'));
  const byte = (bytes[offset] as number).toString(16).toUpperCase().padStart(2, '0');
  const windows = new TextDecoder('windows-1252').decode(bytes.subarray(offset, offset + 1));
  throw new StillhouseError('BAD_INPUT', `${path}:${line + lineEndsIn(before)}: expected UTF-8, got byte 0x${byte} in column ${column} (${JSON.stringify(windows)}, if the file is Windows-1252): save it as UTF-8, in Excel as "CSV UTF-8", or convert it: iconv -f WINDOWS-1252 -t UTF-8`);
}

function utf16Text(bytes: Buffer, encoding: NonNullable<Piece['utf16']>, path: string): string {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new StillhouseError('BAD_INPUT', `${path}: expected UTF-16, as its first bytes say, got bytes that are none: save it as UTF-8`, { cause });
  }
}
