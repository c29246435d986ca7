/**
 * What an endpoint's model turned out to take, learned from its refusals. Each feature of a question has weaker forms, down
 * to being left out; a refusal that names one, in whatever words, leads to the next weaker form.
 */

/** How an endpoint is asked for JSON, the strictest first: by schema, as some object, in words alone. */
export const JSON_MODES = ['schema', 'object', 'text'] as const;
/** The names of the limit on written tokens; `none`: no limit is sent. */
export const TOKEN_LIMITS = ['max_completion_tokens', 'max_tokens', 'none'] as const;

export interface EndpointTraits {
  readonly json: (typeof JSON_MODES)[number];
  /** Questions about labels are asked with a schema that lists them, where `json` is `schema`. */
  readonly labelSchema: boolean;
  /** The most alternatives that it gives to a token; 0: no log-probabilities. */
  readonly topLogProbs: number;
  readonly temperature: boolean;
  readonly topP: boolean;
  readonly seed: boolean;
  readonly stop: boolean;
  readonly store: boolean;
  readonly metadata: boolean;
  readonly reasoningEffort: boolean;
  readonly tokenLimit: (typeof TOKEN_LIMITS)[number];
  /** System messages; else their text stands before the first user message. */
  readonly system: boolean;
  /** The most tokens that may be asked for. */
  readonly mostTokens?: number;
  /** It reasons before it answers. Absent: not known. */
  readonly reasons?: boolean;
}

/** The most that OpenAI's API reference allows. */
const MOST_TOP_LOGPROBS = 20;
const FEWER_TOP_LOGPROBS = 5;

/** Families whose models reason before every answer, by the names under which hosts and hubs list them; what is not here shows it in its first answer. */
const REASONING_NAMES = /(?:^|[/:_-])(?:gpt-5(?!\.\d|-chat)|gpt-oss|o[134](?:-|$)|deepseek-r\d|deepseek-reasoner|r1(?:-|$)|qwq|qwen3(?!.*(?:instruct|coder))|magistral|grok-(?:3-mini|4)|gemini-(?:2\.5|3)|kimi-k2-thinking|glm-(?:4\.[5-9]|5)|minimax-m[12])|thinking|reasoning/i;

/** What an endpoint is taken for before it has refused anything. */
export const hopefulTraits = (model: string, isOpenAI: boolean): EndpointTraits => ({
  json: 'schema', labelSchema: true, topLogProbs: MOST_TOP_LOGPROBS, temperature: true, topP: true, seed: true, stop: true, store: true, metadata: true, reasoningEffort: true,
  tokenLimit: isOpenAI ? 'max_completion_tokens' : 'max_tokens', system: true,
  ...(REASONING_NAMES.test(model) && !/non-?(?:thinking|reasoning)/i.test(model) ? { reasons: true } : {}),
});

export type TraitChange = Partial<EndpointTraits>;

/** A part of a question that an endpoint may not take. */
export interface Feature {
  readonly name: string;
  /** Words that name it in a refusal: the parameter, as it is spelled in any language, or what it stands for. */
  readonly named: RegExp;
  /** The next weaker form, as the words suggest; undefined where there is none. */
  weaker(traits: EndpointTraits, words: string): TraitChange | undefined;
}

const flag = (key: 'temperature' | 'topP' | 'seed' | 'stop' | 'store' | 'metadata' | 'reasoningEffort' | 'system', named: RegExp): Feature => ({
  name: key, named, weaker: (traits) => (traits[key] ? { [key]: false } : undefined),
});

const numbersIn = (words: string): readonly number[] => (words.match(/\d[\d,_]*/g) ?? []).map((number) => Number(number.replace(/[,_]/g, '')));

