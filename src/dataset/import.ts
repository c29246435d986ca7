/** Rows of a campaign from a user's files, read as a stream: docs/data.md has the forms. */
import { basename } from 'node:path';
import type { InputRow } from '../contracts/records.ts';
import { readRecords } from './record-file.ts';
import { inputOf } from './row-formats.ts';
import { rowId } from './text.ts';

/**
 * Yields every row of the file. `name` is what origins say. Blank lines are passed over, other keys and columns ignored.
 * Throws NOT_FOUND without the file, BAD_INPUT with file and line where a row is not one.
 */
export async function* readRows(path: string, name: string = basename(path)): AsyncGenerator<InputRow> {
  for await (const record of readRecords(path)) {
    const { input, output } = inputOf(record, `${path}:${record.line}`);
    yield { id: rowId(input), input, origin: `${name}:${record.line}`, ...(output === undefined ? {} : { gold: output }) };
  }
}
