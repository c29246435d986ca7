/** Folders and files of rows for tests. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const folders: string[] = [];
process.once('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A new folder, gone when this process ends, however its tests went. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'stillhouse-'));
  folders.push(folder);
  return folder;
}

/** Writes a line of JSON for each row and gives the path. */
export function writeRows(path: string, rows: readonly object[]): string {
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return path;
}
