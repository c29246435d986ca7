/**
 * What hosted models cost and how long they are there: a table whose entries carry the dates for which
 * they hold and the page that says so. A spec's own price always wins.
 */
import type { EndpointSpec, HostedStudentSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherRequest, TokenUsage } from '../contracts/records.ts';

/** Dollars per million tokens. */
export interface Price {
  readonly inputUsdPerMillion: number;
  readonly cachedInputUsdPerMillion: number;
  readonly outputUsdPerMillion: number;
  /** What a batch call costs of it. Absent: no batches at a price of their own. */
  readonly batchShare?: number;
}

/** Days are ISO 8601, and the first or last on which something holds, in UTC. */
export interface ListedPrice extends Price {
  /** The family; a dated snapshot such as `gpt-4o-2024-08-06` belongs to the longest family name that it starts with. */
  readonly model: string;
  /** The day on which the price was read at its source, and from which it is taken to hold. */
  readonly from: string;
  readonly until?: string;
  /** The day on which the provider announced the model's end. */
  readonly deprecatedOn?: string;
  /** The day from which the provider answers no more. */
  readonly retiresOn?: string;
  readonly source: string;
  /** Of models that can be fine-tuned: what a trained token costs, and what the fine-tuned model's own tokens do. */
  readonly fineTuned?: Price & { readonly trainingUsdPerMillion: number };
}

/** The provider whose table this is; the same names elsewhere have the same price and other dates. */
const PROVIDER_HOST = 'api.openai.com';
const PRICING = 'https://platform.openai.com/docs/pricing';
export const PRICES_CHECKED_ON = '2026-06-21';
/** https://platform.openai.com/docs/deprecations: gpt-4o and gpt-4.1 with their fine-tunes. */
const GPT_4_RETIRES_ON = '2027-01-14';
/** The last day on which the provider takes new fine-tuning jobs, from anyone. Same source. */
export const LAST_FINE_TUNING_DAY = '2027-01-06';

const listed = (model: string, input: number, cached: number, output: number, dates: Partial<ListedPrice> = {}): ListedPrice => ({
  model, inputUsdPerMillion: input, cachedInputUsdPerMillion: cached, outputUsdPerMillion: output, batchShare: 0.5, from: PRICES_CHECKED_ON, source: PRICING, ...dates,
});

/** https://platform.openai.com/docs/pricing, fine-tuning, standard tier. */
const fineTuned = (training: number, input: number, cached: number, output: number): NonNullable<ListedPrice['fineTuned']> => ({
  trainingUsdPerMillion: training, inputUsdPerMillion: input, cachedInputUsdPerMillion: cached, outputUsdPerMillion: output, batchShare: 0.5,
});

/** Standard tier; batches at half of it. A price that changes gets an entry of its own, and the old one its last day. */
export const PRICES: readonly ListedPrice[] = [
  listed('gpt-4o', 2.5, 1.25, 10, { retiresOn: GPT_4_RETIRES_ON, fineTuned: fineTuned(25, 3.75, 1.875, 15) }),
  listed('gpt-4o-2024-05-13', 5, 5, 15, { retiresOn: GPT_4_RETIRES_ON }),
  listed('gpt-4o-mini', 0.15, 0.075, 0.6, { retiresOn: GPT_4_RETIRES_ON, fineTuned: fineTuned(3, 0.3, 0.15, 1.2) }),
  listed('gpt-4.1', 2, 0.5, 8, { retiresOn: GPT_4_RETIRES_ON, fineTuned: fineTuned(25, 3, 0.75, 12) }),
  listed('gpt-4.1-mini', 0.4, 0.1, 1.6, { retiresOn: GPT_4_RETIRES_ON, fineTuned: fineTuned(5, 0.8, 0.2, 3.2) }),
  listed('gpt-4.1-nano', 0.1, 0.025, 0.4, { retiresOn: GPT_4_RETIRES_ON, fineTuned: fineTuned(1.5, 0.2, 0.05, 0.8) }),
  listed('gpt-5', 1.25, 0.125, 10),
  listed('gpt-5-mini', 0.25, 0.025, 2),
  listed('gpt-5-nano', 0.05, 0.005, 0.4),
  listed('gpt-5.4', 2.5, 0.25, 15),
  listed('gpt-5.4-mini', 0.75, 0.075, 4.5),
  listed('gpt-5.4-nano', 0.2, 0.02, 1.25),
  listed('gpt-5.5', 5, 0.5, 30),
];

