/** Estimates on this machine: its datasets, and its ledger where there is one. */
import { existsSync } from 'node:fs';
import type { AssetOptions } from '../assets/assets.ts';
import { createAssets } from '../assets/create-assets.ts';
import { homePaths } from '../config.ts';
import type { Config } from '../config.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { formatUsd } from '../contracts/money.ts';
import type { OpenLengths } from '../dataset/lengths.ts';
import { createLedger } from '../ledger/sqlite-ledger.ts';
import { createTraitBook } from '../teacher/trait-book.ts';
import { lengthsBy } from '../training/lengths.ts';
import { useOwnPrices } from '../teacher/price-table.ts';
import { estimateCampaign } from './estimate.ts';
import type { Estimate } from './estimate.ts';

export type Estimator = (spec: CampaignSpec, options?: AssetOptions) => Promise<Estimate>;

/** A student that is not here yet is fetched for so long; what has come stays, and the next estimate goes on with it. */
const FETCH_MS = 30_000;

export function createEstimator(config: Config): Estimator {
  const assets = createAssets(config);
  useOwnPrices(config.prices);
  const open = lengthsBy(assets);
  const lengths: OpenLengths = (spec, options = {}) => open(spec, { ...options, signal: AbortSignal.any([AbortSignal.timeout(FETCH_MS), ...(options.signal === undefined ? [] : [options.signal])]) });
  return async (spec, options) => {
    const paths = homePaths(config.home);
    await using opened = new AsyncDisposableStack();
    const ledger = existsSync(paths.ledger) ? opened.adopt(createLedger(paths.ledger), (each) => each.close()) : undefined;
    const traits = existsSync(paths.limits) ? opened.use(createTraitBook(paths.limits)) : undefined;
    return await estimateCampaign({ assets, ledger, traits, lengths }, spec, options);
  };
}

/** Where the campaign is likely to meet its limits. */
export function limitWarnings({ budget }: CampaignSpec, { usd, tokens, callHours, trainingHours }: Estimate): readonly string[] {
  const warn = (name: string, limit: number | undefined, expected: number, high: number, text: (value: number) => string): readonly string[] => {
    if (limit === undefined || high <= limit) return [];
    const what = expected > limit ? `is likely to need ${text(expected)}` : `may need up to ${text(high)}`;
    return [`budget.${name}: the campaign ${what}, and its limit is ${text(limit)}: at the limit it pauses and says what it needs`];
  };
  return [
    ...warn('usd', budget.usd, usd.expected, usd.high, (value) => formatUsd(Math.ceil(100 * value) / 100)),
    ...warn('tokens', budget.tokens, tokens.expected, tokens.high, String),
    ...warn('hours', budget.hours, callHours.expected + (trainingHours?.expected ?? 0), callHours.high + (trainingHours?.high ?? 0), (hours) => `${hours.toFixed(1)} hours`),
  ];
}
