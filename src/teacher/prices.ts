/**
 * What hosted models cost, with the date on which the table was checked and the dates after which a
 * model is gone. A spec's own price always wins.
 */
import type { EndpointSpec, HostedStudentSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherRequest, TokenUsage } from '../contracts/records.ts';

/** Dollars per million tokens. */
export interface Price {
  readonly inputUsdPerMillion: number;
  readonly cachedInputUsdPerMillion: number;
  readonly outputUsdPerMillion: number;
}

interface ListedPrice extends Price {
  /** The last day on which the provider answers, ISO 8601. */
  readonly retiredOn?: string;
  /** Of models that can be fine-tuned: what a trained token costs, and what the fine-tuned model's own tokens do. */
  readonly fineTuned?: Price & { readonly trainingUsdPerMillion: number };
}

/** https://platform.openai.com/docs/pricing, standard tier. */
export const PRICES_CHECKED_ON = '2026-06-21';

const listed = (input: number, cached: number, output: number, retiredOn?: string): ListedPrice => ({
  inputUsdPerMillion: input,
  cachedInputUsdPerMillion: cached,
  outputUsdPerMillion: output,
  ...(retiredOn === undefined ? {} : { retiredOn }),
});

/** https://platform.openai.com/docs/deprecations: gpt-4o and gpt-4.1 with their fine-tunes. */
const GPT_4_RETIRED_ON = '2027-01-14';

/** The last day on which OpenAI takes new fine-tuning jobs, ISO 8601. https://platform.openai.com/docs/deprecations */
export const FINE_TUNING_ENDS_ON = '2027-01-06';

/** Why an endpoint takes no new fine-tuning jobs at a time; undefined where it is not known to refuse them. `nowMs` since the epoch. */
export function fineTuningClosed(baseUrl: string, nowMs: number): string | undefined {
  if (new URL(baseUrl).hostname !== 'api.openai.com' || new Date(nowMs).toISOString().slice(0, 10) <= FINE_TUNING_ENDS_ON) return undefined;
  return `OpenAI takes no new fine-tuning jobs after ${FINE_TUNING_ENDS_ON}`;
}

/** https://platform.openai.com/docs/pricing, fine-tuning, standard tier. */
const fineTunable = (price: ListedPrice, training: number, input: number, cached: number, output: number): ListedPrice => ({
  ...price,
  fineTuned: { trainingUsdPerMillion: training, inputUsdPerMillion: input, cachedInputUsdPerMillion: cached, outputUsdPerMillion: output },
});

/** By family; a dated snapshot such as `gpt-4o-2024-08-06` belongs to the longest family name that it starts with. */
const PRICES: Readonly<Record<string, ListedPrice>> = {
  'gpt-4o': fineTunable(listed(2.5, 1.25, 10, GPT_4_RETIRED_ON), 25, 3.75, 1.875, 15),
  'gpt-4o-2024-05-13': listed(5, 5, 15, GPT_4_RETIRED_ON),
  'gpt-4o-mini': fineTunable(listed(0.15, 0.075, 0.6, GPT_4_RETIRED_ON), 3, 0.3, 0.15, 1.2),
  'gpt-4.1': fineTunable(listed(2, 0.5, 8, GPT_4_RETIRED_ON), 25, 3, 0.75, 12),
  'gpt-4.1-mini': fineTunable(listed(0.4, 0.1, 1.6, GPT_4_RETIRED_ON), 5, 0.8, 0.2, 3.2),
  'gpt-4.1-nano': fineTunable(listed(0.1, 0.025, 0.4, GPT_4_RETIRED_ON), 1.5, 0.2, 0.05, 0.8),
  'gpt-5': listed(1.25, 0.125, 10),
  'gpt-5-mini': listed(0.25, 0.025, 2),
  'gpt-5-nano': listed(0.05, 0.005, 0.4),
  'gpt-5.4': listed(2.5, 0.25, 15),
  'gpt-5.4-mini': listed(0.75, 0.075, 4.5),
  'gpt-5.4-nano': listed(0.2, 0.02, 1.25),
  'gpt-5.5': listed(5, 0.5, 30),
};

/** Of a fine-tuned model (`ft:BASE:ORGANISATION:SUFFIX:ID`) what its provider asks for fine-tuned models of that base. */
export function listedPrice(model: string): ListedPrice | undefined {
  const base = /^ft:([^:]+)/.exec(model)?.[1];
  if (base !== undefined) {
    const { fineTuned, retiredOn } = listedPrice(base) ?? {};
    return fineTuned === undefined ? undefined : { ...fineTuned, ...(retiredOn === undefined ? {} : { retiredOn }) };
  }
  const family = Object.keys(PRICES)
    .filter((name) => model.startsWith(name) && /^(-\d{4}-\d{2}-\d{2})?$/.test(model.slice(name.length)))
    .sort((a, b) => b.length - a.length)[0];
  return family === undefined ? undefined : PRICES[family];
}

/** The day after which a listed model no longer answers. */
export const retirementDate = (model: string): string | undefined => listedPrice(model)?.retiredOn;

const isLoopback = (url: string): boolean => ['localhost', '127.0.0.1', '[::1]'].includes(new URL(url).hostname);

/**
 * What an endpoint's tokens cost: the spec's price, else the table's, else nothing for a server on this
 * machine. BAD_INPUT for any other: a budget in dollars cannot hold without a price.
 */
export function priceOf(endpoint: EndpointSpec, baseUrl: string): Price {
  if (endpoint.price !== undefined) {
    const { inputUsdPerMillion, outputUsdPerMillion } = endpoint.price;
    return { inputUsdPerMillion, cachedInputUsdPerMillion: inputUsdPerMillion, outputUsdPerMillion };
  }
  const known = listedPrice(endpoint.model);
  if (known !== undefined) return known;
  if (isLoopback(baseUrl)) return { inputUsdPerMillion: 0, cachedInputUsdPerMillion: 0, outputUsdPerMillion: 0 };
  throw new StillhouseError(
    'BAD_INPUT',
    `expected a price for the model ${endpoint.model} at ${baseUrl}, which the price table of ${PRICES_CHECKED_ON} does not list: add price: { inputUsdPerMillion, outputUsdPerMillion } beside the model (0 for a server of your own)`,
    { details: { path: 'price', listed: Object.keys(PRICES) } },
  );
}

/** What a trained token costs: the spec's price, else the table's, else nothing for a server on this machine; BAD_INPUT for any other. */
export function trainingUsdPerMillion({ model, price }: HostedStudentSpec, baseUrl: string): number {
  if (price !== undefined) return price.trainingUsdPerMillion;
  const known = listedPrice(model)?.fineTuned;
  if (known !== undefined) return known.trainingUsdPerMillion;
  if (isLoopback(baseUrl)) return 0;
  const fineTuned = Object.keys(PRICES).filter((name) => PRICES[name]?.fineTuned !== undefined);
  throw new StillhouseError(
    'BAD_INPUT',
    `expected a price for fine-tuning the model ${model} at ${baseUrl}, which the price table of ${PRICES_CHECKED_ON} does not list: add price: { trainingUsdPerMillion, inputUsdPerMillion, outputUsdPerMillion } to the student`,
    { details: { path: 'student.price', listed: fineTuned } },
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

export function costUpperBound(price: Price, request: TeacherRequest): { readonly usd: number; readonly tokens: number } {
  const { promptTokens, completionTokens } = tokenUpperBound(request);
  return { usd: costUsd(price, { promptTokens, cachedPromptTokens: 0, completionTokens }), tokens: promptTokens + completionTokens };
}