/** Why an endpoint takes no new fine-tuning jobs at a time; undefined where it is not known to refuse them. `nowMs` since the epoch. */
export function fineTuningClosed(baseUrl: string, nowMs: number): string | undefined {
  if (!isListedProvider(baseUrl) || dayOf(nowMs) <= LAST_FINE_TUNING_DAY) return undefined;
  return `OpenAI takes no new fine-tuning jobs after ${LAST_FINE_TUNING_DAY}`;
}

const dayOf = (nowMs: number): string => new Date(nowMs).toISOString().slice(0, 10);

/**
 * The entry that holds on the day of `nowMs`; before the table's first day, its first. Of a fine-tuned
 * model (`ft:BASE:ORGANISATION:SUFFIX:ID`) what its provider asks for fine-tuned models of that base.
 * `prices` is the table.
 */
export function listedPrice(model: string, nowMs: number = Date.now(), prices: readonly ListedPrice[] = PRICES): ListedPrice | undefined {
  const base = /^ft:([^:]+)/.exec(model)?.[1];
  if (base !== undefined) {
    const { fineTuned, ...entry } = listedPrice(base, nowMs, prices) ?? {};
    return fineTuned === undefined ? undefined : { ...(entry as ListedPrice), ...fineTuned };
  }
  const ofModel = prices.filter(({ model: family }) => model.startsWith(family) && /^(-\d{4}-\d{2}-\d{2})?$/.test(model.slice(family.length)));
  const longest = Math.max(...ofModel.map(({ model: family }) => family.length));
  const entries = ofModel.filter(({ model: family }) => family.length === longest).sort((a, b) => (a.from < b.from ? -1 : 1));
  const day = dayOf(nowMs);
  const begun = entries.filter(({ from }) => from <= day);
  const latest = begun.at(-1) ?? entries[0];
  return latest?.until !== undefined && latest.until < day ? undefined : latest;
}

/** The table's dates are those of one provider: `https://api.openai.com/v1` and what stands for it when nothing is said. */
const isListedProvider = (baseUrl: string | undefined): boolean => baseUrl === undefined || new URL(baseUrl).hostname === PROVIDER_HOST;

/** A model and where it is asked. */
export type HostedModel = Pick<EndpointSpec, 'provider' | 'model'> & { readonly baseUrl?: string | undefined };

/** The day from which the endpoint's model is gone, where that is known. A fine-tuned model (`ft:BASE:…`) goes with its base. */
export function retirementDay(endpoint: HostedModel, nowMs: number = Date.now()): string | undefined {
  if (endpoint.provider !== 'openai' || !isListedProvider(endpoint.baseUrl)) return undefined;
  return listedPrice(endpoint.model, nowMs)?.retiresOn;
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
  const known = listedPrice(endpoint.model);
  if (known !== undefined) return known;
  if (isLoopback(baseUrl)) return { inputUsdPerMillion: 0, cachedInputUsdPerMillion: 0, outputUsdPerMillion: 0 };
  throw new StillhouseError(
    'BAD_INPUT',
    `expected a price for the model ${endpoint.model} at ${baseUrl}, which the price table of ${PRICES_CHECKED_ON} does not list: add price: { inputUsdPerMillion, outputUsdPerMillion } beside the model (0 for a server of your own)`,
    { details: { path: 'price', listed: PRICES.map(({ model }) => model) } },
  );
}

/** What a trained token costs: the spec's price, else the table's, else nothing for a server on this machine; BAD_INPUT for any other. */
export function trainingUsdPerMillion({ model, price }: HostedStudentSpec, baseUrl: string): number {
  if (price !== undefined) return price.trainingUsdPerMillion;
  const known = listedPrice(model)?.fineTuned;
  if (known !== undefined) return known.trainingUsdPerMillion;
  if (isLoopback(baseUrl)) return 0;
  const tunable = PRICES.filter((entry) => entry.fineTuned !== undefined).map((entry) => entry.model);
  throw new StillhouseError(
    'BAD_INPUT',
    `expected a price for fine-tuning the model ${model} at ${baseUrl}, which the price table of ${PRICES_CHECKED_ON} does not list: add price: { trainingUsdPerMillion, inputUsdPerMillion, outputUsdPerMillion } to the student`,
    { details: { path: 'student.price', listed: tunable } },
  );
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
