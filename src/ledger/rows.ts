/** How answers and sums look as rows. */
import type { SQLOutputValue } from 'node:sqlite';
import type { TeacherAnswer } from '../contracts/records.ts';
import type { LedgerKey, LedgerTotals } from './ledger.ts';

export type Row = Readonly<Record<string, SQLOutputValue>>;

export const keyBytes = (key: LedgerKey): Buffer => Buffer.from(key, 'hex');
export const keyText = (bytes: SQLOutputValue | undefined): LedgerKey => (bytes instanceof Uint8Array ? Buffer.from(bytes).toString('hex') : '');

export function packLogProbs(values: readonly number[] | undefined): Uint8Array | null {
  if (values === undefined) return null;
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => bytes.writeFloatLE(value, index * 4));
  return bytes;
}

function unpackLogProbs(bytes: SQLOutputValue): number[] | undefined {
  if (!(bytes instanceof Uint8Array)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 4 }, (_, index) => view.getFloat32(index * 4, true));
}

export function answerOf(row: Row): TeacherAnswer {
  const labelLogProbs = unpackLogProbs(row['labelLogProbs'] ?? null);
  return {
    text: String(row['text']),
    ...(labelLogProbs === undefined ? {} : { labelLogProbs }),
    ...(row['softTargets'] instanceof Uint8Array ? { softTargets: Buffer.from(row['softTargets']).toString('base64') } : {}),
    ...(typeof row['reasoning'] === 'string' ? { reasoning: row['reasoning'] } : {}),
    finishReason: String(row['finishReason']) as TeacherAnswer['finishReason'],
    ...(typeof row['note'] === 'string' ? { note: row['note'] } : {}),
    usage: {
      promptTokens: Number(row['promptTokens']),
      cachedPromptTokens: Number(row['cachedPromptTokens']),
      completionTokens: Number(row['completionTokens']),
      ...(row['reasoningTokens'] === null || row['reasoningTokens'] === undefined ? {} : { reasoningTokens: Number(row['reasoningTokens']) }),
    },
    costUsd: Number(row['costUsd']),
    latencyMs: Number(row['latencyMs']),
    model: String(row['model']),
  };
}

/** Columns of `calls c LEFT JOIN answers a`. */
export const BOUGHT_SUMS = `COUNT(a.key) AS calls, COUNT(*) FILTER (WHERE a.key IS NULL AND c.intents > 0) AS open, TOTAL(c.boundUsd) FILTER (WHERE a.key IS NULL AND c.intents > 0) AS openUsd, COUNT(*) FILTER (WHERE c.intents > 1) AS repeated,
  TOTAL(a.promptTokens) AS promptTokens, TOTAL(a.completionTokens) AS completionTokens, TOTAL(a.costUsd) AS costUsd, TOTAL(a.reasoningTokens) AS reasoningTokens`;
/** Columns of `losses c`. */
export const LOST_SUMS = 'COUNT(*) AS lost, TOTAL(c.costUsd) AS lostUsd, TOTAL(c.tokens) AS lostTokens';
/** Columns of `reuses u JOIN answers a`. */
export const REUSED_SUMS = 'COUNT(*) AS reused, TOTAL(a.costUsd) AS savedUsd';

const TOTALS: readonly (keyof LedgerTotals)[] = ['calls', 'open', 'openUsd', 'repeated', 'promptTokens', 'completionTokens', 'costUsd', 'reused', 'savedUsd', 'lost', 'lostUsd', 'reasoningTokens'];

export function totalsOf(...rows: readonly (Row | undefined)[]): LedgerTotals {
  const sum = (name: string): number => rows.reduce((total, row) => total + Number(row?.[name] ?? 0), 0);
  return Object.fromEntries(TOTALS.map((name) => [name, sum(name)])) as unknown as LedgerTotals;
}
