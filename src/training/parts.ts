/**
 * What is made of a dataset's rows once, in files of so many rows each that are named by what they are made of: a run that was
 * killed goes on where it was, and rows that a later dataset begins with as well are not read again.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { writeDurably } from '../assets/files.ts';
import type { TrainingSample } from './packing.ts';

const PART_ROWS = 64;

export interface Part {
  readonly samples: readonly TrainingSample[];
  readonly path: string;
}

/** What is there by now. */
export interface PartsProgress {
  readonly rows: number;
  readonly of: number;
  /** Learned tokens of these rows, and bytes of their files. */
  readonly tokens: number;
  readonly sizeBytes: number;
}

/** Makes the files that are not there yet; `onPart` is told after each, those that were there included. `madeOf` says what besides the rows decides their bytes. */
export async function makeParts(options: {
  readonly samples: readonly TrainingSample[];
  readonly folder: string;
  readonly ending: string;
  readonly madeOf: string;
  readonly write: (samples: readonly TrainingSample[], key: string) => Promise<Uint8Array>;
  readonly onPart: (done: PartsProgress) => void;
}): Promise<readonly Part[]> {
  const { samples, folder, madeOf } = options;
  mkdirSync(folder, { recursive: true });
  const parts: Part[] = [];
  let [tokens, sizeBytes] = [0, 0];
  for (let from = 0; from < samples.length; from += PART_ROWS) {
    const rows = samples.slice(from, from + PART_ROWS);
    const hash = createHash('sha256').update(`${madeOf}\n`);
    for (const { ids, responseStart } of rows) hash.update(`${responseStart} ${ids.join(' ')}\n`);
    const key = hash.digest('hex');
    const path = join(folder, `${key}.${options.ending}`);
    parts.push({ samples: rows, path });
    if (!existsSync(path)) await writeDurably(path, await options.write(rows, key));
    tokens += rows.reduce((sum, { ids, responseStart }) => sum + ids.length - responseStart, 0);
    sizeBytes += statSync(path).size;
    options.onPart({ rows: from + rows.length, of: samples.length, tokens, sizeBytes });
  }
  return parts;
}
