/** Tables of prices as files: the one that is shipped, and the one of a home folder, which wins. */
import { readFileSync, statSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';
import { StillhouseError } from '../contracts/errors.ts';

const usd = z.number().min(0);
const day = z.iso.date();
const priceShape = { inputUsdPerMillion: usd, cachedInputUsdPerMillion: usd.exactOptional(), outputUsdPerMillion: usd, batchShare: z.number().gt(0).max(1).exactOptional() };
const fineTunedSchema = z.strictObject({ ...priceShape, trainingUsdPerMillion: usd });

/** Days are ISO 8601, and the first or last on which something holds, in UTC. */
const entrySchema = z.strictObject({
  /** The family; a dated snapshot such as `gpt-4o-2024-08-06` belongs to the longest family name that it starts with. */
  model: z.string().min(1),
  ...priceShape,
  /** Where the price holds. Absent: wherever a model of this name is asked. */
  host: z.string().min(1).exactOptional(),
  /** The day on which the price was read at its source, and from which it is taken to hold. */
  from: day,
  until: day.exactOptional(),
  deprecatedOn: day.exactOptional(),
  retiresOn: day.exactOptional(),
  source: z.string().min(1),
  fineTuned: fineTunedSchema.exactOptional(),
});
const fileSchema = z.strictObject({ prices: z.array(entrySchema) });

export type ListedPrice = z.infer<typeof entrySchema>;

const SHIPPED = new URL('prices.yaml', import.meta.url);

/** BAD_INPUT with every key that is wrong. */
export function parsePrices(text: string, path: string): readonly ListedPrice[] {
  let value: unknown;
  try {
    // Days are texts: of what else YAML makes of them the schema would not hear.
    value = parse(text, { schema: 'core' });
  } catch (error) {
    throw new StillhouseError('BAD_INPUT', `expected prices as YAML in ${path}, got ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  const parsed = fileSchema.safeParse(value ?? { prices: [] });
  if (parsed.success) return parsed.data.prices;
  const lines = parsed.error.issues.map(({ path: keys, message }) => `${keys.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('').replace(/^\./, '') || 'the file'}: ${message}`);
  throw new StillhouseError('BAD_INPUT', `expected a table of prices in ${path}, got ${lines.join('; ')}`);
}

export const PRICES: readonly ListedPrice[] = parsePrices(readFileSync(SHIPPED, 'utf8'), 'src/teacher/prices.yaml');

/** Of a home folder: read again when it has changed. */
interface OwnPrices {
  readonly path: string;
  stamp: string;
  prices: readonly ListedPrice[];
}
let own: OwnPrices | undefined;

/** From now on this process goes by the file, whenever there is one. */
export function useOwnPrices(path: string): void {
  if (own?.path !== path) own = { path, stamp: '', prices: [] };
}

/** Entries of the home's own table; none where it has no file. */
export function ownPrices(): readonly ListedPrice[] {
  if (own === undefined) return [];
  const status = statSync(own.path, { throwIfNoEntry: false });
  const stamp = status === undefined ? '' : `${status.mtimeMs} ${status.size} ${status.ino}`;
  if (stamp !== own.stamp) {
    own.prices = status === undefined ? [] : parsePrices(readFileSync(own.path, 'utf8'), own.path);
    own.stamp = stamp;
  }
  return own.prices;
}

export const ownPricesPath = (): string | undefined => own?.path;
