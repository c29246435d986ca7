/** `still limits`: how fast each provider key may be used, as its provider says and as a person sets it; read and written where it lies. */
import { existsSync } from 'node:fs';
import { homePaths } from '../config.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { createSharedLimits } from '../teacher/shared-limits.ts';
import { createTraitBook } from '../teacher/trait-book.ts';
import type { LearnedTraits } from '../teacher/trait-book.ts';
import type { AccountState } from '../teacher/shared-limits.ts';
import type { CommandContext } from './commands.ts';
import { table } from './format.ts';

export interface LimitsChange {
  readonly provider?: string;
  readonly key?: string;
  /** None lifts what was set. */
  readonly requests?: number | 'none';
  readonly tokens?: number | 'none';
  /** Forget what the provider's models turned out not to take: they are tried with everything again. */
  readonly forget?: boolean;
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

function traitsTable(learned: readonly LearnedTraits[]): string {
  const rows = learned.flatMap(({ provider, model, changes, reasons }) =>
    Object.entries(changes).map(([feature, value]) => [provider, model, feature, String(value), reasons[feature] === undefined ? '' : new Date(reasons[feature].atMs).toISOString().slice(0, 10), (reasons[feature]?.words ?? '').slice(0, 100)]),
  );
  return rows.length === 0 ? '' : `\n\n${table(['provider', 'model', 'learned of', 'is', 'on', 'because it said'], rows)}`;
}

/** Shows all keys, and what their providers' models turned out to take; with a rate, first sets it for the keys of a provider. Workers obey within a quarter of a second. */
export async function limits({ config, json }: CommandContext, { provider, key, requests, tokens, forget }: LimitsChange): Promise<number> {
  const path = homePaths(config.home).limits;
  if (!existsSync(path)) throw new StillhouseError('NOT_FOUND', `expected rate limits at ${path}, got none: no campaign has asked a provider in this home folder yet`);
  using shared = createSharedLimits(path);
  using book = createTraitBook(path);
  if (forget === true) {
    if (provider === undefined) throw new StillhouseError('BAD_INPUT', `limits: expected --provider with --forget, got none; something is known of ${[...new Set(book.list().map((each) => each.provider))].join(', ') || 'none'}`);
    if (book.forget(provider.replace(/\/+$/, '')) === 0) throw new StillhouseError('NOT_FOUND', `expected a provider of whose models something was learned, got ${provider}; there are ${[...new Set(book.list().map((each) => each.provider))].join(', ') || 'none'}`);
  }
  if (requests !== undefined || tokens !== undefined) {
    if (provider === undefined) throw new StillhouseError('BAD_INPUT', `limits: expected --provider with a rate, got none; there are ${[...new Set(shared.list().map((account) => account.provider))].join(', ') || 'none'}`);
    const changed = shared.set(
      { provider: provider.replace(/\/+$/, ''), ...(key === undefined ? {} : { keyName: key }) },
      { ...(requests === undefined ? {} : { requestsPerMinute: rate(requests) }), ...(tokens === undefined ? {} : { tokensPerMinute: rate(tokens) }) },
    );
    if (changed === 0) throw new StillhouseError('NOT_FOUND', `expected a key of ${provider}${key === undefined ? '' : ` named ${key}`} that was used, got none; there are ${shared.list().map((account) => `${account.provider} ${account.keyName}`).join(', ') || 'none'}`);
  }
  const [accounts, learned] = [shared.list(), book.list()];
  process.stdout.write(`${json ? JSON.stringify({ accounts, learned }, undefined, 2) : `${limitsTable(accounts)}${traitsTable(learned)}`}\n`);
  return 0;
}