function fewerLogProbs({ topLogProbs }: EndpointTraits, words: string): TraitChange | undefined {
  if (topLogProbs === 0) return undefined;
  const bound = /(?:at most|maximum|max\b|up to|no more than|less than|<=?|≤|between|exceed|range|limit|greater than)/i.test(words);
  const allowed = bound ? numbersIn(words).filter((number) => number > 0 && number < topLogProbs) : [];
  if (allowed.length > 0) return { topLogProbs: Math.max(...allowed) };
  // Words about the number of alternatives, without the number.
  const aboutNumber = /top[_ -]?logprobs|top_n_tokens/i.test(words) && bound && !/not (?:available|allowed|permitted|support)|unsupported|unknown|unrecognized/i.test(words);
  return { topLogProbs: aboutNumber && topLogProbs > FEWER_TOP_LOGPROBS ? FEWER_TOP_LOGPROBS : 0 };
}

function otherTokenLimit({ tokenLimit, mostTokens }: EndpointTraits, words: string): TraitChange | undefined {
  // "max_tokens is too large: 32768. This model supports at most 16384 completion tokens"
  const [most] = /(?:at most|maximum of|up to|less than or equal to|<=|≤|no more than|between 1 and|range of \[?1,)\s*(\d[\d,_]*)/i.exec(words)?.slice(1).map((number) => Number(number.replace(/[,_]/g, ''))) ?? [];
  if (most !== undefined && most > 0 && (mostTokens === undefined || most < mostTokens)) return { mostTokens: most };
  const named = /use ['"`]?(max_completion_tokens|max_tokens)/i.exec(words)?.[1] ?? undefined;
  if (named !== undefined && named !== tokenLimit) return { tokenLimit: named as EndpointTraits['tokenLimit'] };
  if (tokenLimit === 'none') return undefined;
  return { tokenLimit: tokenLimit === 'max_completion_tokens' ? 'max_tokens' : 'none' };
}

/** In the order in which they are looked for in a refusal's words: a longer name before one that it contains. */
export const FEATURES: readonly Feature[] = [
  { name: 'topLogProbs', named: /log[_ -]?prob(?:s|abilit)|top_n_tokens/i, weaker: fewerLogProbs },
  {
    name: 'json',
    named: /response[_ ]?format|json[_ -]?(?:schema|object|mode|output|response)|structured[_ ]?outputs?|guided[_ ](?:json|decoding)|\bgrammar\b|\bschema\b/i,
    weaker: ({ json }) => (json === 'schema' ? { json: 'object' } : json === 'object' ? { json: 'text' } : undefined),
  },
  flag('reasoningEffort', /reasoning|\beffort\b|thinking/i),
  flag('metadata', /metadata/i),
  flag('store', /\bstore\b/i),
  flag('temperature', /temperature/i),
  flag('topP', /\btop[_ ]?p\b|\btopP\b/i),
  flag('seed', /\bseed\b/i),
  flag('stop', /\bstop(?:[_ ]?sequences?|[_ ]?words?)?\b/i),
  { name: 'tokenLimit', named: /max[_ ]?(?:completion|output|new)?[_ ]?tokens|maxTokens|maxOutputTokens|completion tokens|output tokens/i, weaker: otherTokenLimit },
  flag('system', /\bsystem\b|developer (?:role|instruction|message)|roles must alternate|conversation roles/i),
];

/** The order in which forms are given up where a refusal names none: what decides least about the answer first. */
export const BLIND_ORDER = ['metadata', 'store', 'seed', 'topLogProbs', 'json', 'json', 'stop', 'topP', 'reasoningEffort', 'temperature', 'tokenLimit', 'tokenLimit', 'system'];

/** Both of what two calls have learned: of each feature the weaker form, and what was learned last of what is no matter of more or less. */
export function joinChanges(known: TraitChange, learned: TraitChange): TraitChange {
  const joined: Record<string, unknown> = { ...known };
  for (const [key, value] of Object.entries(learned)) {
    const before = joined[key];
    if (before === undefined) joined[key] = value;
    else if (key === 'json') joined[key] = JSON_MODES[Math.max(JSON_MODES.indexOf(before as 'text'), JSON_MODES.indexOf(value as 'text'))];
    else if (key === 'reasons' || key === 'tokenLimit') joined[key] = value;
    else joined[key] = typeof value === 'number' ? Math.min(before as number, value) : before === true && value === true;
  }
  return joined as TraitChange;
}
