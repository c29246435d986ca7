/** The cells of an experiment's table, each computed once: a run that was stopped goes on with the first that is missing. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { writeDurably } from '../../src/assets/files.ts';
import { canonicalJson } from '../../src/store/jsonl.ts';

export interface Cell<Result> {
  /** Of its file: letters, digits and hyphens. */
  readonly name: string;
  /** All that decides the result. A kept result of another spec is not used, and is written over. */
  readonly spec: object;
  /** Gets the folder of `workOf`. */
  readonly compute: (work: string) => Promise<Result>;
}

export class CellFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** What is kept of the cell; undefined where it has not been computed under this spec. */
  kept<Result>({ name, spec }: Cell<Result>): Result | undefined {
    const path = join(this.path, `${name}.json`);
    if (!existsSync(path)) return undefined;
    const kept = JSON.parse(readFileSync(path, 'utf8')) as { readonly spec: object; readonly result: Result };
    return canonicalJson(kept.spec) === canonicalJson(spec) ? kept.result : undefined;
  }

  /** A folder for what the cell writes while it is computed, of its own under each spec. */
  workOf({ name, spec }: Pick<Cell<unknown>, 'name' | 'spec'>): string {
    return join(this.path, `${name}-${createHash('sha256').update(canonicalJson(spec)).digest('hex').slice(0, 12)}`);
  }

  async get<Result>(cell: Cell<Result>): Promise<Result> {
    const kept = this.kept(cell);
    if (kept !== undefined) return kept;
    const result = await cell.compute(this.workOf(cell));
    await mkdir(this.path, { recursive: true });
    await writeDurably(join(this.path, `${cell.name}.json`), `${JSON.stringify({ spec: cell.spec, result })}\n`);
    return result;
  }
}

export interface Progress {
  readonly done: number;
  readonly of: number;
}

/** Computes missing cells in their order, at most so many of them. */
export async function computeCells(folder: CellFolder, cells: readonly Cell<unknown>[], options: { readonly most: number; readonly say: (line: string) => void }): Promise<Progress> {
  let computed = 0;
  for (const cell of cells) {
    if (folder.kept(cell) !== undefined || computed >= options.most) continue;
    const startedMs = performance.now();
    await folder.get(cell);
    computed += 1;
    options.say(`${cell.name}: ${((performance.now() - startedMs) / 1_000).toFixed(0)} s`);
  }
  return { done: cells.filter((cell) => folder.kept(cell) !== undefined).length, of: cells.length };
}

export const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Standard deviation of a sample; 0 of one value. */
export function standardDeviation(values: readonly number[]): number {
  const middle = mean(values);
  return values.length < 2 ? 0 : Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}
