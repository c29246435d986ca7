/**
 * Peak memory of loading a model, as a share of its float32 weights: a GGUF file and a folder in shards, each in a process
 * of its own with an empty cache. `loaded`: weights dequantised and written; `opened`: a session over them as well.
 *
 *   npm run bench -- load [--json] [--model NAME]
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { createAssets } from '../src/assets/create-assets.ts';
import { readConfig } from '../src/config.ts';
import { writeHuggingFaceFiles } from '../src/lm/export/hugging-face-folder.ts';
import { writeFolder } from '../src/lm/export/output-folder.ts';
import { openExportSource } from '../src/lm/export/source.ts';

const SHARD_BYTES = 60_000_000;
const { values: options } = parseArgs({ options: { json: { type: 'boolean', default: false }, model: { type: 'string', default: 'smollm2-135m-instruct' } } });

interface Loaded {
  readonly float32Bytes: number;
  readonly startBytes: number;
  readonly loadedBytes: number;
  readonly openedBytes: number;
  readonly seconds: number;
}

const folder = mkdtempSync(join(tmpdir(), 'stillhouse-load-'));
try {
  const { path } = await createAssets(readConfig()).model(options.model);
  const sharded = join(folder, 'sharded');
  using source = openExportSource({ path, provenance: { baseModel: options.model, license: 'unknown' } });
  const files = await writeFolder(sharded, (output) => writeHuggingFaceFiles(output, source, { type: 'bf16', shardBytes: SHARD_BYTES }));
  const shards = files.filter(({ path: name }) => name.endsWith('.safetensors')).length;
  const rows: (Loaded & { readonly what: string; readonly loadedShare: number; readonly openedShare: number })[] = [];
  for (const [what, model] of [['as it is in the catalogue', path], [`folder of ${shards} BF16 shards`, sharded]] as const) {
    const { stdout } = await promisify(execFile)(process.execPath, [join(import.meta.dirname, 'peers', 'load.ts'), model, mkdtempSync(join(folder, 'cache-'))]);
    const loaded = JSON.parse(stdout) as Loaded;
    rows.push({ what, ...loaded, loadedShare: loaded.loadedBytes / loaded.float32Bytes, openedShare: loaded.openedBytes / loaded.float32Bytes });
  }
  const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  if (options.json) process.stdout.write(`${JSON.stringify({ model: options.model, rows }, undefined, 2)}\n`);
  else for (const row of rows) process.stdout.write(`${row.what}: float32 weights ${mebibytes(row.float32Bytes)}; peak when loaded ${mebibytes(row.loadedBytes)} (${row.loadedShare.toFixed(2)} of them), with a session ${mebibytes(row.openedBytes)} (${row.openedShare.toFixed(2)}), ${row.seconds.toFixed(1)} s\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
