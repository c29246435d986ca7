/** `still limits`: how fast each provider key may be used, as its provider says and as a person sets it; read and written where it lies. */
import { existsSync } from 'node:fs';
import { homePaths } from '../config.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { createSharedLimits } from '../teacher/shared-limits.ts';
import type { AccountState } from '../teacher/shared-limits.ts';
import type { CommandContext } from './commands.ts';
import { table } from './format.ts';

export interface LimitsChange {
  readonly provider?: string;
  readonly key?: string;
  /** None lifts what was set. */
  readonly requests?: number | 'none';
  readonly tokens?: number | 'none';
}

const rate = (value: number | 'none'): number | null => (value === 'none' ? null : value);
const rates = ({ learned, set, effective }: AccountState['requestsPerMinute']): readonly string[] => [learned, set, effective].map((rate) => (rate === undefined ? '' : String(rate)));

function limitsTable(accounts: readonly AccountState[]): string {
  if (accounts.length === 0) return 'no provider key has been used so far';
  return table(
    ['provider', 'key', 'requests/min: provider', 'set', 'now', 'tokens/min: provider', 'set', 'now', 'waiting', 'paused until'],
    accounts.map(({ provider, keyName, requestsPerMinute, tokensPerMinute, waiting, pausedUntilMs }) => [
      provider, keyName, ...rates(requestsPerMinute), ...rates(tokensPerMinute), waiting.join(' '), pausedUntilMs === undefined ? '' : new Date(pausedUntilMs).toISOString(),
    ]),
  );
}

/** Shows all keys; with a rate, first sets it for the keys of a provider. Workers obey within a quarter of a second. */
export async function limits({ config, json }: CommandContext, { provider, key, requests, tokens }: LimitsChange): Promise<number> {
  const path = homePaths(config.home).limits;
  if (!existsSync(path)) throw new StillhouseError('NOT_FOUND', `expected rate limits at ${path}, got none: no campaign has asked a provider in this home folder yet`);
  using shared = createSharedLimits(path);
  if (requests !== undefined || tokens !== undefined) {
    if (provider === undefined) throw new StillhouseError('BAD_INPUT', `limits: expected --provider with a rate, got none; there are ${[...new Set(shared.list().map((account) => account.provider))].join(', ') || 'none'}`);
    const changed = shared.set(
      { provider: provider.replace(/\/+$/, ''), ...(key === undefined ? {} : { keyName: key }) },
      { ...(requests === undefined ? {} : { requestsPerMinute: rate(requests) }), ...(tokens === undefined ? {} : { tokensPerMinute: rate(tokens) }) },
    );
    if (changed === 0) throw new StillhouseError('NOT_FOUND', `expected a key of ${provider}${key === undefined ? '' : ` named ${key}`} that was used, got none; there are ${shared.list().map((account) => `${account.provider} ${account.keyName}`).join(', ') || 'none'}`);
  }
  const accounts = shared.list();
  process.stdout.write(`${json ? JSON.stringify({ accounts }, undefined, 2) : limitsTable(accounts)}\n`);
  return 0;
}
