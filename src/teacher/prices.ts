/**
 * What hosted models cost and how long they are there: a spec's own price, else the home's table, else
 * the one that is shipped, each entry with the days for which it holds and the page that says so.
 */
import type { EndpointSpec, HostedStudentSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherRequest, TokenUsage } from '../contracts/records.ts';
import { ownPrices, ownPricesPath, PRICES } from './price-table.ts';
import type { ListedPrice } from './price-table.ts';

/** Dollars per million tokens. */
export interface Price {
  readonly inputUsdPerMillion: number;
  readonly cachedInputUsdPerMillion: number;
  readonly outputUsdPerMillion: number;
  /** What a batch call costs of it. Absent: no batches at a price of their own. */
  readonly batchShare?: number;
}

/** Whose names the entries without a host are: elsewhere they have the same price and other dates. */
const PROVIDER_HOST = 'api.openai.com';
/** The last day on which the provider takes new fine-tuning jobs, from anyone. https://platform.openai.com/docs/deprecations */
export const LAST_FINE_TUNING_DAY = '2027-01-06';

/** Why an endpoint takes no new fine-tuning jobs at a time; undefined where it is not known to refuse them. `nowMs` since the epoch. */
export function fineTuningClosed(baseUrl: string, nowMs: number): string | undefined {
  if (!isListedProvider(baseUrl) || dayOf(nowMs) <= LAST_FINE_TUNING_DAY) return undefined;
  return `OpenAI takes no new fine-tuning jobs after ${LAST_FINE_TUNING_DAY}`;
}

const dayOf = (nowMs: number): string => new Date(nowMs).toISOString().slice(0, 10);

/** Prices and dates of one model. */
export type KnownPrice = ListedPrice & Price;

const asKnown = (entry: ListedPrice): KnownPrice => ({ ...entry, cachedInputUsdPerMillion: entry.cachedInputUsdPerMillion ?? entry.inputUsdPerMillion });

/** Of the entries that name the model or its family, the one that holds on the day; before the first day, the first, unless they are `dated`. */
function entryOf(model: string, host: string, nowMs: number, prices: readonly ListedPrice[], dated: boolean): KnownPrice | undefined {
  const here = prices.filter((entry) => entry.host === undefined || entry.host === host);
  const ofModel = here.filter(({ model: family }) => model.startsWith(family) && /^(-\d{4}-\d{2}-\d{2})?$/.test(model.slice(family.length)));
  const longest = Math.max(...ofModel.map(({ model: family }) => family.length));
  const entries = ofModel.filter(({ model: family }) => family.length === longest).sort((a, b) => (a.from < b.from ? -1 : 1));
  const day = dayOf(nowMs);
  const latest = entries.filter(({ from }) => from <= day).at(-1) ?? (dated ? undefined : entries[0]);
  return latest === undefined || (latest.until !== undefined && latest.until < day) ? undefined : asKnown(latest);
}

/**
 * The entry that holds on the day of `nowMs`. Of a fine-tuned model (`ft:BASE:ORGANISATION:SUFFIX:ID`)
 * what its provider asks for fine-tuned models of that base. Where the home's table and the shipped one
 * (`prices`) have an entry, the price is the home's; what it does not say of dates and tuned models is the other's.
 */
export function listedPrice(model: string, nowMs: number = Date.now(), baseUrl?: string, prices: readonly ListedPrice[] = PRICES): KnownPrice | undefined {
  const base = /^ft:([^:]+)/.exec(model)?.[1];
  if (base !== undefined) {
    const { fineTuned, ...entry } = listedPrice(base, nowMs, baseUrl, prices) ?? {};
    return fineTuned === undefined ? undefined : asKnown({ ...(entry as KnownPrice), ...fineTuned });
  }
  const host = baseUrl === undefined ? PROVIDER_HOST : new URL(baseUrl).hostname;
  const shipped = entryOf(model, host, nowMs, prices, false);
  const own = entryOf(model, host, nowMs, ownPrices(), true);
  if (own === undefined || shipped === undefined) return own ?? shipped;
  const { deprecatedOn, retiresOn, fineTuned } = shipped;
  return { ...(deprecatedOn === undefined ? {} : { deprecatedOn }), ...(retiresOn === undefined ? {} : { retiresOn }), ...(fineTuned === undefined ? {} : { fineTuned }), ...own };
}

/** `https://api.openai.com/v1` and what stands for it when nothing is said. */
const isListedProvider = (baseUrl: string | undefined): boolean => baseUrl === undefined || new URL(baseUrl).hostname === PROVIDER_HOST;

/** A model and where it is asked. */
export type HostedModel = Pick<EndpointSpec, 'provider' | 'model'> & { readonly baseUrl?: string | undefined };

/** The day from which the endpoint's model is gone, where that is known. A fine-tuned model (`ft:BASE:…`) goes with its base. */
export function retirementDay(endpoint: HostedModel, nowMs: number = Date.now()): string | undefined {
  if (endpoint.provider !== 'openai') return undefined;
  const known = listedPrice(endpoint.model, nowMs, endpoint.baseUrl);
  return known?.host === undefined && !isListedProvider(endpoint.baseUrl) ? undefined : known?.retiresOn;
}

/** Where a campaign's hours have no limit, its end is looked for within so many days. */
const DEFAULT_HORIZON_DAYS = 30;
const MS_PER_HOUR = 3_600_000;

