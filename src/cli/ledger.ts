/** `still ledger`: what this machine's ledger holds. It is read where it lies, so it answers without a running stack too. */
import { existsSync } from 'node:fs';
import { homePaths } from '../config.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { createLedger } from '../ledger/sqlite-ledger.ts';
import type { CommandContext } from './commands.ts';
import { table } from './format.ts';

export async function ledgerTotals({ config, json }: CommandContext, campaign?: string): Promise<number> {
  const path = homePaths(config.home).ledger;
  if (!existsSync(path)) throw new StillhouseError('NOT_FOUND', `expected a ledger at ${path}, got none: no campaign has asked a teacher in this home folder yet`);
  const ledger = createLedger(path);
  try {
    const totals = await ledger.totals(campaign === undefined ? {} : { campaign });
    const { calls, open, repeated, promptTokens, completionTokens, costUsd } = totals;
    const text = table(
      ['calls', 'open', 'asked twice', 'prompt tokens', 'completion tokens', 'USD'],
      [[calls, open, repeated, promptTokens, completionTokens].map(String).concat(costUsd.toFixed(6))],
    );
    process.stdout.write(`${json ? JSON.stringify({ ledger: path, ...(campaign === undefined ? {} : { campaign }), ...totals }, undefined, 2) : text}\n`);
    return 0;
  } finally {
    await ledger.close();
  }
}
