/** `still ledger`: what this machine's ledger holds. It is read where it lies, so it answers without a running stack too. */
import { existsSync } from 'node:fs';
import { homePaths } from '../config.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { LedgerTotals, LedgerUsage } from '../ledger/ledger.ts';
import { createLedger } from '../ledger/sqlite-ledger.ts';
import type { CommandContext } from './commands.ts';
import { table } from './format.ts';

const HEADER = ['campaign', 'model', 'for', 'calls', 'open', 'asked twice', 'prompt tokens', 'completion tokens', 'reasoning', 'USD', 'lost', 'USD at most', 'reused', 'USD saved'];

const columns = ({ calls, open, openUsd, repeated, promptTokens, completionTokens, reasoningTokens, costUsd, lost, lostUsd, reused, savedUsd }: LedgerTotals): readonly string[] => [
  ...[calls, open, repeated, promptTokens, completionTokens, reasoningTokens].map(String), costUsd.toFixed(6), String(lost), (lostUsd + openUsd).toFixed(6), String(reused), savedUsd.toFixed(6),
];

/** A local model's name carries the hash of its weights: its first digits tell two apart. */
const shortModel = (model: string): string => model.replace(/@sha256:([0-9a-f]{8})[0-9a-f]+$/, '@$1');

const line = (usage: LedgerUsage): readonly string[] => [usage.campaign, shortModel(usage.model), usage.purpose ?? '', ...columns(usage)];

export async function ledgerTotals({ config, json }: CommandContext, campaign?: string): Promise<number> {
  const path = homePaths(config.home).ledger;
  if (!existsSync(path)) throw new StillhouseError('NOT_FOUND', `expected a ledger at ${path}, got none: no campaign has asked a teacher in this home folder yet`);
  const ledger = createLedger(path);
  try {
    const filter = campaign === undefined ? {} : { campaign };
    const [totals, usage] = await Promise.all([ledger.totals(filter), ledger.usage(filter)]);
    const text = table(HEADER, [...usage.map(line), ['all', '', '', ...columns(totals)]]);
    process.stdout.write(`${json ? JSON.stringify({ ledger: path, ...filter, ...totals, usage }, undefined, 2) : text}\n`);
    return 0;
  } finally {
    await ledger.close();
  }
}
