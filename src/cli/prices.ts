/** `still prices`: what this home takes hosted models to cost, where that was read, and how old it is. */
import type { CommandContext } from './commands.ts';
import { output } from './commands.ts';
import { table } from './format.ts';
import { ownPrices, ownPricesPath, PRICES, useOwnPrices } from '../teacher/price-table.ts';
import type { ListedPrice } from '../teacher/price-table.ts';

/** Providers change prices about once a quarter. */
const OLD_AFTER_DAYS = 90;
const MS_PER_DAY = 24 * 3_600_000;
const HEADER = ['model', 'host', 'input', 'cached', 'output', 'batch', 'training', 'from', 'until', 'retires', 'table', 'source'];

interface Line extends ListedPrice {
  readonly table: 'home' | 'shipped';
  readonly ageDays: number;
  readonly old: boolean;
}

function linesOf(prices: readonly ListedPrice[], which: Line['table'], nowMs: number): readonly Line[] {
  return prices.map((entry) => {
    const ageDays = Math.max(0, Math.floor((nowMs - Date.parse(entry.from)) / MS_PER_DAY));
    return { ...entry, table: which, ageDays, old: ageDays > OLD_AFTER_DAYS };
  });
}

function cells(entry: Line): readonly string[] {
  const { model, host = '', inputUsdPerMillion, cachedInputUsdPerMillion = inputUsdPerMillion, outputUsdPerMillion, batchShare = 1, fineTuned, from, until = '', retiresOn = '', table: which, source } = entry;
  return [model, host, String(inputUsdPerMillion), String(cachedInputUsdPerMillion), String(outputUsdPerMillion), `× ${batchShare}`, fineTuned === undefined ? '' : String(fineTuned.trainingUsdPerMillion), from, until, retiresOn, which, source];
}

/** Without the shipped entries whose model the home's own table has. */
export async function prices(context: CommandContext, nowMs: number = Date.now()): Promise<number> {
  useOwnPrices(context.config.prices);
  const own = linesOf(ownPrices(), 'home', nowMs);
  const lines = [...own, ...linesOf(PRICES, 'shipped', nowMs).filter(({ model }) => !own.some((each) => each.model === model))];
  const old = lines.filter((line) => line.old);
  const notes = [
    `Dollars per million tokens; own prices: ${ownPricesPath()}${own.length === 0 ? ' (none there)' : ''}`,
    ...(old.length === 0 ? [] : [`${old.length} of ${lines.length} prices were read more than ${OLD_AFTER_DAYS} days ago, the oldest on ${old.map(({ from }) => from).sort()[0]}: compare them with their sources`]),
  ];
  output(context, { ownPrices: ownPricesPath(), oldAfterDays: OLD_AFTER_DAYS, old: old.length, prices: lines }, () => [table(HEADER, lines.map(cells)), ...notes].join('\n'));
  return 0;
}