export interface Retirement {
  readonly day: string;
  /** Gone already, or gone before the campaign must be over. */
  readonly state: 'retired' | 'retiring';
}

/** Whether the model's end lies in the past or within the campaign's hours; undefined where it does not, or is not known. */
export function retirementOf(endpoint: HostedModel, hours: number | undefined, nowMs: number = Date.now()): Retirement | undefined {
  const day = retirementDay(endpoint, nowMs);
  if (day === undefined) return undefined;
  if (day <= dayOf(nowMs)) return { day, state: 'retired' };
  const endMs = nowMs + (hours ?? DEFAULT_HORIZON_DAYS * 24) * MS_PER_HOUR;
  return Date.parse(day) <= endMs ? { day, state: 'retiring' } : undefined;
}

/** The price of a batch call: a share of the standard one where the provider has batches. */
export function batchPrice(price: Price): Price {
  const { batchShare = 1 } = price;
  return {
    inputUsdPerMillion: price.inputUsdPerMillion * batchShare,
    cachedInputUsdPerMillion: price.cachedInputUsdPerMillion * batchShare,
    outputUsdPerMillion: price.outputUsdPerMillion * batchShare,
  };
}

const isLoopback = (url: string): boolean => ['localhost', '127.0.0.1', '[::1]'].includes(new URL(url).hostname);

/**
 * What an endpoint's tokens cost: the spec's price, else the table's, else nothing for a server on this
 * machine. BAD_INPUT for any other: a budget in dollars cannot hold without a price.
 */
export function priceOf(endpoint: EndpointSpec, baseUrl: string): Price {
  if (endpoint.price !== undefined) {
    const { inputUsdPerMillion, cachedInputUsdPerMillion = inputUsdPerMillion, outputUsdPerMillion, batchShare } = endpoint.price;
    return { inputUsdPerMillion, cachedInputUsdPerMillion, outputUsdPerMillion, ...(batchShare === undefined ? {} : { batchShare }) };
  }
  const known = listedPrice(endpoint.model, Date.now(), baseUrl);
  if (known !== undefined) return known;
  if (isLoopback(baseUrl)) return { inputUsdPerMillion: 0, cachedInputUsdPerMillion: 0, outputUsdPerMillion: 0 };
  throw noPrice(`a price for the model ${endpoint.model} at ${baseUrl}`, 'price', endpoint.model, 'inputUsdPerMillion: 1.25, outputUsdPerMillion: 10', 'inputUsdPerMillion: 1.25, outputUsdPerMillion: 10');
}

/** One message that shows what to write, here and there. */
function noPrice(what: string, path: string, model: string, beside: string, listed: string): StillhouseError {
  const today = dayOf(Date.now());
  const expected = `${what}, in dollars per million tokens, as one of
    price: { ${beside} }          # beside the model in the spec; 0 for a server of your own
    - { model: ${JSON.stringify(model)}, ${listed}, from: ${today}, source: https://… }   # under "prices:" in ${ownPricesPath() ?? 'prices.yaml of the home folder'}, for all campaigns
  with its own prices in place of these`;
  const got = `none: neither the spec nor a table names one (${'`still prices`'} lists them)`;
  return new StillhouseError('BAD_INPUT', `expected ${expected}, got ${got}`, { details: { path, expected, got } });
}

/** What a trained token costs: the spec's price, else the table's, else nothing for a server on this machine; BAD_INPUT for any other. */
export function trainingUsdPerMillion({ model, price }: HostedStudentSpec, baseUrl: string): number {
  if (price !== undefined) return price.trainingUsdPerMillion;
  const known = listedPrice(model, Date.now(), baseUrl)?.fineTuned;
  if (known !== undefined) return known.trainingUsdPerMillion;
  if (isLoopback(baseUrl)) return 0;
  const tuned = 'trainingUsdPerMillion: 25, inputUsdPerMillion: 3.75, outputUsdPerMillion: 15';
  throw noPrice(`a price for fine-tuning the model ${model} at ${baseUrl}`, 'student.price', model, tuned, `inputUsdPerMillion: 2.5, outputUsdPerMillion: 10, fineTuned: { ${tuned} }`);
}

export function costUsd(price: Price, usage: TokenUsage): number {
  const fresh = usage.promptTokens - usage.cachedPromptTokens;
  return (fresh * price.inputUsdPerMillion + usage.cachedPromptTokens * price.cachedInputUsdPerMillion + usage.completionTokens * price.outputUsdPerMillion) / 1e6;
}

/** Role, separators and the opening of the answer: at most so many tokens a message in known chat formats. */
const TOKENS_PER_MESSAGE = 8;
const TOKENS_PER_CALL = 16;

/**
 * The most that one call can use: a byte-level vocabulary never makes more tokens than there are bytes.
 * A JSON task counts its schema twice, because an endpoint without schemas gets it in the prompt as well.
 */
export function tokenUpperBound(request: TeacherRequest): { readonly promptTokens: number; readonly completionTokens: number } {
  const { task } = request;
  const chat = task.messages.reduce((sum, message) => sum + Buffer.byteLength(message.content) + TOKENS_PER_MESSAGE, TOKENS_PER_CALL);
  const schema = task.kind === 'json' ? 2 * Buffer.byteLength(JSON.stringify(task.schema)) + 64 : 0;
  return { promptTokens: chat + schema, completionTokens: task.parameters.maxTokens };
}
